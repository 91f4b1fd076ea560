//! While a session's mail is read.

use super::{Delivery, DrainPlan, Gated, Inbox, Offer, Phase, Place};
use crate::id::MessageId;
use crate::limits;

impl Inbox {
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
        let mut resends = false;
        for flight in &mut self.multicasts {
            flight.sought = flight.resend;
            resends |= flight.resend;
        }
        let after = if resends { self.position() } else { self.multicast_seen };
        DrainPlan {
            in_flight: self.directs.keys().chain(&self.refused).cloned().collect(),
            room: u32::try_from(room.min(limits::DRAIN_BATCH_ENVELOPES_MAX)).unwrap_or(u32::MAX),
            multicasts_after: after,
            behind,
        }
    }

    /// The drain found this; whether it is to be sent.
    pub fn drained(&mut self, delivery: &Delivery) -> Offer {
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
                self.fly(delivery);
                Offer::Send
            }
            Place::Multicast(seq) => {
                if seq > self.multicast_seen {
                    self.multicast_seen = seq;
                    // It came before this session joined its group.
                    if self.passed.contains(&seq) {
                        return Offer::Keep;
                    }
                    self.fly_multicast(seq, delivery.id.clone());
                    return Offer::Send;
                }
                let flight = self
                    .multicasts
                    .iter_mut()
                    .find(|flight| flight.seq == seq && flight.resend && !flight.done);
                match flight {
                    Some(flight) => {
                        (flight.resend, flight.sought) = (false, false);
                        flight.is_repeat = true;
                        flight.written_ms = None;
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

    /// The drain has seen every multicast that there is: one that it was to send
    /// again and did not find has left the store, and nothing else would end it.
    pub fn drained_all_multicasts(&mut self) {
        for flight in &mut self.multicasts {
            flight.done |= flight.sought;
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

    /// The store went back: it knows no place beyond `newest` any more. A session
    /// that is further goes on from `place`; whether it was.
    pub fn rewind(&mut self, newest: i64, place: i64) -> bool {
        if self.multicast_seen <= newest {
            return false;
        }
        // What is on its way beyond that is in no store: nobody will ask for it.
        self.multicasts.retain(|flight| flight.seq <= place);
        self.gate.retain(|gated| gated.place() == Place::Direct);
        self.passed = Vec::new();
        self.multicast_seen = place;
        self.position_saved = self.position_saved.min(place);
        self.multicast_behind = true;
        true
    }

    /// Whether it waits behind the gate.
    #[must_use]
    pub fn is_gated(&self, id: &MessageId) -> bool {
        let is_it = |gated: &Gated| matches!(gated, Gated::Delivery(one) if one.id == *id);
        self.gate.iter().any(is_it)
    }

    /// A round is over. `false`: go round again. Else the session is live (or
    /// stalled), and what waited behind the gate comes out in its order. `write`
    /// says whether a delivery found room.
    pub fn end_drain(&mut self, found_all: bool, mut write: impl FnMut(&Delivery) -> bool) -> bool {
        if self.is_full() {
            self.stall_drain();
            return true;
        }
        if self.again || self.multicast_behind || !found_all {
            return false;
        }
        self.phase = Phase::Live;
        for gated in std::mem::take(&mut self.gate) {
            let delivery = match gated {
                Gated::Delivery(delivery) => delivery,
                Gated::Past(seq) => {
                    if self.phase == Phase::Live {
                        self.multicast_seen = self.multicast_seen.max(seq);
                    }
                    continue;
                }
            };
            if self.drained.contains(&delivery.id) {
                continue;
            }
            // Full half-way: the phase turns, and the rest is kept.
            match self.phase {
                Phase::Live => {
                    if self.take_up(&delivery) == Offer::Send && !write(&delivery) {
                        self.take_back(&delivery);
                    }
                }
                _ => self.missed(delivery.place),
            }
        }
        self.forget_drain();
        true
    }

    /// The drain does not go on now, since the session takes no more: it is
    /// stalled, and what waits is for another drain to find.
    pub fn stall_drain(&mut self) {
        self.phase = Phase::Stalled;
        for gated in std::mem::take(&mut self.gate) {
            self.missed(gated.place());
        }
        self.forget_drain();
    }

    /// The drain could not go on (the store is away): the session is stalled,
    /// and another drain is owed.
    pub fn abandon_drain(&mut self) {
        self.multicast_behind = true;
        self.stall_drain();
    }

    fn forget_drain(&mut self) {
        self.drained.clear();
        self.passed = Vec::new();
        self.confirmed_meanwhile.clear();
    }

    /// Whether a stalled session could take more: a drain would help.
    #[must_use]
    pub fn wants_drain(&self) -> bool {
        self.phase == Phase::Stalled && !self.is_full() && self.flights() <= self.flights_max() / 2
    }
}
