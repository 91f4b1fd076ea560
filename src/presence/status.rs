//! Idle, working, do not disturb: who may say so, and what follows.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::cluster::{BusMessage, LeaseRef, PresenceRecord};
use crate::delivery::drain;
use crate::id::PresenceId;
use crate::metrics::Flipped;
use crate::presence::Parts;
use crate::presence::transcript;
use crate::protocol::{Status, StatusSource};
use crate::registry::Room;
use crate::session::Session;
use crate::store::PresenceChange;

use super::changes;

/// A status, where it came from, since when.
pub type Standing = (Status, StatusSource, Timestamp);

/// What a new word makes of a status. A different status always wins. The
/// same status from a weaker source keeps a fresh stronger one alive, except
/// that what the peer itself says stays until it is changed.
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
    let weaker = source < old_source && source != StatusSource::Manual;
    let keeps = old == status && weaker && (0..=fresh_ms).contains(&age_ms);
    (status, if keeps { old_source } else { source }, now)
}

/// Whether a status that a hook set is too old to stand.
#[must_use]
pub fn has_decayed(current: Standing, now: Timestamp, ttl_ms: i64) -> bool {
    decays(current) && now.ms_since(current.2) > ttl_ms
}

/// Whether it was said in the future, as of a clock that has gone back since: it
/// counts as said now, or it would stand until that time comes again.
#[must_use]
pub fn is_of_the_future(current: Standing, now: Timestamp) -> bool {
    decays(current) && now.ms_since(current.2) < 0
}

fn decays((status, source, _): Standing) -> bool {
    status == Status::Working && source == StatusSource::Hook
}

/// Whether a transcript's word changes what stands: nobody else has spoken.
fn may_infer((old, source, _): Standing, status: Status) -> bool {
    source == StatusSource::Jsonl && old != status
}

fn standing(record: &PresenceRecord) -> Standing {
    (record.status, record.status_source, record.status_updated_at)
}

/// One word about a status.
#[derive(Clone, Copy, Debug)]
struct Word {
    status: Status,
    source: StatusSource,
    at: Timestamp,
}

/// Whatever turns a session here idle lets go of what was held.
pub async fn set(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    status: Status,
    source: StatusSource,
    at: Timestamp,
) {
    set_if(parts, room, session, Word { status, source, at }, |_| true).await;
}

/// As [`set`], if what stands at the moment of writing lets it: it may have
/// changed since the caller looked. Whether it did.
async fn set_if(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    word: Word,
    lets: impl FnOnce(Standing) -> bool,
) -> bool {
    let Some(record) = write_if(parts, room, session, word, lets) else { return false };
    changes::spread(parts, room, session, &record, None).await;
    true
}

/// What of it happens at once: the record here, the journal, and the release of
/// what was held, which waits for no other node.
fn write_if(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    word: Word,
    lets: impl FnOnce(Standing) -> bool,
) -> Option<Arc<PresenceRecord>> {
    let fresh_ms = parts.config.hook_fresh_window_ms;
    let record = room.update(session, |record| {
        let Some(written) = rewrite(standing(record), word, fresh_ms, lets) else { return false };
        (record.status, record.status_source, record.status_updated_at) = written;
        // With the record: whoever is told of the new status gets nothing by
        // the old one.
        session.inbox.lock().hold(word.status != Status::Idle);
        true
    })?;
    let written = Some(standing(&record));
    let change = PresenceChange { status: written, ..PresenceChange::of(record.id.clone()) };
    changes::note(parts, &record, change);
    if word.status == Status::Idle {
        drain::request(&parts.delivery, room, session);
    }
    Some(record)
}

/// What a word makes of what stands, if that lets it.
fn rewrite(
    current: Standing,
    word: Word,
    fresh_ms: i64,
    lets: impl FnOnce(Standing) -> bool,
) -> Option<Standing> {
    let Word { status, source, at } = word;
    lets(current).then(|| write(current, status, source, at, fresh_ms))
}

fn is_not_dnd((status, ..): Standing) -> bool {
    status != Status::Dnd
}

