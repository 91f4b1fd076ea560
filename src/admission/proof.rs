//! Who it is: signatures, used once, and the member behind them.

use sha2::{Digest, Sha256};

use super::Refusal;
use crate::admission::Parts;
use crate::auth::{self, SessionHelloProof, verify_attestation, verify_session_hello};
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId};
use crate::limits;
use crate::presence::members;
use crate::protocol::{Hello, SessionHello};
use crate::store::{Admission, AdmittedMember, StoreError};

pub(super) fn session_key_of(hello: &Hello) -> Result<Option<Key>, Box<Refusal>> {
    use serde_json::Value;
    match &hello.session_pubkey {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if auth::is_public_key(text) => {
            Ok(Some(Key::from(text.as_str())))
        }
        Some(_) => Err(bad_session_key()),
    }
}

fn bad_session_key() -> Box<Refusal> {
    Refusal::new("bad_session_pubkey", "sessionPubkey must be 64 lowercase hex chars")
}

pub(super) fn check_session_proofs(hello: &SessionHello) -> Result<(), Box<Refusal>> {
    if !auth::is_public_key(&hello.session_pubkey) {
        return Err(bad_session_key());
    }
    if !auth::is_public_key(&hello.parent_member_pubkey) {
        return Err(Refusal::new(
            "bad_parent_pubkey",
            "parentMemberPubkey must be 64 lowercase hex chars",
        ));
    }
    let attestation = hello
        .parent_attestation
        .as_ref()
        .filter(|attestation| {
            attestation.session_pubkey == hello.session_pubkey
                && attestation.parent_member_pubkey == hello.parent_member_pubkey
        })
        .ok_or_else(|| {
            Refusal::new("attestation_mismatch", "parentAttestation is not for these two keys")
        })?;
    let now = Timestamp::now();
    let claim = auth::Attestation {
        session_pubkey: &attestation.session_pubkey,
        parent_pubkey: &attestation.parent_member_pubkey,
        expires_at: attestation.expires_at,
        signature: &attestation.signature,
    };
    verify_attestation(claim, now).map_err(|error| Refusal::proof("attestation", error))?;
    let proof = SessionHelloProof {
        mesh_id: &hello.mesh_id,
        parent_pubkey: &hello.parent_member_pubkey,
        session_pubkey: &hello.session_pubkey,
        timestamp: hello.timestamp,
        signature: &hello.signature,
    };
    verify_session_hello(proof, now).map_err(|error| Refusal::proof("session_hello", error))
}

/// A signature is good once in the cluster. Its hex may be spelled in two
/// ways, so its bytes are what counts.
pub(super) async fn use_up(parts: &Parts, signature: &str) -> Result<(), Box<Refusal>> {
    let digest: [u8; 32] = Sha256::digest(signature.to_ascii_lowercase()).into();
    let ttl_ms = u64::try_from(limits::REPLAY_GUARD_MS).unwrap_or(u64::MAX);
    match parts.presence.cluster.use_once(&digest, ttl_ms).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::new("replayed", "this hello was used before; sign a new one")),
        Err(error) => {
            tracing::warn!(%error, "a hello could not be checked for replay");
            Err(Refusal::unavailable())
        }
    }
}

/// As [`admit`], and if nobody knows the key: whoever claimed an invite without one has
/// proven it now, by the hello's signature, and is a member from here on.
pub(super) async fn admit_or_bind(
    parts: &Parts,
    mesh: &MeshId,
    key: &str,
    member: &str,
) -> Result<Option<Box<AdmittedMember>>, Box<Refusal>> {
    if let Some(admitted) = admit(parts, mesh, key, member).await? {
        return Ok(Some(admitted));
    }
    let (id, now) = (MemberId::from(member), Timestamp::now());
    let bind = async || {
        let is_claimed = parts.invites.is_claimed(now, mesh, &id).await?;
        Ok(is_claimed && parts.invites.bind(now, mesh, &id, &Key::from(key)).await?)
    };
    match bind().await {
        Ok(false) => Ok(None),
        Ok(true) => {
            members::changed(&parts.presence, mesh).await;
            admit(parts, mesh, key, member).await
        }
        Err::<_, StoreError>(error) => {
            tracing::warn!(%error, "a first hello could not be checked");
            Err(Refusal::unavailable())
        }
    }
}

pub(super) async fn admit(
    parts: &Parts,
    mesh: &MeshId,
    key: &str,
    member: &str,
) -> Result<Option<Box<AdmittedMember>>, Box<Refusal>> {
    match parts.members.admit(mesh, key, member).await {
        Ok(Admission::Member(admitted)) => Ok(Some(admitted)),
        Ok(Admission::Revoked { mesh_label }) => Err(Refusal::revoked(&mesh_label)),
        Ok(Admission::Unknown) => Ok(None),
        Err(error) => {
            tracing::warn!(%error, "a hello could not be checked");
            Err(Refusal::unavailable())
        }
    }
}
