//! What is on its way to one session, and what it is done with. Pure.
//!
//! A session is *live* (frames go straight to its socket), *draining* (its
//! mail is read from the store; live frames wait behind a bounded gate so
//! that order holds) or *stalled* (it does not confirm fast enough; what
//! comes stays in the store until it does).
//!
//! A delivery is *sent* until the peer is done with it (it confirmed, or, for
//! peers that never do, the frame was written), *done* until the store knows,
//! then forgotten. Whatever is in here is skipped by a drain, so nothing goes
//! out twice on one connection.

use std::collections::{HashMap, HashSet, VecDeque};
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

#[derive(Debug)]
struct Flight {
    client_message_id: Option<Arc<str>>,
    sent_ms: i64,
    done: bool,
}

#[derive(Debug)]
struct MulticastFlight {
    seq: i64,
    id: MessageId,
    sent_ms: i64,
    done: bool,
    resend: bool,
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
    gate: VecDeque<Delivery>,
    /// Sent by the drain under way: a gated twin is skipped.
    drained: HashSet<MessageId>,
    /// Direct messages that drains found, newest last: their live twins may
    /// come from another node after they are done.
    found: VecDeque<MessageId>,
    /// Confirmed while a drain that may have found them again is under way.
    confirmed_meanwhile: HashSet<MessageId>,
    /// Not for this session any more; drains pass over them.
    refused: HashSet<MessageId>,
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
            drained: HashSet::new(),
            found: VecDeque::new(),
            confirmed_meanwhile: HashSet::new(),
            refused: HashSet::new(),
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

    // --- live ----------------------------------------------------------------

    /// A live delivery arrives.
    pub fn offer(&mut self, delivery: &Delivery, now_ms: i64) -> Offer {
        match self.phase {
            Phase::Stalled => {
                self.missed(delivery.place);
                Offer::Keep
            }
            Phase::Draining => {
                if self.gate.len() < limits::GATE_FRAMES_MAX {
                    self.gate.push_back(delivery.clone());
                } else {
                    self.missed(delivery.place);
                    self.again = true;
                }
                Offer::Keep
            }
            Phase::Live => self.take_up(delivery, now_ms),
        }
    }

