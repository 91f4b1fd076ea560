//! Keys: signing, and verification by libsodium's rules.
//!
//! The peers that exist check and make signatures with libsodium, so this
//! broker must accept exactly what `crypto_sign_verify_detached` accepts: no
//! `S` beyond the group order, no small-order key or `R`, no public key with
//! more than one spelling. A key with several spellings would be several
//! identities.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::ProofError;
use crate::id::Key;

/// The private half of a member's or a session's identity. It never prints.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

/// Why text is not a secret key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretKeyError {
    /// Not 128 hex digits.
    #[error("a secret key is 128 hex digits: the seed, then the public key")]
    Malformed,
    /// The second half is not the public key of the first.
    #[error("the two halves of the secret key do not belong together; restore it from a backup")]
    Mismatched,
}

impl SecretKey {
    /// A new identity, from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self(SigningKey::from_bytes(&rand::random()))
    }

    /// From libsodium's form: seed and public key as 128 hex digits.
    ///
    /// # Errors
    /// If the text has another shape, or its halves do not belong together.
    pub fn from_hex128(text: &str) -> Result<Self, SecretKeyError> {
        let mut pair = [0; 64];
        hex::decode_to_slice(text, &mut pair).map_err(|_| SecretKeyError::Malformed)?;
        SigningKey::from_keypair_bytes(&pair).map(Self).map_err(|_| SecretKeyError::Mismatched)
    }

    /// From a seed alone; `None` if the text is not 64 hex digits.
    #[must_use]
    pub fn from_seed_hex(text: &str) -> Option<Self> {
        decode(text).map(|seed| Self(SigningKey::from_bytes(&seed)))
    }

    /// The seed as 64 hex digits, to be saved in a file that only its owner can read.
    #[must_use]
    pub fn to_seed_hex(&self) -> String {
        hex::encode(self.0.to_bytes())
    }

    /// libsodium's form, to be saved in a file that only its owner can read.
    #[must_use]
    pub fn to_hex128(&self) -> String {
        hex::encode(self.0.to_keypair_bytes())
    }

    /// The public half, by which others know this identity.
    #[must_use]
    pub fn public_key(&self) -> Key {
        Key::from(hex::encode(self.0.verifying_key().as_bytes()))
    }

    /// A detached signature as 128 hex digits.
    pub(super) fn sign(&self, text: &str) -> String {
        hex::encode(self.0.sign(text.as_bytes()).to_bytes())
    }

    /// The x25519 private key of the same identity, as
    /// `crypto_sign_ed25519_sk_to_curve25519` makes it.
    pub(crate) fn agreement_secret(&self) -> [u8; 32] {
        self.0.to_scalar_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SecretKey([redacted])")
    }
}

/// The x25519 public key of an ed25519 identity, as
/// `crypto_sign_ed25519_pk_to_curve25519` makes it; `None` where that fails.
pub(crate) fn agreement_key(key: &Key) -> Option<[u8; 32]> {
    let point = verifying_key(&decode(key.as_str())?)?;
    (!point.is_weak() && point.to_edwards().is_torsion_free())
        .then(|| point.to_montgomery().to_bytes())
}

/// Whether `text` is 64 hex digits of either case.
pub(super) fn has_key_shape(text: &str) -> bool {
    decode::<32>(text).is_some()
}

/// Whether `text` spells a point by which something can be signed.
pub(super) fn is_strong(text: &str) -> bool {
    decode(text).and_then(|bytes| verifying_key(&bytes)).is_some_and(|key| !key.is_weak())
}

/// Checks a detached signature over `text`: shapes first, then the mathematics.
pub(super) fn verify(pubkey: &str, text: &str, signature: &str) -> Result<(), ProofError> {
    let key = decode(pubkey).ok_or(ProofError::Malformed)?;
    let signature = decode(signature).ok_or(ProofError::Malformed)?;
    let key = verifying_key(&key).ok_or(ProofError::BadSignature)?;
    key.verify_strict(text.as_bytes(), &Signature::from_bytes(&signature))
        .map_err(|_| ProofError::BadSignature)
}

/// `2 * N` hex digits of either case.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok().map(|()| bytes)
}

