//! The two proofs that open a session.
//!
//! Both bind the mesh, the keys and the moment; the moment keeps an overheard
//! hello from being of use for longer than the replay guard remembers it.

use super::ProofError;
use super::json::js_number;
use super::key::{self, SecretKey};
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId};

/// How far a hello's timestamp may be from this node's clock, either way.
pub const CLOCK_SKEW_MS_MAX: i64 = 60_000;

/// What a `hello` claims, as it stands on the wire.
#[derive(Clone, Copy, Debug)]
pub struct HelloProof<'a> {
    /// The mesh to enter.
    pub mesh_id: &'a str,
    /// The member that enters it.
    pub member_id: &'a str,
    /// That member's key: 64 hex digits.
    pub pubkey: &'a str,
    /// Milliseconds since the epoch; NaN if the wire had no number.
    pub timestamp: f64,
    /// By `pubkey`: 128 hex digits.
    pub signature: &'a str,
}

/// What a `session_hello` claims, as it stands on the wire.
#[derive(Clone, Copy, Debug)]
pub struct SessionHelloProof<'a> {
    /// The mesh to enter.
    pub mesh_id: &'a str,
    /// The key of the member that vouches for the session.
    pub parent_pubkey: &'a str,
    /// The session's own key: 64 hex digits.
    pub session_pubkey: &'a str,
    /// Milliseconds since the epoch; NaN if the wire had no number.
    pub timestamp: f64,
    /// By `session_pubkey`: 128 hex digits.
    pub signature: &'a str,
}

/// Checks a `hello`: clock, then shapes, then the signature.
///
/// # Errors
/// [`ProofError::TimestampSkew`], [`ProofError::Malformed`] or
/// [`ProofError::BadSignature`], the first that applies.
pub fn verify_hello(proof: HelloProof<'_>, now: Timestamp) -> Result<(), ProofError> {
    check_clock(proof.timestamp, now)?;
    let HelloProof { mesh_id, member_id, pubkey, timestamp, signature } = proof;
    key::verify(pubkey, &hello_text(mesh_id, member_id, pubkey, timestamp), signature)
}

/// Checks a `session_hello`: clock, then shapes, then the signature. The
/// member's word for the session key is [`verify_attestation`]'s part.
///
/// # Errors
/// Verifies a `session_hello`, as [`verify_hello`] does a `hello`.
///
/// [`verify_attestation`]: super::verify_attestation
pub fn verify_session_hello(
    proof: SessionHelloProof<'_>,
    now: Timestamp,
) -> Result<(), ProofError> {
    check_clock(proof.timestamp, now)?;
    let SessionHelloProof { mesh_id, parent_pubkey, session_pubkey, timestamp, signature } = proof;
    let text = session_hello_text(mesh_id, parent_pubkey, session_pubkey, timestamp);
    key::verify(session_pubkey, &text, signature)
}

/// Signs a `hello` of `member` with its own key.
#[must_use]
pub fn sign_hello(
    member_key: &SecretKey,
    mesh: &MeshId,
    member: &MemberId,
    timestamp: Timestamp,
) -> String {
    let pubkey = member_key.public_key();
    member_key.sign(&hello_text(
        mesh.as_str(),
        member.as_str(),
        pubkey.as_str(),
        timestamp.as_ms() as f64,
    ))
}

/// Signs a `session_hello` with the session's key; `parent` is the key of the
/// member that attested it.
#[must_use]
pub fn sign_session_hello(
    session_key: &SecretKey,
    mesh: &MeshId,
    parent: &Key,
    timestamp: Timestamp,
) -> String {
    let pubkey = session_key.public_key();
    session_key.sign(&session_hello_text(
        mesh.as_str(),
        parent.as_str(),
        pubkey.as_str(),
        timestamp.as_ms() as f64,
    ))
}

fn check_clock(timestamp: f64, now: Timestamp) -> Result<(), ProofError> {
    // NaN is in no range.
    let skew_ms = (now.as_ms() as f64 - timestamp).abs();
    if skew_ms <= CLOCK_SKEW_MS_MAX as f64 { Ok(()) } else { Err(ProofError::TimestampSkew) }
}

fn hello_text(mesh_id: &str, member_id: &str, pubkey: &str, timestamp: f64) -> String {
    format!("{mesh_id}|{member_id}|{pubkey}|{}", js_number(timestamp))
}

