//! Messages to groups and to everyone: sealed for all members where those who are here can
//! open them.

use std::collections::HashSet;
use std::fmt;

use super::requests::next_page;
use super::trust::{Judged, Trust};
use super::{Body, Client, ClientError, Outgoing};
use crate::id::Key;
use crate::protocol::{Ack, ListMembers, MemberListed, SealingPolicy, capability, names_mentioned};

/// Members that a sentence names; of more it says how many.
const NAMES_MAX: usize = 5;

/// Whether anybody but its recipients can read what was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Nobody can.
    Sealed,
    /// The broker can: it was sent in clear, as the mesh asks, or since these members, by
    /// name, could not have opened it, or since the broker has no sealed ones.
    InClear {
        /// Members that are here and cannot open what is sealed.
        because_of: Vec<String>,
    },
}

impl Secrecy {
    /// Whether nobody else can.
    #[must_use]
    pub const fn is_sealed(&self) -> bool {
        matches!(self, Self::Sealed)
    }
}

impl fmt::Display for Secrecy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sealed => out.write_str("sealed"),
            Self::InClear { because_of } if because_of.is_empty() => out.write_str("in clear"),
            Self::InClear { because_of } => {
                write!(out, "in clear, since {} cannot open what is sealed", some_of(because_of))
            }
        }
    }
}

/// A message that was taken.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The broker's answer.
    pub ack: Ack,
    /// Who can read it.
    pub secrecy: Secrecy,
    /// Members that it was not sealed for: their keys have changed, or they are not certified
    /// where all must be.
    pub left_out: Vec<Judged>,
    /// Members, by name, of whose keys only the broker says that they are theirs.
    pub unverified: Vec<String>,
}

impl Sent {
    /// What its sender should know of the keys that it was sealed for: a sentence, if there
    /// is anything.
    #[must_use]
    pub fn caveat(&self) -> Option<String> {
        let mut said: Vec<String> =
            self.left_out.iter().map(|judged| format!("not sealed for one: {judged}")).collect();
        if !self.unverified.is_empty() {
            said.push(format!("unverified: {}", some_of(&self.unverified)));
        }
        (!said.is_empty()).then(|| said.join("; "))
    }
}

/// A few names, and how many more there are.
fn some_of(names: &[String]) -> String {
    let some = names[..names.len().min(NAMES_MAX)].join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => some,
        others => format!("{some} and {others} more"),
    }
}

/// What a mesh asks of its members.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// Whether nobody joins without a certificate.
    pub(super) certified_required: bool,
    /// Of messages to many.
    pub(super) sealing: SealingPolicy,
}

/// Whom a message to many is sealed for.
pub(super) struct Recipients {
    /// Nobody where it is to go in clear.
    pub(super) keys: Option<Vec<Key>>,
    pub(super) secrecy: Secrecy,
    pub(super) left_out: Vec<Judged>,
    unverified: Vec<String>,
}

impl Recipients {
    const fn none(secrecy: Secrecy) -> Self {
        Self { keys: None, secrecy, left_out: Vec::new(), unverified: Vec::new() }
    }
}

