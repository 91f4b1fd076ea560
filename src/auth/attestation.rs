//! A member's word that a session key is its own, for a limited time.

use super::ProofError;
use super::json::js_number;
use super::key::{self, SecretKey};
use crate::clock::Timestamp;
use crate::id::Key;

/// No attestation may hold for longer than this from now: 24 hours.
pub const ATTESTATION_TTL_MS_MAX: i64 = 24 * 60 * 60 * 1000;

/// An attestation as it stands on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Attestation<'a> {
    /// The key that is vouched for: 64 hex digits.
    pub session_pubkey: &'a str,
    /// The member's key: 64 hex digits.
    pub parent_pubkey: &'a str,
    /// Milliseconds since the epoch; NaN if the wire had no number.
    pub expires_at: f64,
    /// By `parent_pubkey`: 128 hex digits.
    pub signature: &'a str,
}

/// Checks an attestation: expiry, then shapes, then the signature.
///
/// # Errors
/// [`ProofError::Malformed`] for an expiry that is no number,
/// [`ProofError::Expired`], [`ProofError::TtlTooLong`],
/// [`ProofError::Malformed`] for a key or signature of the wrong shape, or
/// [`ProofError::BadSignature`]; the first that applies.
pub fn verify_attestation(attestation: Attestation<'_>, now: Timestamp) -> Result<(), ProofError> {
    let Attestation { session_pubkey, parent_pubkey, expires_at, signature } = attestation;
    if !expires_at.is_finite() {
        return Err(ProofError::Malformed);
    }
    if expires_at <= now.as_ms() as f64 {
        return Err(ProofError::Expired);
    }
    if expires_at > now.plus_ms(ATTESTATION_TTL_MS_MAX).as_ms() as f64 {
        return Err(ProofError::TtlTooLong);
    }
    if !key::has_key_shape(session_pubkey) {
        return Err(ProofError::Malformed);
    }
    key::verify(parent_pubkey, &text(parent_pubkey, session_pubkey, expires_at), signature)
}

/// Vouches with the member's key for `session`, until `expires_at`.
#[must_use]
pub fn sign_attestation(parent_key: &SecretKey, session: &Key, expires_at: Timestamp) -> String {
    let parent = parent_key.public_key();
    parent_key.sign(&text(parent.as_str(), session.as_str(), expires_at.as_ms() as f64))
}

fn text(parent: &str, session: &str, expires_at: f64) -> String {
    format!("claudemesh-session-attest|{parent}|{session}|{}", js_number(expires_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with libsodium 1.0.20; the seeds are 32 bytes of 1 (member) and of
    // 2 (session).
    const MEMBER: &str = "01010101010101010101010101010101010101010101010101010101010101018a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
    const SESSION: &str = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";
    const SIGNATURE: &str = "ed5b7febeb98b4ead131292e479ddaf9589e31c76ea7f5b45ed0c7ea6cba86a8851154f3ac35eaa2d924706279c99ed625c9f0f3b1bd23957c65061e49ab4904";
    const EXPIRES: Timestamp = Timestamp::from_ms(1_700_000_043_000);

    fn attestation() -> Attestation<'static> {
        Attestation {
            session_pubkey: SESSION,
            parent_pubkey: &MEMBER[64..],
            expires_at: EXPIRES.as_ms() as f64,
            signature: SIGNATURE,
        }
    }

    #[test]
    fn libsodium_and_we_sign_and_accept_the_same() {
        let parent = SecretKey::from_hex128(MEMBER).unwrap();
        assert_eq!(sign_attestation(&parent, &Key::from(SESSION), EXPIRES), SIGNATURE);
        assert_eq!(verify_attestation(attestation(), EXPIRES.plus_ms(-1)), Ok(()));
    }

    #[test]
    fn it_holds_until_its_expiry_and_for_a_day_at_most() {
        for (now, expected) in [
            (EXPIRES, Err(ProofError::Expired)),
            (EXPIRES.plus_ms(-ATTESTATION_TTL_MS_MAX), Ok(())),
            (EXPIRES.plus_ms(-ATTESTATION_TTL_MS_MAX - 1), Err(ProofError::TtlTooLong)),
        ] {
            assert_eq!(verify_attestation(attestation(), now), expected, "{now}");
        }
    }

    #[test]
    fn expiry_comes_before_shapes_and_shapes_before_the_signature() {
        let now = EXPIRES.plus_ms(-1);
        let shapeless = Attestation { session_pubkey: "s", signature: "", ..attestation() };
        assert_eq!(verify_attestation(shapeless, EXPIRES), Err(ProofError::Expired));
        for malformed in [
            Attestation { expires_at: f64::NAN, ..attestation() },
            Attestation { expires_at: f64::INFINITY, ..attestation() },
            Attestation { session_pubkey: "s", ..attestation() },
            Attestation { parent_pubkey: &SESSION[1..], ..attestation() },
            Attestation { signature: &SIGNATURE[2..], ..attestation() },
        ] {
            assert_eq!(
                verify_attestation(malformed, now),
                Err(ProofError::Malformed),
                "{malformed:?}"
            );
        }
        for unsigned in [
            Attestation { session_pubkey: &MEMBER[64..], ..attestation() },
            Attestation { parent_pubkey: SESSION, ..attestation() },
            Attestation { expires_at: EXPIRES.as_ms() as f64 + 1.0, ..attestation() },
        ] {
            assert_eq!(
                verify_attestation(unsigned, now),
                Err(ProofError::BadSignature),
                "{unsigned:?}"
            );
        }
    }
}
