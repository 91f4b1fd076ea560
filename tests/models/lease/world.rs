//! Two nodes, the shared books, the rows of the store, and clients that come
//! and go. Time is counted in ticks, one renewal each.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::cluster::books::{LeaseTimes, MeshBooks};
use claudemesh_broker::cluster::redis::fallback::Fallback;
use claudemesh_broker::cluster::{HeldLease, LeaseRef};
use claudemesh_broker::id::{Key, MemberId, MeshId, PresenceId};
use claudemesh_broker::record::PresenceRecord;

/// A tick: a little longer than a provisional epoch is ahead of the clock.
pub const TICK_MS: u64 = 10_500;

pub const TIMES: LeaseTimes = LeaseTimes { grace_ms: 2 * TICK_MS, ttl_ms: 2 * TICK_MS };

/// After so long without a sign of life a row counts as nobody's.
pub const STALE_TICKS: u64 = 3;

pub const NODES: usize = 2;

/// Copied only when it is changed: states share most of what they are.
#[derive(Clone, Debug, Default)]
pub struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    pub fn new(one: T) -> Self {
        Self(Arc::new(one))
    }
}

impl<T: Clone> Shared<T> {
    pub fn change(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What the steps found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// A newcomer got a place beyond the cap.
    CapExceeded,
    /// A presence was handed to two reapers.
    ReapedTwice,
    /// A presence ended while its node held it for a client.
    EndedWhileHere,
    /// A socket was replaced, and nobody came after it.
    ReplacedByAnOlderOne,
    /// Peers were told of an end that was none.
    LeftWithoutAnEnd,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client {
    /// Its newest hello, counted from 1.
    pub hello: u8,
    pub is_here: bool,
    /// How many holdings it got.
    pub grants: u8,
    /// The newest of them. One that a node gave by itself is ahead of the clock:
    /// it wins against whatever Redis gives within that lead.
    pub epoch_max: u64,
}

/// The store's row of a presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub session: usize,
    /// The last that opened it.
    pub node: usize,
    pub is_open: bool,
    pub touched: u64,
    pub opened: u8,
    pub left: u8,
    /// Handed to a reaper, and not put back since.
    pub is_handed: bool,
}

/// Who connects, and which holding it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    pub session: usize,
    pub hello: u8,
    pub node: usize,
    pub presence: usize,
    pub epoch: u64,
}

/// A presence that is over, and the node that held it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gone {
    pub presence: usize,
    pub node: usize,
}

/// A call to Redis.
#[derive(Clone, Debug)]
pub enum Call {
    Acquire {
        session: usize,
        hello: u8,
        node: usize,
        presence: usize,
        epoch_min: u64,
    },
    Renew(Vec<Grant>),
    /// The second half of a renewal: what was missing, with its record.
    Restore(Vec<Grant>),
    Release(Grant),
    Reap,
}

#[derive(Clone, Debug, Default)]
pub struct Renewed {
    pub replaced: Vec<Grant>,
    pub ended: Vec<Grant>,
    pub missing: Vec<Grant>,
    pub held: Vec<Grant>,
    /// The tick when Redis did it.
    pub at: u64,
}

#[derive(Clone, Debug)]
pub enum Answer {
    Granted { grant: Grant, is_new: bool, yielded: Vec<Gone>, count: u32, at: u64 },
    Full { session: usize, hello: u8, count: u32 },
    Renewed(Renewed),
    Released { is_known: bool, grant: Grant },
    Reaped(Vec<Gone>),
}

#[derive(Clone, Debug)]
pub struct InFlight {
    pub call: Call,
    pub answer: Option<Answer>,
}

/// A hello with its lease, on its way to the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Opening {
    pub grant: Grant,
    pub is_new: bool,
    pub yielded: Vec<Gone>,
    /// When Redis granted it, if it did.
    pub heard: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket {
    pub grant: Grant,
    /// When Redis last said that this node holds it.
    pub heard: Option<u64>,
    /// It was told to close.
    pub is_closing: bool,
}

#[derive(Clone, Debug)]
pub struct Node {
    /// Does nothing until it wakes.
    pub is_asleep: bool,
    /// Has no connection to Redis.
    pub is_cut: bool,
    pub own: Shared<Fallback>,
    pub sockets: Vec<Socket>,
    pub in_flight: Vec<InFlight>,
    pub openings: Vec<Opening>,
    pub has_renewed: bool,
    pub has_reaped: bool,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            is_asleep: false,
            is_cut: false,
            own: Shared::new(Fallback::new(TIMES)),
            sockets: Vec::new(),
            in_flight: Vec::new(),
            openings: Vec::new(),
            has_renewed: false,
            has_reaped: false,
        }
    }
}

#[derive(Clone, Debug)]
pub struct World {
    pub now: u64,
    pub faults: u8,
    pub redis: Shared<MeshBooks>,
    pub rows: Vec<Row>,
    pub clients: Vec<Client>,
    pub nodes: [Node; NODES],
    /// Calls whose node has given up, and that may still run.
    pub orphans: Vec<Call>,
    pub wrong: Option<Wrong>,
    /// What happened once: for checking that the model reaches it.
    pub saw: Saw,
}

/// What a run has seen; not part of the state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Saw {
    pub takeover: bool,
    pub yielded: bool,
    pub replaced: bool,
    pub ended: bool,
    pub restored: bool,
    pub full: bool,
    pub reaped: bool,
    pub alone: bool,
    pub readopted: bool,
}

impl World {
    pub fn new(sessions: usize, faults: u8) -> Self {
        Self {
            now: 0,
            faults,
            redis: Shared::default(),
            rows: Vec::new(),
            clients: vec![Client::default(); sessions],
            nodes: Default::default(),
            orphans: Vec::new(),
            wrong: None,
            saw: Saw::default(),
        }
    }

