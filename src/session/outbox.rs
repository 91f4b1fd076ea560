//! A socket's bounded send queue.
//!
//! One task owns the socket and drains this; everybody else holds a cheap
//! handle and pushes. It is bounded in bytes and frames, each kind of content
//! in its own way:
//!
//! - **messages** are taken while there is room ([`limits::OUTBOX_BYTES_MAX`]);
//!   else whoever has one leaves it in the store, where it already is;
//! - **answers** are always taken: a request is read only while there is room
//!   for its answer ([`Outbox::room`], [`Outbox::owe`]);
//! - **events** have a small part of their own
//!   ([`limits::OUTBOX_EVENT_BYTES_MAX`]), in which newer ones push out older.
//!
//! So no want of room closes a socket. What has been taken counts until it is
//! written, so the bounds hold for everything that waits on the peer. An idle
//! outbox holds no memory.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::id::{MessageId, PresenceId};
use crate::limits;
use crate::protocol::CloseReason;

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// There is no room now.
    Full,
    /// The socket is closing or gone.
    Closed,
}

/// What an event is about. Of two that wait with the same subject, the newer is
/// told.
#[derive(Debug, PartialEq, Eq)]
pub struct Subject {
    /// The presence.
    pub about: PresenceId,
    /// The event's name.
    pub event: Cow<'static, str>,
}

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The answer to a request of the peer.
    Answer,
    /// An event about another peer.
    Event(Arc<Subject>),
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
    /// What it is.
    pub content: Content,
}

impl Outgoing {
    fn is_event(&self) -> bool {
        matches!(self.content, Content::Event(_))
    }
}

/// What the socket's owner should do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Write the frames taken.
    Frames,
    /// Write the frames taken, then close with this.
    Close(CloseReason),
}

/// How much of something waits: queued, or taken and not yet written.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    bytes: usize,
    frames: usize,
}

impl Load {
    fn add(&mut self, frame: &Outgoing) {
        self.bytes += frame.bytes.len();
        self.frames += 1;
    }

    fn sub(&mut self, frame: &Outgoing) {
        self.bytes = self.bytes.saturating_sub(frame.bytes.len());
        self.frames = self.frames.saturating_sub(1);
    }
}

#[derive(Default)]
struct Inner {
    frames: VecDeque<Outgoing>,
    /// Of messages and answers.
    load: Load,
    events: Load,
    /// Bytes of answers that were promised room and are not there yet.
    owed: usize,
    closing: Option<CloseReason>,
    /// Closing without what was queued.
    aborted: bool,
    /// The socket's owner is gone.
    gone: bool,
}

impl Inner {
    fn is_open(&self) -> bool {
        !self.gone && self.closing.is_none()
    }

    fn has_room(&self) -> bool {
        self.load.bytes + self.owed < limits::OUTBOX_BYTES_MAX / 2
            && self.load.frames < limits::OUTBOX_FRAMES_MAX / 2
    }

    fn queue(&mut self, frame: Outgoing) {
        if frame.is_event() {
            self.events.add(&frame)
        } else {
            self.load.add(&frame)
        }
        self.frames.push_back(frame);
    }

    /// Events that wait and fit, once one of so many bytes is added.
    fn events_fit(&self, bytes: usize) -> bool {
        self.events.frames == 0
            || (self.events.bytes + bytes <= limits::OUTBOX_EVENT_BYTES_MAX
                && self.events.frames < limits::OUTBOX_EVENTS_MAX)
    }

