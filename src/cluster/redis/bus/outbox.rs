//! The bounded way from whoever publishes to the publisher.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::frame::Payload;
use crate::id::MeshId;
use crate::limits::{BUS_OUTBOX_FRAMES_MAX, BUS_QUEUED_BYTES_MAX};

/// What the publisher is to do.
pub(super) enum Queued {
    Frame(QueuedFrame),
    /// Answer when everything before this is sent or lost.
    Flush(oneshot::Sender<()>),
}

pub(super) struct QueuedFrame {
    pub(super) channel: String,
    /// The meshes whose numbers are told again if it is lost.
    pub(super) meshes: Vec<MeshId>,
    pub(super) seq: u64,
    pub(super) first: bool,
    pub(super) payload: Payload,
}

pub(super) struct Outbox {
    queue: mpsc::Sender<Queued>,
    bytes: AtomicUsize,
}

impl Outbox {
    pub(super) fn new() -> (Self, mpsc::Receiver<Queued>) {
        let (queue, receiver) = mpsc::channel(BUS_OUTBOX_FRAMES_MAX);
        (Self { queue, bytes: AtomicUsize::new(0) }, receiver)
    }

    /// Called with the channels locked, so that the queue has the numbers' order.
    /// What does not fit is lost; the beats that follow every number tell.
    pub(super) fn queue(&self, frame: QueuedFrame) {
        let bytes = frame.payload.len();
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) > BUS_QUEUED_BYTES_MAX
            || self.queue.try_send(Queued::Frame(frame)).is_err()
        {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// The publisher has taken these frames.
    pub(super) fn taken(&self, frames: &[QueuedFrame]) {
        let bytes = frames.iter().map(|frame| frame.payload.len()).sum();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Waits until what was queued is sent or lost.
    pub(super) async fn flush(&self) {
        let (done, until_done) = oneshot::channel();
        if self.queue.send(Queued::Flush(done)).await.is_ok() {
            let _ = until_done.await;
        }
    }
}
