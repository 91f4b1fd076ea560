//! The fast path between nodes. It may lose frames, and notices when it did.
//!
//! - [`Bus::publish`] numbers a frame and queues it; [`publisher`] sends.
//! - [`subscriber`] keeps a connection of its own that hears the channels of
//!   the joined meshes, and rebuilds it whenever it might be deaf.
//! - A probe goes out by the publisher and must come in by the subscriber.
//! - [`reader`] sorts what arrives into messages and gaps.
//!
//! A gap is told when a number is missing, when a queue of this node was full,
//! and for every joined mesh when the subscription was rebuilt.

mod channel;
mod frame;
mod publisher;
mod reader;
mod subscriber;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use self::channel::{Arrival, Channel};
pub(super) use self::frame::Origin;
use self::frame::{Control, Payload};
pub(super) use self::reader::Push;
use super::connection::Opener;
use super::keys::Keys;
use super::link::Link;
use super::moves::Moves;
use super::seals::Seals;
use super::work::Work;
use crate::cluster::{BusMessage, ClusterEvent};
use crate::id::MeshId;
use crate::limits::{BUS_JOINS_MAX, BUS_OUTBOX_FRAMES_MAX, BUS_QUEUED_BYTES_MAX};

/// From joining a mesh to its confirmed subscription. Later: the mesh is joined
/// without, and a gap is told when it is there.
const JOIN_TIMEOUT: Duration = Duration::from_secs(3);

/// No probe has been heard on this subscription.
const NOT_HEARD: u64 = u64::MAX;

/// Channels in one frame of beats. More: another frame.
const BEATS_PER_FRAME_MAX: usize = 1000;

/// A mesh to subscribe to, and whom to tell that it is done.
type Join = (MeshId, oneshot::Sender<()>);

/// What the publisher is to do.
enum Queued {
    Frame(QueuedFrame),
    /// Answer when everything before this is sent or lost.
    Flush(oneshot::Sender<()>),
}

struct QueuedFrame {
    channel: String,
    /// The meshes whose numbers are told again if it is lost.
    meshes: Vec<MeshId>,
    seq: u64,
    first: bool,
    payload: Payload,
}

/// Starts the bus's tasks.
pub(super) fn start(
    bus: &Arc<Bus>,
    queues: BusQueues,
    (opener, link): (&Arc<Opener>, Arc<Link>),
    events: &mpsc::Sender<ClusterEvent>,
    work: &Work,
) {
    let stop = &work.stop;
    let BusQueues { outbox, joins } = queues;
    work.spawn("the publishing link", {
        let (bus, link, stop) = (Arc::clone(bus), Arc::clone(&link), stop.clone());
        // A probe that found no connection is not waited for.
        async move { link.run(stop, || bus.probe_due.notify_one()).await }
    });
    let publisher = publisher::run(Arc::clone(bus), link, outbox, stop.clone());
    work.spawn("the publisher", publisher);
    let (inbox, pushes) = reader::Inbox::new();
    let opener = Arc::clone(opener);
    let subscriber = subscriber::run(Arc::clone(bus), opener, inbox, joins, stop.clone());
    work.spawn("the subscriber", subscriber);
    let reader = reader::run(Arc::clone(bus), pushes, events.clone(), stop.clone());
    work.spawn("the reader", reader);
}

/// The state that the bus's tasks share.
pub(super) struct Bus {
    origin: Origin,
    keys: Keys,
    seals: Arc<Seals>,
    moves: Arc<Moves>,
    state: Mutex<State>,
    outbox: mpsc::Sender<Queued>,
    outbox_bytes: AtomicUsize,
    joins: mpsc::Sender<Join>,
    is_subscribed: AtomicBool,
    /// A probe was heard on this subscription.
    hears: AtomicBool,
    /// The number of the last probe.
    probe: AtomicU64,
    /// The publisher is to send it.
    probe_due: Notify,
    /// Microseconds that the last probe took; [`NOT_HEARD`] if none was heard.
    lag_us: AtomicU64,
    gaps: Mutex<HashSet<MeshId>>,
    gap_noted: Notify,
    /// The bus hears: for whoever waits for its start.
    pub(super) ready: Notify,
    /// The sets of nodes should be read now, and this node announced.
    pub(super) rejoin: Notify,
}