/// A hook's word about a presence, applied by the node that holds it. Never
/// changes `dnd`.
pub async fn apply_hook(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    presence: &PresenceId,
    status: Status,
    at: Timestamp,
) {
    let Some(session) = room.session(presence) else { return };
    let word = Word { status, source: StatusSource::Hook, at };
    set_if(parts, room, &session, word, is_not_dnd).await;
}

/// As [`apply_hook`], heard of by the bus, whose next frames wait for nothing:
/// the rest of the cluster is told by a task of its own.
pub fn hook_from_bus(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    presence: &PresenceId,
    status: Status,
    at: Timestamp,
) {
    let Some(session) = room.session(presence) else { return };
    let word = Word { status, source: StatusSource::Hook, at };
    if write_if(parts, room, &session, word, is_not_dnd).is_none() {
        return;
    }
    let (parts, room) = (Arc::clone(parts), Arc::clone(room));
    let tasks = parts.life.tasks.clone();
    tasks.spawn(async move {
        // As it is by then: two such tasks may run in either order.
        if let Some(record) = room.record(&session.presence) {
            changes::spread(&parts, &room, &session, &record, None).await;
        }
    });
}

/// A hook's word about a presence whose socket is gone, for when its session
/// is back. Never changes `dnd`.
pub async fn apply_hook_in_grace(
    parts: &Arc<Parts>,
    mut record: PresenceRecord,
    status: Status,
    at: Timestamp,
) {
    if record.status == Status::Dnd {
        return;
    }
    let fresh_ms = parts.config.hook_fresh_window_ms;
    let written = write(standing(&record), status, StatusSource::Hook, at, fresh_ms);
    (record.status, record.status_source, record.status_updated_at) = written;
    parts
        .writer
        .change(PresenceChange { status: Some(written), ..PresenceChange::of(record.id.clone()) });
    // A session that came back meanwhile has a newer epoch, and neither the
    // cluster nor a room takes this record then.
    let lease =
        LeaseRef { mesh: record.mesh.clone(), presence: record.id.clone(), epoch: record.epoch };
    if let Err(error) = parts.cluster.write_record(&lease, &record).await {
        tracing::debug!(%error, presence = %record.id, "a hook's word about a peer away was lost");
    }
    if let Some(room) = parts.registry.room(&record.mesh) {
        room.mirror(record.clone());
    }
    let mesh = record.mesh.clone();
    let message = BusMessage::Presence { record: Box::new(record), event: None };
    parts.cluster.publish(&mesh, &message);
}

/// Takes over what the transcripts on this machine say of the sessions here
/// about which nobody else has spoken.
pub async fn infer(parts: &Arc<Parts>) {
    let Some(home) = std::env::home_dir() else { return };
    let stale_ms = parts.config.status_ttl_ms;
    for room in parts.registry.rooms() {
        for (session, record) in room.sessions() {
            let others_spoke = record.status_source != StatusSource::Jsonl;
            if others_spoke || record.cwd.is_empty() || record.visitor {
                continue;
            }
            let (home, cwd) = (home.clone(), record.cwd.clone());
            let reading =
                tokio::task::spawn_blocking(move || transcript::infer(&home, &cwd, stale_ms));
            if let Ok(Some(status)) = reading.await {
                let (source, at) = (StatusSource::Jsonl, Timestamp::now());
                let word = Word { status, source, at };
                set_if(parts, &room, &session, word, |standing| may_infer(standing, status)).await;
            }
        }
    }
}

