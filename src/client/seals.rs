//! Seals what goes out and opens what comes in.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::auth::{MulticastProof, SecretKey, is_public_key};
use crate::id::Key;
use crate::protocol::Push;
use crate::sealing::many::{self, SealedForMany};
use crate::sealing::{self, BoxKey, InvalidRecipient, Sealed};

/// Shared keys that are kept. More: all are forgotten and made anew.
const KEPT_MAX: usize = 1024;

/// Which of one's own secrets.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Own {
    Session,
    Member,
}

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) text: Vec<u8>,
    /// Whether it was sealed, and the broker could not read it.
    pub(super) is_sealed: bool,
}

impl Opened {
    const fn sealed(text: Vec<u8>) -> Self {
        Self { text, is_sealed: true }
    }
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

    /// Seals for many: for the member keys of all of them, and signed.
    pub(super) fn seal_for_many(
        &self,
        (mesh, target_spec, client_message_id): (&str, &str, &str),
        recipients: &[Key],
        text: &[u8],
    ) -> Option<(SealedForMany, String)> {
        let (own, key) = match &self.session {
            Some(session) => (Own::Session, session),
            None => (Own::Member, &self.member),
        };
        let sealed = many::seal(text, recipients, |theirs| self.shared(own, theirs))?;
        let (nonce_b64, ciphertext) = (&*sealed.sealed.nonce_b64, &*sealed.ciphertext);
        let proof = MulticastProof { mesh, target_spec, client_message_id, nonce_b64, ciphertext };
        let signature = proof.sign(key)?;
        Some((sealed, signature))
    }

    /// Opens what was sealed for many. Never as anything else: what does not open is not shown.
    fn open_of_many(&self, push: &Push, signature: &str) -> Option<Vec<u8>> {
        let (nonce_b64, sender) = (push.nonce.as_text(), &push.sender_pubkey);
        let ciphertext = many::bytes_of(push.ciphertext.as_text())?;
        let proof = MulticastProof {
            mesh: push.mesh_id.as_str(),
            target_spec: push.target_spec.as_deref()?,
            client_message_id: push.client_message_id.as_deref()?,
            nonce_b64,
            ciphertext: &ciphertext,
        };
        proof.verify(sender.as_str(), signature).ok()?;
        let shared = self.shared(Own::Member, sender)?;
        many::open(&shared, nonce_b64, &ciphertext, push.sealed_key.as_deref()?)
    }

    /// Opens as all clients do: as a box for the session, then as one for the
    /// member, then as bare text; what is signed only as what was sealed for many.
    pub(super) fn open(&self, push: &Push) -> Option<Opened> {
        if let Some(signature) = &push.signature {
            return self.open_of_many(push, signature).map(Opened::sealed);
        }
        let (nonce, ciphertext) = (push.nonce.as_text(), push.ciphertext.as_text());
        if is_public_key(push.sender_pubkey.as_str()) && !nonce.is_empty() {
            for own in [Own::Session, Own::Member] {
                let shared = self.shared(own, &push.sender_pubkey);
                if let Some(text) = shared.and_then(|shared| shared.open(nonce, ciphertext)) {
                    return Some(Opened::sealed(text));
                }
            }
        }
        let text = sealing::open_plain(ciphertext)?.into_bytes();
        Some(Opened { text, is_sealed: false })
    }

    /// The member's own secret, which signs what is kept.
    pub(super) const fn member(&self) -> &SecretKey {
        &self.member
    }

    /// What this member and another share.
    pub(super) fn between_members(&self, theirs: &Key) -> Option<Arc<BoxKey>> {
        self.shared(Own::Member, theirs)
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
            let is_sealed = target.as_str() != "*";
            assert_eq!(opened, Some(Opened { text: b"hi".to_vec(), is_sealed }), "{target}");
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

    /// A push of what the sender has sealed for many, as a broker hands it to that member.
    fn push_of_many(sender: &Seals, from: &Key, to: &Key) -> Push {
        let named = ("m", "@dev", "own");
        let recipients = [to.clone(), SecretKey::generate().public_key()];
        let sealed = sender.seal_for_many(named, &recipients, b"hi all");
        let (many, signature) = sealed.expect("sealed");
        let mut push = push(from, &many.sealed);
        push.target_spec = Some("@dev".to_owned());
        push.client_message_id = Some("own".to_owned());
        push.signature = Some(signature);
        push.sealed_key = many.keys.get(to).cloned();
        push
    }

    #[test]
    fn what_is_sealed_for_many_opens_as_it_was_sent_and_in_no_other_way() {
        let keys: [SecretKey; 4] = std::array::from_fn(|_| SecretKey::generate());
        let [sender, member, session, eve] = keys;
        let ours = Seals::new(member.clone(), Some(session));
        let (from, to) = (sender.public_key(), member.public_key());
        let theirs = Seals::new(sender, None);
        let good = push_of_many(&theirs, &from, &to);
        assert_eq!(ours.open(&good), Some(Opened::sealed(b"hi all".to_vec())));
        // Another recipient has the content's key, and writes its own text under it.
        let eves = Seals::new(eve.clone(), None);
        let forged = push_of_many(&eves, &eve.public_key(), &to);
        type Change = fn(&mut Push, &Push);
        let changes: [(&str, Change); 9] = [
            ("of another mesh", |push, _| push.mesh_id = MeshId::from("other")),
            ("of another group", |push, _| push.target_spec = Some("*".to_owned())),
            ("of no group", |push, _| push.target_spec = None),
            ("again as another", |push, _| push.client_message_id = Some("two".to_owned())),
            ("under another nonce", |push, forged| push.nonce = forged.nonce.clone()),
            ("of another text", |push, forged| push.ciphertext = forged.ciphertext.clone()),
            ("with another key", |push, forged| push.sealed_key.clone_from(&forged.sealed_key)),
            ("without a key", |push, _| push.sealed_key = None),
            ("of another sender", |push, forged| push.sender_pubkey = forged.sender_pubkey.clone()),
        ];
        for (what, change) in changes {
            let mut push = good.clone();
            change(&mut push, &forged);
            assert_eq!(ours.open(&push), None, "{what}");
        }
        let mut in_clear = good;
        in_clear.ciphertext = Blob::from_text(sealing::plain("hi").ciphertext_b64);
        assert_eq!(ours.open(&in_clear), None, "never shown as text");
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
