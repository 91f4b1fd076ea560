//! Idle, working, do not disturb: who may say so, and what follows.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::cluster::{BusMessage, LeaseRef, PresenceRecord};
use crate::id::PresenceId;
use crate::metrics::Flipped;
use crate::node::Node;
use crate::protocol::{Status, StatusSource};
use crate::redelivery;
use crate::registry::Room;
use crate::session::Session;
use crate::store::PresenceChange;
use crate::transcript;

use super::presence::change;

/// A status, where it came from, since when.
pub type Standing = (Status, StatusSource, Timestamp);

/// What a new word makes of a status. A different status always wins. The
/// same status from a weaker source keeps a fresh stronger one alive.
#[must_use]
pub fn write(
    current: Standing,
    status: Status,
    source: StatusSource,
    now: Timestamp,
    fresh_ms: i64,
) -> Standing {
    let (old, old_source, since) = current;
    let age_ms = now.ms_since(since);
    let keeps = old == status && source < old_source && (0..=fresh_ms).contains(&age_ms);
    (status, if keeps { old_source } else { source }, now)
}

/// Whether a status that a hook set is too old to stand.
#[must_use]
pub fn has_decayed(current: Standing, now: Timestamp, ttl_ms: i64) -> bool {
    let (status, source, since) = current;
    status == Status::Working && source == StatusSource::Hook && now.ms_since(since) > ttl_ms
}

fn standing(record: &PresenceRecord) -> Standing {
    (record.status, record.status_source, record.status_updated_at)
}

/// Writes a status of a session here; whatever turns it idle lets go of what
/// was held.
pub async fn set(
    node: &Arc<Node>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    status: Status,
    source: StatusSource,
    at: Timestamp,
) {
    let Some(record) = room.record(&session.presence) else { return };
    let fresh_ms = node.config.presence.hook_fresh_window_ms;
    let written = write(standing(&record), status, source, at, fresh_ms);
    let row =
        PresenceChange { status: Some(written), ..PresenceChange::of(session.presence.clone()) };
    let edit = |record: &mut PresenceRecord| {
        (record.status, record.status_source, record.status_updated_at) = written;
        // With the record: whoever is told of the new status gets nothing by
        // the old one.
        session.inbox.lock().hold(status != Status::Idle);
    };
    change(node, room, session, row, edit, |_| None).await;
    if status == Status::Idle {
        redelivery::request(node, room, session);
    }
}

/// A hook's word about a presence, applied by the node that holds it. Never
/// changes `dnd`.
pub async fn apply_hook(
    node: &Arc<Node>,
    room: &Arc<Room>,
    presence: &PresenceId,
    status: Status,
    at: Timestamp,
) {
    let Some(session) = room.session(presence) else { return };
    let Some(record) = room.record(presence) else { return };
    if record.status != Status::Dnd {
        set(node, room, &session, status, StatusSource::Hook, at).await;
    }
}

/// A hook's word about a presence whose socket is gone, for when its session
/// is back. Never changes `dnd`.
pub async fn apply_hook_in_grace(
    node: &Arc<Node>,
    mut record: PresenceRecord,
    status: Status,
    at: Timestamp,
) {
    if record.status == Status::Dnd {
        return;
    }
    let fresh_ms = node.config.presence.hook_fresh_window_ms;
    let written = write(standing(&record), status, StatusSource::Hook, at, fresh_ms);
    (record.status, record.status_source, record.status_updated_at) = written;
    node.journal
        .change(PresenceChange { status: Some(written), ..PresenceChange::of(record.id.clone()) });
    // A session that came back meanwhile has a newer epoch, and neither the
    // cluster nor a room takes this record then.
    let lease =
        LeaseRef { mesh: record.mesh.clone(), presence: record.id.clone(), epoch: record.epoch };
    if let Err(error) = node.cluster.write_record(&lease, &record).await {
        tracing::debug!(%error, presence = %record.id, "a hook's word about a peer away was lost");
    }
    if let Some(room) = node.registry.room(&record.mesh) {
        room.mirror(record.clone());
    }
    let mesh = record.mesh.clone();
    let message = BusMessage::Presence { record: Box::new(record), event: None };
    node.cluster.publish(&mesh, &message);
}