    /// Every grant takes a moment: no two are of the same instant.
    pub fn now_ms(&self) -> u64 {
        let grants: u64 = self.clients.iter().map(|client| u64::from(client.grants)).sum();
        (self.now + 1) * TICK_MS + grants
    }

    /// Whether that hello's client waits at the other end.
    pub fn has_client(&self, grant: &Grant) -> bool {
        let client = &self.clients[grant.session];
        client.is_here && client.hello == grant.hello
    }

    /// Whether the client is there, and no holding of its session is newer.
    pub fn is_newest(&self, grant: &Grant) -> bool {
        self.has_client(grant) && self.clients[grant.session].epoch_max == grant.epoch
    }

    /// Whether a step that is possible now is also the first of going quiet:
    /// then it is enough to look at what follows it.
    pub fn is_under_way(&self) -> bool {
        let is_busy = |node: &Node| {
            let waits = !node.in_flight.is_empty() || !node.openings.is_empty();
            node.is_asleep || node.is_cut || waits
        };
        self.wrong.is_some() || self.nodes.iter().any(is_busy)
    }

    pub fn note(&mut self, wrong: Wrong) {
        self.wrong.get_or_insert(wrong);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        let digest = |world: &Self| {
            let mut hasher = DefaultHasher::new();
            world.hash(&mut hasher);
            hasher.finish()
        };
        digest(self) == digest(other)
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.now, self.faults, &self.rows, &self.clients, self.wrong).hash(hasher);
        hash_books(&self.redis, self, hasher);
        for call in &self.orphans {
            hash_call(call, hasher);
        }
        for node in &self.nodes {
            (node.is_asleep, node.is_cut, node.has_renewed, node.has_reaped).hash(hasher);
            (&node.sockets, &node.openings, node.own.knowledge(&MESH)).hash(hasher);
            for presence in 0..self.rows.len() {
                let lease = LeaseRef { mesh: MESH.clone(), presence: id(presence), epoch: 0 };
                node.own.has_let_go(self.now_ms(), &lease).hash(hasher);
            }
            for in_flight in &node.in_flight {
                hash_call(&in_flight.call, hasher);
                hash_answer(in_flight.answer.as_ref(), hasher);
            }
        }
    }
}

fn hash_books<H: Hasher>(books: &MeshBooks, world: &World, hasher: &mut H) {
    books.lines().hash(hasher);
    for presence in 0..world.rows.len() {
        books.has_ended(world.now_ms(), &id(presence)).hash(hasher);
    }
}

fn hash_call<H: Hasher>(call: &Call, hasher: &mut H) {
    match call {
        Call::Acquire { session, hello, node, presence, epoch_min } => {
            (0, session, hello, node, presence, epoch_min).hash(hasher);
        }
        Call::Renew(grants) => (1, grants).hash(hasher),
        Call::Restore(grants) => (2, grants).hash(hasher),
        Call::Release(grant) => (3, grant).hash(hasher),
        Call::Reap => 4.hash(hasher),
    }
}

fn hash_answer<H: Hasher>(answer: Option<&Answer>, hasher: &mut H) {
    match answer {
        None => 0.hash(hasher),
        Some(Answer::Granted { grant, is_new, yielded, count, at }) => {
            (1, grant, is_new, yielded, count, at).hash(hasher);
        }
        Some(Answer::Full { session, hello, count }) => (2, session, hello, count).hash(hasher),
        Some(Answer::Renewed(Renewed { replaced, ended, missing, held, at })) => {
            (3, replaced, ended, missing, held, at).hash(hasher);
        }
        Some(Answer::Released { is_known, grant }) => (4, is_known, grant).hash(hasher),
        Some(Answer::Reaped(presences)) => (5, presences).hash(hasher),
    }
}

// --- names -------------------------------------------------------------------------

pub static MESH: LazyLock<MeshId> = LazyLock::new(|| MeshId::from("mesh"));

static IDS: LazyLock<Vec<PresenceId>> =
    LazyLock::new(|| (0..16).map(|number| PresenceId::from(format!("p{number}"))).collect());

static SESSIONS: LazyLock<Vec<PresenceRecord>> = LazyLock::new(|| (0..4).map(session).collect());

pub fn id(presence: usize) -> PresenceId {
    IDS[presence].clone()
}

pub fn number_of(id: &PresenceId) -> usize {
    id.as_str()[1..].parse().expect("a presence of this model")
}

pub fn record(session: usize, node: usize, presence: usize, epoch: u64) -> PresenceRecord {
    PresenceRecord { id: id(presence), node: node.to_string(), epoch, ..SESSIONS[session].clone() }
}

pub fn gone(record: &PresenceRecord) -> Gone {
    let node = record.node.parse().expect("a node of this model");
    Gone { presence: number_of(&record.id), node }
}

pub fn lease(grant: &Grant) -> LeaseRef {
    LeaseRef { mesh: MESH.clone(), presence: id(grant.presence), epoch: grant.epoch }
}

pub fn held(grant: &Grant) -> HeldLease {
    let record = record(grant.session, grant.node, grant.presence, grant.epoch);
    let record = PresenceRecord { online: true, ..record };
    HeldLease { lease: lease(grant), record: Arc::new(record) }
}

fn session(number: usize) -> PresenceRecord {
    let (member, key) = (MemberId::from("member"), Key::from("member key"));
    PresenceRecord {
        session_key: Some(Key::from(format!("session key {number}"))),
        online: false,
        ..PresenceRecord::new(MESH.clone(), member, key, Timestamp::default())
    }
}
