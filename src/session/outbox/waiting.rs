//! The frames that wait on one peer, counted by kind. Pure; for [`Outbox`] alone.
//!
//! [`Outbox`]: super::Outbox

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::id::MessageId;
use crate::limits;

/// What an event is about. Of two that wait with the same subject, the newer is
/// told.
#[derive(Debug, PartialEq, Eq)]
pub struct Subject {
    /// The presence, or the thing that the mesh shares.
    about: Box<str>,
    /// The event's name.
    event: Cow<'static, str>,
    /// Whether each of them counts for itself.
    is_data: bool,
}

impl Subject {
    /// An event of that name about a presence or a thing.
    pub fn new(about: &str, event: impl Into<Cow<'static, str>>) -> Self {
        Self { about: about.into(), event: event.into(), is_data: false }
    }

    /// Data that a newer piece does not replace. For want of room they push out older
    /// data, and nothing else.
    #[must_use]
    pub fn of_data() -> Self {
        Self { is_data: true, ..Self::new("", "") }
    }

    /// The presence, or the thing.
    #[cfg(test)]
    pub(super) fn about(&self) -> &str {
        &self.about
    }
}

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The answer to a request of the peer.
    Answer,
    /// An event about another peer.
    Event(Arc<Subject>),
    /// What another peer asks of this one. Kept nowhere: where there is no room for it,
    /// whoever asked is told.
    Relayed,
    /// A direct message.
    Direct(MessageId),
    /// A multicast, by its sequence number.
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

/// What waits on one peer, until it is written.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) frames: VecDeque<Outgoing>,
    /// Messages and answers.
    load: Load,
    events: Load,
    /// Bytes of answers that were promised room and are not there yet.
    pub(super) owed: usize,
}

impl Waiting {
    pub(super) fn bytes(&self) -> usize {
        self.load.bytes + self.events.bytes
    }

    /// Whether less than half of the bound is in use.
    pub(super) fn has_room(&self) -> bool {
        self.load.bytes + self.owed < limits::OUTBOX_BYTES_MAX / 2
            && self.load.frames < limits::OUTBOX_FRAMES_MAX / 2
    }

    /// Whether a message of so many bytes may be queued. One that is larger than
    /// the bound by itself goes alone.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        self.load.frames == 0
            || (self.load.bytes + self.owed + bytes <= limits::OUTBOX_BYTES_MAX
                && self.load.frames < limits::OUTBOX_FRAMES_MAX)
    }

    pub(super) fn queue(&mut self, frame: Outgoing) {
        self.load_of(&frame).add(&frame);
        self.frames.push_back(frame);
    }

    /// Queues an event; what it pushes out is dropped. If those that are being
    /// written take all the room there is, so is the event itself.
    pub(super) fn queue_event(&mut self, bytes: Bytes, subject: &Arc<Subject>) -> bool {
        if !subject.is_data && !self.events_fit(bytes.len()) {
            while self.drop_event(|waiting| waiting == &**subject) {}
        }
        while !self.events_fit(bytes.len()) {
            if !self.drop_event(|waiting| waiting.is_data || !subject.is_data) {
                return false;
            }
        }
        self.queue(Outgoing { bytes, content: Content::Event(Arc::clone(subject)) });
        true
    }

    /// Moves frames of about so many bytes to `out`. They count until they are
    /// written.
    pub(super) fn take(&mut self, out: &mut VecDeque<Outgoing>, bytes_max: usize) {
        let mut bytes = 0;
        while bytes < bytes_max {
            let Some(frame) = self.frames.pop_front() else { break };
            bytes += frame.bytes.len();
            out.push_back(frame);
        }
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }

    pub(super) fn written(&mut self, frames: &VecDeque<Outgoing>) {
        for frame in frames {
            self.load_of(frame).sub(frame);
        }
    }

    fn load_of(&mut self, frame: &Outgoing) -> &mut Load {
        if matches!(frame.content, Content::Event(_)) { &mut self.events } else { &mut self.load }
    }

    /// Events that wait and fit, once one of so many bytes is added.
    fn events_fit(&self, bytes: usize) -> bool {
        self.events.frames == 0
            || (self.events.bytes + bytes <= limits::OUTBOX_EVENT_BYTES_MAX
                && self.events.frames < limits::OUTBOX_EVENTS_MAX)
    }

    /// Takes the first queued event out that fits; whether there was one.
    fn drop_event(&mut self, fits: impl Fn(&Subject) -> bool) -> bool {
        let is_meant =
            |frame: &Outgoing| matches!(&frame.content, Content::Event(subject) if fits(subject));
        let Some(at) = self.frames.iter().position(is_meant) else { return false };
        if let Some(frame) = self.frames.remove(at) {
            self.events.sub(&frame);
        }
        true
    }
}
