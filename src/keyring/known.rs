//! The keys that a mesh's members had when they were met, and whether the mesh's owner let
//! them in: what this user knows, whatever the broker says of it today.
//!
//! One file for each mesh on each broker, beside the contacts, for this user alone. A key
//! that is another than the one that is known is told and not taken, until this user takes
//! it. Nothing here asks the broker.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::contacts;
use super::recipient::short;
use crate::auth::{Certificate, Grant};
use crate::client::{Judged, KnownKeys, Trust};
use crate::id::{Key, MemberId};
use crate::keyring::Kept;
use crate::output;
use crate::private;
use crate::protocol::MemberListed;

/// Members that are kept of one mesh. More: those beyond stay unverified.
const MEMBERS_MAX: usize = 10_000;

/// A member as it was met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Met {
    key: Key,
    name: String,
    /// What the owner let it in as, by which invite; of others, nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certified: Option<Certified>,
    /// This user has taken the key on purpose.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    accepted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Certified {
    invite: String,
    role: String,
}

/// Members of one mesh, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Book {
    /// The mesh was seen to take only who is certified.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    certified_required: bool,
    members: BTreeMap<MemberId, Met>,
}

/// What one of this user's peers knows of its mesh.
#[derive(Debug)]
pub(crate) struct Known {
    path: PathBuf,
    mesh: String,
    owner: Option<Key>,
    /// The file is read and written by one at a time.
    turn: Mutex<()>,
}

impl Known {
    pub(crate) fn of(data_dir: &Path, kept: &Kept) -> Arc<Self> {
        Arc::new(Self {
            path: contacts::file(data_dir, kept, "known_keys"),
            mesh: kept.file.mesh_id.to_string(),
            owner: kept.file.owner_pubkey.clone(),
            turn: Mutex::default(),
        })
    }

    /// Takes the key that a member has now, whatever it had.
    pub(crate) fn accept(&self, member: &MemberListed) -> anyhow::Result<()> {
        self.change(|book| {
            let (certified, _) = self.certified(book, member);
            let (key, name) = (member.pubkey.clone(), member.name.clone());
            let met = Met { key, name, certified, accepted: true };
            book.members.insert(member.member_id.clone(), met);
        })
    }

    /// Forgets who was met under a name.
    pub(crate) fn forget(&self, name: &str) -> anyhow::Result<()> {
        let name = name.to_lowercase();
        self.change(|book| book.members.retain(|_, met| met.name.to_lowercase() != name))
    }

    /// A file that is there and cannot be read is not taken for none: nobody would be known
    /// any more, and a key that has changed for a new one.
    fn read(&self) -> anyhow::Result<Book> {
        let text = || {
            let path = self.path.display();
            format!("the keys that were met cannot be read; restore {path}, or remove it")
        };
        match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(text),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Book::default()),
            Err(error) => Err(error).with_context(text),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Book) -> T) -> anyhow::Result<T> {
        let _turn = self.turn.lock();
        let before = self.read()?;
        let mut book = before.clone();
        let changed = change(&mut book);
        if book != before {
            private::write(&self.path, &serde_json::to_vec_pretty(&book)?)?;
        }
        Ok(changed)
    }

    fn judged(&self, book: &mut Book, members: Vec<MemberListed>) -> Vec<Judged> {
        let listed: HashMap<MemberId, String> = members
            .iter()
            .map(|member| (member.member_id.clone(), member.name.to_lowercase()))
            .collect();
        let named = book.named();
        members
            .into_iter()
            .map(|member| {
                let (trust, why) = match changed(book, &named, &member, &listed) {
                    Some(why) => (Trust::Changed, Some(why)),
                    None => self.met(book, &member),
                };
                let is_refused = book.certified_required && trust == Trust::Unverified;
                let why = if is_refused { refused(&member, why) } else { why };
                Judged { member, trust, is_refused, why }
            })
            .collect()
    }

    /// Notes a member whose key is new, or is the one that is known.
    fn met(&self, book: &mut Book, member: &MemberListed) -> (Trust, Option<String>) {
        let id = &member.member_id;
        let (certified, why) = match book.members.get(id).and_then(|met| met.certified.clone()) {
            Some(certified) => (Some(certified), None),
            None => self.certified(book, member),
        };
        if !book.members.contains_key(id) {
            if book.members.len() >= MEMBERS_MAX {
                let why = "more members are known than are kept, so it is not noted".to_owned();
                return (Trust::Unverified, Some(why));
            }
            let (key, name) = (member.pubkey.clone(), member.name.clone());
            let met = Met { key, name, certified: None, accepted: false };
            book.members.insert(id.clone(), met);
        }
        let Some(met) = book.members.get_mut(id) else { return (Trust::Unverified, why) };
        met.certified = certified;
        let is_owner = self.owner.as_ref() == Some(&member.pubkey);
        let role = met.certified.as_ref().map(|certified| &*certified.role);
        let odd = if met.name == member.name {
            role.filter(|role| *role != member.role).map(|role| {
                format!("it was let in as {role}, and the broker calls it {}", member.role)
            })
        } else {
            Some(format!("it was met as {}", output::printable(&met.name)))
        };
        if is_owner || met.certified.is_some() {
            (Trust::Verified, odd)
        } else if met.accepted {
            (Trust::Verified, odd.or_else(|| Some("you have taken its key".to_owned())))
        } else {
            (
                Trust::Unverified,
                odd.into_iter().chain(why).reduce(|odd, why| format!("{odd}; {why}")),
            )
        }
    }

    /// What the owner let the member in as, or why that is not known.
    fn certified(&self, book: &Book, member: &MemberListed) -> (Option<Certified>, Option<String>) {
        let Some(owner) = &self.owner else {
            let why = "this peer does not know the mesh's owner, since an earlier release joined \
                       for it";
            return (None, Some(why.to_owned()));
        };
        if *owner == member.pubkey {
            return (None, None);
        }
        let Some(text) = &member.certificate else {
            return (None, Some("it has no certificate".to_owned()));
        };
        let read = Certificate::read(text).and_then(|certificate| {
            certificate.verify(&self.mesh, owner.as_str(), member.pubkey.as_str())?;
            Ok(certificate.grant)
        });
        match read {
            Ok(grant) if !book.has_room(&grant, &member.member_id) => {
                let why = format!(
                    "its invite was for {}, and more have come by it",
                    output::count(grant.max_uses, "member")
                );
                (None, Some(why))
            }
            Ok(Grant { invite, role, .. }) => (Some(Certified { invite, role }), None),
            Err(error) => (None, Some(error.to_string())),
        }
    }
}