/// Takes over what the transcripts on this machine say of the sessions here
/// about which nobody else has spoken.
pub async fn infer(node: &Arc<Node>) {
    let Some(home) = std::env::home_dir() else { return };
    let stale_ms = node.config.presence.status_ttl_ms;
    for room in node.registry.rooms() {
        for (session, record) in room.sessions() {
            if record.status_source != StatusSource::Jsonl || record.cwd.is_empty() {
                continue;
            }
            let (home, cwd) = (home.clone(), record.cwd.clone());
            let reading =
                tokio::task::spawn_blocking(move || transcript::infer(&home, &cwd, stale_ms));
            if let Ok(Some(status)) = reading.await
                && status != record.status
            {
                let now = Timestamp::now();
                set(node, &room, &session, status, StatusSource::Jsonl, now).await;
            }
        }
    }
}

/// Turns decayed statuses of the sessions here idle.
pub async fn decay(node: &Arc<Node>) {
    let now = Timestamp::now();
    let ttl_ms = node.config.presence.status_ttl_ms;
    let mut flipped = false;
    for room in node.registry.rooms() {
        let mut decayed = Vec::new();
        room.for_each_session(|session, record| {
            if has_decayed(standing(record), now, ttl_ms) {
                decayed.push(Arc::clone(session));
            }
        });
        for session in decayed {
            flipped = true;
            set(node, &room, &session, Status::Idle, StatusSource::Jsonl, now).await;
        }
    }
    let flipped = Flipped { flipped: if flipped { "true" } else { "false" } };
    node.metrics.ttl_sweeps.get_or_create(&flipped).inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH_MS: i64 = 30_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    #[test]
    fn a_different_status_wins_whatever_said_it() {
        let hook = (Status::Working, StatusSource::Hook, at(0));
        let written = write(hook, Status::Idle, StatusSource::Jsonl, at(5), FRESH_MS);
        assert_eq!(written, (Status::Idle, StatusSource::Jsonl, at(5)));
    }

    #[test]
    fn the_same_status_from_a_weaker_source_keeps_a_fresh_stronger_one() {
        let hook = (Status::Working, StatusSource::Hook, at(0));
        let fresh = write(hook, Status::Working, StatusSource::Manual, at(FRESH_MS), FRESH_MS);
        assert_eq!(fresh, (Status::Working, StatusSource::Hook, at(FRESH_MS)));
        let stale = write(hook, Status::Working, StatusSource::Manual, at(FRESH_MS + 1), FRESH_MS);
        assert_eq!(stale, (Status::Working, StatusSource::Manual, at(FRESH_MS + 1)));
        let future = write(
            (Status::Working, StatusSource::Hook, at(10)),
            Status::Working,
            StatusSource::Manual,
            at(0),
            FRESH_MS,
        );
        assert_eq!(future.1, StatusSource::Manual, "a clock that went back keeps nothing");
        let stronger = write(
            (Status::Working, StatusSource::Jsonl, at(0)),
            Status::Working,
            StatusSource::Hook,
            at(1),
            FRESH_MS,
        );
        assert_eq!(stronger.1, StatusSource::Hook);
    }

    #[test]
    fn only_what_a_hook_set_working_decays() {
        let ttl_ms = 60_000;
        let late = at(60_001);
        assert!(has_decayed((Status::Working, StatusSource::Hook, at(0)), late, ttl_ms));
        assert!(!has_decayed((Status::Working, StatusSource::Hook, at(1)), late, ttl_ms));
        assert!(!has_decayed((Status::Working, StatusSource::Manual, at(0)), late, ttl_ms));
        assert!(!has_decayed((Status::Dnd, StatusSource::Hook, at(0)), late, ttl_ms));
    }
}
