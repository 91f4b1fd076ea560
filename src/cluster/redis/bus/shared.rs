//! What the bus's tasks share: the channels' numbers, the gaps, who is in which mesh.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use super::channel::{Arrival, Channel};
use super::frame::{self, Control, Origin, Payload};
use super::outbox::{Outbox, Queued, QueuedFrame};
use super::probe::Probe;
use crate::cluster::BusMessage;
use crate::cluster::redis::keys::Keys;
use crate::cluster::redis::moves::Moves;
use crate::cluster::redis::seals::Seals;
use crate::id::MeshId;
use crate::limits::BUS_JOINS_MAX;

/// From joining a mesh to its confirmed subscription. Later: the mesh is joined
/// without, and a gap is told when it is there.
const JOIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Channels in one frame of beats. More: another frame.
const BEATS_PER_FRAME_MAX: usize = 1000;

/// A mesh to subscribe to, and whom to tell that it is done.
pub(super) type Join = (MeshId, oneshot::Sender<()>);

/// The state that the bus's tasks share.
pub(in crate::cluster::redis) struct Bus {
    pub(super) origin: Origin,
    pub(super) keys: Keys,
    pub(super) seals: Arc<Seals>,
    pub(super) moves: Arc<Moves>,
    state: Mutex<State>,
    pub(super) outbox: Outbox,
    joins: mpsc::Sender<Join>,
    pub(super) is_subscribed: AtomicBool,
    pub(super) probe: Probe,
    gaps: Mutex<HashSet<MeshId>>,
    pub(super) gap_noted: Notify,
    /// The bus hears: for whoever waits for its start.
    pub(in crate::cluster::redis) ready: Notify,
    /// The sets of nodes should be read now, and this node announced.
    pub(in crate::cluster::redis) rejoin: Notify,
}

#[derive(Default)]
struct State {
    channels: HashMap<MeshId, Channel>,
    /// Frames numbered so far on all channels: a new channel counts from here,
    /// so never from lower than it did before it was forgotten.
    numbered: u64,
}

/// The receiving ends, for the tasks.
pub(in crate::cluster::redis) struct BusQueues {
    pub(super) outbox: mpsc::Receiver<Queued>,
    pub(super) joins: mpsc::Receiver<Join>,
}

impl Bus {
    pub(in crate::cluster::redis) fn new(
        origin: Origin,
        keys: Keys,
        seals: Arc<Seals>,
        moves: Arc<Moves>,
    ) -> (Arc<Self>, BusQueues) {
        let (outbox, queue) = Outbox::new();
        let (joins, joins_receiver) = mpsc::channel(BUS_JOINS_MAX);
        let bus = Self {
            origin,
            keys,
            seals,
            moves,
            state: Mutex::default(),
            outbox,
            joins,
            is_subscribed: AtomicBool::new(false),
            probe: Probe::default(),
            gaps: Mutex::default(),
            gap_noted: Notify::new(),
            ready: Notify::new(),
            rejoin: Notify::new(),
        };
        (Arc::new(bus), BusQueues { outbox: queue, joins: joins_receiver })
    }

    pub(in crate::cluster::redis) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether what this node publishes comes back to it.
    pub(in crate::cluster::redis) fn hears(&self) -> bool {
        self.probe.hears()
    }

    /// How long the last probe took.
    pub(in crate::cluster::redis) fn lag(&self) -> Option<Duration> {
        self.probe.lag()
    }

    /// The last probe, to be published.
    pub(super) fn probe_frame(&self) -> QueuedFrame {
        QueuedFrame {
            channel: self.keys.probe_channel(&self.origin.to_text()),
            meshes: Vec::new(),
            seq: self.probe.number(),
            first: false,
            payload: Payload::Control(Vec::new()),
        }
    }

    /// The number of a probe of this node's, if that is one.
    pub(super) fn probe_heard(&self, channel: &str, payload: &[u8]) -> Option<u64> {
        let frame = frame::decode(payload).ok()?;
        let is_own = frame.node == self.origin.node && frame.incarnation == self.origin.incarnation;
        (is_own && frame.is_signed(&self.seals, channel)).then_some(frame.seq)
    }

    // ---- Membership ----

    /// Joins a mesh; left again when the guard is dropped before it is kept.
    pub(in crate::cluster::redis) fn join(self: &Arc<Self>, mesh: &MeshId) -> JoinGuard {
        self.with_channel(mesh, |channel, _| channel.join());
        JoinGuard { bus: Arc::clone(self), mesh: mesh.clone(), is_kept: false }
    }