    /// Takes the first queued event out that fits; whether there was one.
    fn drop_event(&mut self, fits: impl Fn(&Subject) -> bool) -> bool {
        let is_it =
            |frame: &Outgoing| matches!(&frame.content, Content::Event(subject) if fits(subject));
        let Some(at) = self.frames.iter().position(is_it) else { return false };
        if let Some(frame) = self.frames.remove(at) {
            self.events.sub(&frame);
        }
        true
    }
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
            let mut inner = self.outbox.0.inner.lock();
            let had_room = inner.has_room();
            inner.owed = inner.owed.saturating_sub(self.bytes);
            !had_room && inner.has_room()
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
            let mut inner = self.0.inner.lock();
            if !inner.is_open() {
                return Err(PushError::Closed);
            }
            let over = inner.load.bytes + inner.owed + frame.bytes.len() > limits::OUTBOX_BYTES_MAX
                || inner.load.frames >= limits::OUTBOX_FRAMES_MAX;
            if over && inner.load.frames > 0 {
                return Err(PushError::Full);
            }
            inner.queue(frame);
        }
        self.0.wake.notify_one();
        Ok(())
    }

    /// Queues an answer, whatever waits: whoever handles a request has waited for
    /// [`room`](Self::room) before, so what is queued so stays below
    /// [`limits::OUTBOX_TOTAL_BYTES_MAX`].
    pub fn say(&self, bytes: Bytes) {
        {
            let mut inner = self.0.inner.lock();
            if !inner.is_open() {
                return;
            }
            inner.queue(Outgoing { bytes, content: Content::Answer });
        }
        self.0.wake.notify_one();
    }

    /// Keeps room for an answer that comes later, while other requests are read.
    #[must_use]
    pub fn owe(&self, bytes: usize) -> Owed {
        self.0.inner.lock().owed += bytes;
        Owed { outbox: self.clone(), bytes }
    }

    /// Queues an event if there is room for it among events. An older one with
    /// the same subject that waits still is dropped, then whatever is oldest.
    pub fn tell(&self, bytes: Bytes, subject: &Arc<Subject>) {
        {
            let mut inner = self.0.inner.lock();
            if !inner.is_open() {
                return;
            }
            if !inner.events_fit(bytes.len()) {
                while inner.drop_event(|waiting| waiting == &**subject) {}
            }
            while !inner.events_fit(bytes.len()) {
                if !inner.drop_event(|_| true) {
                    // Those that are being written take all the room there is.
                    return;
                }
            }
            inner.queue(Outgoing { bytes, content: Content::Event(Arc::clone(subject)) });
        }
        self.0.wake.notify_one();
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
        self.0.inner.lock().is_open()
    }

    /// Bytes that wait on the peer.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let inner = self.0.inner.lock();
        inner.load.bytes + inner.events.bytes
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
    pub fn written(&self, frames: &VecDeque<Outgoing>) {
        {
            let mut inner = self.0.inner.lock();
            for frame in frames {
                if frame.is_event() { inner.events.sub(frame) } else { inner.load.sub(frame) }
            }
        }
        self.0.room.notify_waiters();
    }

    /// Whether less than half of the bound is in use, and the socket is open.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let inner = self.0.inner.lock();
        inner.is_open() && inner.has_room()
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
                let inner = self.0.inner.lock();
                if !inner.is_open() {
                    return false;
                }
                if inner.has_room() {
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
            inner.load = Load::default();
            inner.events = Load::default();
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
        Outgoing { bytes: Bytes::from(vec![b'x'; bytes]), content: Content::Multicast(1) }
    }

    fn subject(about: usize, event: &'static str) -> Arc<Subject> {
        Arc::new(Subject { about: PresenceId::from(about.to_string()), event: event.into() })
    }

    fn event(bytes: usize) -> Bytes {
        Bytes::from(vec![b'e'; bytes])
    }

    async fn all_of(outbox: &Outbox) -> VecDeque<Outgoing> {
        let mut out = VecDeque::new();
        assert_eq!(outbox.take(&mut out, usize::MAX).await, Taken::Frames);
        out
    }

    #[tokio::test]
    async fn what_is_taken_counts_until_it_is_written() {
        let outbox = Outbox::new();
        let half = limits::OUTBOX_BYTES_MAX / 2;
        outbox.push(frame(half)).expect("fits");
        outbox.push(frame(half)).expect("fits");
        assert_eq!(outbox.push(frame(1)), Err(PushError::Full));
        let out = all_of(&outbox).await;
        assert_eq!(outbox.push(frame(1)), Err(PushError::Full));
        outbox.written(&out);
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
    async fn an_answer_is_taken_by_a_full_outbox_and_what_is_owed_counts() {
        let outbox = Outbox::new();
        outbox.push(frame(limits::OUTBOX_BYTES_MAX)).expect("fits");
        outbox.say(event(10));
        assert!(outbox.is_open() && !outbox.has_room());
        assert_eq!(outbox.bytes(), limits::OUTBOX_BYTES_MAX + 10);
        let out = all_of(&outbox).await;
        outbox.written(&out);
        assert!(outbox.has_room());

        let owed = outbox.owe(limits::OUTBOX_BYTES_MAX / 2);
        assert!(!outbox.has_room(), "no other request is read meanwhile");
        outbox.push(frame(1)).expect("half of it is free");
        assert_eq!(outbox.push(frame(limits::OUTBOX_BYTES_MAX / 2)), Err(PushError::Full));
        owed.pay(event(10));
        assert!(outbox.has_room());
        assert_eq!(outbox.bytes(), 11);
    }

    #[tokio::test]
    async fn events_have_a_part_of_their_own_and_close_nobody() {
        let outbox = Outbox::new();
        outbox.push(frame(limits::OUTBOX_BYTES_MAX)).expect("fits");
        let bytes = limits::OUTBOX_EVENT_BYTES_MAX / 8;
        for about in 0..100 {
            outbox.tell(event(bytes), &subject(about, "peer_joined"));
        }
        assert!(outbox.is_open());
        assert_eq!(outbox.bytes(), limits::OUTBOX_BYTES_MAX + limits::OUTBOX_EVENT_BYTES_MAX);
        let out = all_of(&outbox).await;
        let told: Vec<_> = out
            .iter()
            .filter_map(|frame| match &frame.content {
                Content::Event(subject) => Some(subject.about.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(told, ["92", "93", "94", "95", "96", "97", "98", "99"], "the newest");
        // While they are being written, there is no room for more.
        outbox.tell(event(bytes), &subject(100, "peer_joined"));
        assert_eq!(outbox.bytes(), limits::OUTBOX_BYTES_MAX + limits::OUTBOX_EVENT_BYTES_MAX);
        outbox.written(&out);
        assert_eq!(outbox.bytes(), 0);
        for _ in 0..2 * limits::OUTBOX_EVENTS_MAX {
            outbox.tell(event(1), &subject(1, "peer_left"));
        }
        assert!(outbox.bytes() <= limits::OUTBOX_EVENTS_MAX, "small ones are counted");
        outbox.push(frame(limits::OUTBOX_BYTES_MAX)).expect("messages have their room");
    }

    #[tokio::test]
    async fn of_events_about_one_presence_the_newest_of_each_kind_stays() {
        let outbox = Outbox::new();
        let bytes = limits::OUTBOX_EVENT_BYTES_MAX / 3;
        let (hidden, visible) = (subject(1, "peer_hidden"), subject(1, "peer_visible"));
        let other = subject(2, "peer_joined");
        outbox.tell(event(bytes), &other);
        for _ in 0..10 {
            outbox.tell(event(bytes), &hidden);
            outbox.tell(event(bytes), &visible);
        }
        let out = all_of(&outbox).await;
        let contents: Vec<_> = out.into_iter().map(|frame| frame.content).collect();
        assert_eq!(contents, [other, hidden, visible].map(Content::Event), "in order, once each");
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
            async move { outbox.room().await }
        });
        tokio::task::yield_now().await;
        outbox.retire();
        assert!(!waiter.await.expect("no panic"));
    }
}