impl Book {
    /// Who is known by which name.
    fn named(&self) -> HashMap<String, Vec<MemberId>> {
        let mut named: HashMap<String, Vec<MemberId>> = HashMap::new();
        for (id, met) in &self.members {
            named.entry(met.name.to_lowercase()).or_default().push(id.clone());
        }
        named
    }

    /// Whether the invite lets that member in beside those who are known to have come by it.
    fn has_room(&self, grant: &Grant, member: &MemberId) -> bool {
        let came = |(id, met): &(&MemberId, &Met)| {
            *id != member
                && met.certified.as_ref().is_some_and(|certified| certified.invite == grant.invite)
        };
        let came = self.members.iter().filter(came).count();
        i32::try_from(came).is_ok_and(|came| came < grant.max_uses)
    }
}

/// Why a member's key is not the one that is known; `None` if it is, or none is known.
fn changed(
    book: &Book,
    named: &HashMap<String, Vec<MemberId>>,
    member: &MemberListed,
    listed: &HashMap<MemberId, String>,
) -> Option<String> {
    let (now, name) = (member.pubkey.as_str(), member.name.to_lowercase());
    let own = book.members.get(&member.member_id);
    let what = match own {
        Some(met) if met.key != member.pubkey => {
            let then = short(met.key.as_str());
            format!("it has another key than when it was met ({} now, {then} then)", short(now))
        }
        Some(met) if met.accepted || met.name.to_lowercase() == name => return None,
        _ => {
            // Two of a name are two members; one that takes the name of another is told.
            let known = named.get(&name)?.iter();
            let taken = known
                .filter(|id| listed.get(*id) != Some(&name))
                .filter_map(|id| book.members.get(id))
                .find(|met| met.key != member.pubkey);
            let then = short(taken?.key.as_str());
            format!(
                "its name was another member's, with another key ({} now, {then} then)",
                short(now)
            )
        }
    };
    let word = output::shell_word(&member.name);
    Some(format!(
        "{what}; compare the number of `claudemesh-broker peer verify {word}` with them by another \
         way, and if it is the same for both, take the key: claudemesh-broker peer verify {word} \
         --accept"
    ))
}

/// Why nothing is sealed for one that is not certified where all must be.
fn refused(member: &MemberListed, why: Option<String>) -> Option<String> {
    let word = output::shell_word(&member.name);
    Some(format!(
        "{}, and this mesh takes only who is certified; to take its key all the same: \
         claudemesh-broker peer verify {word} --accept",
        why.as_deref().unwrap_or("it is not certified")
    ))
}

/// A member of whom nothing can be known, for whom nothing is sealed.
fn unknown(member: MemberListed, error: &anyhow::Error) -> Judged {
    Judged { member, trust: Trust::Unverified, is_refused: true, why: Some(error.to_string()) }
}

impl KnownKeys for Known {
    fn judge(&self, members: Vec<MemberListed>, certified_required: bool) -> Vec<Judged> {
        let given = members.clone();
        let judging = |book: &mut Book| {
            book.certified_required |= certified_required;
            self.judged(book, members)
        };
        self.change(judging).unwrap_or_else(|error| {
            // What cannot be noted can be judged by what was known before.
            tracing::warn!(error = format!("{error:#}"), "the keys that were met are not noted");
            match self.read() {
                Ok(mut book) => {
                    book.certified_required |= certified_required;
                    self.judged(&mut book, given)
                }
                Err(error) => given.into_iter().map(|member| unknown(member, &error)).collect(),
            }
        })
    }

    fn holds(&self, key: &Key) -> bool {
        let _turn = self.turn.lock();
        let Ok(book) = self.read() else { return false };
        let is_good = |met: &Met| {
            !book.certified_required
                || met.accepted
                || met.certified.is_some()
                || self.owner.as_ref() == Some(&met.key)
        };
        book.members.values().any(|met| met.key == *key && is_good(met))
    }
}

#[cfg(test)]
mod tests;
