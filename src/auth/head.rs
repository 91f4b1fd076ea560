//! An operator's word about where a mesh's audit chain ended.

use super::ProofError;
use super::key::{self, SecretKey};
use crate::clock::Timestamp;

/// Where a chain ended, and when that was noted.
#[derive(Clone, Copy, Debug)]
pub struct AuditHead<'a> {
    /// The mesh whose chain it is.
    pub mesh_id: &'a str,
    /// The number of the chain's last row.
    pub row_id: i64,
    /// That row's hash: 64 hex digits.
    pub hash: &'a str,
    /// Its second hash: 66 hex digits, 64 in rows of earlier releases, or none.
    pub name_hash: Option<&'a str>,
    /// When it was noted, by the clock of whoever signs.
    pub taken_at: Timestamp,
}

impl AuditHead<'_> {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { mesh_id, row_id, hash, name_hash, taken_at } = self;
        let names = name_hash.unwrap_or("null");
        format!("claudemesh-audit-head-v1|{mesh_id}|{row_id}|{hash}|{names}|{taken_at}")
    }
}

/// Signs a head: 128 hex digits.
#[must_use]
pub fn sign_audit_head(key: &SecretKey, head: AuditHead<'_>) -> String {
    key.sign(&head.text())
}

/// Checks the signature of a head by that key.
///
/// # Errors
/// [`ProofError::Malformed`] for a key or a signature of the wrong shape, else
/// [`ProofError::BadSignature`].
pub fn verify_audit_head(
    pubkey: &str,
    head: AuditHead<'_>,
    signature: &str,
) -> Result<(), ProofError> {
    key::verify(pubkey, &head.text(), signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(hash: &str) -> AuditHead<'_> {
        let taken_at = Timestamp::from_ms(1_700_000_000_120);
        AuditHead { mesh_id: "mesh-1", row_id: 42, hash, name_hash: None, taken_at }
    }

    #[test]
    fn the_signed_text_is_the_documented_one() {
        let hash = "ab".repeat(32);
        let text =
            format!("claudemesh-audit-head-v1|mesh-1|42|{hash}|null|2023-11-14T22:13:20.120Z");
        assert_eq!(head(&hash).text(), text);
        let names = "cd".repeat(32);
        let text =
            format!("claudemesh-audit-head-v1|mesh-1|42|{hash}|{names}|2023-11-14T22:13:20.120Z");
        assert_eq!(AuditHead { name_hash: Some(&names), ..head(&hash) }.text(), text);
    }

    #[test]
    fn a_signature_holds_for_its_key_and_every_field() {
        let (key, hash, names) = (SecretKey::generate(), "ab".repeat(32), "cd".repeat(32));
        let (public, head) = (key.public_key(), head(&hash));
        let signature = sign_audit_head(&key, head);
        let check = |key: &str, head| verify_audit_head(key, head, &signature);
        assert_eq!(check(public.as_str(), head), Ok(()));
        for other in [
            AuditHead { mesh_id: "mesh-2", ..head },
            AuditHead { row_id: 43, ..head },
            AuditHead { hash: &names, ..head },
            AuditHead { name_hash: Some(&names), ..head },
            AuditHead { taken_at: head.taken_at.plus_ms(1), ..head },
        ] {
            assert_eq!(check(public.as_str(), other), Err(ProofError::BadSignature), "{other:?}");
        }
        let stranger = SecretKey::generate().public_key();
        assert_eq!(check(stranger.as_str(), head), Err(ProofError::BadSignature));
        assert_eq!(check("ab", head), Err(ProofError::Malformed));
    }
}