/// Turns decayed statuses of the sessions here idle.
pub async fn decay(parts: &Arc<Parts>) {
    let now = Timestamp::now();
    let ttl_ms = parts.config.status_ttl_ms;
    let mut flipped = false;
    for room in parts.registry.rooms() {
        let (mut decayed, mut ahead) = (Vec::new(), Vec::new());
        room.for_each_session(|session, record| {
            if has_decayed(standing(record), now, ttl_ms) {
                decayed.push(Arc::clone(session));
            } else if is_of_the_future(standing(record), now) {
                ahead.push(Arc::clone(session));
            }
        });
        for session in ahead {
            let lets = |standing| is_of_the_future(standing, now);
            let word = Word { status: Status::Working, source: StatusSource::Hook, at: now };
            set_if(parts, &room, &session, word, lets).await;
        }
        let word = Word { status: Status::Idle, source: StatusSource::Jsonl, at: now };
        for session in decayed {
            let lets = |standing| has_decayed(standing, now, ttl_ms);
            flipped |= set_if(parts, &room, &session, word, lets).await;
        }
    }
    let flipped = Flipped { flipped: if flipped { "true" } else { "false" } };
    parts.metrics.ttl_sweeps.get_or_create(&flipped).inc();
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
        let fresh = write(hook, Status::Working, StatusSource::Jsonl, at(FRESH_MS), FRESH_MS);
        assert_eq!(fresh, (Status::Working, StatusSource::Hook, at(FRESH_MS)));
        let stale = write(hook, Status::Working, StatusSource::Jsonl, at(FRESH_MS + 1), FRESH_MS);
        assert_eq!(stale, (Status::Working, StatusSource::Jsonl, at(FRESH_MS + 1)));
        let future = write(
            (Status::Working, StatusSource::Hook, at(10)),
            Status::Working,
            StatusSource::Jsonl,
            at(0),
            FRESH_MS,
        );
        assert_eq!(future.1, StatusSource::Jsonl, "a clock that went back keeps nothing");
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
    fn what_the_peer_says_itself_is_manual_also_while_a_hook_says_the_same() {
        let hook = (Status::Working, StatusSource::Hook, at(0));
        let written = write(hook, Status::Working, StatusSource::Manual, at(1), FRESH_MS);
        assert_eq!(written, (Status::Working, StatusSource::Manual, at(1)));
        assert!(!has_decayed(written, at(1_000_000), 1));
    }

    #[test]
    fn what_was_said_since_somebody_looked_stands() {
        let now = at(100_000);
        let idle = Word { status: Status::Idle, source: StatusSource::Jsonl, at: now };
        let hook = Word { status: Status::Working, source: StatusSource::Hook, at: now };
        let decays = |standing| has_decayed(standing, now, 60_000);
        let infers = |standing| may_infer(standing, Status::Idle);
        for said in [
            (Status::Dnd, StatusSource::Manual, now),
            (Status::Working, StatusSource::Manual, now),
            (Status::Working, StatusSource::Hook, now),
        ] {
            assert_eq!(rewrite(said, idle, FRESH_MS, decays), None, "{said:?}");
            assert_eq!(rewrite(said, idle, FRESH_MS, infers), None, "{said:?}");
            let by_hook = rewrite(said, hook, FRESH_MS, is_not_dnd);
            assert_eq!(by_hook.is_none(), said.0 == Status::Dnd, "{said:?}");
        }
        let old = (Status::Working, StatusSource::Hook, at(0));
        let turned = Some((Status::Idle, StatusSource::Jsonl, now));
        assert_eq!(rewrite(old, idle, FRESH_MS, decays), turned);
        let inferred = (Status::Working, StatusSource::Jsonl, at(0));
        assert_eq!(rewrite(inferred, idle, FRESH_MS, infers), turned);
    }

    #[test]
    fn what_a_hook_said_decays_also_after_the_clock_went_back() {
        let ttl_ms = 60_000;
        let said = (Status::Working, StatusSource::Hook, at(3_600_000));
        let now = at(1_000);
        assert!(is_of_the_future(said, now) && !has_decayed(said, now, ttl_ms));
        let counted = write(said, Status::Working, StatusSource::Hook, now, FRESH_MS);
        assert_eq!(counted, (Status::Working, StatusSource::Hook, now));
        assert!(has_decayed(counted, now.plus_ms(ttl_ms + 1), ttl_ms));
        let manual = (Status::Working, StatusSource::Manual, at(3_600_000));
        assert!(!is_of_the_future(manual, now), "it stands whenever it was said");
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