fn session_hello_text(mesh_id: &str, parent: &str, session: &str, timestamp: f64) -> String {
    format!("claudemesh-session-hello|{mesh_id}|{parent}|{session}|{}", js_number(timestamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Keys and signatures made with libsodium 1.0.20; the seeds are 32 bytes
    // of 1 (member) and of 2 (session).
    const MEMBER: &str = "01010101010101010101010101010101010101010101010101010101010101018a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
    const SESSION: &str = "02020202020202020202020202020202020202020202020202020202020202028139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";
    const HELLO: &str = "7de8bcca2f18af94b77eab090c59c82069e07700b30dbed8d6dc3289e218de70054b77530170490503d8ad1714a3a79b1540d5cba8f8fa8435eb71bc6b928508";
    const SESSION_HELLO: &str = "1c15e58c9d17b414fc12b771d910065ea85683c7f13a6067f2236e561d33c6c43d02521202f6baf0be7b868b1d1dc1f0f40652e2720d911da61e3ffef9360309";
    const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);

    fn hello() -> HelloProof<'static> {
        HelloProof {
            mesh_id: "mesh-1",
            member_id: "member-1",
            pubkey: &MEMBER[64..],
            timestamp: 1_700_000_000_000.0,
            signature: HELLO,
        }
    }

    fn session_hello() -> SessionHelloProof<'static> {
        SessionHelloProof {
            mesh_id: "mesh-1",
            parent_pubkey: &MEMBER[64..],
            session_pubkey: &SESSION[64..],
            timestamp: 1_700_000_000_000.0,
            signature: SESSION_HELLO,
        }
    }

    #[test]
    fn libsodium_and_we_sign_and_accept_the_same() {
        let member = SecretKey::from_hex128(MEMBER).unwrap();
        let session = SecretKey::from_hex128(SESSION).unwrap();
        let mesh = MeshId::from("mesh-1");
        assert_eq!(sign_hello(&member, &mesh, &MemberId::from("member-1"), NOW), HELLO);
        assert_eq!(verify_hello(hello(), NOW), Ok(()));
        assert_eq!(sign_session_hello(&session, &mesh, &member.public_key(), NOW), SESSION_HELLO);
        assert_eq!(verify_session_hello(session_hello(), NOW), Ok(()));
        let upper = HELLO.to_uppercase();
        assert_eq!(verify_hello(HelloProof { signature: &upper, ..hello() }, NOW), Ok(()));
    }

    #[test]
    fn every_field_is_bound() {
        let bad = Err(ProofError::BadSignature);
        let other = &SESSION[64..];
        assert_eq!(verify_hello(HelloProof { mesh_id: "mesh-2", ..hello() }, NOW), bad);
        assert_eq!(verify_hello(HelloProof { member_id: "member-2", ..hello() }, NOW), bad);
        assert_eq!(verify_hello(HelloProof { pubkey: other, ..hello() }, NOW), bad);
        assert_eq!(verify_hello(HelloProof { timestamp: 1.7e12 + 1.0, ..hello() }, NOW), bad);
        assert_eq!(verify_hello(HelloProof { signature: SESSION_HELLO, ..hello() }, NOW), bad);
        let proof = session_hello();
        for changed in [
            SessionHelloProof { mesh_id: "mesh-2", ..proof },
            SessionHelloProof { parent_pubkey: other, ..proof },
            SessionHelloProof { session_pubkey: &MEMBER[64..], ..proof },
            SessionHelloProof { timestamp: 1.7e12 - 1.0, ..proof },
        ] {
            assert_eq!(verify_session_hello(changed, NOW), bad, "{changed:?}");
        }
    }

    #[test]
    fn the_clock_window_is_sixty_seconds_either_way() {
        for (off_ms, expected) in [
            (60_000, Ok(())),
            (-60_000, Ok(())),
            (60_001, Err(ProofError::TimestampSkew)),
            (-60_001, Err(ProofError::TimestampSkew)),
        ] {
            assert_eq!(verify_hello(hello(), NOW.plus_ms(off_ms)), expected, "{off_ms}");
            assert_eq!(verify_session_hello(session_hello(), NOW.plus_ms(off_ms)), expected);
        }
        for timestamp in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let proof = HelloProof { timestamp, ..hello() };
            assert_eq!(verify_hello(proof, NOW), Err(ProofError::TimestampSkew));
        }
    }

    #[test]
    fn the_clock_comes_before_shapes_and_shapes_before_the_signature() {
        let proof = HelloProof { pubkey: "x", signature: "y", ..hello() };
        assert_eq!(verify_hello(proof, NOW.plus_ms(60_001)), Err(ProofError::TimestampSkew));
        assert_eq!(verify_hello(proof, NOW), Err(ProofError::Malformed));
        for signature in ["", &HELLO[..126], &HELLO.replace('e', "g")] {
            let proof = HelloProof { signature, ..hello() };
            assert_eq!(verify_hello(proof, NOW), Err(ProofError::Malformed), "{signature}");
        }
        let proof = SessionHelloProof { session_pubkey: "", ..session_hello() };
        assert_eq!(verify_session_hello(proof, NOW), Err(ProofError::Malformed));
    }

    #[test]
    fn a_fractional_timestamp_prints_as_javascript_prints_it() {
        let text = hello_text("m", "n", "k", 1_700_000_000_000.5);
        assert_eq!(text, "m|n|k|1700000000000.5");
    }
}
