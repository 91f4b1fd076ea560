//! The multicasts on their way to one session, and how far in the mesh's order it
//! is. Pure; for [`Inbox`] alone.
//!
//! [`Inbox`]: super::Inbox

use std::collections::VecDeque;

use super::{Delivery, Landed};
use crate::id::{MemberId, MessageId};

#[derive(Debug)]
struct Flight {
    seq: i64,
    id: MessageId,
    /// When the frame was written to the socket; `None`: it waits for that.
    written_ms: Option<i64>,
    done: bool,
    /// The frame must go out again.
    resend: bool,
    /// The frame went out before, and may be confirmed at any time.
    is_repeat: bool,
    /// The drain under way looks for the message, to send it again.
    sought: bool,
    report_to: Option<MemberId>,
}

#[derive(Debug)]
pub(super) struct Multicasts {
    /// In the mesh's order; done ones leave from the front.
    flights: VecDeque<Flight>,
    /// Everything up to here was handed over or is not for this session.
    seen: i64,
    /// Live multicasts may have been missed: the next drain reads them.
    behind: bool,
    /// The position that the store knows.
    saved: i64,
    /// Of a session that speaks for its member's topics.
    topics: Option<Topics>,
}

/// How far a member is in its topics, as one of its sessions knows.
#[derive(Debug)]
struct Topics {
    /// Messages to groups and to everyone up to here are none of the session's: it began,
    /// or came back, after them. What it reads before is posts that its member missed.
    others_after: i64,
    /// The last post of the member's topics that came by.
    last: i64,
    /// Up to where the store knows that the member has its posts.
    saved: i64,
}

impl Multicasts {
    pub(super) fn new(position: i64) -> Self {
        Self {
            flights: VecDeque::new(),
            seen: position,
            behind: true,
            saved: position,
            topics: None,
        }
    }

    /// The session tells how far its member is in its topics. `missed_since`: posts after
    /// that position none of the member's sessions has had, and this one reads them.
    pub(super) fn follow_topics(&mut self, missed_since: Option<i64>) {
        let others_after = self.seen;
        let from = missed_since.unwrap_or(others_after).min(others_after);
        (self.seen, self.saved) = (from, from);
        let last = if missed_since.is_some() { others_after } else { 0 };
        self.topics = Some(Topics { others_after, last, saved: from });
    }

    /// After which position messages to groups and to everyone may be the session's.
    pub(super) fn others_after(&self) -> i64 {
        self.topics.as_ref().map_or(0, |topics| topics.others_after)
    }

    /// A post of one of the member's topics came by.
    pub(super) fn note_post(&mut self, seq: i64) {
        if let Some(topics) = &mut self.topics {
            topics.last = topics.last.max(seq);
        }
    }

    /// How far the member is in its topics, if the store does not know it.
    pub(super) fn unsaved_posts(&self) -> Option<i64> {
        let topics = self.topics.as_ref()?;
        let position = self.position().min(topics.last);
        (position > topics.saved).then_some(position)
    }

    pub(super) fn saved_posts(&mut self, position: i64) {
        if let Some(topics) = &mut self.topics {
            topics.saved = topics.saved.max(position);
        }
    }

    pub(super) fn is_repeat(&self, seq: i64) -> bool {
        self.flights.iter().any(|flight| flight.seq == seq)
    }

