//! Sorts what arrives: messages for the node, words between buses, gaps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::channel::Arrival;
use super::frame::{self, Control, Frame, Origin};
use super::shared::Bus;
use crate::cluster::{BusMessage, ClusterEvent};
use crate::id::MeshId;
use crate::limits::{BUS_INBOX_FRAMES_MAX, BUS_QUEUED_BYTES_MAX};

/// A published message, as it came.
pub(in crate::cluster::redis) struct Push {
    pub(in crate::cluster::redis) channel: String,
    pub(super) payload: Vec<u8>,
}

impl Push {
    /// The message in a push, if it is one.
    pub(in crate::cluster::redis) fn from_info(info: PushInfo) -> Option<Self> {
        if !matches!(info.kind, PushKind::Message | PushKind::SMessage) {
            return None;
        }
        let mut data = info.data.into_iter();
        match (data.next(), data.next()) {
            (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) => {
                Some(Self { channel: String::from_utf8(channel).ok()?, payload })
            }
            _ => None,
        }
    }
}

/// The bounded way from the connection to the reader. What does not fit is
/// dropped, and makes a gap everywhere.
#[derive(Clone)]
pub(super) struct Intake {
    pushes: mpsc::Sender<Push>,
    fill: Arc<Fill>,
}

#[derive(Default)]
struct Fill {
    bytes: AtomicUsize,
    has_overflowed: AtomicBool,
}

/// The reader's end.
pub(super) struct IntakeEnd {
    pushes: mpsc::Receiver<Push>,
    fill: Arc<Fill>,
}

impl Intake {
    pub(super) fn new() -> (Self, IntakeEnd) {
        let (pushes, receiver) = mpsc::channel(BUS_INBOX_FRAMES_MAX);
        let fill = Arc::new(Fill::default());
        (Self { pushes, fill: Arc::clone(&fill) }, IntakeEnd { pushes: receiver, fill })
    }

    pub(super) fn offer(&self, push: Push) {
        let bytes = push.payload.len();
        if self.fill.bytes.fetch_add(bytes, Ordering::Relaxed) > BUS_QUEUED_BYTES_MAX
            || self.pushes.try_send(push).is_err()
        {
            self.fill.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.fill.has_overflowed.store(true, Ordering::Release);
        }
    }
}

/// Reads until `stop`, or until nobody listens to the events.
pub(super) async fn run(
    bus: Arc<Bus>,
    mut intake: IntakeEnd,
    events: mpsc::Sender<ClusterEvent>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            permit = events.reserve(), if bus.has_gaps() => {
                let Ok(permit) = permit else { return };
                if let Some(mesh) = bus.take_gap() {
                    permit.send(ClusterEvent::Gap { mesh });
                }
            }
            () = bus.gap_noted.notified() => {}
            push = intake.pushes.recv() => {
                let Some(push) = push else { return };
                intake.fill.bytes.fetch_sub(push.payload.len(), Ordering::Relaxed);
                read(&bus, &push, &events);
                if intake.fill.has_overflowed.swap(false, Ordering::AcqRel) {
                    tracing::warn!("frames of other nodes came faster than they were read");
                    bus.note_gap_everywhere();
                }
            }
        }
    }
}

fn read(bus: &Bus, push: &Push, events: &mpsc::Sender<ClusterEvent>) {
    let frame = match frame::decode(&push.payload) {
        Ok(frame) => frame,
        Err(error) => {
            tracing::debug!(%error, channel = push.channel, "not a frame");
            return;
        }
    };
    let origin = Origin { node: frame.node.to_owned(), incarnation: frame.incarnation };
    if origin == bus.origin {
        return;
    }
    if !frame.is_signed(&bus.seals, &push.channel) {
        return bus.seals.refuse("frame");
    }
    let mesh = bus.keys.mesh_of_channel(&push.channel);
    if let Some(mesh) = &mesh
        && frame.body.is_some()
    {
        read_message(bus, mesh, &origin, &frame, events);
    }
    if let Some(control) = frame.control {
        match rmp_serde::from_slice(control) {
            Ok(control) => read_control(bus, mesh.as_ref(), &origin, frame.seq, control),
            Err(error) => tracing::debug!(%error, "a word of a later release is skipped"),
        }
    }
}

fn read_message(
    bus: &Bus,
    mesh: &MeshId,
    origin: &Origin,
    frame: &Frame<'_>,
    events: &mpsc::Sender<ClusterEvent>,
) {
    match bus.hear(mesh, origin, frame.seq, frame.first) {
        None | Some(Arrival::Old) => return,
        Some(Arrival::InOrder) => {}
        Some(Arrival::AfterGap) => {
            // Told before the frame, which must not overtake what is missing. If
            // that cannot be, the frame is missing too.
            if events.try_send(ClusterEvent::Gap { mesh: mesh.clone() }).is_err() {
                return bus.note_gap(mesh);
            }
        }
    }
    let Some(body) = frame.body else { return };
    match rmp_serde::from_slice::<BusMessage>(body) {
        Ok(message) => {
            let event = ClusterEvent::Message { mesh: mesh.clone(), message: Box::new(message) };
            if events.try_send(event).is_err() {
                bus.note_gap(mesh);
            }
        }
        Err(error) => tracing::debug!(%error, %mesh, "a message of a later release is skipped"),
    }
}

fn read_control(bus: &Bus, mesh: Option<&MeshId>, origin: &Origin, seq: u64, control: Control) {
    match (mesh, control) {
        (Some(mesh), Control::Joined) => {
            bus.hear_last(mesh, origin, seq, true);
            let lost = bus.see_member(mesh, origin);
            bus.control_if_joined(mesh, &Control::Here { lost });
        }
        (Some(mesh), Control::Here { lost }) => {
            bus.hear_last(mesh, origin, seq, true);
            if lost {
                bus.note_gap(mesh);
            }
            if bus.see_member(mesh, origin) {
                bus.control_if_joined(mesh, &Control::Here { lost: true });
            }
        }
        (Some(mesh), Control::Left) => bus.lose_member(mesh, origin),
        (None, Control::Beats { last }) => {
            for (mesh, seq) in last {
                bus.hear_last(&mesh, origin, seq, false);
            }
        }
        (Some(_), Control::Beats { .. }) | (None, _) => {}
    }
}
