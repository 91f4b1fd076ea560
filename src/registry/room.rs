//! One mesh as this node sees it: its presences, and the sessions whose sockets are here.

mod adoption;
mod dial;
mod members;
mod multicasts;
mod rosters;
mod servers;
mod shared;
mod state;
mod streams;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use self::adoption::Adoption;
use self::dial::Dial;
pub use self::servers::Hosted;
use super::directory::{Directory, Entry};
use super::order::Order;
use super::reading::{Heard, Readings};
use super::told::Told;
use crate::clock::Timestamp;
use crate::cluster::Multicast;
use crate::id::{Key, MemberId, MeshId, PresenceId, TopicId};
use crate::protocol::{PeerRole, SealingPolicy};
use crate::record::PresenceRecord;
use crate::session::Session;
use crate::store::{Member, Roster};

/// A mesh that this node serves.
pub struct Room {
    mesh: MeshId,
    state: RwLock<State>,
    /// Reads of members that have begun on this node.
    reads: Arc<AtomicU64>,
    /// Set while it is found out whether a record that did not fit the members
    /// does so after all.
    doubts: AtomicBool,
    /// Messages that this node accepted in it since it was entered.
    accepted: AtomicU64,
    /// Deliveries that this node wrote to its sockets.
    delivered: AtomicU64,
    /// Locked before `state` and before any inbox.
    multicasts: Mutex<Order<Multicast>>,
    /// The mesh's simulation clock. Locked before `state` and before any outbox.
    dial: Mutex<Dial>,
    /// When the store was last known to be no further back than what is believed
    /// of it here.
    seqs_known_ms: AtomicI64,
    /// Set while that is looked at.
    looks: AtomicBool,
    /// Who is in the topics that were posted to of late. Locked with no other.
    rosters: Mutex<HashMap<TopicId, Arc<Roster>>>,
    /// The looking for posts of other programs. Locked with no other.
    adoption: Mutex<Adoption>,
    /// What the sessions here were told of shared things. Locked before `state`.
    told: Mutex<Told>,
    /// Changes when a post may have come.
    posts: watch::Sender<()>,
    /// How often it was asked to read what changed since the last reading began.
    catch_ups: AtomicU64,
}

#[derive(Default)]
struct State {
    directory: Directory,
    readings: Readings,
    members: HashMap<MemberId, Arc<Member>>,
    member_by_key: HashMap<Key, MemberId>,
    members_read: u64,
    /// What the mesh asks of messages to many.
    sealing: SealingPolicy,
    /// Members that a hello read by itself since then, and which read that was.
    /// No more than there are members.
    read_alone: HashMap<MemberId, u64>,
}

/// What follows from a presence that enters the room or is heard of.
#[derive(Default)]
pub struct Entered {
    /// A session whose socket must close because a newer one of the same session
    /// took its place.
    pub replaced: Option<Arc<Session>>,
    /// Other members' claims of its session key, which it has proven: they are out
    /// of the room, and the caller ends them.
    pub claims: Vec<Candidate>,
    /// It is not in the room. A session of this node: it claims a key that is
    /// another member's. A record: it is of another mesh, or its key is not its
    /// member's.
    pub is_refused: bool,
    /// A presence of another node that was heard of.
    pub change: Option<Change>,
}

/// A presence of another node, and what the room knew of it before.
pub struct Change {
    /// What was known.
    pub was: Option<Arc<PresenceRecord>>,
    /// What is known now.
    pub is: Arc<PresenceRecord>,
}

/// What follows from a reading of the directory.
#[derive(Default)]
pub struct Caught {
    /// Sessions here that claim a key which somebody else has proven.
    pub claims: Vec<Candidate>,
    /// Presences of other nodes that host servers, or did, and are otherwise than the room
    /// had heard.
    pub hosts: Vec<Change>,
}

impl Entered {
    fn refused() -> Self {
        Self { is_refused: true, ..Self::default() }
    }
}

/// A reading of the mesh's directory that is under way: what the room hears
/// while it lasts is kept from being undone by it.
pub struct Reading {
    room: Arc<Room>,
    number: u64,
}

impl Reading {
    /// Takes over what the cluster's directory said: sessions here stay, and so
    /// does what was heard meanwhile; the rest is as it says.
    pub fn finish(self, records: Vec<PresenceRecord>) -> Caught {
        self.room.state.write().take_over(&self.room.mesh, self.number, records)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.room.state.write().readings.end();
    }
}

/// A presence that a key addresses.
#[derive(Clone)]
pub struct Candidate {
    /// What the directory says of it.
    pub record: Arc<PresenceRecord>,
    /// The presence's session, if its socket is here.
    pub session: Option<Arc<Session>>,
}

impl From<&Entry> for Candidate {
    fn from(entry: &Entry) -> Self {
        Self { record: Arc::clone(&entry.record), session: entry.session.clone() }
    }
}

