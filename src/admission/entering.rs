//! A session that has a place in the mesh and enters it.
//!
//! Up to [`Entering::activate`] nobody delivers to it; from there on everybody may. What
//! fails before gives its place back, and nobody was told of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::place::let_go;
use super::record::{hello_ack, joined, opening};
use super::{Active, Parts, Proven, Refusal, daemon};
use crate::clock::Timestamp;
use crate::cluster::{LeaseRef, Release};
use crate::codec::Codec;
use crate::delivery::drain;
use crate::id::PresenceId;
use crate::presence::status::{self, Word};
use crate::presence::{changes, servers};
use crate::protocol::{CloseReason, Priority, ServerMessage};
use crate::record::PresenceRecord;
use crate::registry::RoomGuard;
use crate::session::inbox::Inbox;
use crate::session::outbox::Outbox;
use crate::session::{Identity, Session};
use crate::store::{EndPresence, Member, PresenceChange};

/// A proven peer, its socket, and the mesh that it enters.
pub(super) struct Entering<'a> {
    pub(super) parts: &'a Arc<Parts>,
    pub(super) codec: Codec,
    pub(super) outbox: &'a Outbox,
    pub(super) room: RoomGuard,
    pub(super) proven: Proven,
}

/// Whether peers know the session that enters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comes {
    Anew,
    /// To the presence that it had, whose earlier socket was there until then.
    Back {
        heard_until: Timestamp,
    },
}

/// From where a session goes on.
#[derive(Default)]
struct Position {
    /// In the mesh's multicasts.
    multicasts: i64,
    /// Whether it tells how far its member is in its topics. Sessions of a daemon do not:
    /// the daemon, which has one inbox for them all, does.
    follows_topics: bool,
    /// Posts after this one of the member's connections has yet to get.
    missed_since: Option<i64>,
}

impl Position {
    /// If the store does not say, posts that were missed wait for the next session.
    async fn of(parts: &Parts, record: &PresenceRecord, multicasts: i64) -> Self {
        if record.is_session_of_daemon() {
            return Self { multicasts, ..Self::default() };
        }
        match parts.topics.missed_since(&record.mesh, &record.member).await {
            Ok(missed_since) => Self { multicasts, follows_topics: true, missed_since },
            Err(error) => {
                tracing::debug!(%error, presence = %record.id, "missed posts stay missed for now");
                Self { multicasts, ..Self::default() }
            }
        }
    }
}

impl Entering<'_> {
    /// A visit: a connection that comes to do one thing. It has a place in the mesh
    /// while its socket is open, and nothing else that a presence has: no row, no audit
    /// rows, no events, no grace. The nodes are told of its key, so that answers find it.
    pub(super) async fn visit(
        self,
        mut record: PresenceRecord,
        lease: LeaseRef,
    ) -> Result<Active, Box<Refusal>> {
        let parts = self.parts;
        note_wishes(parts, &self.proven.admitted.member, &record).await;
        record.epoch = lease.epoch;
        let entered = self.activate(record, lease.clone(), Position::default(), Comes::Anew);
        if entered.is_err() {
            let_go(parts, &lease, Release::Now).await;
        }
        entered
    }

    /// A new presence.
    pub(super) async fn open(
        self,
        mut record: PresenceRecord,
        lease: LeaseRef,
    ) -> Result<Active, Box<Refusal>> {
        let parts = self.parts;
        if parts.presence.life.disk_low.load(Ordering::Relaxed) {
            // A session that comes back writes little; a new one adds to the chain.
            let_go(parts, &lease, Release::Now).await;
            return Err(Refusal::unavailable());
        }
        note_wishes(parts, &self.proven.admitted.member, &record).await;
        apply_pending_status(parts, &mut record).await;
        record.epoch = lease.epoch;
        let opened = opening(&self.proven, &record);
        let position = match parts.presence.writer.open(opened).await {
            Ok(position) => position,
            Err(error) => {
                tracing::warn!(%error, mesh = %record.mesh, "a presence could not be opened");
                let_go(parts, &lease, Release::Now).await;
                return Err(Refusal::unavailable());
            }
        };
        let position = daemon::take_over(parts, &self.room, &record).await.unwrap_or(position);
        record.begins_after = Some(position);
        if !write_back(parts, &lease, &record).await && has_withdrawn(parts, &lease, &record).await
        {
            return Err(Refusal::unavailable());
        }
        let opened = record.clone();
        let position = Position::of(parts, &record, position).await;
        let entered = self.activate(record, lease.clone(), position, Comes::Anew);
        if entered.is_err() {
            has_withdrawn(parts, &lease, &opened).await;
        }
        entered
    }

    /// The same session comes back: same presence, no event.
    pub(super) async fn reattach(
        self,
        mut record: PresenceRecord,
        lease: LeaseRef,
        position: i64,
        heard_until: Timestamp,
    ) -> Result<Active, Box<Refusal>> {
        let parts = self.parts;
        let status = apply_pending_status(parts, &mut record).await;
        if status.is_some() {
            let id = record.id.clone();
            parts.presence.writer.change(PresenceChange { status, ..PresenceChange::of(id) });
        }
        note_wishes(parts, &self.proven.admitted.member, &record).await;
        // Of an earlier life of the node is known only how far it was.
        record.begins_after.get_or_insert(position);
        servers::give_up_displaced(&self.room, &mut record);
        write_back(parts, &lease, &record).await;
        let ending = changes::Ending::of(&record, Some(CloseReason::BAD_SESSION_PUBKEY));
        let position = Position::of(parts, &record, position).await;
        let entered = self.activate(record, lease, position, Comes::Back { heard_until });
        if entered.is_err() {
            let mesh = &ending.record.mesh;
            let removed = changes::remove(&parts.presence, mesh, std::slice::from_ref(&ending));
            if let Err(error) = removed.await {
                tracing::warn!(%error, "a claim of a proven session key waits for the sweep");
            }
        }
        entered
    }

    /// From here on others deliver to it: `hello_ack` is queued first, so that
    /// nothing precedes it.
    ///
    /// # Errors
    ///
    /// It names a session key that somebody else has proven meanwhile, and does not
    /// enter: nobody was told of it.
    fn activate(
        self,
        record: PresenceRecord,
        lease: LeaseRef,
        position: Position,
        comes: Comes,
    ) -> Result<Active, Box<Refusal>> {
        let Self { parts, codec, outbox, room, proven } = self;
        let ack = hello_ack(parts, &proven, &record, comes != Comes::Anew);
        let ack = ServerMessage::HelloAck(Box::new(ack));
        let is_told = comes == Comes::Anew && record.visible && !record.visitor;
        let announcement = is_told.then(|| joined(&proven, &record));
        let mut inbox = Inbox::new(position.multicasts, record.confirms());
        if position.follows_topics {
            inbox.follow_topics(position.missed_since);
        }
        inbox.hold(!record.admits(Priority::Next));
        let identity = Identity {
            mesh: proven.mesh,
            member: proven.admitted.member.id,
            member_key: proven.admitted.member.key,
            session_key: proven.session_key,
            role: proven.role,
            visitor: proven.visitor,
            opens_sealed: record.opens_sealed,
        };
        let budget = parts.rates.session_budget();
        let session = Arc::new(Session::new(identity, lease, codec, outbox.clone(), inbox, budget));
        let greet = || outbox.say(codec.encode(&ack, None));
        let entered = room.attach(record, Arc::clone(&session), greet);
        if entered.is_refused {
            return Err(Refusal::anothers_key());
        }
        if let Some(replaced) = entered.replaced {
            replaced.outbox.close(CloseReason::SESSION_REPLACED);
        }
        changes::end_claims(&parts.presence, &room, entered.claims);
        if let Comes::Back { heard_until } = comes {
            let claim = Duration::from_millis(u64::try_from(parts.claim_ms).unwrap_or(0));
            session.resume(Instant::now() + claim, heard_until);
        }
        if let Some(record) = room.record(&session.presence) {
            changes::publish(&parts.presence, &room, &record, announcement);
        }
        drain::start(&parts.presence.delivery, &room, &session);
        parts.presence.metrics.connections_active.inc();
        parts.presence.metrics.connections.inc();
        Ok(Active { session, room, saved: proven.admitted.saved.map(Box::new) })
    }
}