    fn take_up(&mut self, delivery: &Delivery, now_ms: i64) -> Offer {
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
                self.fly(delivery, now_ms);
            }
            Place::Multicast(seq) => {
                if seq <= self.multicast_seen {
                    return Offer::Keep;
                }
                self.multicast_seen = seq;
                self.fly_multicast(seq, delivery.id.clone(), now_ms);
            }
        }
        Offer::Send
    }

    /// A live multicast passed that is not for this session.
    pub fn pass_over(&mut self, seq: i64) {
        if self.phase == Phase::Live && seq > self.multicast_seen {
            self.multicast_seen = seq;
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

    fn fly(&mut self, delivery: &Delivery, now_ms: i64) {
        let client_message_id = delivery.client_message_id.clone();
        let flight = Flight { client_message_id, sent_ms: now_ms, done: false };
        self.directs.insert(delivery.id.clone(), flight);
        self.directs_open += 1;
    }

    fn fly_multicast(&mut self, seq: i64, id: MessageId, now_ms: i64) {
        let flight = MulticastFlight { seq, id, sent_ms: now_ms, done: false, resend: false };
        self.multicasts.push_back(flight);
    }

    // --- drain -----------------------------------------------------------------

    /// A drain is wanted. `true` if the caller must run it; else the one
    /// under way will go round again.
    pub fn begin_drain(&mut self) -> bool {
        if self.phase == Phase::Draining {
            self.again = true;
            return false;
        }
        self.phase = Phase::Draining;
        true
    }

    /// What to ask the store for, at the start of each round.
    pub fn plan_drain(&mut self) -> DrainPlan {
        self.again = false;
        let room = if self.is_full() { 0 } else { self.flights_max() - self.flights() };
        // Forgotten here, so that one missed while the store is read counts.
        let behind = std::mem::take(&mut self.multicast_behind);
        let resends = self.multicasts.iter().any(|flight| flight.resend);
        let after = if resends { self.position() } else { self.multicast_seen };
        DrainPlan {
            in_flight: self.directs.keys().chain(&self.refused).cloned().collect(),
            room: u32::try_from(room.min(limits::DRAIN_BATCH_ENVELOPES_MAX)).unwrap_or(u32::MAX),
            multicasts_after: after,
            behind,
        }
    }

    /// The drain found this; whether it is to be sent.
    pub fn drained(&mut self, delivery: &Delivery, now_ms: i64) -> Offer {
        if self.is_held(delivery) {
            return Offer::Keep;
        }
        match delivery.place {
            Place::Direct => {
                let known = self.directs.contains_key(&delivery.id)
                    || self.confirmed_meanwhile.contains(&delivery.id);
                if known {
                    return Offer::Keep;
                }
                self.drained.insert(delivery.id.clone());
                if self.found.len() >= limits::FOUND_DELIVERIES_MAX {
                    self.found.pop_front();
                }
                self.found.push_back(delivery.id.clone());
                self.fly(delivery, now_ms);
                Offer::Send
            }
            Place::Multicast(seq) => {
                if seq > self.multicast_seen {
                    self.multicast_seen = seq;
                    self.fly_multicast(seq, delivery.id.clone(), now_ms);
                    return Offer::Send;
                }
                let flight = self
                    .multicasts
                    .iter_mut()
                    .find(|flight| flight.seq == seq && flight.resend && !flight.done);
                match flight {
                    Some(flight) => {
                        flight.resend = false;
                        flight.sent_ms = now_ms;
                        Offer::Send
                    }
                    None => Offer::Keep,
                }
            }
        }
    }

    /// The drain found a multicast that is not for this session.
    pub fn drained_past(&mut self, seq: i64) {
        self.multicast_seen = self.multicast_seen.max(seq);
        // One that went out, was not confirmed and is not for this session any
        // more (it left the group, a grant changed) is over.
        for flight in self.multicasts.iter_mut().take_while(|flight| flight.seq <= seq) {
            flight.done |= flight.resend;
        }
        self.pop_done();
    }

    /// The drain found a message that this session must not get. `false` if
    /// too many are: the drain ends, so that it does not find them for ever.
    pub fn refuse(&mut self, id: MessageId) -> bool {
        let known = self.refused.len() < limits::REFUSED_DELIVERIES_MAX;
        if known {
            self.refused.insert(id);
        }
        known
    }

    /// What is refused may have changed.
    pub fn forget_refused(&mut self) {
        self.refused.clear();
    }

    /// Whether it waits behind the gate.
    #[must_use]
    pub fn is_gated(&self, id: &MessageId) -> bool {
        self.gate.iter().any(|delivery| delivery.id == *id)
    }

    /// A round is over. `None`: go round again. Else the session is live (or
    /// stalled), and what waited behind the gate comes out, to be written in
    /// this order.
    pub fn end_drain(&mut self, found_all: bool, now_ms: i64) -> Option<Vec<Delivery>> {
        if self.is_full() {
            self.phase = Phase::Stalled;
            for delivery in std::mem::take(&mut self.gate) {
                self.missed(delivery.place);
            }
            self.drained.clear();
            self.confirmed_meanwhile.clear();
            return Some(Vec::new());
        }
        if self.again || self.multicast_behind || !found_all {
            return None;
        }
        self.phase = Phase::Live;
        let mut out = Vec::new();
        for delivery in std::mem::take(&mut self.gate) {
            if self.drained.contains(&delivery.id) {
                continue;
            }
            // Full half-way: the phase turns, and the rest is kept.
            let offer = match self.phase {
                Phase::Live => self.take_up(&delivery, now_ms),
                _ => {
                    self.missed(delivery.place);
                    Offer::Keep
                }
            };
            if offer == Offer::Send {
                out.push(delivery);
            }
        }
        self.drained.clear();
        self.confirmed_meanwhile.clear();
        Some(out)
    }

    /// The drain could not go on (the store is away): the session is live
    /// again, and another drain is owed.
    pub fn abandon_drain(&mut self) {
        self.phase = Phase::Stalled;
        self.multicast_behind = true;
        self.gate = VecDeque::new();
        self.drained.clear();
        self.confirmed_meanwhile.clear();
    }

    /// Whether a stalled session could take more: a drain would help.
    #[must_use]
    pub fn wants_drain(&self) -> bool {
        self.phase == Phase::Stalled && !self.is_full() && self.flights() <= self.flights_max() / 2
    }

    // --- confirm ---------------------------------------------------------------

    /// A direct message's frame was written. For peers that never confirm,
    /// that is the end of it.
    pub fn wrote_direct(&mut self, id: &MessageId) -> bool {
        if self.confirms {
            return false;
        }
        self.finish_direct(id.as_str())
    }

    fn finish_direct(&mut self, id: &str) -> bool {
        let Some(flight) = self.directs.get_mut(id) else { return false };
        if !std::mem::replace(&mut flight.done, true) {
            self.directs_open -= 1;
        }
        true
    }

    /// As above, for a multicast.
    pub fn wrote_multicast(&mut self, seq: i64) -> bool {
        if self.confirms {
            return false;
        }
        self.finish_multicast(|flight| flight.seq == seq)
    }

    fn finish_multicast(&mut self, is_it: impl Fn(&MulticastFlight) -> bool) -> bool {
        let Some(flight) = self.multicasts.iter_mut().find(|flight| is_it(flight)) else {
            return false;
        };
        flight.done = true;
        self.pop_done();
        true
    }

    fn pop_done(&mut self) {
        while self.multicasts.front().is_some_and(|front| front.done) {
            self.multicasts.pop_front();
        }
    }

    /// The peer confirms, by either id; whether something was on its way
    /// under it. From now on this peer confirms.
    pub fn confirm(&mut self, broker_id: Option<&str>, client_id: Option<&str>) -> bool {
        self.confirms = true;
        for id in [broker_id, client_id].into_iter().flatten() {
            if self.finish_direct(id) {
                return true;
            }
            if self.finish_multicast(|flight| flight.id.as_str() == id) {
                return true;
            }
        }
        if let Some(broker_id) = broker_id
            && self.phase == Phase::Draining
            && self.confirmed_meanwhile.len() < limits::INFLIGHT_DELIVERIES_MAX
        {
            self.confirmed_meanwhile.insert(broker_id.into());
        }
        let Some(client_id) = client_id else { return false };
        let by_client_id = self
            .directs
            .iter()
            .find(|(_, flight)| flight.client_message_id.as_deref() == Some(client_id))
            .map(|(id, _)| id.clone());
        by_client_id.is_some_and(|id| self.finish_direct(id.as_str()))
    }

    /// What is done and not yet in the store.
    #[must_use]
    pub fn done(&self) -> Done {
        let directs = self
            .directs
            .iter()
            .filter(|(_, flight)| flight.done)
            .map(|(id, _)| id.clone())
            .collect();
        let position = self.position();
        Done { directs, position: (position > self.position_saved).then_some(position) }
    }

    /// The store knows.
    pub fn saved(&mut self, done: &Done) {
        for id in &done.directs {
            if self.directs.remove(id).is_some_and(|flight| !flight.done) {
                self.directs_open -= 1;
            }
        }
        if let Some(position) = done.position {
            self.position_saved = self.position_saved.max(position);
        }
    }

    /// Forgets what was sent before `sent_before_ms` and never confirmed, so
    /// that a drain offers it again; whether there was any.
    pub fn expire(&mut self, sent_before_ms: i64) -> bool {
        if !self.confirms {
            return false;
        }
        let before = self.directs.len();
        self.directs.retain(|_, flight| flight.done || flight.sent_ms > sent_before_ms);
        let mut expired = self.directs.len() < before;
        self.directs_open -= before - self.directs.len();
        for flight in &mut self.multicasts {
            if !flight.done && flight.sent_ms <= sent_before_ms {
                flight.resend = true;
                self.multicast_behind = true;
                expired = true;
            }
        }
        expired
    }
}

#[cfg(test)]
mod tests;