impl Room {
    /// A room that has yet to be read.
    pub(crate) fn new(mesh: MeshId, reads: Arc<AtomicU64>) -> Self {
        Self {
            mesh,
            state: RwLock::default(),
            reads,
            doubts: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            multicasts: Mutex::new(Order::after(0)),
            dial: Mutex::default(),
            seqs_known_ms: AtomicI64::new(Timestamp::now().as_ms()),
            looks: AtomicBool::new(false),
            rosters: Mutex::default(),
            adoption: Mutex::default(),
            told: Mutex::default(),
            posts: watch::Sender::new(()),
            catch_ups: AtomicU64::new(0),
        }
    }

    /// The room's mesh.
    #[must_use]
    pub fn mesh(&self) -> &MeshId {
        &self.mesh
    }

    // --- traffic, for those who look -----------------------------------------

    /// Counts a message that was accepted here.
    pub fn note_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// Deliveries were written to sockets here.
    pub fn note_delivered(&self, deliveries: u64) {
        self.delivered.fetch_add(deliveries, Ordering::Relaxed);
    }

    /// Messages accepted and deliveries written here since the room was
    /// entered.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        (self.accepted.load(Ordering::Relaxed), self.delivered.load(Ordering::Relaxed))
    }

    // --- sessions of this node --------------------------------------------

    /// A session's socket is open here; `greet` runs before anybody can deliver
    /// to it. The socket that must close is an older one, or this one if a newer
    /// holding of the lease was faster.
    pub fn attach(
        &self,
        record: PresenceRecord,
        session: Arc<Session>,
        greet: impl FnOnce(),
    ) -> Entered {
        let mut state = self.state.write();
        if state.claims_anothers_key(&record) {
            return Entered::refused();
        }
        greet();
        let here = state.directory.get(&session.presence).and_then(|entry| entry.session.as_ref());
        if here.is_some_and(|here| here.lease.epoch > session.lease.epoch) {
            return Entered { replaced: Some(session), ..Entered::default() };
        }
        let claims = state.end_claims(&record);
        let replaced = state.directory.put(Arc::new(record), Some(session));
        Entered { replaced, claims, is_refused: false, change: None }
    }

    /// A session's socket is gone. `None` if another holding of the lease, or
    /// its end, came first: then there is nothing to do.
    pub fn detach(&self, session: &Session) -> Option<Arc<PresenceRecord>> {
        let mut state = self.state.write();
        let entry = state.directory.get(&session.presence)?;
        let own = entry.session.as_ref()?;
        if own.lease.epoch != session.lease.epoch {
            return None;
        }
        let mut record = PresenceRecord::clone(&entry.record);
        record.online = false;
        record.last_seen_at = session.last_heard();
        let record = Arc::new(record);
        state.readings.note(&session.presence, Heard::Is(Arc::clone(&record)));
        state.directory.put(Arc::clone(&record), None);
        Some(record)
    }

    /// Changes the record of a session of this node, unless `change` finds that
    /// it must stay as it is and says `false`.
    pub fn update(
        &self,
        session: &Session,
        change: impl FnOnce(&mut PresenceRecord) -> bool,
    ) -> Option<Arc<PresenceRecord>> {
        let mut state = self.state.write();
        let entry = state.directory.get(&session.presence)?;
        let own = entry.session.clone()?;
        if own.lease.epoch != session.lease.epoch {
            return None;
        }
        let mut record = PresenceRecord::clone(&entry.record);
        if !change(&mut record) {
            return None;
        }
        let record = Arc::new(record);
        state.directory.put(Arc::clone(&record), Some(own));
        Some(record)
    }

    /// Whether something of other nodes may have been missed, and was not read again yet.
    #[must_use]
    pub(crate) fn is_behind(&self) -> bool {
        self.state.read().readings.is_behind()
    }

    /// The session of that presence, if its socket is here.
    #[must_use]
    pub fn session(&self, presence: &PresenceId) -> Option<Arc<Session>> {
        self.state.read().directory.get(presence).and_then(|entry| entry.session.clone())
    }

    /// Every session whose socket is here, with its record.
    #[must_use]
    pub fn sessions(&self) -> Vec<(Arc<Session>, Arc<PresenceRecord>)> {
        let state = self.state.read();
        state
            .directory
            .entries()
            .filter_map(|entry| Some((entry.session.clone()?, Arc::clone(&entry.record))))
            .collect()
    }

    /// Calls `visit` for every session whose socket is here, under the lock:
    /// it must be quick and must not come back to this room.
    pub fn for_each_session(&self, mut visit: impl FnMut(&Arc<Session>, &PresenceRecord)) {
        let state = self.state.read();
        for entry in state.directory.entries() {
            if let Some(session) = &entry.session {
                visit(session, &entry.record);
            }
        }
    }

    /// How many presences the mesh has, in grace too.
    #[must_use]
    pub fn presences(&self) -> usize {
        self.state.read().directory.len()
    }

    /// How many sockets are here.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.state.read().directory.sessions()
    }

    // --- the mirrored directory -------------------------------------------

    /// Another node says how a presence is now. Older epochs are ignored; a
    /// newer one than a session's here replaces that session. One that is not
    /// known and has no socket has ended since, and is not brought back. Who
    /// somebody is, the store says: a record that does not fit its members is
    /// refused, and one that claims a key which somebody else has proven is not
    /// listened to.
    pub fn mirror(&self, record: PresenceRecord) -> Entered {
        let mut state = self.state.write();
        let record = Arc::new(record);
        if !state.fits(&self.mesh, &record) {
            return Entered::refused();
        }
        match state.directory.get(&record.id) {
            Some(Entry { record: known, session: Some(_) })
                if record.epoch <= known.epoch || !record.is_same_peer(known) =>
            {
                return Entered::default();
            }
            Some(known) if record.epoch < known.record.epoch => return Entered::default(),
            None if !record.online => {
                // Unless a reading that is under way knows better.
                state.readings.note(&record.id, Heard::Is(Arc::clone(&record)));
                return Entered::default();
            }
            _ if state.claims_anothers_key(&record) => return Entered::default(),
            _ => {}
        }
        state.readings.note(&record.id, Heard::Is(Arc::clone(&record)));
        let claims = state.end_claims(&record);
        let was = state.directory.get(&record.id).map(|known| Arc::clone(&known.record));
        let change = Some(Change { was, is: Arc::clone(&record) });
        let replaced = state.directory.put(record, None);
        Entered { replaced, claims, is_refused: false, change }
    }

    /// A presence ended. Returns what was known of it.
    pub fn end(&self, presence: &PresenceId) -> Option<Candidate> {
        let mut state = self.state.write();
        state.readings.note(presence, Heard::Ended);
        state.directory.remove(presence).as_ref().map(Candidate::from)
    }

    /// The cluster's directory is about to be read.
    #[must_use]
    pub fn begin_reading(self: &Arc<Self>) -> Reading {
        let number = self.state.write().readings.begin();
        Reading { room: Arc::clone(self), number }
    }

    /// The record of a presence.
    #[must_use]
    pub fn record(&self, presence: &PresenceId) -> Option<Arc<PresenceRecord>> {
        self.state.read().directory.get(presence).map(|entry| Arc::clone(&entry.record))
    }

    /// Every record, oldest first.
    #[must_use]
    pub fn records(&self) -> Vec<Arc<PresenceRecord>> {
        let state = self.state.read();
        let mut records: Vec<_> =
            state.directory.entries().map(|entry| Arc::clone(&entry.record)).collect();
        drop(state);
        records.sort_by(|a, b| (a.connected_at, &a.id).cmp(&(b.connected_at, &b.id)));
        records
    }

    /// Whether a multicast reaches that presence through its daemon's inbox, which
    /// it shares, and not by itself.
    #[must_use]
    pub fn is_in_daemons_inbox(
        &self,
        record: &PresenceRecord,
        is_named: impl Fn(&PresenceRecord) -> bool,
        seq: i64,
    ) -> bool {
        record.is_session_of_daemon()
            && self.state.read().directory.daemon_of(record, is_named, seq).is_some()
    }

    /// Presences that call their session so, but for visitors.
    #[must_use]
    pub fn called(&self, session_id: &str) -> Vec<Arc<PresenceRecord>> {
        let state = self.state.read();
        let records = state.directory.entries().map(|entry| &entry.record);
        let called =
            |record: &&Arc<PresenceRecord>| record.session_id == session_id && !record.visitor;
        records.filter(called).cloned().collect()
    }

    /// The member's sessions and daemons on whose behalf a visitor with that
    /// session id speaks: the open ones, sessions first, newest first.
    #[must_use]
    pub fn spoken_for(&self, visitor: &PresenceRecord) -> Option<Candidate> {
        let mut own = self.addressed_by(visitor.member_key.as_str());
        own.retain(|Candidate { record, session }| {
            record.online
                && record.member == visitor.member
                && !visitor.session_id.is_empty()
                && record.session_id == visitor.session_id
                && session.as_ref().is_none_or(|session| session.outbox.is_open())
        });
        own.into_iter().max_by_key(|peer| {
            (
                peer.record.role == PeerRole::Session,
                peer.record.last_seen_at,
                peer.record.id.clone(),
            )
        })
    }

    /// Every presence that the key addresses.
    #[must_use]
    pub fn addressed_by(&self, key: &str) -> Vec<Candidate> {
        self.state.read().directory.addressed_by(key).map(Candidate::from).collect()
    }
}
