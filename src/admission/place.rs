//! A place in the mesh for a session that has proven who it is.

use std::sync::Arc;

use serde_json::json;

use super::record::new_record;
use super::{Proven, Refusal};
use crate::admission::Parts;
use crate::clock::Timestamp;
use crate::cluster::{Acquired, LeaseRef, Release};
use crate::id::MeshId;
use crate::presence::changes;
use crate::protocol::{CloseReason, WebhookEvent};
use crate::record::PresenceRecord;
use crate::registry::RoomGuard;
use crate::store::ReattachPresence;

/// Leases that one hello finds without a presence of its own behind them, each of
/// them another hello's that came between. More: the peer is asked to come again.
const ENDED_LEASES_MAX: usize = 3;

/// A place in the mesh: for a new presence, or that of the session's own.
pub(super) enum Place {
    Visit {
        record: Box<PresenceRecord>,
        lease: LeaseRef,
    },
    New {
        record: Box<PresenceRecord>,
        lease: LeaseRef,
    },
    Kept {
        record: Box<PresenceRecord>,
        lease: LeaseRef,
        position: i64,
        /// Until when its earlier socket was there.
        heard_until: Timestamp,
    },
}

/// Takes a place. Where peers were told that the session's presence left, while
/// its lease is still there, the session comes back as another presence: whoever
/// ended it may be about to revoke that lease.
pub(super) async fn acquire(
    parts: &Arc<Parts>,
    room: &RoomGuard,
    proven: &Proven,
) -> Result<Place, Box<Refusal>> {
    let cap = parts.presence.config.connections_per_mesh_max;
    for _ in 0..ENDED_LEASES_MAX {
        let record = new_record(parts, proven);
        let acquired = parts.presence.cluster.acquire(&record, cap).await.map_err(|error| {
            tracing::warn!(%error, mesh = %proven.mesh, "a lease could not be taken");
            Refusal::unavailable()
        })?;
        let (lease, old) = match acquired {
            Acquired::New { lease, yielded } => {
                end_yielded(parts, &proven.mesh, &yielded).await;
                let record = Box::new(record);
                return Ok(if proven.visitor {
                    Place::Visit { record, lease }
                } else {
                    Place::New { record, lease }
                });
            }
            Acquired::Reattached { lease, record } => (lease, *record),
            Acquired::AtCapacity { current, retry_after_ms } => {
                parts.presence.metrics.leases_denied.inc();
                let noted = &parts.presence.delivery.noted;
                noted.note(
                    &proven.mesh,
                    WebhookEvent::Capacity,
                    "capacity",
                    || json!({ "limit": cap, "current": current }),
                );
                return Err(Refusal::at_capacity(cap, current, retry_after_ms));
            }
        };
        if !old.is_same_peer(&record) {
            // Whoever wrote that, it is not this session's: that ends by itself.
            tracing::warn!(mesh = %proven.mesh, "a lease led to somebody else's record");
            let_go(parts, &lease, Release::Now).await;
            continue;
        }
        let heard_until = if old.online { Timestamp::now() } else { old.last_seen_at };
        let record = refreshed(record, proven, old, &lease);
        if proven.visitor {
            // An older socket of the same key is open, or its node is dead.
            return Ok(Place::Visit { record: Box::new(record), lease });
        }
        match resume(parts, room, &record).await {
            Ok(Some(position)) => {
                parts.presence.metrics.leases_reattached.inc();
                let record = Box::new(record);
                return Ok(Place::Kept { record, lease, position, heard_until });
            }
            Ok(None) => let_go(parts, &lease, Release::Now).await,
            Err(error) => {
                tracing::warn!(%error, "a presence could not be resumed");
                let_go(parts, &lease, Release::Grace).await;
                return Err(Refusal::unavailable());
            }
        }
    }
    Err(Refusal::unavailable())
}

/// Gives a lease back.
pub(super) async fn let_go(parts: &Parts, lease: &LeaseRef, how: Release) {
    if let Err(error) = parts.presence.cluster.release(lease, how).await {
        tracing::warn!(%error, "a lease stays until it expires");
    }
}

async fn end_yielded(parts: &Arc<Parts>, mesh: &MeshId, yielded: &[PresenceRecord]) {
    if yielded.is_empty() {
        return;
    }
    parts.presence.metrics.leases_yielded.inc_by(yielded.len() as u64);
    let close = Some(CloseReason::TRY_AGAIN_LATER);
    let endings: Vec<_> = yielded.iter().map(|record| changes::Ending::of(record, close)).collect();
    if let Err(error) = changes::end(&parts.presence, mesh, &endings).await {
        // Their rows stay open without a lease: the sweep for such ends them.
        tracing::warn!(%error, %mesh, "presences that yielded could not be ended yet");
    }
}

/// What a session says of itself when it comes back, over what was known of it. Who
/// it is, its proof says.
fn refreshed(
    fresh: PresenceRecord,
    proven: &Proven,
    old: PresenceRecord,
    lease: &LeaseRef,
) -> PresenceRecord {
    let PresenceRecord { mesh, member, member_key, session_key, role, .. } = fresh;
    let named = proven.about.display_name.as_deref().is_some_and(|name| !name.is_empty());
    PresenceRecord {
        id: lease.presence.clone(),
        mesh,
        member,
        member_key,
        session_key,
        role,
        display_name: if named { fresh.display_name } else { old.display_name.clone() },
        session_id: fresh.session_id,
        cwd: fresh.cwd,
        pid: fresh.pid,
        hostname: fresh.hostname.or(old.hostname.clone()),
        peer_type: fresh.peer_type.or(old.peer_type.clone()),
        channel: fresh.channel.or(old.channel.clone()),
        model: fresh.model.or(old.model.clone()),
        last_seen_at: fresh.last_seen_at,
        node: fresh.node,
        epoch: lease.epoch,
        online: true,
        client_mark: fresh.client_mark,
        stages: fresh.stages,
        holds: fresh.holds,
        ..old
    }
}

/// Where the presence's multicasts go on, or that it has ended. What an older
/// socket here is done with is written first, so that nothing is delivered again.
pub(super) async fn resume(
    parts: &Parts,
    room: &RoomGuard,
    record: &PresenceRecord,
) -> crate::store::Result<Option<i64>> {
    let older = room.session(&record.id);
    if let Some(older) = &older {
        parts.confirmations.settle(&*parts.mail, older).await?;
    }
    let here = older.map_or(0, |older| older.inbox.lock().position());
    let about = ReattachPresence {
        session_id: Some(record.session_id.clone()),
        cwd: record.cwd.clone(),
        pid: record.pid,
        display_name: Some(record.display_name.clone()),
        node: record.node.clone(),
        member: Some(record.member.clone()),
    };
    let position = parts.presences.reattach(Timestamp::now(), &record.id, &about).await?;
    Ok(position.map(|position| position.max(here)))
}
