//! A value under a key of its own, which is sealed to whoever may open it: what members
//! keep for themselves at a broker that cannot read it.
//!
//! The value is libsodium's `crypto_secretbox_easy`, its key a `crypto_box_seal` to the
//! x25519 form of the member's key.

use base64::Engine as _;
use crypto_box::PublicKey;
use crypto_box::aead::OsRng;
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};

use super::{BASE64, InvalidRecipient, NONCE_LEN};
use crate::auth::{SecretKey, agreement_key};
use crate::id::Key;

/// Length of a value's key in bytes.
const KEY_LEN: usize = 32;

/// A value that one key opens, and that key, each in base64.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Enclosed {
    /// The number used once that the value was encrypted with.
    pub(crate) nonce_b64: String,
    /// The value, encrypted.
    pub(crate) ciphertext_b64: String,
    /// The value's key, sealed.
    pub(crate) sealed_key_b64: String,
}

impl Enclosed {
    /// Encrypts for that member, under a fresh key and nonce.
    pub(crate) fn to(member: &Key, value: &[u8]) -> Result<Self, InvalidRecipient> {
        let key: [u8; KEY_LEN] = rand::random();
        let nonce: [u8; NONCE_LEN] = rand::random();
        let member = PublicKey::from(agreement_key(member).ok_or(InvalidRecipient)?);
        let cipher = XSalsa20Poly1305::new(&key.into());
        let ciphertext = cipher.encrypt(&nonce.into(), value).map_err(|_| InvalidRecipient)?;
        let sealed_key = member.seal(&mut OsRng, &key).map_err(|_| InvalidRecipient)?;
        Ok(Self {
            nonce_b64: BASE64.encode(nonce),
            ciphertext_b64: BASE64.encode(ciphertext),
            sealed_key_b64: BASE64.encode(sealed_key),
        })
    }

    /// The value; `None` if it is for somebody else, altered, or none at all.
    pub(crate) fn open(&self, member: &SecretKey) -> Option<Vec<u8>> {
        let member = crypto_box::SecretKey::from(member.agreement_secret());
        let key = member.unseal(&BASE64.decode(&self.sealed_key_b64).ok()?).ok()?;
        let key: [u8; KEY_LEN] = key.try_into().ok()?;
        let nonce: [u8; NONCE_LEN] = BASE64.decode(&self.nonce_b64).ok()?.try_into().ok()?;
        let ciphertext = BASE64.decode(&self.ciphertext_b64).ok()?;
        let cipher = XSalsa20Poly1305::new(&key.into());
        cipher.decrypt(&nonce.into(), ciphertext.as_slice()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_libsodium_enclosed_is_opened() {
        // Made with libsodium 1.0.18: a seed of 32 bytes of 2, a key of 32 bytes of 7, nonce
        // 0, 1, ... 23.
        let member = SecretKey::from_hex128(
            "02020202020202020202020202020202020202020202020202020202020202028139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394",
        )
        .expect("a key");
        let enclosed = Enclosed {
            nonce_b64: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX".to_owned(),
            ciphertext_b64: "ue73znF3X3KtGfGO/04rt/1sKvNI6gfpxeYifl2i".to_owned(),
            sealed_key_b64: "Gcpaspl5rB6vUOOS9P5R3k7Hq5G4goYNgj8pmIqoHzW1BwRSsMxih67rLzis7iWt61UwToMDHozfQR8xK8iTbULhVEAHJcRyFuSuBJmdgw0=".to_owned(),
        };
        assert_eq!(enclosed.open(&member).as_deref(), Some("grüße, vault".as_bytes()));
    }

    #[test]
    fn a_value_is_its_members_and_each_time_another() {
        let (member, other) = (SecretKey::generate(), SecretKey::generate());
        let enclose = || Enclosed::to(&member.public_key(), b"value").expect("a good key");
        let (one, two) = (enclose(), enclose());
        assert_eq!(one.open(&member).as_deref(), Some(&b"value"[..]));
        assert_eq!(one.open(&other), None);
        assert!(one.nonce_b64 != two.nonce_b64 && one.ciphertext_b64 != two.ciphertext_b64);
        let mixed = Enclosed { sealed_key_b64: two.sealed_key_b64.clone(), ..one.clone() };
        assert_eq!(mixed.open(&member), None);
        let cut = Enclosed { ciphertext_b64: one.ciphertext_b64[4..].to_owned(), ..one };
        assert_eq!(cut.open(&member), None);
        assert!(Enclosed::to(&Key::from("00".repeat(32)), b"value").is_err());
    }
}