/// The point that `bytes` spell, if they spell it canonically.
fn verifying_key(bytes: &[u8; 32]) -> Option<VerifyingKey> {
    // y, without the sign bit, is below 2^255 - 19.
    let [first, middle @ .., last] = bytes;
    let beyond = last & 0x7f == 0x7f && middle.iter().all(|b| *b == 0xff) && *first >= 0xed;
    if beyond { None } else { VerifyingKey::from_bytes(bytes).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// libsodium's key pair for a seed of 32 bytes of 1.
    const PAIR: &str = "01010101010101010101010101010101010101010101010101010101010101018a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";

    fn public(hex: &str) -> [u8; 32] {
        decode(hex).unwrap()
    }

    #[test]
    fn a_secret_key_survives_its_text_form_and_never_prints() {
        let key = SecretKey::from_hex128(PAIR).unwrap();
        assert_eq!(key.to_hex128(), PAIR);
        assert_eq!(key.public_key().as_str(), &PAIR[64..]);
        assert_eq!(format!("{key:?}"), "SecretKey([redacted])");
        let fresh = SecretKey::generate();
        assert_ne!(fresh.public_key(), SecretKey::generate().public_key());
        let again = SecretKey::from_hex128(&fresh.to_hex128()).unwrap();
        assert_eq!(again.public_key(), fresh.public_key());
        let seeded = SecretKey::from_seed_hex(&fresh.to_seed_hex()).unwrap();
        assert_eq!(seeded.public_key(), fresh.public_key());
        assert!(SecretKey::from_seed_hex(PAIR).is_none());
    }

    #[test]
    fn a_torn_or_mixed_up_secret_key_is_refused() {
        for torn in ["", &PAIR[..126], &PAIR.replace('d', "x")] {
            assert_eq!(SecretKey::from_hex128(torn).unwrap_err(), SecretKeyError::Malformed);
        }
        let mixed = format!("{}{}", "02".repeat(32), &PAIR[64..]);
        assert_eq!(SecretKey::from_hex128(&mixed).unwrap_err(), SecretKeyError::Mismatched);
    }

    #[test]
    fn signatures_that_libsodium_refuses_are_refused() {
        let key = SecretKey::from_hex128(PAIR).unwrap();
        let pubkey = &PAIR[64..];
        assert_eq!(verify(pubkey, "meshmesh", &key.sign("meshmesh")), Ok(()));
        assert_eq!(
            verify(pubkey, "meshmesj", &key.sign("meshmesh")),
            Err(ProofError::BadSignature)
        );
        // S + L: the same equation, another spelling.
        let mut sig: [u8; 64] = decode(&key.sign("meshmesh")).unwrap();
        let order = public("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let mut carry = 0;
        for (digit, add) in sig[32..].iter_mut().zip(order) {
            let sum = u16::from(*digit) + u16::from(add) + carry;
            *digit = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        let high = hex::encode(sig);
        assert_eq!(verify(pubkey, "meshmesh", &high), Err(ProofError::BadSignature));
    }

    /// With a small-order key, R = 5B and S = 5 satisfies the equation for
    /// many messages, or for all of them.
    #[test]
    fn small_order_keys_sign_nothing() {
        let forged = "edc876d6831fd2105d0b4389ca2e283166469289146e2ce06faefe98b22548df0500000000000000000000000000000000000000000000000000000000000000";
        for key in [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000080",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000080",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ] {
            for text in 0..16 {
                assert_eq!(
                    verify(key, &text.to_string(), forged),
                    Err(ProofError::BadSignature),
                    "{key} over {text}"
                );
            }
            assert_eq!(agreement_key(&Key::from(key)), None, "{key}");
            assert!(!is_strong(key), "{key}");
        }
        assert!(is_strong(&PAIR[64..]));
        // Every second value of y is no point.
        assert!(!is_strong("0200000000000000000000000000000000000000000000000000000000000000"));
    }

    #[test]
    fn a_key_has_one_spelling() {
        // y = p + 3 is a point of large order; so is y = 3, its other spelling.
        let beyond = public("f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
        assert!(VerifyingKey::from_bytes(&beyond).is_ok_and(|key| !key.is_weak()));
        assert!(verifying_key(&beyond).is_none());
        let mut negative = beyond;
        negative[31] = 0xff;
        assert!(verifying_key(&negative).is_none());
        let mut canonical = [0; 32];
        canonical[0] = 3;
        assert!(verifying_key(&canonical).is_some());
        let minus_one = public("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
        assert!(verifying_key(&minus_one).is_some(), "p - 1 is the largest y there is");
    }

    /// Made from a key with a small-order part; libsodium 1.0.20 accepts the
    /// first, where that part cancels out, and refuses the second.
    #[test]
    fn keys_of_mixed_order_fare_as_with_libsodium() {
        let mixed = "b502ff3d92e31d8190b4aa4ea0414005167fad089c4de9dac8a2fc850fed4f58";
        let signature = "508d9287993aaea42b6043a36abd88c8ae640e2c87fc13dd3f7db957215174ff61f632e11923d2e4753e183046e42a7f4fd93cd82950786cca68b4a6d1477202";
        assert_eq!(verify(mixed, "meshmesh2", signature), Ok(()));
        assert_eq!(verify(mixed, "meshmesh0", signature), Err(ProofError::BadSignature));
        assert_eq!(agreement_key(&Key::from(mixed)), None, "libsodium does not convert it");
    }
}
