//! A drain: a session's mail is read from the store. What only a drain knows is
//! in [`Drain`], and is forgotten with it.

use std::collections::BTreeSet;

use super::{Delivery, DrainPlan, Inbox, Offer, Phase, Route};
use crate::id::MessageId;
use crate::limits;

/// The drain under way.
#[derive(Debug, Default)]
pub(super) struct Drain {
    /// Another was asked for meanwhile.
    again: bool,
    /// What came meanwhile, in its order.
    gate: Vec<Gated>,
    /// Sent by this drain: a gated twin is skipped.
    drained: BTreeSet<MessageId>,
    /// Multicasts that came meanwhile and were not for this session then.
    passed: Vec<i64>,
    /// Confirmed meanwhile: this drain may find it again.
    confirmed: BTreeSet<MessageId>,
}

/// What waits behind the gate of a drain.
#[derive(Debug)]
enum Gated {
    Delivery(Delivery),
    /// A multicast that was not for this session when it came.
    Past(i64),
}

impl Gated {
    fn route(&self) -> Route {
        match self {
            Self::Delivery(delivery) => delivery.route,
            Self::Past(seq) => Route::Multicast(*seq),
        }
    }
}

impl Drain {
    /// A live delivery waits for the end of the drain. `false`: there is no room behind the
    /// gate, and the drain goes round again.
    pub(super) fn gate(&mut self, delivery: &Delivery) -> bool {
        self.wait(Gated::Delivery(delivery.clone()))
    }

    /// A live multicast that is not for this session waits for the end, too.
    pub(super) fn pass_over(&mut self, seq: i64) -> bool {
        // Beyond that the drain decides by what holds when it reads.
        if self.passed.len() < limits::GATE_FRAMES_MAX {
            self.passed.push(seq);
        }
        self.wait(Gated::Past(seq))
    }

    fn wait(&mut self, gated: Gated) -> bool {
        if let (Some(Gated::Past(last)), Gated::Past(seq)) = (self.gate.last_mut(), &gated) {
            *last = (*last).max(*seq);
            return true;
        }
        let has_room = self.gate.len() < limits::GATE_FRAMES_MAX;
        if has_room {
            self.gate.push(gated);
        } else {
            self.again = true;
        }
        has_room
    }

    pub(super) fn confirmed(&mut self, id: &str) {
        if self.confirmed.len() < limits::INFLIGHT_DELIVERIES_MAX {
            self.confirmed.insert(id.into());
        }
    }

    /// What this drain sent did not leave after all.
    pub(super) fn take_back(&mut self, id: &MessageId) {
        self.drained.remove(id);
    }
}

impl Inbox {
    /// A drain is wanted. `true` if the caller must run it; else the one
    /// under way will go round again.
    pub fn begin_drain(&mut self) -> bool {
        if let Phase::Draining(drain) = &mut self.phase {
            drain.again = true;
            return false;
        }
        self.phase = Phase::Draining(Box::default());
        true
    }

    /// What to ask the store for, at the start of each round.
    pub fn plan_drain(&mut self) -> DrainPlan {
        if let Phase::Draining(drain) = &mut self.phase {
            drain.again = false;
        }
        let room = if self.is_full() { 0 } else { self.flights_max() - self.flights() };
        let (multicasts_after, behind) = self.multicasts.plan();
        DrainPlan {
            in_flight: self.directs.skipped(),
            room: u32::try_from(room.min(limits::DRAIN_BATCH_ENVELOPES_MAX)).unwrap_or(u32::MAX),
            multicasts_after,
            others_after: multicasts_after.max(self.multicasts.others_after()),
            behind,
        }
    }

    /// The drain found this; whether it is to be sent.
    pub fn drained(&mut self, delivery: &Delivery) -> Offer {
        if self.is_held(delivery) {
            return Offer::Keep;
        }
        let Phase::Draining(drain) = &mut self.phase else { return Offer::Keep };
        match delivery.route {
            Route::Direct => {
                let id = &delivery.id;
                if self.directs.contains(id) || drain.confirmed.contains(id) {
                    return Offer::Keep;
                }
                drain.drained.insert(id.clone());
                self.directs.fly_found(delivery);
                Offer::Send
            }
            Route::Multicast(seq) if seq <= self.multicasts.seen() => {
                if self.multicasts.fly_again(seq) { Offer::Send } else { Offer::Keep }
            }
            // The message came before this session joined its group.
            Route::Multicast(seq) if drain.passed.contains(&seq) => {
                self.multicasts.pass(seq);
                Offer::Keep
            }
            Route::Multicast(seq) => {
                self.multicasts.fly(seq, delivery);
                Offer::Send
            }
        }
    }

