//! Looks at a key before anything is sealed for it.

use std::sync::Arc;

use super::many::Terms;
use super::trust::{Judged, Trust};
use super::{Client, ClientError};
use crate::auth::is_public_key;
use crate::id::Key;

/// Targets that were found good are remembered. More: all are asked about again.
const VETTED_MAX: usize = 1024;

impl Client {
    /// Every member of the mesh, and what is to be thought of each.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn judged_members(&self) -> Result<Vec<Judged>, ClientError> {
        Ok(self.judged().await?.0)
    }

    /// The same, and what the mesh asks of its members.
    pub(super) async fn judged(&self) -> Result<(Vec<Judged>, Terms), ClientError> {
        let (members, terms) = self.list_members_and_terms().await?;
        let Some(known) = &self.shared.options.known else {
            let unknown =
                |member| Judged { member, trust: Trust::Unverified, is_refused: false, why: None };
            return Ok((members.into_iter().map(unknown).collect(), terms));
        };
        let known = Arc::clone(known);
        let required = terms.certified_required;
        let judging = tokio::task::spawn_blocking(move || known.judge(members, required));
        let judged = judging.await.map_err(|error| ClientError::Unexpected(error.to_string()))?;
        Ok((judged, terms))
    }

    /// Checks that a message may be sealed for that key: that it is not the new key of a
    /// member that is known with another. Of a session it is its member's that counts.
    ///
    /// # Errors
    /// [`ClientError::KeyChanged`], or as [`Self::ask`].
    pub async fn vet(&self, target: &str) -> Result<(), ClientError> {
        let Some(known) = &self.shared.options.known else { return Ok(()) };
        let key = Key::from(target);
        if !is_public_key(target)
            || key == self.member_pubkey()
            || self.shared.vetted.lock().contains(&key)
        {
            return Ok(());
        }
        let (known, asked) = (Arc::clone(known), key.clone());
        let holding = tokio::task::spawn_blocking(move || known.holds(&asked));
        if !holding.await.unwrap_or(false) {
            self.vet_anew(&key).await?;
        }
        let mut vetted = self.shared.vetted.lock();
        if vetted.len() >= VETTED_MAX {
            vetted.clear();
        }
        vetted.insert(key);
        Ok(())
    }

    async fn vet_anew(&self, key: &Key) -> Result<(), ClientError> {
        let judged = self.judged_members().await?;
        let mut member = judged.iter().find(|judged| judged.member.pubkey == *key);
        if member.is_none() {
            let peers = self.list_peers().await?;
            let session = peers.iter().find(|peer| peer.pubkey == key.as_str());
            let of = session.map(|session| session.member_pubkey.as_str());
            member = judged.iter().find(|judged| Some(judged.member.pubkey.as_str()) == of);
        }
        match member {
            Some(judged) if !judged.is_sealed_for() => {
                Err(ClientError::KeyChanged(Box::new(judged.clone())))
            }
            _ => Ok(()),
        }
    }
}
