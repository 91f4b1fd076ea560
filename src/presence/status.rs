//! Idle, working, do not disturb: who may say so, and what follows.
//!
//! [`decide`] alone knows which word counts; `apply_here` makes it so on this node and
//! waits for nobody; [`changes::tell_others`] tells the cluster's directory and the other
//! nodes. What a peer says comes from [`said`](super::said), what its hooks say from
//! [`http`](crate::http) and [`bus`](crate::bus), and [`jobs`](crate::jobs) looks for
//! statuses that nobody keeps up. None of them may write a status by another way.

use std::sync::Arc;

use super::changes;
use crate::clock::Timestamp;
use crate::cluster::LeaseRef;
use crate::config::PresenceConfig;
use crate::delivery::drain;
use crate::id::PresenceId;
use crate::metrics::Flipped;
use crate::presence::Parts;
use crate::protocol::{Priority, Status, StatusSource};
use crate::record::PresenceRecord;
use crate::registry::Room;
use crate::session::Session;
use crate::store::PresenceChange;

/// A status, where it came from, since when.
pub(crate) type Standing = (Status, StatusSource, Timestamp);

/// What is said about a status, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The peer says so itself, or a visitor for it.
    Peer(Status),
    /// A hook of the peer's session says so.
    Hook(Status),
    /// The session's transcript shows it.
    Transcript(Status),
    /// Nobody says anything: somebody looks whether what a hook said still stands.
    Silence,
}

/// What a word makes of what stands; `None`: nothing. A peer's own word always counts
/// and stays until it is changed; a hook's never changes `dnd`, and a transcript's
/// counts only where nobody else has spoken. What a hook said decays in silence; if it was
/// said in the future, as of a clock that has gone back since, it counts as said now, or
/// it would stand until that time comes again.
pub(crate) fn decide(
    stands: Standing,
    word: Word,
    at: Timestamp,
    config: &PresenceConfig,
) -> Option<Standing> {
    let (old, old_source, since) = stands;
    let age_ms = at.ms_since(since);
    let by_hook = old == Status::Working && old_source == StatusSource::Hook;
    let (status, source) = match word {
        Word::Peer(status) => (status, StatusSource::Manual),
        Word::Hook(status) if old != Status::Dnd => (status, StatusSource::Hook),
        Word::Transcript(status) if old_source == StatusSource::Jsonl && old != status => {
            (status, StatusSource::Jsonl)
        }
        Word::Silence if by_hook && age_ms > config.status_ttl_ms => {
            (Status::Idle, StatusSource::Jsonl)
        }
        Word::Silence if by_hook && age_ms < 0 => (old, old_source),
        Word::Hook(_) | Word::Transcript(_) | Word::Silence => return None,
    };
    Some(write(stands, (status, source, at), config.hook_fresh_window_ms))
}

/// A word that counts, over what stands. The same status from a weaker source keeps a
/// fresh stronger one alive, except that what the peer itself says stays until it is
/// changed.
fn write(stands: Standing, (status, source, at): Standing, fresh_ms: i64) -> Standing {
    let (old, old_source, since) = stands;
    let is_weaker = source < old_source && source != StatusSource::Manual;
    let is_fresh = (0..=fresh_ms).contains(&at.ms_since(since));
    let keeps = old == status && is_weaker && is_fresh;
    (status, if keeps { old_source } else { source }, at)
}

/// Puts what a word makes of a record's status into it.
pub(crate) fn rewrite(
    record: &mut PresenceRecord,
    word: Word,
    at: Timestamp,
    config: &PresenceConfig,
) -> Option<Standing> {
    let stands = (record.status, record.status_source, record.status_updated_at);
    let written = decide(stands, word, at, config)?;
    if record.status != written.0 {
        record.status_since = Some(at);
    }
    (record.status, record.status_source, record.status_updated_at) = written;
    Some(written)
}

/// A word about a session here, at once: the record, the row, and the release of what was
/// held, which waits for no other node. `None` if the word makes nothing of what stands
/// at the moment of writing.
fn apply_here(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    word: Word,
    at: Timestamp,
) -> Option<Arc<PresenceRecord>> {
    let mut written = None;
    let record = room.update(session, |record| {
        written = rewrite(record, word, at, &parts.config);
        // With the record: whoever is told of the new status gets nothing by
        // the old one.
        if written.is_some() {
            session.inbox.lock().hold(!record.admits(Priority::Next));
        }
        written.is_some()
    })?;
    changes::note(parts, &record, change_of(&record, written));
    if record.status == Status::Idle {
        drain::request(&parts.delivery, room, session);
    }
    Some(record)
}