    pub(super) fn open(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn seen(&self) -> i64 {
        self.seen
    }

    /// Every multicast up to here is done with.
    pub(super) fn position(&self) -> i64 {
        self.flights.front().map_or(self.seen, |front| front.seq - 1)
    }

    /// The position, if the store does not know it.
    pub(super) fn unsaved(&self) -> Option<i64> {
        let position = self.position();
        (position > self.saved).then_some(position)
    }

    pub(super) fn saved(&mut self, position: i64) {
        self.saved = self.saved.max(position);
    }

    pub(super) fn is_settled(&self) -> bool {
        self.flights.is_empty() && self.position() == self.saved && self.unsaved_posts().is_none()
    }

    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    pub(super) fn mark_behind(&mut self) {
        self.behind = true;
    }

    /// Everything up to here is none of this session's.
    pub(super) fn pass(&mut self, seq: i64) {
        self.seen = self.seen.max(seq);
    }

    pub(super) fn fly(&mut self, seq: i64, delivery: &Delivery) {
        self.seen = seq;
        let (id, report_to) = (delivery.id.clone(), delivery.report_to.clone());
        let (done, resend, is_repeat, sought) = (false, false, false, false);
        let written_ms = None;
        let flight = Flight { seq, id, written_ms, done, resend, is_repeat, sought, report_to };
        self.flights.push_back(flight);
    }

    /// Sends one that a drain found again; `false` if that one need not be.
    pub(super) fn fly_again(&mut self, seq: i64) -> bool {
        let flight = self
            .flights
            .iter_mut()
            .find(|flight| flight.seq == seq && flight.resend && !flight.done);
        let Some(flight) = flight else { return false };
        (flight.resend, flight.sought) = (false, false);
        flight.is_repeat = true;
        flight.written_ms = None;
        true
    }

    /// One that flew did not leave after all.
    pub(super) fn take_back(&mut self, seq: i64) {
        let is_new = |flight: &Flight| flight.seq == seq && !flight.is_repeat;
        if self.seen == seq && self.flights.back().is_some_and(is_new) {
            self.flights.pop_back();
            self.seen = seq - 1;
        } else if let Some(flight) = self.flights.iter_mut().find(|flight| flight.seq == seq) {
            flight.resend = true;
        }
    }

    pub(super) fn wrote(&mut self, seq: i64, now_ms: i64) {
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.seq == seq) {
            flight.written_ms = Some(now_ms);
        }
    }

    /// The peer is done with one; whether that one was on its way.
    pub(super) fn finish(&mut self, seq: i64) -> bool {
        self.finish_where(|flight| flight.seq == seq).is_some()
    }

    pub(super) fn finish_by_id(&mut self, id: &str) -> Option<Landed> {
        self.finish_where(|flight| flight.id.as_str() == id)
    }

    fn finish_where(&mut self, is_meant: impl Fn(&Flight) -> bool) -> Option<Landed> {
        let flight = self.flights.iter_mut().find(|flight| is_meant(flight))?;
        flight.done = true;
        let report_to = flight.report_to.take();
        let landed = Landed { id: flight.id.clone(), client_message_id: None, report_to };
        self.pop_done();
        Some(landed)
    }

    fn pop_done(&mut self) {
        while self.flights.front().is_some_and(|front| front.done) {
            self.flights.pop_front();
        }
    }

    /// The open ones that were written until then must go out again; whether there
    /// are any.
    pub(super) fn expire(&mut self, before_ms: i64) -> bool {
        let mut expired = false;
        for flight in &mut self.flights {
            if !flight.done && flight.written_ms.is_some_and(|written_ms| written_ms <= before_ms) {
                flight.resend = true;
                expired = true;
            }
        }
        self.behind |= expired;
        expired
    }

    /// A round of a drain begins: after which position it has to read, and whether
    /// some of what is there may have been missed.
    pub(super) fn plan(&mut self) -> (i64, bool) {
        let mut resends = false;
        for flight in &mut self.flights {
            flight.sought = flight.resend;
            resends |= flight.resend;
        }
        let after = if resends { self.position() } else { self.seen };
        // Forgotten here, so that one missed while the store is read counts.
        (after, std::mem::take(&mut self.behind))
    }

    /// A drain found that the ones up to here are not for this session. One that
    /// went out, was not confirmed and is not for this session any more (it left the
    /// group, a grant changed) is over.
    pub(super) fn drained_past(&mut self, seq: i64) {
        self.pass(seq);
        for flight in self.flights.iter_mut().take_while(|flight| flight.seq <= seq) {
            flight.done |= flight.resend;
        }
        self.pop_done();
    }

    /// A drain has seen all that there are: what it still looks for has left the
    /// store, and nothing else would end it.
    pub(super) fn drained_all(&mut self) {
        for flight in &mut self.flights {
            flight.done |= flight.sought;
        }
        self.pop_done();
    }

    /// The store went back: the session goes on from there. What is on its way
    /// beyond that is in no store: nobody will ask for it.
    pub(super) fn rewind(&mut self, seq: i64) {
        self.flights.retain(|flight| flight.seq <= seq);
        self.seen = seq;
        self.saved = self.saved.min(seq);
        if let Some(topics) = &mut self.topics {
            topics.others_after = topics.others_after.min(seq);
            topics.last = topics.last.min(seq);
            topics.saved = topics.saved.min(seq);
        }
        self.behind = true;
    }
}