    /// The drain found a multicast that is not for this session.
    pub fn drained_past(&mut self, seq: i64) {
        self.multicasts.drained_past(seq);
    }

    /// The drain has seen every multicast that there is: one that it was to send
    /// again and did not find is over.
    pub fn drained_all_multicasts(&mut self) {
        self.multicasts.drained_all();
    }

    /// The drain found a message that this session must not get. `false` if
    /// too many are: the drain ends, so that it does not find them for ever.
    pub fn refuse(&mut self, id: MessageId) -> bool {
        self.directs.refuse(id)
    }

    /// What is refused may have changed.
    pub fn forget_refused(&mut self) {
        self.directs.forget_refused();
    }

    /// The store went back: it knows no multicast beyond `newest` any more. A session
    /// that is further goes on from `seq`; whether it was.
    pub fn rewind(&mut self, newest: i64, seq: i64) -> bool {
        if self.multicasts.seen() <= newest {
            return false;
        }
        self.multicasts.rewind(seq);
        if let Phase::Draining(drain) = &mut self.phase {
            drain.gate.retain(|gated| gated.route() == Route::Direct);
            drain.passed = Vec::new();
        }
        true
    }

    /// Whether it waits behind the gate.
    #[must_use]
    pub fn is_gated(&self, id: &MessageId) -> bool {
        let Phase::Draining(drain) = &self.phase else { return false };
        let is_meant = |gated: &Gated| matches!(gated, Gated::Delivery(one) if one.id == *id);
        drain.gate.iter().any(is_meant)
    }

    /// A round is over. `false`: go round again. Else the session is live (or
    /// stalled), and what waited behind the gate comes out in its order. `write`
    /// says whether a delivery found room.
    pub fn end_drain(&mut self, found_all: bool, mut write: impl FnMut(&Delivery) -> bool) -> bool {
        if self.is_full() {
            self.stall_drain();
            return true;
        }
        let is_again = matches!(&self.phase, Phase::Draining(drain) if drain.again);
        if is_again || self.multicasts.is_behind() || !found_all {
            return false;
        }
        let drain = self.leave_drain(Phase::Live);
        for gated in drain.gate {
            // Full half-way: the phase turns, and the rest is for the next drain.
            let is_live = matches!(self.phase, Phase::Live);
            match gated {
                Gated::Past(seq) if is_live => self.multicasts.pass(seq),
                Gated::Past(_) => {}
                Gated::Delivery(delivery) if drain.drained.contains(&delivery.id) => {}
                Gated::Delivery(delivery) if is_live => {
                    if self.take_up(&delivery) == Offer::Send && !write(&delivery) {
                        self.take_back(&delivery);
                    }
                }
                Gated::Delivery(delivery) => self.missed(delivery.route),
            }
        }
        true
    }

    /// The drain does not go on now, since the session takes no more: it is
    /// stalled, and what waits is for another drain to find.
    pub fn stall_drain(&mut self) {
        for gated in self.leave_drain(Phase::Stalled).gate {
            self.missed(gated.route());
        }
    }

    /// The drain could not go on (the store is away): the session is stalled,
    /// and another drain is owed.
    pub fn abandon_drain(&mut self) {
        self.mark_behind();
        self.stall_drain();
    }

    fn leave_drain(&mut self, next: Phase) -> Drain {
        match std::mem::replace(&mut self.phase, next) {
            Phase::Draining(drain) => *drain,
            Phase::Live | Phase::Stalled => Drain::default(),
        }
    }

    /// Whether a stalled session could take more: a drain would help.
    #[must_use]
    pub fn wants_drain(&self) -> bool {
        matches!(self.phase, Phase::Stalled)
            && !self.is_full()
            && self.flights() <= self.flights_max() / 2
    }
}