    /// Waits until the mesh's channel is subscribed to; `false` if that cannot
    /// be said.
    pub(in crate::cluster::redis) async fn until_subscribed(&self, mesh: &MeshId) -> bool {
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
    pub(in crate::cluster::redis) fn leave(&self, mesh: &MeshId) -> bool {
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

    pub(in crate::cluster::redis) fn joined(&self) -> Vec<MeshId> {
        let state = self.state.lock();
        let joined = state.channels.iter().filter(|(_, channel)| channel.is_joined());
        joined.map(|(mesh, _)| mesh.clone()).collect()
    }

    /// The mesh's set of nodes was read.
    pub(in crate::cluster::redis) fn see_members(&self, mesh: &MeshId, nodes: Vec<Origin>) {
        let others: Vec<_> = nodes.into_iter().filter(|origin| *origin != self.origin).collect();
        let lost = self.if_joined(mesh, |channel| channel.see_members(Instant::now(), &others));
        if lost == Some(true) {
            self.control(mesh, &Control::Here { lost: true });
        }
    }

    /// Tells the others that this node is in the mesh.
    pub(in crate::cluster::redis) fn announce(&self, mesh: &MeshId) {
        if self.if_joined(mesh, |channel| channel.has_members()) == Some(true) {
            self.control(mesh, &Control::Joined);
        }
    }

    /// What this node holds was missing in the directory of the mesh: whoever read it
    /// meanwhile reads it again. A number is left out, which tells it again where the word
    /// itself does not arrive.
    pub(in crate::cluster::redis) fn note_untold(&self, mesh: &MeshId) {
        if self.if_joined(mesh, |channel| channel.next(Instant::now())).is_some() {
            self.control(mesh, &Control::Here { lost: true });
        }
    }

    // ---- Out ----

    /// Numbers a frame and queues it, unless this node is surely alone.
    pub(in crate::cluster::redis) fn publish(&self, mesh: &MeshId, message: &BusMessage) {
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
            bus.outbox.queue(QueuedFrame {
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
    pub(in crate::cluster::redis) fn beat(&self) {
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
            self.outbox.queue(QueuedFrame {
                channel: self.keys.beats_channel(),
                meshes: last.iter().map(|(mesh, _)| mesh.clone()).collect(),
                seq: 0,
                first: false,
                payload: Payload::control(&control),
            });
        }
    }

    /// Waits until what was published is sent or lost.
    pub(in crate::cluster::redis) async fn flush(&self) {
        self.outbox.flush().await;
    }

    fn control(&self, mesh: &MeshId, control: &Control) {
        let payload = Payload::control(control);
        self.with_channel(mesh, |channel, bus| {
            bus.outbox.queue(QueuedFrame {
                channel: bus.keys.channel(mesh),
                meshes: vec![mesh.clone()],
                seq: channel.seq(),
                first: false,
                payload,
            });
        });
    }

    pub(super) fn control_if_joined(&self, mesh: &MeshId, control: &Control) {
        if self.if_joined(mesh, |_| ()).is_some() {
            self.control(mesh, control);
        }
    }

    pub(super) fn note_unsent(&self, frames: &[QueuedFrame]) {
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
    pub(in crate::cluster::redis) fn note_gap(&self, mesh: &MeshId) {
        self.gaps.lock().insert(mesh.clone());
        self.gap_noted.notify_one();
    }

    /// Frames of any mesh may have been missed.
    pub(in crate::cluster::redis) fn note_gap_everywhere(&self) {
        let joined = self.joined();
        self.gaps.lock().extend(joined);
        self.gap_noted.notify_one();
    }

    pub(super) fn has_gaps(&self) -> bool {
        !self.gaps.lock().is_empty()
    }

    /// The next mesh to tell a gap of, if it is still joined.
    pub(super) fn take_gap(&self) -> Option<MeshId> {
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
    pub(super) fn forget_heard(&self) {
        self.state.lock().channels.values_mut().for_each(Channel::forget_heard);
    }

    pub(super) fn hear(
        &self,
        mesh: &MeshId,
        origin: &Origin,
        seq: u64,
        first: bool,
    ) -> Option<Arrival> {
        self.if_joined(mesh, |channel| channel.hear(Instant::now(), origin, seq, first))
    }

    /// An origin told its last number; where it was not heard before, that is
    /// where it counts from if `is_start`, and a gap if not.
    pub(super) fn hear_last(&self, mesh: &MeshId, origin: &Origin, seq: u64, is_start: bool) {
        let is_gap = self.if_joined(mesh, |channel| {
            let was_known = channel.knows(origin);
            channel.hear_last(Instant::now(), origin, seq) && (was_known || !is_start)
        });
        if is_gap == Some(true) {
            self.note_gap(mesh);
        }
    }

    pub(super) fn see_member(&self, mesh: &MeshId, origin: &Origin) -> bool {
        self.if_joined(mesh, |channel| channel.see_member(Instant::now(), origin)) == Some(true)
    }

    pub(super) fn lose_member(&self, mesh: &MeshId, origin: &Origin) {
        self.if_joined(mesh, |channel| channel.lose_member(origin));
    }
}

/// A mesh on its way to be joined.
pub(in crate::cluster::redis) struct JoinGuard {
    bus: Arc<Bus>,
    mesh: MeshId,
    is_kept: bool,
}

impl JoinGuard {
    pub(in crate::cluster::redis) fn keep(mut self) {
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
