//! What a client hands to its program.

use std::collections::{HashSet, VecDeque};

use serde_json::Value;
use tokio::sync::mpsc;

use crate::id::MessageId;
use crate::protocol::{ErrorFrame, Push};

/// Something that happened to a client, in order.
#[derive(Clone, Debug)]
pub enum Inbound {
    /// A message.
    Message {
        /// The push, as it came.
        push: Box<Push>,
        /// What it says; `None` if it is for none of this client's keys.
        plaintext: Option<Vec<u8>>,
        /// Whether it was sealed: if not, the broker could read it, too.
        is_sealed: bool,
    },
    /// A system event: `peer_joined`, `peer_left` ...
    Event {
        /// The event's name.
        event: String,
        /// The event's data.
        data: Value,
    },
    /// An error that answers no request of this client.
    Error(ErrorFrame),
    /// A frame that this client has no type for.
    Other {
        /// The frame's `type`.
        kind: String,
        /// The whole frame.
        body: Value,
    },
    /// The connection was lost; the client tries to come back.
    Disconnected {
        /// The close code; 1006 if there was none.
        code: u16,
        /// The reason.
        reason: String,
    },
    /// The client is back.
    Reconnected {
        /// The presence that the client has now.
        presence_id: String,
        /// Whether that is the one it had. If not, nobody knows its status,
        /// summary and groups any more: say them again.
        same_presence: bool,
    },
    /// The end: nothing follows.
    Closed {
        /// The close code; 1006 if there was none.
        code: u16,
        /// The reason, stable for programs.
        reason: String,
    },
}

impl Inbound {
    /// The message's text, if this is a message that could be opened and that
    /// holds text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Message { plaintext, .. } => std::str::from_utf8(plaintext.as_deref()?).ok(),
            _ => None,
        }
    }
}

/// The program's end of the queue. While it is full, nothing further is read
/// from the socket, acks of sends included: read it beside what you send.
#[derive(Debug)]
pub struct Inbox {
    pub(super) queue: mpsc::Receiver<Inbound>,
}

impl Inbox {
    /// The next; `None` after [`Inbound::Closed`]. Cancel safe.
    pub async fn recv(&mut self) -> Option<Inbound> {
        self.queue.recv().await
    }

    /// The next, if it is here already.
    pub fn try_recv(&mut self) -> Option<Inbound> {
        self.queue.try_recv().ok()
    }

    /// The next message, past everything else.
    pub async fn message(&mut self) -> Option<(Box<Push>, Option<Vec<u8>>)> {
        loop {
            if let Inbound::Message { push, plaintext, .. } = self.recv().await? {
                return Some((push, plaintext));
            }
        }
    }
}

/// Which messages came lately: the same may be delivered again after a lost
/// connection.
#[derive(Debug)]
pub(super) struct Remembered {
    max: usize,
    order: VecDeque<MessageId>,
    known: HashSet<MessageId>,
}

impl Remembered {
    pub(super) fn new(max: usize) -> Self {
        Self { max, order: VecDeque::new(), known: HashSet::new() }
    }

    /// Notes a message; whether it is the first time.
    pub(super) fn is_new(&mut self, id: &MessageId) -> bool {
        if self.max == 0 {
            return true;
        }
        if !self.known.insert(id.clone()) {
            return false;
        }
        if self.order.len() >= self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(id.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_recognised_until_others_displace_it() {
        let mut remembered = Remembered::new(2);
        let ids = ["a", "b", "c"].map(MessageId::from);
        assert!(remembered.is_new(&ids[0]) && !remembered.is_new(&ids[0]));
        assert!(remembered.is_new(&ids[1]) && remembered.is_new(&ids[2]));
        assert!(remembered.is_new(&ids[0]), "displaced");
        assert!(!remembered.is_new(&ids[2]));
        assert_eq!((remembered.order.len(), remembered.known.len()), (2, 2));
    }

    #[test]
    fn nothing_is_recognised_when_nothing_may_be_kept() {
        let mut remembered = Remembered::new(0);
        assert!(remembered.is_new(&MessageId::from("a")));
        assert!(remembered.is_new(&MessageId::from("a")));
        assert!(remembered.known.is_empty());
    }
}