/// From now on others know what its member can open; and its member is told of what it sent
/// that never comes, if it asks for that.
async fn note_wishes(parts: &Parts, member: &Member, record: &PresenceRecord) {
    if !record.visitor && member.opens_sealed != record.opens_sealed {
        let noted = parts.members.note_opens_sealed(&record.member, record.opens_sealed);
        if let Err(error) = noted.await {
            tracing::debug!(%error, presence = %record.id, "what it opens waits for its next hello");
        }
    }
    if !record.stages {
        return;
    }
    let stages = &parts.presence.delivery.stages;
    if let Err(error) = stages.tell_of_ends(&record.member).await {
        tracing::debug!(%error, presence = %record.id, "what it wishes waits for its next hello");
    }
}

/// Writes the record to the cluster's directory; whether the lease is held, as far
/// as is known.
async fn write_back(parts: &Parts, lease: &LeaseRef, record: &PresenceRecord) -> bool {
    parts.presence.cluster.write_record(lease, record).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "a record waits for its renewal");
        true
    })
}

/// Somebody took the lease while the row of this presence was on its way: another hello
/// of the session, which found no row and has a place of its own, or whoever ended this
/// one. Nobody is told that it came, and its row ends. Not if the other went on with
/// this presence.
async fn has_withdrawn(parts: &Parts, lease: &LeaseRef, record: &PresenceRecord) -> bool {
    let end = EndPresence { node: Some(record.node.clone()), ..changes::ended_row(record, &[]) };
    match parts.presences.end(Timestamp::now(), &[end]).await {
        Ok(ended) if ended.is_empty() => is_over(parts, &record.id).await,
        Ok(_) => {
            let_go(parts, lease, Release::Now).await;
            true
        }
        Err(error) => {
            tracing::warn!(%error, "a presence without a lease waits for the sweep");
            true
        }
    }
}

/// Whether the presence's row has ended, as far as is known.
async fn is_over(parts: &Parts, presence: &PresenceId) -> bool {
    match parts.presences.ended(std::slice::from_ref(presence)).await {
        Ok(over) => !over.is_empty(),
        Err(error) => {
            tracing::debug!(%error, "whether a presence has ended, its renewal tells");
            false
        }
    }
}

/// A hook may have spoken before the session came: what its word made of the status.
async fn apply_pending_status(
    parts: &Parts,
    record: &mut PresenceRecord,
) -> Option<status::Standing> {
    let pending = parts.presence.cluster.take_pending_status(record.pid, &record.cwd).await;
    let word = Word::Hook(pending.ok().flatten()?);
    status::rewrite(record, word, Timestamp::now(), &parts.presence.config)
}
