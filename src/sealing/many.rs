//! A message to many that only they can read: encrypted once under a key of its own, and
//! that key in a box for each of them.
//!
//! The text is libsodium's `crypto_secretbox_easy`. Its key, 32 random bytes, goes into
//! each recipient's `crypto_box_easy` from the sending key, under the same nonce: the keys
//! of the boxes are others, and a nonce is random and used for one message only, so that
//! it need not be sent again for each.

use std::collections::BTreeMap;

use base64::Engine as _;
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};

use super::{BASE64, BoxKey, NONCE_LEN, Sealed};
use crate::id::Key;

/// Length of a content key in bytes.
const KEY_LEN: usize = 32;

/// A message that is sealed for many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealedForMany {
    /// The text under the content key.
    pub(crate) sealed: Sealed,
    /// The content key for each recipient, in base64.
    pub(crate) keys: BTreeMap<Key, String>,
    /// The bytes of the ciphertext, for the signature.
    pub(crate) ciphertext: Vec<u8>,
}

/// Encrypts for all of these, under a fresh key and nonce. Recipients whose key is none
/// that a box can be made for get nothing.
pub(crate) fn seal<'a>(
    text: &[u8],
    recipients: impl IntoIterator<Item = &'a Key>,
    shared: impl FnMut(&Key) -> Option<std::sync::Arc<BoxKey>>,
) -> Option<SealedForMany> {
    seal_with(text, recipients, shared, rand::random(), rand::random())
}

fn seal_with<'a>(
    text: &[u8],
    recipients: impl IntoIterator<Item = &'a Key>,
    mut shared: impl FnMut(&Key) -> Option<std::sync::Arc<BoxKey>>,
    key: [u8; KEY_LEN],
    nonce: [u8; NONCE_LEN],
) -> Option<SealedForMany> {
    let ciphertext = XSalsa20Poly1305::new(&key.into()).encrypt(&nonce.into(), text).ok()?;
    let mut keys = BTreeMap::new();
    for recipient in recipients {
        let sealed = shared(recipient).and_then(|shared| shared.seal_under(nonce, &key));
        if let Some(sealed) = sealed {
            keys.insert(recipient.clone(), sealed);
        }
    }
    let sealed =
        Sealed { nonce_b64: BASE64.encode(nonce), ciphertext_b64: BASE64.encode(&ciphertext) };
    Some(SealedForMany { sealed, keys, ciphertext })
}

/// The text, by the key that was sealed for this recipient; `None` if it is for somebody
/// else, altered, or none at all. The signature is looked at before.
pub(crate) fn open(
    shared: &BoxKey,
    nonce_b64: &str,
    ciphertext: &[u8],
    sealed_key_b64: &str,
) -> Option<Vec<u8>> {
    let key: [u8; KEY_LEN] = shared.open(nonce_b64, sealed_key_b64)?.try_into().ok()?;
    let nonce: [u8; NONCE_LEN] = BASE64.decode(nonce_b64).ok()?.try_into().ok()?;
    XSalsa20Poly1305::new(&key.into()).decrypt(&nonce.into(), ciphertext).ok()
}

