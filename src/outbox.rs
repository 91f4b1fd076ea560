//! A socket's bounded send queue.
//!
//! One task owns the socket and drains this; everybody else holds a cheap
//! handle and pushes. It is bounded in bytes and frames
//! ([`limits::OUTBOX_BYTES_MAX`]); what has
//! been taken counts until it is written, so the bound holds for everything
//! that waits on the peer. An idle outbox holds no memory.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::id::MessageId;
use crate::limits;
use crate::protocol::CloseReason;

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// The reader does not keep up.
    Full,
    /// The socket is closing or gone.
    Closed,
}

/// What is to be told when a frame is written: which delivery it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// A direct message.
    Direct(MessageId),
    /// A multicast, by its place in the mesh's order.
    Multicast(i64),
}

/// One frame on its way out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The encoded frame, shared by all who get it.
    pub bytes: Bytes,
    /// Set on deliveries.
    pub receipt: Option<Receipt>,
}

/// What the socket's owner should do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Write the frames taken.
    Frames,
    /// Write the frames taken, then close with this.
    Close(CloseReason),
}

#[derive(Default)]
struct Inner {
    frames: VecDeque<Outgoing>,
    /// Of the frames queued and of those taken and not yet written.
    bytes: usize,
    taken: usize,
    closing: Option<CloseReason>,
    /// Closing without what was queued.
    aborted: bool,
    /// The socket's owner is gone.
    gone: bool,
}

/// A cloneable handle to one socket's send queue.
#[derive(Clone, Default)]
pub struct Outbox(Arc<Shared>);

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// Wakes the owner.
    wake: Notify,
    /// Wakes whoever waits for room.
    room: Notify,
}

impl Outbox {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues a frame. One that is larger than the bound by itself is taken
    /// by an empty outbox: an answer is never refused for its size alone.
    ///
    /// # Errors
    ///
    /// [`PushError`]; the frame is not queued.
    pub fn push(&self, frame: Outgoing) -> Result<(), PushError> {
        {
            let mut inner = self.0.inner.lock();
            if inner.gone || inner.closing.is_some() {
                return Err(PushError::Closed);
            }
            let frames = inner.frames.len() + inner.taken;
            let over = inner.bytes + frame.bytes.len() > limits::OUTBOX_BYTES_MAX
                || frames >= limits::OUTBOX_FRAMES_MAX;
            if over && frames > 0 {
                return Err(PushError::Full);
            }
            inner.bytes += frame.bytes.len();
            inner.frames.push_back(frame);
        }
        self.0.wake.notify_one();
        Ok(())
    }

    /// Queues an answer or an event. If it cannot be taken the reader does
    /// not keep up, and the socket is closed with that reason.
    pub fn say(&self, bytes: Bytes) {
        if self.push(Outgoing { bytes, receipt: None }) == Err(PushError::Full) {
            self.abort(CloseReason::SLOW_READER);
        }
    }

    /// Closes the socket after what is queued. The first reason given stays.
    pub fn close(&self, reason: CloseReason) {
        {
            let mut inner = self.0.inner.lock();
            inner.closing.get_or_insert(reason);
        }
        self.0.wake.notify_one();
        self.0.room.notify_waiters();
    }

    /// Closes the socket at once: what is queued is dropped, and stays with
    /// the store where it is a delivery.
    pub fn abort(&self, reason: CloseReason) {
        let dropped = {
            let mut inner = self.0.inner.lock();
            inner.closing.get_or_insert(reason);
            inner.aborted = true;
            std::mem::take(&mut inner.frames)
        };
        drop(dropped);
        self.0.wake.notify_one();
        self.0.room.notify_waiters();
    }

