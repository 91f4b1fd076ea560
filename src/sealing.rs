//! What peers put into envelopes. Client side only: a broker never opens one.
//!
//! A direct message is libsodium's `crypto_box_easy` between two ed25519
//! identities, both converted to x25519. A message to a group or to everyone is sealed for
//! each of its recipients ([`many`]); of older clients it is not encrypted: base64 of the
//! text, beside a nonce that nobody needs.

pub(crate) mod common;
mod enclosed;
pub(crate) mod many;

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use crypto_box::aead::Aead as _;
use crypto_box::{PublicKey, SalsaBox};

use crate::auth::{SecretKey, agreement_key};
use crate::id::Key;

pub(crate) use self::enclosed::Enclosed;

/// Length of a nonce in bytes.
const NONCE_LEN: usize = 24;
/// Writes padding, reads with and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Whether a text has the letters of base64 and no other.
pub(crate) fn is_base64(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
}

/// The two envelope fields that the broker passes on unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// 24 bytes in base64.
    pub nonce_b64: String,
    /// Tag and ciphertext (or the bare text, see [`plain`]) in base64.
    pub ciphertext_b64: String,
}

/// The recipient's key is no key that a box can be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the recipient's key is not a valid public key; look it up again")]
pub struct InvalidRecipient;

/// An envelope for a group, a topic or everyone: anyone can read it.
pub(crate) fn plain(text: &str) -> Sealed {
    let nonce: [u8; NONCE_LEN] = rand::random();
    Sealed { nonce_b64: BASE64.encode(nonce), ciphertext_b64: BASE64.encode(text) }
}

/// The text of a [`plain`] envelope; `None` if it is not base64 of UTF-8.
pub(crate) fn open_plain(ciphertext_b64: &str) -> Option<String> {
    String::from_utf8(BASE64.decode(ciphertext_b64).ok()?).ok()
}

/// What two identities share: made once, by far the dearest step, and good
/// for every message between them, in both directions.
pub(crate) struct BoxKey(SalsaBox);

impl BoxKey {
    /// Between one's own identity and another's; `None` if that one's key is
    /// none that a box can be made for.
    pub(crate) fn between(mine: &SecretKey, theirs: &Key) -> Option<Self> {
        shared_box(mine, theirs).map(Self)
    }

    /// Encrypts under a fresh nonce; `None` only if the text is longer than any box.
    pub(crate) fn seal(&self, plaintext: &[u8]) -> Option<Sealed> {
        encrypt(&self.0, plaintext, rand::random())
    }

    /// Encrypts under that nonce, which must be used for nothing else between the two; in
    /// base64.
    fn seal_under(&self, nonce: [u8; NONCE_LEN], plaintext: &[u8]) -> Option<String> {
        Some(encrypt(&self.0, plaintext, nonce)?.ciphertext_b64)
    }

    /// Decrypts; `None` if the box is for or from somebody else, altered, or none at all.
    pub(crate) fn open(&self, nonce_b64: &str, ciphertext_b64: &str) -> Option<Vec<u8>> {
        decrypt(&self.0, nonce_b64, ciphertext_b64)
    }
}

impl fmt::Debug for BoxKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("BoxKey([redacted])")
    }
}

/// A topic's key while it is sealed for those who are to read the topic. Whoever makes
/// it forgets it with this.
pub(crate) struct TopicKey {
    key: [u8; 32],
    sender: crypto_box::SecretKey,
}

impl TopicKey {
    /// A fresh key, and a fresh pair to seal it with.
    pub(crate) fn generate() -> Self {
        let secret: [u8; 32] = rand::random();
        Self { key: rand::random(), sender: crypto_box::SecretKey::from(secret) }
    }

    /// The public key that it is sealed with, in hex.
    pub(crate) fn sender_public_hex(&self) -> String {
        hex::encode(self.sender.public_key().as_bytes())
    }

    /// The key for one reader: the sender's public key before the box, in base64.
    /// `None` if nothing can be sealed for that key.
    pub(crate) fn seal_for(&self, reader: &Key) -> Option<Sealed> {
        let theirs = PublicKey::from(agreement_key(reader)?);
        let nonce: [u8; NONCE_LEN] = rand::random();
        let sealed = SalsaBox::new(&theirs, &self.sender).encrypt(&nonce.into(), &self.key[..]);
        let bytes = [self.sender.public_key().as_bytes(), sealed.ok()?.as_slice()].concat();
        Some(Sealed { nonce_b64: BASE64.encode(nonce), ciphertext_b64: BASE64.encode(bytes) })
    }
}