/// The bytes of a ciphertext, as its signature covers them.
pub(crate) fn bytes_of(ciphertext_b64: &str) -> Option<Vec<u8>> {
    BASE64.decode(ciphertext_b64).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::SecretKey;

    fn sealed_by(ada: &SecretKey, text: &[u8], recipients: &[Key]) -> SealedForMany {
        let shared = |theirs: &Key| BoxKey::between(ada, theirs).map(Arc::new);
        seal(text, recipients, shared).expect("sealed")
    }

    fn opened(own: &SecretKey, from: &Key, sealed: &SealedForMany, key: &str) -> Option<Vec<u8>> {
        let shared = BoxKey::between(own, from).expect("a key");
        open(&shared, &sealed.sealed.nonce_b64, &sealed.ciphertext, key)
    }

    #[test]
    fn each_recipient_opens_it_with_its_own_key_alone() {
        let [ada, bob, carl, eve]: [SecretKey; 4] = std::array::from_fn(|_| SecretKey::generate());
        let recipients = [bob.public_key(), carl.public_key(), Key::from("no key")];
        let sealed = sealed_by(&ada, b"hi all", &recipients);
        assert_eq!(sealed.keys.len(), 2, "what is no key gets nothing");
        let from = ada.public_key();
        for own in [&bob, &carl] {
            let key = &sealed.keys[&own.public_key()];
            assert_eq!(opened(own, &from, &sealed, key).as_deref(), Some(&b"hi all"[..]));
            assert_eq!(opened(&eve, &from, &sealed, key), None, "for another");
            assert_eq!(opened(own, &eve.public_key(), &sealed, key), None, "of another");
        }
        assert_eq!(opened(&bob, &from, &sealed, &sealed.keys[&carl.public_key()]), None);
        for odd in ["", "?", "AAAA"] {
            assert_eq!(opened(&bob, &from, &sealed, odd), None, "{odd}");
        }
        let mut altered = sealed.clone();
        altered.ciphertext[0] ^= 1;
        let key = &sealed.keys[&bob.public_key()];
        assert_eq!(opened(&bob, &from, &altered, key), None);
    }

    #[test]
    fn no_two_messages_share_a_key_or_a_nonce() {
        let (ada, bob) = (SecretKey::generate(), SecretKey::generate().public_key());
        let one = sealed_by(&ada, b"hi", std::slice::from_ref(&bob));
        let two = sealed_by(&ada, b"hi", &[bob]);
        assert_ne!(one.sealed, two.sealed);
        assert_ne!(one.keys, two.keys);
    }

    /// Each value in hex or base64, made with libsodium by another program.
    #[derive(serde::Deserialize)]
    struct Vector {
        sender: String,
        recipient: String,
        content_key: String,
        nonce: String,
        text: String,
        ciphertext: String,
        sealed_key: String,
        mesh: String,
        target_spec: String,
        client_message_id: String,
        signature: String,
    }

    #[test]
    fn libsodium_and_we_make_the_same_message() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sealing-vectors.json");
        let text = std::fs::read_to_string(path).expect("the vectors");
        let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let vectors: Vec<Vector> =
            serde_json::from_value(all["multicast"].clone()).expect("vectors");
        assert!(!vectors.is_empty());
        for vector in vectors {
            let sender = SecretKey::from_hex128(&vector.sender).expect("a key");
            let recipient = SecretKey::from_hex128(&vector.recipient).expect("a key");
            let key: [u8; KEY_LEN] =
                hex::decode(&vector.content_key).expect("hex").try_into().expect("32 bytes");
            let nonce: [u8; NONCE_LEN] =
                BASE64.decode(&vector.nonce).expect("base64").try_into().expect("24 bytes");
            let shared = |theirs: &Key| BoxKey::between(&sender, theirs).map(Arc::new);
            let to = recipient.public_key();
            let made = seal_with(vector.text.as_bytes(), [&to], shared, key, nonce);
            let made = made.expect("sealed");
            assert_eq!(made.sealed.ciphertext_b64, vector.ciphertext);
            assert_eq!(made.keys[&to], vector.sealed_key);
            let text = opened(&recipient, &sender.public_key(), &made, &vector.sealed_key);
            assert_eq!(text.as_deref(), Some(vector.text.as_bytes()));
            let proof = crate::auth::MulticastProof {
                mesh: &vector.mesh,
                target_spec: &vector.target_spec,
                client_message_id: &vector.client_message_id,
                nonce_b64: &vector.nonce,
                ciphertext: &made.ciphertext,
            };
            assert_eq!(proof.sign(&sender).as_deref(), Some(&*vector.signature));
        }
    }
}
