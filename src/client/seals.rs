//! Seals what goes out and opens what comes in.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::auth::{SecretKey, is_public_key};
use crate::id::Key;
use crate::protocol::Push;
use crate::sealing::{self, BoxKey, InvalidRecipient, Sealed};

/// Shared keys that are kept. More: all are forgotten and made anew.
const KEPT_MAX: usize = 1024;

/// Which of one's own secrets.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Own {
    Session,
    Member,
}

/// By whose secret and whose key; `None` for keys that no box can be made for.
type Kept = HashMap<(Own, Key), Option<Arc<BoxKey>>>;

/// One identity's secrets, with the keys shared with those it talks to.
pub(super) struct Seals {
    member: SecretKey,
    /// `None` where the broker shows others the member's key.
    session: Option<SecretKey>,
    kept: Mutex<Kept>,
}

impl Seals {
    pub(super) fn new(member: SecretKey, session: Option<SecretKey>) -> Self {
        Self { member, session, kept: Mutex::default() }
    }

    /// Seals for a key; what goes to a group or to everyone anybody can read.
    pub(super) fn seal(&self, target: &str, text: &[u8]) -> Result<Sealed, InvalidRecipient> {
        if !is_public_key(target) {
            return Ok(sealing::plain(&String::from_utf8_lossy(text)));
        }
        // With the key that the broker names as the sender's.
        let own = if self.session.is_some() { Own::Session } else { Own::Member };
        let shared = self.shared(own, &Key::from(target));
        shared.and_then(|shared| shared.seal(text)).ok_or(InvalidRecipient)
    }

    /// Opens as all clients do: as a box for the session, then as one for the
    /// member, then as bare text.
    pub(super) fn open(&self, push: &Push) -> Option<Vec<u8>> {
        let (nonce, ciphertext) = (push.nonce.as_text(), push.ciphertext.as_text());
        if is_public_key(push.sender_pubkey.as_str()) && !nonce.is_empty() {
            for own in [Own::Session, Own::Member] {
                let shared = self.shared(own, &push.sender_pubkey);
                if let Some(text) = shared.and_then(|shared| shared.open(nonce, ciphertext)) {
                    return Some(text);
                }
            }
        }
        sealing::open_plain(ciphertext).map(String::into_bytes)
    }

    fn shared(&self, own: Own, theirs: &Key) -> Option<Arc<BoxKey>> {
        let mine = match own {
            Own::Session => self.session.as_ref()?,
            Own::Member => &self.member,
        };
        let at = (own, theirs.clone());
        if let Some(kept) = self.kept.lock().get(&at) {
            return kept.clone();
        }
        // Outside of the lock: this is the dear part.
        let made = BoxKey::between(mine, theirs).map(Arc::new);
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(at, made.clone());
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::MeshId;
    use crate::protocol::{Blob, SystemEvent};

    fn push(sender: &Key, sealed: &Sealed) -> Push {
        let event = SystemEvent { event: "".into(), data: serde_json::Value::Null };
        let mut push = event.into_push(MeshId::from("m"), Timestamp::from_ms(0));
        push.sender_pubkey = sender.clone();
        push.nonce = Blob::from_text(sealed.nonce_b64.clone());
        push.ciphertext = Blob::from_text(sealed.ciphertext_b64.clone());
        push
    }

    #[test]
    fn a_session_reads_what_is_for_it_for_its_member_and_for_all() {
        let keys: [SecretKey; 3] = std::array::from_fn(|_| SecretKey::generate());
        let [sender, member, session] = keys;
        let ours = Seals::new(member.clone(), Some(session.clone()));
        let theirs = Seals::new(sender.clone(), None);
        let from = sender.public_key();
        for target in [session.public_key(), member.public_key(), Key::from("*")] {
            let sealed = theirs.seal(target.as_str(), b"hi").expect("sealed");
            let opened = ours.open(&push(&from, &sealed));
            assert_eq!(opened.as_deref(), Some(&b"hi"[..]), "{target}");
        }
        let other = SecretKey::generate().public_key();
        let sealed = theirs.seal(other.as_str(), b"hi").expect("sealed");
        assert_eq!(ours.open(&push(&from, &sealed)), None);
    }

    #[test]
    fn a_session_seals_with_its_own_key() {
        let (member, session, peer) =
            (SecretKey::generate(), SecretKey::generate(), SecretKey::generate());
        let ours = Seals::new(member.clone(), Some(session.clone()));
        let sealed = ours.seal(peer.public_key().as_str(), b"hi").expect("sealed");
        let open = |from: &SecretKey| {
            Seals::new(peer.clone(), None).open(&push(&from.public_key(), &sealed))
        };
        assert!(open(&session).is_some());
        assert!(open(&member).is_none());
        let none = "00".repeat(32);
        assert_eq!(ours.seal(&none, b"hi"), Err(InvalidRecipient));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let ours = Seals::new(SecretKey::generate(), None);
        for number in 0..KEPT_MAX + 3 {
            ours.shared(Own::Member, &Key::from(format!("{number:064x}")));
        }
        assert!(ours.kept.lock().len() <= KEPT_MAX);
    }
}