impl Client {
    /// Every member of the mesh, here or away.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn list_members(&self) -> Result<Vec<MemberListed>, ClientError> {
        Ok(self.list_members_and_terms().await?.0)
    }

    /// The same, and what the mesh asks of its members.
    pub(super) async fn list_members_and_terms(
        &self,
    ) -> Result<(Vec<MemberListed>, Terms), ClientError> {
        let (mut members, mut ask) = (Vec::new(), ListMembers::default());
        let mut certified_required = false;
        loop {
            let page = self.ask(&ask).await?;
            certified_required |= page.certified_required;
            members.extend(page.members);
            ask.cursor = next_page(page.more, page.cursor, ask.cursor.as_ref());
            if ask.cursor.is_none() {
                let terms = Terms { certified_required, sealing: page.sealing };
                return Ok((members, terms));
            }
        }
    }

    /// Sends so that the broker cannot read it, where that is possible, and says whether it
    /// was: to a key always; to a group or to everyone if all that are here can open it, or
    /// if the mesh takes none in clear. Members that are away get it when they are back, with
    /// a client that can open it; whom it is not for now, the ack says.
    ///
    /// With [`ClientOptions::known`](super::ClientOptions::known) nothing is sealed for a
    /// member that is known with another key: to many it is left out, to one it is an error.
    ///
    /// # Errors
    /// As [`Self::send`], and [`ClientError::KeyChanged`].
    pub async fn send_sealed(&self, mut message: Outgoing<'_>) -> Result<Sent, ClientError> {
        let recipients = match message.target {
            "*" => self.recipients().await?,
            group if group.starts_with('@') => self.recipients().await?,
            topic if topic.starts_with('#') => {
                Recipients::none(self.seal_post(&mut message).await?)
            }
            one => {
                self.vet(one).await?;
                Recipients::none(Secrecy::Sealed)
            }
        };
        let Recipients { keys, secrecy, left_out, unverified } = recipients;
        let ack = self.send_nowait_to(message, keys.as_deref()).await?.await?;
        if ack.queued {
            return Ok(Sent { ack, secrecy, left_out, unverified });
        }
        Err(ClientError::Rejected(Box::new(ack.into())))
    }

    /// Seals a post for its topic's members, where that is possible.
    async fn seal_post(&self, message: &mut Outgoing<'_>) -> Result<Secrecy, ClientError> {
        let Body::Text(text) = message.body else { return Ok(Secrecy::Sealed) };
        let text = String::from_utf8_lossy(text);
        let (sealed, secrecy) = self.seal_for_later(message.target, &text).await?;
        if let Some(sealed) = sealed {
            let names = names_mentioned(&text).map(str::to_owned).collect();
            message.body = Body::Kept(sealed, names);
        }
        Ok(secrecy)
    }

    pub(super) async fn recipients(&self) -> Result<Recipients, ClientError> {
        let offers = self.hello_ack().features;
        if !offers.iter().any(|feature| feature == capability::SEALED_MULTICAST) {
            return Ok(Recipients::none(Secrecy::InClear { because_of: Vec::new() }));
        }
        let own = self.member_pubkey();
        let (mut others, terms) = self.judged().await?;
        if terms.sealing == SealingPolicy::Off {
            return Ok(Recipients::none(Secrecy::InClear { because_of: Vec::new() }));
        }
        others.retain(|judged| judged.member.pubkey != own);
        let unable: Vec<String> = others
            .iter()
            .filter(|judged| judged.member.online && !judged.member.sealed)
            .map(|judged| judged.member.name.clone())
            .collect();
        // Where all must be sealed, those who cannot open it get nothing.
        if !unable.is_empty() && terms.sealing != SealingPolicy::Required {
            return Ok(Recipients::none(Secrecy::InClear { because_of: unable }));
        }
        let (sealed_for, left_out): (Vec<Judged>, Vec<Judged>) =
            others.into_iter().partition(Judged::is_sealed_for);
        let is_known = self.shared.options.known.is_some();
        let unverified = sealed_for
            .iter()
            .filter(|judged| is_known && judged.trust == Trust::Unverified)
            .map(|judged| judged.member.name.clone())
            .collect();
        let keys: HashSet<Key> =
            sealed_for.into_iter().map(|judged| judged.member.pubkey).collect();
        let keys = Some(keys.into_iter().collect());
        Ok(Recipients { keys, secrecy: Secrecy::Sealed, left_out, unverified })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_a_few_of_those_because_of_whom_it_is_in_clear() {
        let because_of = |names: &[&str]| Secrecy::InClear {
            because_of: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(because_of(&[]).to_string(), "in clear");
        let one = because_of(&["old"]).to_string();
        assert_eq!(one, "in clear, since old cannot open what is sealed");
        let many = because_of(&["a", "b", "c", "d", "e", "f", "g"]).to_string();
        assert_eq!(many, "in clear, since a, b, c, d, e and 2 more cannot open what is sealed");
    }
}