/// What the row is to say of a status.
fn change_of(record: &PresenceRecord, written: Option<Standing>) -> PresenceChange {
    let status_since = record.status_since;
    PresenceChange { status: written, status_since, ..PresenceChange::of(record.id.clone()) }
}

/// A word about a session here, and the others are told. What it made of the status;
/// `None` for nothing.
pub(crate) async fn apply(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    word: Word,
    at: Timestamp,
) -> Option<Status> {
    let record = apply_here(parts, room, session, word, at)?;
    changes::tell_others(parts, &session.lease, &record, None).await;
    Some(record.status)
}

/// A hook's word about a presence, by the node that holds its socket.
pub(crate) async fn apply_hook(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    presence: &PresenceId,
    status: Status,
    at: Timestamp,
) {
    if let Some(session) = room.session(presence) {
        apply(parts, room, &session, Word::Hook(status), at).await;
    }
}

/// As [`apply_hook`], heard of by the bus, whose next frames wait for nothing: the others
/// are told by a task of its own.
pub(crate) fn hook_from_bus(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    presence: &PresenceId,
    status: Status,
    at: Timestamp,
) {
    let Some(session) = room.session(presence) else { return };
    if apply_here(parts, room, &session, Word::Hook(status), at).is_none() {
        return;
    }
    let (parts, room) = (Arc::clone(parts), Arc::clone(room));
    let tasks = parts.life.tasks.clone();
    tasks.spawn(async move {
        // As it is by then: two such tasks may run in either order.
        if let Some(record) = room.record(&session.presence) {
            changes::tell_others(&parts, &session.lease, &record, None).await;
        }
    });
}

/// A hook's word about a presence whose socket is gone, for when its session is back.
pub(crate) async fn apply_hook_in_grace(
    parts: &Arc<Parts>,
    mut record: PresenceRecord,
    status: Status,
    at: Timestamp,
) {
    let written = rewrite(&mut record, Word::Hook(status), at, &parts.config);
    if written.is_none() {
        return;
    }
    parts.writer.change(change_of(&record, written));
    if let Some(room) = parts.registry.room(&record.mesh) {
        room.mirror(record.clone());
    }
    // A session that came back meanwhile has a newer epoch, and neither the
    // cluster nor a room takes this record then.
    let PresenceRecord { mesh, id, epoch, .. } = &record;
    let lease = LeaseRef { mesh: mesh.clone(), presence: id.clone(), epoch: *epoch };
    changes::tell_others(parts, &lease, &record, None).await;
}

