//! Who was met in a mesh: names and the keys that they had first. What is sealed for
//! a name is sealed for the key that it had when it was met; another key for it is
//! told and not taken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::keyring::{self, Kept};
use crate::private;
use crate::protocol::PeerInfo;

/// Member keys by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contacts(BTreeMap<String, String>);

impl Contacts {
    /// Who was met there, with this user's own peers of the mesh.
    pub(crate) fn of(data_dir: &Path, kept: &Kept) -> Self {
        let mut contacts = Self::read(data_dir, kept);
        for own in keyring::all(data_dir).unwrap_or_default() {
            if own.file.mesh_id == kept.file.mesh_id {
                contacts.0.insert(own.file.name.clone(), own.file.public_key.to_string());
            }
        }
        contacts
    }

    fn read(data_dir: &Path, kept: &Kept) -> Self {
        let read = |path: &Path| {
            std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
        };
        let known = read(&file(data_dir, kept, "contacts")).or_else(|| {
            // Earlier releases kept them so: of any broker with a mesh of that id.
            let id = kept.file.mesh_id.as_str();
            let path = data_dir.join("peers").join(format!("{id}.contacts.json"));
            private::is_file_name(id).then(|| read(&path)).flatten()
        });
        Self(known.unwrap_or_default())
    }

    /// Names and keys that this name may mean, whatever its case.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        let name = name.to_lowercase();
        let named = self.0.iter().filter(move |(known, _)| known.to_lowercase() == name);
        named.map(|(name, key)| (name.as_str(), key.as_str()))
    }

    /// The name that this key was met under.
    pub(crate) fn name_of_key(&self, key: &str) -> Option<String> {
        self.0.iter().find(|(_, known)| *known == key).map(|(name, _)| name.clone())
    }

    /// Notes who is here, so that they can be written to by name when they are away.
    /// A name that is known keeps its key; two of one name are not noted.
    fn meet(&mut self, peers: &[PeerInfo]) {
        for peer in peers {
            let (name, key) = (name_of(peer), peer.member_pubkey.as_str());
            let lower = name.to_lowercase();
            let clashes = peers
                .iter()
                .any(|other| name_of(other).to_lowercase() == lower && other.member_pubkey != key);
            if !clashes && self.named(name).next().is_none() {
                self.0.insert(name.to_owned(), key.to_owned());
            }
        }
    }

    /// A failure to write is only logged: without the file, names of the absent are not
    /// known.
    fn note(&self, data_dir: &Path, kept: &Kept) {
        if let Err(error) = self.write(data_dir, kept) {
            tracing::debug!(error = format!("{error:#}"), "contacts not noted");
        }
    }

    fn write(&self, data_dir: &Path, kept: &Kept) -> anyhow::Result<()> {
        private::write(&file(data_dir, kept, "contacts"), &serde_json::to_vec_pretty(&self.0)?)
    }
}

/// The name that a peer is known by: the one that it was enrolled under, which a
/// session cannot choose. Older brokers do not tell it.
pub(crate) fn name_of(peer: &PeerInfo) -> &str {
    peer.member_name.as_deref().unwrap_or(&peer.display_name)
}

/// Notes who is here.
pub(crate) fn remember(data_dir: &Path, kept: &Kept, peers: &[PeerInfo]) {
    let before = Contacts::read(data_dir, kept);
    let mut after = before.clone();
    after.meet(peers);
    if after != before {
        after.note(data_dir, kept);
    }
}

/// Notes who wrote, if nobody is known by that name yet: who only visits is listed
/// for nobody.
pub(crate) fn met(data_dir: &Path, kept: &Kept, name: &str, key: &str) {
    let mut contacts = Contacts::read(data_dir, kept);
    if contacts.named(name).next().is_none() {
        contacts.0.insert(name.to_owned(), key.to_owned());
        contacts.note(data_dir, kept);
    }
}

/// Forgets the keys of a name; returns them.
pub(crate) fn forget(data_dir: &Path, kept: &Kept, name: &str) -> anyhow::Result<Vec<String>> {
    let mut contacts = Contacts::read(data_dir, kept);
    let named: Vec<(String, String)> =
        contacts.named(name).map(|(name, key)| (name.to_owned(), key.to_owned())).collect();
    for (name, _) in &named {
        contacts.0.remove(name);
    }
    if !named.is_empty() {
        contacts.write(data_dir, kept)?;
    }
    Ok(named.into_iter().map(|(_, key)| key).collect())
}

