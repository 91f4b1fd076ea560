//! What is on its way to one session, and what it is done with. Pure.
//!
//! A session is *live* (frames go straight to its socket), *draining* (its
//! mail is read from the store; live frames wait behind a bounded gate so
//! that order holds) or *stalled* (it does not confirm fast enough, or its
//! socket has no room; what comes stays in the store until it does, or has).
//!
//! A delivery is *sent* until the peer is done with it (it confirmed, or, for
//! peers that never do, the frame was written), *done* until the store knows,
//! then forgotten. Whatever is in here is skipped by a drain, so nothing goes
//! out twice on one connection.

mod confirm;
mod drain;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::codec::SharedFrame;
use crate::id::MessageId;
use crate::limits;
use crate::protocol::Priority;

/// How far a delivery reached others too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// For this session alone; claimed for it in the store.
    Direct,
    /// For many; its place in the mesh's order.
    Multicast(i64),
}

/// One message on its way to a session.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its id.
    pub id: MessageId,
    /// Whether it is for this session alone.
    pub place: Place,
    /// Whether it may reach a session that is busy.
    pub priority: Priority,
    /// The sender's own id for it; a confirmation may name only that.
    pub client_message_id: Option<Arc<str>>,
    /// The frame.
    pub frame: Arc<SharedFrame>,
}

/// What to do with a live delivery.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer {
    /// Write it.
    Send,
    /// Nothing: it waits, or it went out before, or the store keeps it.
    Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Live,
    Draining,
    Stalled,
}

/// What waits behind the gate of a drain.
#[derive(Debug)]
enum Gated {
    Delivery(Delivery),
    /// A multicast that was not for this session when it came.
    Past(i64),
}

impl Gated {
    fn place(&self) -> Place {
        match self {
            Self::Delivery(delivery) => delivery.place,
            Self::Past(seq) => Place::Multicast(*seq),
        }
    }
}

#[derive(Debug)]
struct Flight {
    client_message_id: Option<Arc<str>>,
    /// When it was written to the socket; `None`: it waits for that.
    written_ms: Option<i64>,
    done: bool,
}

#[derive(Debug)]
struct MulticastFlight {
    seq: i64,
    id: MessageId,
    /// As of a direct message.
    written_ms: Option<i64>,
    done: bool,
    resend: bool,
    /// It went out before, and may be confirmed at any time.
    is_repeat: bool,
    /// The drain under way looks for it, to send it again.
    sought: bool,
}

/// The state of one session's deliveries.
#[derive(Debug)]
pub struct Inbox {
    phase: Phase,
    /// A drain was asked for while one ran.
    again: bool,
    confirms: bool,
    /// The session is busy: of direct messages it takes only urgent ones.
    holds: bool,
    directs: HashMap<MessageId, Flight>,
    /// Of `directs`: those that are not done.
    directs_open: usize,
    /// In the mesh's order; done ones leave from the front.
    multicasts: VecDeque<MulticastFlight>,
    /// Everything up to here was handed over or is not for this session.
    multicast_seen: i64,
    /// Live multicasts may have been missed: the next drain reads them.
    multicast_behind: bool,
    /// The position that the store knows.
    position_saved: i64,
    gate: VecDeque<Gated>,
    /// Sent by the drain under way: a gated twin is skipped. This set and the two
    /// below are nearly always empty, and each session has them: of this kind of set
    /// an empty one is half as large, and one that is cleared holds nothing.
    drained: BTreeSet<MessageId>,
    /// Came during the drain under way and were not for this session then.
    passed: Vec<i64>,
    /// Direct messages that drains found, newest last: their live twins may
    /// come from another node after they are done.
    found: VecDeque<MessageId>,
    /// Confirmed while a drain that may have found them again is under way.
    confirmed_meanwhile: BTreeSet<MessageId>,
    /// Not for this session any more; drains pass over them.
    refused: BTreeSet<MessageId>,
}

/// What a drain has to ask the store for.
#[derive(Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// Direct messages to pass over.
    pub in_flight: Vec<MessageId>,
    /// How many direct messages may be sent; 0: none now.
    pub room: u32,
    /// Multicasts after this position may have to be sent.
    pub multicasts_after: i64,
    /// Whether some of them may have been missed.
    pub behind: bool,
}

/// What is done and not yet in the store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Direct messages.
    pub directs: Vec<MessageId>,
    /// Multicasts up to here.
    pub position: Option<i64>,
}

impl Inbox {
    /// A session that begins at a multicast position and is about to drain.
    #[must_use]
    pub fn new(position: i64, confirms: bool) -> Self {
        Self {
            phase: Phase::Draining,
            again: false,
            confirms,
            holds: false,
            directs: HashMap::new(),
            directs_open: 0,
            multicasts: VecDeque::new(),
            multicast_seen: position,
            multicast_behind: true,
            position_saved: position,
            gate: VecDeque::new(),
            drained: BTreeSet::new(),
            passed: Vec::new(),
            found: VecDeque::new(),
            confirmed_meanwhile: BTreeSet::new(),
            refused: BTreeSet::new(),
        }
    }

    /// Whether the peer confirms its deliveries.
    #[must_use]
    pub fn confirms(&self) -> bool {
        self.confirms
    }

    /// From now on the session is busy, or is so no more; what was held is for
    /// a drain to find.
    pub fn hold(&mut self, holds: bool) {
        self.holds = holds;
    }