    /// Waits for [`abort`](Self::abort); a write under way gives up then.
    pub async fn aborted(&self) -> CloseReason {
        loop {
            let notified = self.0.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let inner = self.0.inner.lock();
                if let (true, Some(reason)) = (inner.aborted, inner.closing) {
                    return reason;
                }
            }
            notified.await;
        }
    }

    /// Whether the socket still takes frames.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let inner = self.0.inner.lock();
        !inner.gone && inner.closing.is_none()
    }

    /// Bytes that wait on the peer.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.inner.lock().bytes
    }

    /// Waits for frames and moves them to `out`, at most about `bytes_max`.
    /// Cancel-safe: frames move only when this returns.
    pub async fn take(&self, out: &mut VecDeque<Outgoing>, bytes_max: usize) -> Taken {
        loop {
            let notified = self.0.wake.notified();
            {
                let mut inner = self.0.inner.lock();
                let mut bytes = 0;
                while bytes < bytes_max {
                    let Some(frame) = inner.frames.pop_front() else { break };
                    bytes += frame.bytes.len();
                    inner.taken += 1;
                    out.push_back(frame);
                }
                if inner.frames.is_empty() {
                    inner.frames = VecDeque::new();
                    if let Some(reason) = inner.closing {
                        return Taken::Close(reason);
                    }
                }
                if !out.is_empty() {
                    return Taken::Frames;
                }
            }
            notified.await;
        }
    }

    /// Frames taken before are written.
    pub fn written(&self, frames: usize, bytes: usize) {
        {
            let mut inner = self.0.inner.lock();
            inner.taken = inner.taken.saturating_sub(frames);
            inner.bytes = inner.bytes.saturating_sub(bytes);
        }
        self.0.room.notify_waiters();
    }

    /// Waits until less than half of the bound is in use; `false` if the
    /// socket closes instead. For those who can wait: drains.
    pub async fn has_room(&self) -> bool {
        loop {
            let notified = self.0.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let inner = self.0.inner.lock();
                if inner.gone || inner.closing.is_some() {
                    return false;
                }
                let frames = inner.frames.len() + inner.taken;
                if inner.bytes < limits::OUTBOX_BYTES_MAX / 2
                    && frames < limits::OUTBOX_FRAMES_MAX / 2
                {
                    return true;
                }
            }
            notified.await;
        }
    }

    /// The socket is gone; nothing more is taken, and what waited is dropped.
    pub fn retire(&self) {
        let dropped = {
            let mut inner = self.0.inner.lock();
            inner.gone = true;
            inner.bytes = 0;
            inner.taken = 0;
            std::mem::take(&mut inner.frames)
        };
        drop(dropped);
        self.0.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Outgoing {
        Outgoing { bytes: Bytes::from(vec![b'x'; bytes]), receipt: None }
    }

    #[tokio::test]
    async fn what_is_taken_counts_until_it_is_written() {
        let outbox = Outbox::new();
        let half = limits::OUTBOX_BYTES_MAX / 2;
        outbox.push(frame(half)).expect("fits");
        outbox.push(frame(half)).expect("fits");
        assert_eq!(outbox.push(frame(1)), Err(PushError::Full));
        let mut out = VecDeque::new();
        assert_eq!(outbox.take(&mut out, usize::MAX).await, Taken::Frames);
        assert_eq!(outbox.push(frame(1)), Err(PushError::Full));
        outbox.written(2, 2 * half);
        outbox.push(frame(1)).expect("there is room again");
        assert_eq!(outbox.bytes(), 1);
    }

    #[tokio::test]
    async fn frames_are_bounded_in_number_too() {
        let outbox = Outbox::new();
        for _ in 0..limits::OUTBOX_FRAMES_MAX {
            outbox.push(frame(1)).expect("fits");
        }
        assert_eq!(outbox.push(frame(1)), Err(PushError::Full));
    }

    #[tokio::test]
    async fn an_empty_outbox_takes_one_frame_of_any_size() {
        let outbox = Outbox::new();
        outbox.push(frame(limits::OUTBOX_BYTES_MAX * 2)).expect("alone");
        assert_eq!(outbox.push(frame(1)), Err(PushError::Full));
    }

    #[tokio::test]
    async fn close_writes_what_is_queued_and_abort_does_not() {
        let outbox = Outbox::new();
        outbox.push(frame(1)).expect("fits");
        outbox.close(CloseReason::KICKED);
        assert_eq!(outbox.push(frame(1)), Err(PushError::Closed));
        let mut out = VecDeque::new();
        assert_eq!(outbox.take(&mut out, usize::MAX).await, Taken::Close(CloseReason::KICKED));
        assert_eq!(out.len(), 1);

        let outbox = Outbox::new();
        outbox.push(frame(1)).expect("fits");
        outbox.abort(CloseReason::SLOW_READER);
        outbox.close(CloseReason::KICKED);
        let mut out = VecDeque::new();
        assert_eq!(outbox.take(&mut out, usize::MAX).await, Taken::Close(CloseReason::SLOW_READER));
        assert!(out.is_empty());
    }

    #[tokio::test]
    async fn waiting_for_room_ends_when_the_socket_does() {
        let outbox = Outbox::new();
        outbox.push(frame(limits::OUTBOX_BYTES_MAX)).expect("fits");
        let waiter = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.has_room().await }
        });
        tokio::task::yield_now().await;
        outbox.retire();
        assert!(!waiter.await.expect("no panic"));
    }
}