impl fmt::Debug for TopicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("TopicKey([redacted])")
    }
}

fn encrypt(shared: &SalsaBox, plaintext: &[u8], nonce: [u8; NONCE_LEN]) -> Option<Sealed> {
    let ciphertext = shared.encrypt(&nonce.into(), plaintext).ok()?;
    Some(Sealed { nonce_b64: BASE64.encode(nonce), ciphertext_b64: BASE64.encode(ciphertext) })
}

fn decrypt(shared: &SalsaBox, nonce_b64: &str, ciphertext_b64: &str) -> Option<Vec<u8>> {
    let nonce: [u8; NONCE_LEN] = BASE64.decode(nonce_b64).ok()?.try_into().ok()?;
    let ciphertext = BASE64.decode(ciphertext_b64).ok()?;
    shared.decrypt(&nonce.into(), ciphertext.as_slice()).ok()
}

/// The box between two identities, the same from either end.
fn shared_box(mine: &SecretKey, theirs: &Key) -> Option<SalsaBox> {
    let theirs = PublicKey::from(agreement_key(theirs)?);
    let mine = crypto_box::SecretKey::from(mine.agreement_secret());
    Some(SalsaBox::new(&theirs, &mine))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(
        sender: &SecretKey,
        recipient: &Key,
        plaintext: &[u8],
    ) -> Result<Sealed, InvalidRecipient> {
        seal_with(sender, recipient, plaintext, rand::random())
    }

    fn open(
        recipient: &SecretKey,
        sender: &Key,
        nonce_b64: &str,
        ciphertext_b64: &str,
    ) -> Option<Vec<u8>> {
        decrypt(&shared_box(recipient, sender)?, nonce_b64, ciphertext_b64)
    }

    fn seal_with(
        sender: &SecretKey,
        recipient: &Key,
        plaintext: &[u8],
        nonce: [u8; NONCE_LEN],
    ) -> Result<Sealed, InvalidRecipient> {
        shared_box(sender, recipient)
            .and_then(|shared| encrypt(&shared, plaintext, nonce))
            .ok_or(InvalidRecipient)
    }

    // Made with libsodium 1.0.20: seeds of 32 bytes of 1 and of 2, nonce
    // 0, 1, ... 23.
    const ALICE: &str = "01010101010101010101010101010101010101010101010101010101010101018a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
    const BOB: &str = "02020202020202020202020202020202020202020202020202020202020202028139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";
    const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    const BOX: &str = "kHmWEziMPxxGsPU07xijrqQKHh6f/snO4Ne2Gww=";
    const TEXT: &str = "grüße, peer";

    fn identity(hex: &str) -> SecretKey {
        SecretKey::from_hex128(hex).unwrap()
    }

    #[test]
    fn libsodium_and_we_make_the_same_box() {
        let (alice, bob) = (identity(ALICE), identity(BOB));
        let opened = open(&bob, &alice.public_key(), NONCE, BOX);
        assert_eq!(opened.as_deref(), Some(TEXT.as_bytes()));
        let nonce = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let sealed = seal_with(&alice, &bob.public_key(), TEXT.as_bytes(), nonce).unwrap();
        assert_eq!(sealed, Sealed { nonce_b64: NONCE.into(), ciphertext_b64: BOX.into() });
        // Either end can open it, as with libsodium: a sender can read what it sent.
        assert!(open(&alice, &bob.public_key(), NONCE, BOX).is_some());
    }

    #[test]
    fn only_the_recipient_opens_an_unaltered_box() {
        let (alice, bob, eve) = (identity(ALICE), identity(BOB), SecretKey::generate());
        let sealed = seal(&alice, &bob.public_key(), b"hi").unwrap();
        let Sealed { nonce_b64, ciphertext_b64 } = &sealed;
        assert_eq!(
            open(&bob, &alice.public_key(), nonce_b64, ciphertext_b64).as_deref(),
            Some(&b"hi"[..])
        );
        assert_eq!(open(&eve, &alice.public_key(), nonce_b64, ciphertext_b64), None);
        assert_eq!(open(&bob, &eve.public_key(), nonce_b64, ciphertext_b64), None);
        assert_eq!(open(&bob, &alice.public_key(), NONCE, ciphertext_b64), None);
        assert_eq!(open(&bob, &alice.public_key(), nonce_b64, BOX), None);
        for odd in ["", "?", "AAAA"] {
            assert_eq!(open(&bob, &alice.public_key(), odd, ciphertext_b64), None, "{odd}");
            assert_eq!(open(&bob, &alice.public_key(), nonce_b64, odd), None, "{odd}");
        }
    }

    #[test]
    fn a_kept_key_seals_and_opens_as_a_fresh_one() {
        let (alice, bob) = (identity(ALICE), identity(BOB));
        let kept = BoxKey::between(&bob, &alice.public_key()).unwrap();
        assert_eq!(kept.open(NONCE, BOX).as_deref(), Some(TEXT.as_bytes()));
        let sealed = kept.seal(b"hi").unwrap();
        let opened = open(&alice, &bob.public_key(), &sealed.nonce_b64, &sealed.ciphertext_b64);
        assert_eq!(opened.as_deref(), Some(&b"hi"[..]));
        assert!(BoxKey::between(&bob, &Key::from("x")).is_none());
        assert_eq!(format!("{kept:?}"), "BoxKey([redacted])");
    }

    #[test]
    fn a_topic_key_opens_the_same_for_each_reader() {
        let (alice, bob) = (identity(ALICE), identity(BOB));
        let key = TopicKey::generate();
        let opened = [&alice, &bob].map(|reader| {
            let sealed = key.seal_for(&reader.public_key()).unwrap();
            let bytes = BASE64.decode(&sealed.ciphertext_b64).unwrap();
            let (sender, sealed_key) = bytes.split_at(32);
            assert_eq!(hex::encode(sender), key.sender_public_hex());
            let sender = PublicKey::from(<[u8; 32]>::try_from(sender).unwrap());
            let mine = crypto_box::SecretKey::from(reader.agreement_secret());
            let nonce: [u8; NONCE_LEN] =
                BASE64.decode(&sealed.nonce_b64).unwrap().try_into().unwrap();
            SalsaBox::new(&sender, &mine).decrypt(&nonce.into(), sealed_key).unwrap()
        });
        assert_eq!(opened[0], opened[1]);
        assert_eq!(opened[0].len(), 32);
        assert!(key.seal_for(&Key::from("x")).is_none());
        assert_eq!(format!("{key:?}"), "TopicKey([redacted])");
    }

    #[test]
    fn no_two_boxes_share_a_nonce() {
        let (alice, bob) = (identity(ALICE), identity(BOB).public_key());
        let one = seal(&alice, &bob, b"hi").unwrap();
        let other = seal(&alice, &bob, b"hi").unwrap();
        assert_ne!(one.nonce_b64, other.nonce_b64);
        assert_ne!(one.ciphertext_b64, other.ciphertext_b64);
    }

    #[test]
    fn there_is_no_box_for_a_key_that_is_none() {
        let alice = identity(ALICE);
        for key in [String::new(), "x".repeat(64), "00".repeat(32), "ff".repeat(32)] {
            let key = Key::from(key);
            assert_eq!(seal(&alice, &key, b"hi"), Err(InvalidRecipient), "{key}");
            assert_eq!(open(&alice, &key, NONCE, BOX), None, "{key}");
        }
    }

    #[test]
    fn a_plain_envelope_is_base64_with_a_nonce_for_show() {
        let sealed = plain(TEXT);
        assert_eq!(sealed.ciphertext_b64, "Z3LDvMOfZSwgcGVlcg==");
        assert_eq!(BASE64.decode(&sealed.nonce_b64).unwrap().len(), NONCE_LEN);
        assert_ne!(plain(TEXT).nonce_b64, sealed.nonce_b64);
        assert_eq!(open_plain(&sealed.ciphertext_b64).as_deref(), Some(TEXT));
        assert_eq!(open_plain("Z3LDvMOfZSwgcGVlcg").as_deref(), Some(TEXT), "without padding");
        assert_eq!(open_plain("//79"), None, "not UTF-8");
        assert_eq!(open_plain("no base64!"), None);
    }
}