/// Looks at the sessions here whose status a hook has set: it may have decayed.
pub(crate) async fn decay(parts: &Arc<Parts>) {
    let now = Timestamp::now();
    let mut flipped = false;
    for room in parts.registry.rooms() {
        let mut old = Vec::new();
        room.for_each_session(|session, record| {
            let stands = (record.status, record.status_source, record.status_updated_at);
            if decide(stands, Word::Silence, now, &parts.config).is_some() {
                old.push(Arc::clone(session));
            }
        });
        for session in old {
            let made = apply(parts, &room, &session, Word::Silence, now).await;
            flipped |= made == Some(Status::Idle);
        }
    }
    let flipped = Flipped { flipped: if flipped { "true" } else { "false" } };
    parts.metrics.ttl_sweeps.get_or_create(&flipped).inc();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TranscriptStatus;
    use StatusSource::{Hook, Jsonl, Manual};

    const FRESH_MS: i64 = 30_000;
    const TTL_MS: i64 = 60_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    fn decided(stands: Standing, word: Word, at: Timestamp) -> Option<Standing> {
        let config = PresenceConfig {
            status_ttl_ms: TTL_MS,
            hook_fresh_window_ms: FRESH_MS,
            lease_grace_ms: 0,
            lease_ttl_ms: 0,
            connections_per_mesh_max: 1,
            transcript_status: TranscriptStatus::Off,
        };
        decide(stands, word, at, &config)
    }

    #[test]
    fn a_different_status_wins_whatever_said_it() {
        for source in [Manual, Hook, Jsonl] {
            let idle = decided((Status::Working, source, at(0)), Word::Hook(Status::Idle), at(5));
            assert_eq!(idle, Some((Status::Idle, Hook, at(5))), "{source:?}");
            let dnd = decided((Status::Working, source, at(0)), Word::Peer(Status::Dnd), at(5));
            assert_eq!(dnd, Some((Status::Dnd, Manual, at(5))), "{source:?}");
        }
    }

    #[test]
    fn the_same_status_from_a_weaker_source_keeps_a_fresh_stronger_one() {
        let written = |source, since, word, now| {
            let stands = (Status::Working, source, at(since));
            write(stands, (Status::Working, word, at(now)), FRESH_MS)
        };
        let fresh = written(Hook, 0, Jsonl, FRESH_MS);
        assert_eq!(fresh, (Status::Working, Hook, at(FRESH_MS)));
        let stale = written(Hook, 0, Jsonl, FRESH_MS + 1);
        assert_eq!(stale, (Status::Working, Jsonl, at(FRESH_MS + 1)));
        assert_eq!(written(Hook, 10, Jsonl, 0).1, Jsonl, "a clock that went back keeps nothing");
        assert_eq!(written(Jsonl, 0, Hook, 1).1, Hook);
        assert_eq!(written(Hook, 0, Manual, 1).1, Manual, "the peer's own word");
    }

    #[test]
    fn what_the_peer_says_itself_is_manual_also_while_a_hook_says_the_same() {
        let hook = (Status::Working, Hook, at(0));
        let said = decided(hook, Word::Peer(Status::Working), at(1)).expect("it counts");
        assert_eq!(said, (Status::Working, Manual, at(1)));
        assert_eq!(decided(said, Word::Silence, at(1_000_000)), None);
    }

    #[test]
    fn what_was_said_since_somebody_looked_stands() {
        let now = at(100_000);
        for said in [
            (Status::Dnd, Manual, now),
            (Status::Working, Manual, now),
            (Status::Working, Hook, now),
        ] {
            assert_eq!(decided(said, Word::Silence, now), None, "{said:?}");
            assert_eq!(decided(said, Word::Transcript(Status::Idle), now), None, "{said:?}");
            let by_hook = decided(said, Word::Hook(Status::Working), now);
            assert_eq!(by_hook.is_none(), said.0 == Status::Dnd, "{said:?}");
        }
        let turned = Some((Status::Idle, Jsonl, now));
        assert_eq!(decided((Status::Working, Hook, at(0)), Word::Silence, now), turned);
        let inferred = (Status::Working, Jsonl, at(0));
        assert_eq!(decided(inferred, Word::Transcript(Status::Idle), now), turned);
        assert_eq!(decided(inferred, Word::Transcript(Status::Working), now), None);
    }

    #[test]
    fn what_a_hook_said_decays_also_after_the_clock_went_back() {
        let said = (Status::Working, Hook, at(3_600_000));
        let now = at(1_000);
        let counted = decided(said, Word::Silence, now).expect("it counts as said now");
        assert_eq!(counted, (Status::Working, Hook, now));
        assert_eq!(decided(counted, Word::Silence, now.plus_ms(TTL_MS)), None);
        let late = now.plus_ms(TTL_MS + 1);
        assert_eq!(decided(counted, Word::Silence, late), Some((Status::Idle, Jsonl, late)));
        let manual = (Status::Working, Manual, at(3_600_000));
        assert_eq!(decided(manual, Word::Silence, now), None, "it stands whenever it was said");
    }

    #[test]
    fn a_status_lasts_since_it_became_that_one_however_often_it_is_said() {
        let config = crate::config::Config::for_tests(std::path::Path::new("unused")).presence;
        let mut record = PresenceRecord::new("m".into(), "ada".into(), "key".into(), at(1));
        let mut say = |word, ms| {
            rewrite(&mut record, word, at(ms), &config);
            (record.status, record.status_since)
        };
        assert_eq!(say(Word::Peer(Status::Idle), 2), (Status::Idle, Some(at(1))));
        assert_eq!(say(Word::Hook(Status::Working), 3), (Status::Working, Some(at(3))));
        assert_eq!(say(Word::Hook(Status::Working), 4), (Status::Working, Some(at(3))));
        assert_eq!(say(Word::Peer(Status::Working), 5), (Status::Working, Some(at(3))));
        assert_eq!(say(Word::Silence, 6), (Status::Working, Some(at(3))));
        assert_eq!(say(Word::Peer(Status::Dnd), 7), (Status::Dnd, Some(at(7))));
    }

    #[test]
    fn only_what_a_hook_set_working_decays() {
        let late = at(TTL_MS + 1);
        let idle = Some((Status::Idle, Jsonl, late));
        assert_eq!(decided((Status::Working, Hook, at(0)), Word::Silence, late), idle);
        for stands in [
            (Status::Working, Hook, at(1)),
            (Status::Working, Manual, at(0)),
            (Status::Working, Jsonl, at(0)),
            (Status::Dnd, Hook, at(0)),
            (Status::Idle, Hook, at(0)),
        ] {
            assert_eq!(decided(stands, Word::Silence, late), None, "{stands:?}");
        }
    }
}