#[derive(Default)]
struct State {
    channels: HashMap<MeshId, Channel>,
    /// Frames numbered so far on all channels: a new channel counts from here,
    /// so never from lower than it did before it was forgotten.
    numbered: u64,
}

/// The receiving ends, for the tasks.
pub(super) struct BusQueues {
    outbox: mpsc::Receiver<Queued>,
    joins: mpsc::Receiver<Join>,
}

impl Bus {
    pub(super) fn new(
        origin: Origin,
        keys: Keys,
        seals: Arc<Seals>,
        moves: Arc<Moves>,
    ) -> (Arc<Self>, BusQueues) {
        let (outbox, outbox_receiver) = mpsc::channel(BUS_OUTBOX_FRAMES_MAX);
        let (joins, joins_receiver) = mpsc::channel(BUS_JOINS_MAX);
        let bus = Self {
            origin,
            keys,
            seals,
            moves,
            state: Mutex::default(),
            outbox,
            outbox_bytes: AtomicUsize::new(0),
            joins,
            is_subscribed: AtomicBool::new(false),
            hears: AtomicBool::new(false),
            probe: AtomicU64::new(0),
            probe_due: Notify::new(),
            lag_us: AtomicU64::new(NOT_HEARD),
            gaps: Mutex::default(),
            gap_noted: Notify::new(),
            ready: Notify::new(),
            rejoin: Notify::new(),
        };
        (Arc::new(bus), BusQueues { outbox: outbox_receiver, joins: joins_receiver })
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether what this node publishes comes back to it.
    pub(super) fn hears(&self) -> bool {
        self.hears.load(Ordering::Relaxed)
    }

    /// The last probe, to be published.
    fn probe_frame(&self) -> QueuedFrame {
        QueuedFrame {
            channel: self.keys.probe_channel(&self.origin.to_text()),
            meshes: Vec::new(),
            seq: self.probe.load(Ordering::Relaxed),
            first: false,
            payload: Payload::Control(Vec::new()),
        }
    }

    /// The number of a probe of this node's, if that is one.
    fn probe_heard(&self, channel: &str, payload: &[u8]) -> Option<u64> {
        let frame = frame::decode(payload).ok()?;
        let is_own = frame.node == self.origin.node && frame.incarnation == self.origin.incarnation;
        (is_own && frame.is_signed(&self.seals, channel)).then_some(frame.seq)
    }

    /// How long the last probe took.
    pub(super) fn lag(&self) -> Option<Duration> {
        match self.lag_us.load(Ordering::Relaxed) {
            NOT_HEARD => None,
            lag_us => Some(Duration::from_micros(lag_us)),
        }
    }

    fn note_lag(&self, lag: Option<Duration>) {
        let lag_us = lag.map(|lag| u64::try_from(lag.as_micros()).unwrap_or(u64::MAX - 1));
        self.lag_us.store(lag_us.unwrap_or(NOT_HEARD), Ordering::Relaxed);
    }

    // ---- Membership ----

    /// Joins a mesh; left again when the guard is dropped before it is kept.
    pub(super) fn join(self: &Arc<Self>, mesh: &MeshId) -> JoinGuard {
        self.with_channel(mesh, |channel, _| channel.join());
        JoinGuard { bus: Arc::clone(self), mesh: mesh.clone(), is_kept: false }
    }

    /// Waits until the mesh's channel is subscribed to; `false` if that cannot
    /// be said.
    pub(super) async fn until_subscribed(&self, mesh: &MeshId) -> bool {
        if !self.is_subscribed.load(Ordering::Acquire) {
            return false;
        }
        let (done, until_done) = oneshot::channel();
        let asking = async {
            self.joins.send((mesh.clone(), done)).await.ok()?;
            until_done.await.ok()
        };
        matches!(tokio::time::timeout(JOIN_TIMEOUT, asking).await, Ok(Some(())))
    }

    /// Leaves a mesh; whether this node has no more use for it.
    pub(super) fn leave(&self, mesh: &MeshId) -> bool {
        let mut state = self.state.lock();
        let Some(channel) = state.channels.get_mut(mesh) else { return false };
        let had_members = channel.has_members();
        let is_last = channel.is_joined() && channel.leave(Instant::now());
        drop(state);
        if is_last && had_members {
            self.control(mesh, &Control::Left);
        }
        is_last
    }

    pub(super) fn joined(&self) -> Vec<MeshId> {
        let state = self.state.lock();
        let joined = state.channels.iter().filter(|(_, channel)| channel.is_joined());
        joined.map(|(mesh, _)| mesh.clone()).collect()
    }

    /// The mesh's set of nodes was read.
    pub(super) fn see_members(&self, mesh: &MeshId, nodes: Vec<Origin>) {
        let others: Vec<_> = nodes.into_iter().filter(|origin| *origin != self.origin).collect();
        let lost = self.if_joined(mesh, |channel| channel.see_members(Instant::now(), &others));
        if lost == Some(true) {
            self.control(mesh, &Control::Here { lost: true });
        }
    }

    /// Tells the others that this node is in the mesh.
    pub(super) fn announce(&self, mesh: &MeshId) {
        if self.if_joined(mesh, |channel| channel.has_members()) == Some(true) {
            self.control(mesh, &Control::Joined);
        }
    }

    // ---- Out ----

    /// Numbers a frame and queues it, unless this node is surely alone.
    pub(super) fn publish(&self, mesh: &MeshId, message: &BusMessage) {
        if self.with_channel(mesh, |channel, _| channel.keep_back(Instant::now())) {
            return;
        }
        let payload = match Payload::body(message) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(%error, "a bus message cannot be encoded; it is not sent");
                return;
            }
        };
        self.with_channel(mesh, |channel, bus| {
            let next = channel.next(Instant::now());
            bus.queue(QueuedFrame {
                channel: bus.keys.channel(mesh),
                meshes: vec![mesh.clone()],
                seq: next.seq,
                first: next.first,
                payload,
            });
        });
    }

    /// Tells the last numbers of the channels that had frames lately, and
    /// forgets what is out of use.
    pub(super) fn beat(&self) {
        let now = Instant::now();
        let mut last = Vec::new();
        {
            let mut state = self.state.lock();
            state.channels.retain(|mesh, channel| {
                last.extend(channel.beat().map(|seq| (mesh.clone(), seq)));
                !channel.expire(now)
            });
        }
        for last in last.chunks(BEATS_PER_FRAME_MAX) {
            let control = Control::Beats { last: last.to_vec() };
            self.queue(QueuedFrame {
                channel: self.keys.beats_channel(),
                meshes: last.iter().map(|(mesh, _)| mesh.clone()).collect(),
                seq: 0,
                first: false,
                payload: Payload::control(&control),
            });
        }
    }

    /// Waits until what was published is sent or lost.
    pub(super) async fn flush(&self) {
        let (done, until_done) = oneshot::channel();
        if self.outbox.send(Queued::Flush(done)).await.is_ok() {
            let _ = until_done.await;
        }
    }

    fn control(&self, mesh: &MeshId, control: &Control) {
        let payload = Payload::control(control);
        self.with_channel(mesh, |channel, bus| {
            bus.queue(QueuedFrame {
                channel: bus.keys.channel(mesh),
                meshes: vec![mesh.clone()],
                seq: channel.seq(),
                first: false,
                payload,
            });
        });
    }

    fn control_if_joined(&self, mesh: &MeshId, control: &Control) {
        if self.if_joined(mesh, |_| ()).is_some() {
            self.control(mesh, control);
        }
    }

    /// Called with the state locked, so that the queue has the numbers' order.
    /// What does not fit is lost; the beats that follow every number tell.
    fn queue(&self, frame: QueuedFrame) {
        let bytes = frame.payload.len();
        if self.outbox_bytes.fetch_add(bytes, Ordering::Relaxed) > BUS_QUEUED_BYTES_MAX
            || self.outbox.try_send(Queued::Frame(frame)).is_err()
        {
            self.outbox_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn note_unsent(&self, frames: &[QueuedFrame]) {
        let now = Instant::now();
        let mut state = self.state.lock();
        for mesh in frames.iter().flat_map(|frame| &frame.meshes) {
            if let Some(channel) = state.channels.get_mut(mesh) {
                channel.note_unsent(now);
            }
        }
    }

    // ---- In ----

    /// Frames of this mesh may have been missed.
    pub(super) fn note_gap(&self, mesh: &MeshId) {
        self.gaps.lock().insert(mesh.clone());
        self.gap_noted.notify_one();
    }

    /// Frames of any mesh may have been missed.
    pub(super) fn note_gap_everywhere(&self) {
        let joined = self.joined();
        self.gaps.lock().extend(joined);
        self.gap_noted.notify_one();
    }

    fn has_gaps(&self) -> bool {
        !self.gaps.lock().is_empty()
    }

    /// The next mesh to tell a gap of, if it is still joined.
    fn take_gap(&self) -> Option<MeshId> {
        let mut gaps = self.gaps.lock();
        let mesh = gaps.iter().next().cloned()?;
        gaps.remove(&mesh);
        drop(gaps);
        self.if_joined(&mesh, |_| ())?;
        Some(mesh)
    }

    fn if_joined<T>(&self, mesh: &MeshId, call: impl FnOnce(&mut Channel) -> T) -> Option<T> {
        let mut state = self.state.lock();
        state.channels.get_mut(mesh).filter(|channel| channel.is_joined()).map(call)
    }

    fn with_channel<T>(&self, mesh: &MeshId, call: impl FnOnce(&mut Channel, &Self) -> T) -> T {
        let State { channels, numbered } = &mut *self.state.lock();
        let channel = match channels.get_mut(mesh) {
            Some(channel) => channel,
            None => channels
                .entry(mesh.clone())
                .or_insert_with(|| Channel::new(Instant::now(), *numbered)),
        };
        let before = channel.seq();
        let answer = call(channel, self);
        *numbered += channel.seq() - before;
        answer
    }

    /// The subscription starts anew: nothing is known of what was missed.
    fn forget_heard(&self) {
        self.state.lock().channels.values_mut().for_each(Channel::forget_heard);
    }

    fn hear(&self, mesh: &MeshId, origin: &Origin, seq: u64, first: bool) -> Option<Arrival> {
        self.if_joined(mesh, |channel| channel.hear(Instant::now(), origin, seq, first))
    }

    /// An origin told its last number; where it was not heard before, that is
    /// where it counts from if `is_start`, and a gap if not.
    fn hear_last(&self, mesh: &MeshId, origin: &Origin, seq: u64, is_start: bool) {
        let is_gap = self.if_joined(mesh, |channel| {
            let was_known = channel.knows(origin);
            channel.hear_last(Instant::now(), origin, seq) && (was_known || !is_start)
        });
        if is_gap == Some(true) {
            self.note_gap(mesh);
        }
    }

    fn see_member(&self, mesh: &MeshId, origin: &Origin) -> bool {
        self.if_joined(mesh, |channel| channel.see_member(Instant::now(), origin)) == Some(true)
    }

    fn lose_member(&self, mesh: &MeshId, origin: &Origin) {
        self.if_joined(mesh, |channel| channel.lose_member(origin));
    }
}

/// A mesh on its way to be joined.
pub(super) struct JoinGuard {
    bus: Arc<Bus>,
    mesh: MeshId,
    is_kept: bool,
}

impl JoinGuard {
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for JoinGuard {
    fn drop(&mut self) {
        if !self.is_kept {
            self.bus.leave(&self.mesh);
        }
    }
}