/// The name means that key from now on.
pub(crate) fn take(data_dir: &Path, kept: &Kept, name: &str, key: &str) -> anyhow::Result<()> {
    let mut contacts = Contacts::read(data_dir, kept);
    let lower = name.to_lowercase();
    contacts.0.retain(|known, _| known.to_lowercase() != lower);
    contacts.0.insert(name.to_owned(), key.to_owned());
    contacts.write(data_dir, kept)
}

/// A file about one mesh on one broker: another broker may call a mesh of its own the same.
pub(super) fn file(data_dir: &Path, kept: &Kept, what: &str) -> PathBuf {
    let broker = hex::encode(Sha256::digest(kept.file.broker_url.as_bytes()));
    let mesh = private::file_name(kept.file.mesh_id.as_str());
    data_dir.join("peers").join(format!("{mesh}.{}.{what}.json", &broker[..12]))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn peer(name: &str, member: Option<&str>, key: &str) -> PeerInfo {
        serde_json::from_value(json!({
            "pubkey": "s", "memberPubkey": key, "displayName": name, "memberName": member,
            "status": "idle", "summary": null, "groups": [], "sessionId": "", "cwd": "",
            "connectedAt": "2026-01-01T00:00:00.000Z", "peerRole": "session",
        }))
        .expect("a row")
    }

    pub(crate) fn kept(folder: &Path, mesh: &str, broker: &str) -> Kept {
        let secret = crate::auth::SecretKey::generate();
        let (mesh, broker) = (mesh.into(), broker.to_owned());
        let file = keyring::KeyFile::new(mesh, "team".into(), "me", broker, &secret);
        Kept { path: folder.join("x"), file }
    }

    fn keys(contacts: &Contacts, name: &str) -> Vec<String> {
        contacts.named(name).map(|(_, key)| key.to_owned()).collect()
    }

    #[test]
    fn a_known_key_is_kept_whoever_takes_the_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        let kept = kept(at, "m", "ws://a/ws");
        let (ada, mallory) = ("ab".repeat(32), "cd".repeat(32));
        remember(at, &kept, &[peer("ada", None, &ada)]);
        for taken in ["ada", "ADA"] {
            remember(at, &kept, &[peer(taken, None, &mallory)]);
            assert_eq!(
                keys(&Contacts::of(at, &kept), "Ada"),
                std::slice::from_ref(&ada),
                "{taken}"
            );
        }
        assert_eq!(forget(at, &kept, "Ada").expect("written"), [ada]);
        remember(at, &kept, &[peer("ada", None, &mallory)]);
        assert_eq!(keys(&Contacts::of(at, &kept), "ada"), [mallory]);
    }

    #[test]
    fn a_session_cannot_choose_the_name_that_is_noted() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = kept(folder.path(), "m", "ws://a/ws");
        let mallory = "cd".repeat(32);
        remember(folder.path(), &kept, &[peer("ada", Some("mallory"), &mallory)]);
        let contacts = Contacts::of(folder.path(), &kept);
        assert_eq!(keys(&contacts, "ada"), Vec::<String>::new());
        assert_eq!(keys(&contacts, "mallory"), [mallory]);
    }

    #[test]
    fn contacts_are_of_one_broker_and_stay_in_their_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("data");
        for mesh in ["m", "../../outside", "/etc/x", "a/b", "..", ""] {
            let here = kept(&at, mesh, "ws://a/ws");
            remember(&at, &here, &[peer("ada", None, &"ab".repeat(32))]);
            assert_eq!(keys(&Contacts::of(&at, &here), "ada").len(), 1, "{mesh:?}");
            let other = kept(&at, mesh, "ws://b/ws");
            assert_eq!(keys(&Contacts::of(&at, &other), "ada").len(), 0, "{mesh:?}");
        }
        let entries = |folder: &Path| std::fs::read_dir(folder).expect("a folder").count();
        assert_eq!((entries(folder.path()), entries(&at)), (1, 1));
        assert_eq!(entries(&at.join("peers")), 6);
    }
}
