//! Presences by the clock: the leases of those whose sockets are here stay alive, and
//! a presence that nobody came back to ends, once in the cluster.
//!
//! Nothing here opens a presence, and nothing ends one whose lease is held. The clock
//! of [`jobs`](super) calls, and [`app`](crate::app) once before the node serves.

use std::collections::HashMap;
use std::sync::Arc;

use super::STALE_MS;
use crate::clock::Timestamp;
use crate::cluster::{Cluster, ClusterHealth, HeldLease, PresenceRecord};
use crate::id::MeshId;
use crate::limits;
use crate::presence::{self, changes};
use crate::protocol::CloseReason;
use crate::store::{OpenPresenceState, PresenceSearch, StoredPresence};

/// Presences that one tick takes out.
const REAP_MAX: usize = 500;

/// Renews the leases of all sockets here, in one call whatever their meshes;
/// those taken over elsewhere close.
pub(super) async fn renew(parts: &presence::Parts) {
    let mut held = Vec::new();
    let mut sessions = HashMap::new();
    for room in parts.registry.rooms() {
        for (session, record) in room.sessions() {
            held.push(HeldLease { lease: session.lease.clone(), record });
            sessions.insert(session.lease.clone(), session);
        }
    }
    if held.is_empty() {
        return;
    }
    match parts.cluster.renew(&held).await {
        Ok(taken_over) => {
            for lease in &taken_over {
                if let Some(session) = sessions.get(lease) {
                    session.outbox.close(CloseReason::SESSION_REPLACED);
                }
            }
        }
        Err(error) => tracing::debug!(%error, "leases wait for their renewal"),
    }
}

/// Ends presences that nobody came back to.
pub(super) async fn reap(parts: &Arc<presence::Parts>) {
    let reaped = match parts.cluster.reap(REAP_MAX).await {
        Ok(reaped) => reaped,
        Err(error) => return tracing::debug!(%error, "nothing could be reaped"),
    };
    parts.metrics.leases_reaped.inc_by(reaped.len() as u64);
    let mut by_mesh: HashMap<MeshId, Vec<changes::Ending>> = HashMap::new();
    for record in reaped {
        let mesh = record.mesh.clone();
        let close = Some(CloseReason::DISCONNECTED);
        by_mesh.entry(mesh).or_default().push(changes::Ending { record, close, audit: Vec::new() });
    }
    for (mesh, endings) in by_mesh {
        if let Err(error) = changes::end(parts, &mesh, &endings).await {
            // Back into grace: they are reaped again when the store answers.
            tracing::warn!(%error, "presences could not be ended yet");
            let records: Vec<_> = endings.into_iter().map(|ending| ending.record).collect();
            if let Err(error) = parts.cluster.adopt(&records).await {
                tracing::debug!(%error, "the sweep for stale rows will find them");
            }
        }
    }
}

/// Presences that the store lists and no lease holds (this node's earlier
/// life, or a shared state that was lost) get their grace now: their sessions
/// may come back to the same presence, and those that do not leave once.
///
/// A cluster that is away does not keep the node from starting: the sweep for
/// stale rows comes back to them.
pub(crate) async fn resume(search: &dyn PresenceSearch, cluster: &dyn Cluster) {
    let now = Timestamp::now();
    // A single node's rows are all its own; in a cluster, others' are fresh.
    let before = match cluster.health() {
        ClusterHealth::Single => now.plus_ms(1),
        ClusterHealth::Up | ClusterHealth::Degraded => now.plus_ms(-STALE_MS),
    };
    if let Err(error) = adopt_unheard(search, cluster, before).await {
        tracing::warn!(%error, "presences of an earlier life wait for the next sweep");
    }
}

async fn adopt_unheard(
    search: &dyn PresenceSearch,
    cluster: &dyn Cluster,
    before: Timestamp,
) -> anyhow::Result<()> {
    let stored = search.unheard(before).await?;
    let records: Vec<PresenceRecord> = stored.into_iter().map(record_of).collect();
    if !records.is_empty() {
        cluster.adopt(&records).await?;
    }
    Ok(())
}

/// Rows that no lease stands behind any more.
pub(super) async fn adopt_stale(search: &dyn PresenceSearch, cluster: &dyn Cluster) {
    let before = Timestamp::now().plus_ms(-STALE_MS);
    if let Err(error) = adopt_unheard(search, cluster, before).await {
        tracing::debug!(%error, "stale presences wait");
    }
}

fn record_of(stored: StoredPresence) -> PresenceRecord {
    let StoredPresence { opened, member_key, member_name, connected_at, last_ping_at } = stored;
    let OpenPresenceState { about, status: (status, status_source, status_updated_at), .. } =
        opened;
    PresenceRecord {
        id: opened.id,
        mesh: opened.mesh,
        member: opened.member,
        member_key,
        session_key: opened.session_key,
        role: opened.role,
        session_id: about.session_id,
        display_name: about.display_name.unwrap_or(member_name),
        status,
        status_source,
        status_updated_at,
        summary: opened.summary,
        groups: opened.groups,
        connected_at,
        last_seen_at: last_ping_at,
        cwd: about.cwd,
        pid: about.pid,
        hostname: about.hostname,
        peer_type: about.peer_type,
        channel: about.channel,
        model: about.model,
        stats: opened.stats,
        visible: opened.visible,
        profile: opened.profile,
        node: opened.node.unwrap_or_default(),
        epoch: 0,
        online: false,
        visitor: false,
        has_confirmed: false,
        begins_after: None,
    }
}

/// Says in the store that the presences here were heard of; so many at once
/// that nobody else waits for long.
pub(super) async fn touch(parts: &presence::Parts) {
    let mut presences = Vec::new();
    for room in parts.registry.rooms() {
        room.for_each_session(|session, record| {
            // Visitors have no row.
            presences.extend((!record.visitor).then(|| session.presence.clone()));
        });
    }
    for batch in presences.chunks(limits::PRESENCE_BATCH_MAX) {
        if let Err(error) = parts.presences.touch(Timestamp::now(), batch).await {
            return tracing::debug!(%error, "presences are touched later");
        }
    }
}
