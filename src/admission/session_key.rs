//! Whose a session key is.

use std::sync::Arc;

use super::{Proven, Refusal};
use crate::admission::Parts;
use crate::clock::Timestamp;
use crate::id::Key;
use crate::limits;
use crate::presence::changes;
use crate::protocol::{CloseReason, PeerRole};
use crate::registry::{Candidate, RoomGuard};

/// A session key in a plain `hello` is a claim. It may not be one that leads
/// to somebody else: mail for it would come here. A proven one takes the place
/// of claims that came before it. What comes between this check and the session's
/// entry, the room sees to (`Room::attach`).
pub(super) async fn check_session_key(
    parts: &Arc<Parts>,
    room: &RoomGuard,
    proven: &Proven,
) -> Result<(), Box<Refusal>> {
    let Some(key) = &proven.session_key else { return Ok(()) };
    let own = &proven.admitted.member.id;
    let others: Vec<_> = room
        .addressed_by(key.as_str())
        .into_iter()
        .filter(|candidate| candidate.record.member != *own)
        .collect();
    if proven.role == PeerRole::Session {
        return end_claims(parts, proven, others).await;
    }
    let of_member = room.member_by_key(key.as_str()).is_some_and(|member| member.id != *own);
    if of_member || !others.is_empty() || remembered_as_anothers(parts, proven, key).await? {
        return Err(Refusal::anothers_key());
    }
    Ok(())
}

async fn remembered_as_anothers(
    parts: &Parts,
    proven: &Proven,
    key: &Key,
) -> Result<bool, Box<Refusal>> {
    let since = Timestamp::now().plus_ms(-limits::SESSION_KEY_MEMORY_MS);
    let known = parts.members.of_session_key(&proven.mesh, key.as_str(), since).await;
    let known = known.map_err(|error| {
        tracing::warn!(%error, "a session key could not be looked up");
        Refusal::unavailable()
    })?;
    Ok(known.is_some_and(|member| member != proven.admitted.member.id))
}

async fn end_claims(
    parts: &Arc<Parts>,
    proven: &Proven,
    others: Vec<Candidate>,
) -> Result<(), Box<Refusal>> {
    let endings: Vec<changes::Ending> = others
        .into_iter()
        .filter(|candidate| candidate.record.role == PeerRole::ControlPlane)
        .map(|candidate| {
            changes::Ending::of(&candidate.record, Some(CloseReason::BAD_SESSION_PUBKEY))
        })
        .collect();
    match changes::remove(&parts.presence, &proven.mesh, &endings).await {
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, "a session key's earlier holder could not be ended");
            Err(Refusal::unavailable())
        }
    }
}
