//! Who is speaking: canonical bytes and signatures. Pure: no clock, no I/O.
//!
//! A peer proves itself by an ed25519 signature over text whose fields are
//! joined by `|`; the submodules hold one such text each. Broker and client
//! share them, so that the bytes signed and the bytes checked are built in one
//! place.
//!
//! - [`SecretKey`]: an identity's private half, and what libsodium would accept
//! - [`verify_hello`], [`verify_session_hello`]: the proofs that open a session
//! - [`verify_attestation`]: a member vouches for a session key
//! - [`MulticastProof`]: a sender's word for a message that is sealed for many
//! - [`AuditHead`]: an operator notes where an audit chain ended
//! - [`ApiKeySecret`]: what a program shows that calls in a member's name
//! - [`InvitePayload`]: an owner lets somebody join
//! - [`Certificate`]: an owner let the member of a key join
//! - [`fingerprint()`]: two people compare their keys
//! - [`TokenKey`]: what an account's command line proves itself by
//! - [`js_number`], [`canonical_json`]: text as JavaScript would print it,
//!   because the other side of every signature and hash here is JavaScript

mod api_key;
mod attestation;
mod certificate;
mod common;
mod fingerprint;
mod head;
mod hello;
mod invite;
mod json;
mod key;
mod multicast;
mod token;

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub(crate) use api_key::ApiKeySecret;
pub use attestation::{ATTESTATION_TTL_MS_MAX, Attestation, sign_attestation, verify_attestation};
pub use certificate::{Certificate, CertificateError, Grant};
pub(crate) use common::{CommonKeyProof, KeptProof};
pub use fingerprint::fingerprint;
pub use head::{AuditHead, sign_audit_head, verify_audit_head};
pub use hello::{
    CLOCK_SKEW_MS_MAX, HelloProof, SessionHelloProof, sign_hello, sign_session_hello, verify_hello,
    verify_session_hello,
};
pub use invite::{Certifying, InviteCapability, InviteError, InviteLink, InvitePayload};
pub(crate) use invite::{LINK_PREFIX, link_to};
pub(crate) use json::push_string;
pub use json::{canonical_json, has_duplicate_keys, js_number};
pub(crate) use key::agreement_key;
pub use key::{SecretKey, SecretKeyError};
pub(crate) use multicast::MulticastProof;
pub use token::{ClaimedMesh, Claims, TokenError, TokenKey, secret_hash};

/// Why a proof was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProofError {
    /// The timestamp is no number, or too far from this node's clock.
    TimestampSkew,
    /// A key, a signature or an expiry does not have the right shape.
    Malformed,
    /// The signature is not one by that key over those fields.
    BadSignature,
    /// The attestation has run out.
    Expired,
    /// The attestation claims to hold for longer than any may.
    TtlTooLong,
}

impl ProofError {
    /// The code as it stands on the wire.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TimestampSkew => "timestamp_skew",
            Self::Malformed => "malformed",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::TtlTooLong => "ttl_too_long",
        }
    }
}

impl fmt::Display for ProofError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.code())
    }
}

impl std::error::Error for ProofError {}

/// Whether a text is so many hex digits.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether `text` is a public key as it is stored and routed by: 64 lower-case
/// hex digits. It says nothing about whether the point exists.
#[must_use]
pub fn is_public_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a signature by that key can exist: it spells a point of the curve, in
/// the one way there is, and one of large order.
#[must_use]
pub fn can_sign(key: &str) -> bool {
    key::is_strong(key)
}

/// Compares a secret from a request with the one expected, in a time that
/// tells nothing about either, not even a length. An empty `expected` means
/// that no secret was set up, and matches nothing.
#[must_use]
pub fn tokens_match(expected: &str, given: &str) -> bool {
    let same = Sha256::digest(expected).ct_eq(&Sha256::digest(given));
    !expected.is_empty() && bool::from(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_recorded_ones() {
        let codes = [
            ProofError::TimestampSkew,
            ProofError::Malformed,
            ProofError::BadSignature,
            ProofError::Expired,
            ProofError::TtlTooLong,
        ]
        .map(ProofError::code);
        assert_eq!(
            codes,
            ["timestamp_skew", "malformed", "bad_signature", "expired", "ttl_too_long"]
        );
        assert_eq!(
            format!("hello rejected: {}", ProofError::Malformed),
            "hello rejected: malformed"
        );
    }

    #[test]
    fn a_public_key_is_64_lower_case_hex_digits() {
        assert!(is_public_key(&"0f".repeat(32)));
        for odd in
            [String::new(), "0f".repeat(31), "0F".repeat(32), "0g".repeat(32), "é".repeat(32)]
        {
            assert!(!is_public_key(&odd), "{odd}");
        }
    }

    #[test]
    fn tokens_match_only_when_equal_and_set() {
        assert!(tokens_match("s3cret", "s3cret"));
        for other in ["", "s3cre", "s3cret ", "S3cret"] {
            assert!(!tokens_match("s3cret", other), "{other}");
        }
        assert!(!tokens_match("", ""), "no token set up lets nobody in");
    }
}
