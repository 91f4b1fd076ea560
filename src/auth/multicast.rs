//! A sender's word for a message that is sealed for many: none of them can pass another
//! off as its sender's, elsewhere or for others.

use sha2::{Digest as _, Sha256};

use super::ProofError;
use super::key::{self, SecretKey};

/// What the sender of a sealed message to many signs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MulticastProof<'a> {
    /// The mesh it is sent in.
    pub(crate) mesh: &'a str,
    /// `@group` or `*`, as sent.
    pub(crate) target_spec: &'a str,
    /// The sender's own id for it.
    pub(crate) client_message_id: &'a str,
    /// In base64, as sent.
    pub(crate) nonce_b64: &'a str,
    /// Its bytes.
    pub(crate) ciphertext: &'a [u8],
}

impl MulticastProof<'_> {
    /// The text that is signed. `None` where a field could be taken for two.
    fn text(&self) -> Option<String> {
        let Self { mesh, target_spec, client_message_id, nonce_b64, ciphertext } = self;
        let fields = [mesh, target_spec, client_message_id, nonce_b64];
        let hash = hex::encode(Sha256::digest(ciphertext));
        let is_plain = fields.iter().all(|field| !field.contains('|'));
        is_plain.then(|| {
            format!(
                "claudemesh-multicast-v1|{mesh}|{target_spec}|{client_message_id}|{nonce_b64}|{hash}"
            )
        })
    }

    /// Signs with the key that seals: 128 hex digits. `None` where a field has a `|`.
    pub(crate) fn sign(&self, key: &SecretKey) -> Option<String> {
        Some(key.sign(&self.text()?))
    }

    /// Whether that is the sender's word for exactly this.
    pub(crate) fn verify(&self, sender: &str, signature: &str) -> Result<(), ProofError> {
        let text = self.text().ok_or(ProofError::Malformed)?;
        key::verify(sender, &text, signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof() -> MulticastProof<'static> {
        MulticastProof {
            mesh: "mesh",
            target_spec: "@dev",
            client_message_id: "one",
            nonce_b64: "AAAA",
            ciphertext: b"sealed",
        }
    }

    #[test]
    fn a_signature_holds_for_nothing_but_what_was_signed() {
        let (ada, eve) = (SecretKey::generate(), SecretKey::generate());
        let (key, signature) = (ada.public_key(), proof().sign(&ada).expect("signed"));
        assert_eq!(proof().verify(key.as_str(), &signature), Ok(()));
        let others = [
            MulticastProof { mesh: "other", ..proof() },
            MulticastProof { target_spec: "*", ..proof() },
            MulticastProof { client_message_id: "two", ..proof() },
            MulticastProof { nonce_b64: "AAAB", ..proof() },
            MulticastProof { ciphertext: b"forged", ..proof() },
        ];
        for other in others {
            let refused = other.verify(key.as_str(), &signature);
            assert_eq!(refused, Err(ProofError::BadSignature), "{other:?}");
        }
        let eves = eve.public_key();
        assert_eq!(proof().verify(eves.as_str(), &signature), Err(ProofError::BadSignature));
    }

    #[test]
    fn no_field_can_be_taken_for_two() {
        let key = SecretKey::generate();
        for odd in [
            MulticastProof { target_spec: "@dev|one", ..proof() },
            MulticastProof { client_message_id: "on|e", ..proof() },
        ] {
            assert_eq!(odd.sign(&key), None);
            let public = key.public_key();
            assert_eq!(odd.verify(public.as_str(), "00"), Err(ProofError::Malformed));
        }
    }
}