    fn is_held(&self, delivery: &Delivery) -> bool {
        self.holds && delivery.place == Place::Direct && delivery.priority != Priority::Now
    }

    /// Every multicast up to here is done with.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.multicasts.front().map_or(self.multicast_seen, |front| front.seq - 1)
    }

    /// Every multicast up to here was handed over or is not for this session.
    #[must_use]
    pub fn multicast_seen(&self) -> i64 {
        self.multicast_seen
    }

    /// Whether nothing is on its way and the store knows all.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.directs.is_empty()
            && self.multicasts.is_empty()
            && self.position() == self.position_saved
    }

    /// A live delivery arrives.
    pub fn offer(&mut self, delivery: &Delivery) -> Offer {
        match self.phase {
            Phase::Stalled => {
                self.missed(delivery.place);
                Offer::Keep
            }
            Phase::Draining => {
                self.wait(Gated::Delivery(delivery.clone()));
                Offer::Keep
            }
            Phase::Live => self.take_up(delivery),
        }
    }

    /// A delivery that was to be sent did not fit into the socket's outbox: it
    /// counts as never taken up, and a drain finds it again. A live session
    /// stalls until there is room; a drain under way goes round again.
    pub fn take_back(&mut self, delivery: &Delivery) {
        match delivery.place {
            Place::Direct => {
                if self.directs.remove(&delivery.id).is_some_and(|flight| !flight.done) {
                    self.directs_open -= 1;
                }
                self.drained.remove(&delivery.id);
                if self.found.back() == Some(&delivery.id) {
                    self.found.pop_back();
                }
            }
            Place::Multicast(seq) => {
                let is_newest = self.multicast_seen == seq
                    && self
                        .multicasts
                        .back()
                        .is_some_and(|flight| flight.seq == seq && !flight.is_repeat);
                if is_newest {
                    self.multicasts.pop_back();
                    self.multicast_seen = seq - 1;
                } else if let Some(flight) =
                    self.multicasts.iter_mut().find(|flight| flight.seq == seq)
                {
                    flight.resend = true;
                }
            }
        }
        self.missed(delivery.place);
        if self.phase == Phase::Live {
            self.phase = Phase::Stalled;
        }
    }

    fn take_up(&mut self, delivery: &Delivery) -> Offer {
        if self.is_held(delivery) {
            return Offer::Keep;
        }
        if self.is_full() {
            self.phase = Phase::Stalled;
            self.missed(delivery.place);
            return Offer::Keep;
        }
        match delivery.place {
            Place::Direct => {
                if self.directs.contains_key(&delivery.id) || self.found.contains(&delivery.id) {
                    return Offer::Keep;
                }
                self.fly(delivery);
            }
            Place::Multicast(seq) => {
                if seq <= self.multicast_seen {
                    return Offer::Keep;
                }
                self.multicast_seen = seq;
                self.fly_multicast(seq, delivery.id.clone());
            }
        }
        Offer::Send
    }

    /// A live multicast passed that is not for this session. It stays so: whoever
    /// joins a group later does not get what was sent to it before.
    pub fn pass_over(&mut self, seq: i64) {
        match self.phase {
            Phase::Live => self.multicast_seen = self.multicast_seen.max(seq),
            Phase::Draining => {
                // Beyond that the drain decides by what holds when it reads.
                if self.passed.len() < limits::GATE_FRAMES_MAX {
                    self.passed.push(seq);
                }
                self.wait(Gated::Past(seq));
            }
            Phase::Stalled => {}
        }
    }

    /// Waits for the end of the drain under way.
    fn wait(&mut self, gated: Gated) {
        if let (Some(Gated::Past(last)), Gated::Past(seq)) = (self.gate.back_mut(), &gated) {
            *last = (*last).max(*seq);
        } else if self.gate.len() < limits::GATE_FRAMES_MAX {
            self.gate.push_back(gated);
        } else {
            self.again = true;
            self.missed(gated.place());
        }
    }

    fn missed(&mut self, place: Place) {
        if matches!(place, Place::Multicast(_)) {
            self.multicast_behind = true;
        }
    }

    /// Live frames may have been lost on their way here.
    pub fn mark_behind(&mut self) {
        self.multicast_behind = true;
    }

    /// Whether nothing more may go out before something is done, or before
    /// the store has caught up with what is.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.flights() >= self.flights_max() || self.directs.len() >= limits::DONE_DELIVERIES_MAX
    }

    fn flights(&self) -> usize {
        self.directs_open + self.multicasts.len()
    }

    fn flights_max(&self) -> usize {
        if self.confirms { limits::INFLIGHT_DELIVERIES_MAX } else { limits::OUTBOX_FRAMES_MAX }
    }

    fn fly(&mut self, delivery: &Delivery) {
        let client_message_id = delivery.client_message_id.clone();
        let flight = Flight { client_message_id, written_ms: None, done: false };
        self.directs.insert(delivery.id.clone(), flight);
        self.directs_open += 1;
    }

    fn fly_multicast(&mut self, seq: i64, id: MessageId) {
        let (done, resend, is_repeat, sought) = (false, false, false, false);
        let written_ms = None;
        let flight = MulticastFlight { seq, id, written_ms, done, resend, is_repeat, sought };
        self.multicasts.push_back(flight);
    }
}

#[cfg(test)]
mod tests;
