//! What a session is done with.

use super::{Done, Inbox, MulticastFlight, Phase};
use crate::id::MessageId;
use crate::limits;

impl Inbox {
    /// A direct message's frame was written. For peers that never confirm,
    /// that is the end of it; for others their time to confirm begins.
    pub fn wrote_direct(&mut self, id: &MessageId, now_ms: i64) -> bool {
        if !self.confirms {
            return self.finish_direct(id.as_str());
        }
        if let Some(flight) = self.directs.get_mut(id) {
            flight.written_ms = Some(now_ms);
        }
        false
    }

    fn finish_direct(&mut self, id: &str) -> bool {
        let Some(flight) = self.directs.get_mut(id) else { return false };
        if !std::mem::replace(&mut flight.done, true) {
            self.directs_open -= 1;
        }
        true
    }

    /// As above, for a multicast.
    pub fn wrote_multicast(&mut self, seq: i64, now_ms: i64) -> bool {
        if !self.confirms {
            return self.finish_multicast(|flight| flight.seq == seq);
        }
        if let Some(flight) = self.multicasts.iter_mut().find(|flight| flight.seq == seq) {
            flight.written_ms = Some(now_ms);
        }
        false
    }

    fn finish_multicast(&mut self, is_it: impl Fn(&MulticastFlight) -> bool) -> bool {
        let Some(flight) = self.multicasts.iter_mut().find(|flight| is_it(flight)) else {
            return false;
        };
        flight.done = true;
        self.pop_done();
        true
    }

    pub(super) fn pop_done(&mut self) {
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

    /// Forgets what was written before `before_ms` and never confirmed, so that
    /// a drain offers it again; whether there was any. What still waits for its
    /// slow reader is not late.
    pub fn expire(&mut self, before_ms: i64) -> bool {
        if !self.confirms {
            return false;
        }
        let is_late = |written_ms: Option<i64>| written_ms.is_some_and(|at| at <= before_ms);
        let before = self.directs.len();
        self.directs.retain(|_, flight| flight.done || !is_late(flight.written_ms));
        let mut expired = self.directs.len() < before;
        self.directs_open -= before - self.directs.len();
        for flight in &mut self.multicasts {
            if !flight.done && is_late(flight.written_ms) {
                flight.resend = true;
                self.multicast_behind = true;
                expired = true;
            }
        }
        expired
    }
}
