//! A socket's bounded send queue.
//!
//! One task owns the socket and drains this; everybody else holds a cheap
//! handle and pushes. It is bounded in bytes and frames, each kind of content
//! in its own way:
//!
//! - **messages** are taken while there is room ([`OUTBOX_BYTES_MAX`]); else whoever
//!   has one leaves it in the store, where it already is;
//! - **answers** are always taken: a request is read only while there is room
//!   for its answer ([`Outbox::room`], [`Outbox::owe`]);
//! - **events** have a small part of their own ([`OUTBOX_EVENT_BYTES_MAX`]), in which
//!   newer ones push out older.
//!
//! So no want of room closes a socket. What has been taken counts until it is
//! written, so the bounds hold for everything that waits on the peer. An idle
//! outbox holds no memory.
//!
//! [`OUTBOX_BYTES_MAX`]: crate::limits::OUTBOX_BYTES_MAX
//! [`OUTBOX_EVENT_BYTES_MAX`]: crate::limits::OUTBOX_EVENT_BYTES_MAX

mod waiting;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::waiting::Waiting;
pub use self::waiting::{Content, Outgoing, Subject};
use crate::protocol::CloseReason;

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// There is no room now.
    Full,
    /// The socket is closing or gone.
    Closed,
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
struct State {
    waiting: Waiting,
    closing: Option<CloseReason>,
    /// Closing without what was queued.
    aborted: bool,
    /// The socket's owner is gone.
    gone: bool,
}

impl State {
    fn is_open(&self) -> bool {
        !self.gone && self.closing.is_none()
    }
}

/// A cloneable handle to one socket's send queue.
#[derive(Clone, Default)]
pub struct Outbox(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the owner.
    wake: Notify,
    /// Wakes whoever waits for room.
    room: Notify,
}

/// Room that is kept for an answer to come.
pub struct Owed {
    outbox: Outbox,
    bytes: usize,
}

impl Owed {
    /// The answer, in the room that was kept for it.
    pub fn pay(self, bytes: Bytes) {
        self.outbox.say(bytes);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let makes_room = {
            let waiting = &mut self.outbox.0.state.lock().waiting;
            let had_room = waiting.has_room();
            waiting.owed = waiting.owed.saturating_sub(self.bytes);
            !had_room && waiting.has_room()
        };
        if makes_room {
            self.outbox.0.room.notify_waiters();
        }
    }
}

impl Outbox {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues a message. One that is larger than the bound by itself is taken
    /// by an empty outbox.
    ///
    /// # Errors
    ///
    /// [`PushError`]; the frame is not queued.
    pub fn push(&self, frame: Outgoing) -> Result<(), PushError> {
        {
            let mut state = self.0.state.lock();
            if !state.is_open() {
                return Err(PushError::Closed);
            }
            if !state.waiting.takes(frame.bytes.len()) {
                return Err(PushError::Full);
            }
            state.waiting.queue(frame);
        }
        self.0.wake.notify_one();
        Ok(())
    }

    /// Queues an answer, whatever waits: whoever handles a request has waited for
    /// [`room`](Self::room) before, so what is queued so stays below
    /// [`OUTBOX_TOTAL_BYTES_MAX`](crate::limits::OUTBOX_TOTAL_BYTES_MAX).
    pub fn say(&self, bytes: Bytes) {
        {
            let mut state = self.0.state.lock();
            if !state.is_open() {
                return;
            }
            state.waiting.queue(Outgoing { bytes, content: Content::Answer });
        }
        self.0.wake.notify_one();
    }

    /// Keeps room for an answer that comes later, while other requests are read.
    #[must_use]
    pub fn owe(&self, bytes: usize) -> Owed {
        self.0.state.lock().waiting.owed += bytes;
        Owed { outbox: self.clone(), bytes }
    }

    /// Queues an event if there is room for it among events. An older one with
    /// the same subject that waits still is dropped, then whatever is oldest.
    pub fn tell(&self, bytes: Bytes, subject: &Arc<Subject>) {
        {
            let mut state = self.0.state.lock();
            if !state.is_open() || !state.waiting.queue_event(bytes, subject) {
                return;
            }
        }
        self.0.wake.notify_one();
    }

    /// Closes the socket after what is queued. The first reason given stays.
    pub fn close(&self, reason: CloseReason) {
        {
            let mut state = self.0.state.lock();
            state.closing.get_or_insert(reason);
        }
        self.0.wake.notify_one();
        self.0.room.notify_waiters();
    }

    /// Closes the socket at once: what is queued is dropped, and stays with
    /// the store where it is a delivery.
    pub fn abort(&self, reason: CloseReason) {
        let dropped = {
            let mut state = self.0.state.lock();
            state.closing.get_or_insert(reason);
            state.aborted = true;
            std::mem::take(&mut state.waiting.frames)
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
                let state = self.0.state.lock();
                if let (true, Some(reason)) = (state.aborted, state.closing) {
                    return reason;
                }
            }
            notified.await;
        }
    }

    /// Whether the socket still takes frames.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.state.lock().is_open()
    }

    /// Bytes that wait on the peer.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.state.lock().waiting.bytes()
    }

    /// Waits for frames and moves them to `out`, at most about `bytes_max`.
    /// Cancel-safe: frames move only when this returns.
    pub async fn take(&self, out: &mut VecDeque<Outgoing>, bytes_max: usize) -> Taken {
        loop {
            let notified = self.0.wake.notified();
            {
                let mut state = self.0.state.lock();
                state.waiting.take(out, bytes_max);
                if let (true, Some(reason)) = (state.waiting.frames.is_empty(), state.closing) {
                    return Taken::Close(reason);
                }
                if !out.is_empty() {
                    return Taken::Frames;
                }
            }
            notified.await;
        }
    }

    /// Frames taken before are written.
    pub fn written(&self, frames: &VecDeque<Outgoing>) {
        self.0.state.lock().waiting.written(frames);
        self.0.room.notify_waiters();
    }

    /// Whether less than half of the bound is in use, and the socket is open.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let state = self.0.state.lock();
        state.is_open() && state.waiting.has_room()
    }

    /// Waits until less than half of the bound is in use; `false` if the
    /// socket closes instead. For the reader of the peer's requests, whose
    /// answers are to find room.
    pub async fn room(&self) -> bool {
        loop {
            let notified = self.0.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let state = self.0.state.lock();
                if !state.is_open() {
                    return false;
                }
                if state.waiting.has_room() {
                    return true;
                }
            }
            notified.await;
        }
    }

    /// Waits as [`room`](Self::room) does and keeps so many bytes for an answer that is
    /// there already: of several that came at once each waits for those before it.
    /// `None` if the socket closes instead.
    pub async fn room_for(&self, bytes: usize) -> Option<Owed> {
        loop {
            let notified = self.0.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let mut state = self.0.state.lock();
                if !state.is_open() {
                    return None;
                }
                if state.waiting.has_room() {
                    state.waiting.owed += bytes;
                    return Some(Owed { outbox: self.clone(), bytes });
                }
            }
            notified.await;
        }
    }

    /// Waits until the socket takes nothing more.
    pub async fn closed(&self) {
        loop {
            let notified = self.0.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if !self.is_open() {
                return;
            }
            notified.await;
        }
    }

    /// The socket is gone; nothing more is taken, and what waited is dropped.
    pub fn retire(&self) {
        let dropped = {
            let mut state = self.0.state.lock();
            state.gone = true;
            std::mem::take(&mut state.waiting)
        };
        drop(dropped);
        self.0.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
