//! The direct messages on their way to one session. Pure; for [`Inbox`] alone.
//!
//! [`Inbox`]: super::Inbox

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::{Delivery, Landed};
use crate::id::{MemberId, MessageId};
use crate::limits;

#[derive(Debug)]
struct Flight {
    client_message_id: Option<Arc<str>>,
    /// When the frame was written to the socket; `None`: it waits for that.
    written_ms: Option<i64>,
    done: bool,
    /// The store was told that it was written.
    is_noted: bool,
    report_to: Option<MemberId>,
}

#[derive(Debug, Default)]
pub(super) struct Directs {
    flights: HashMap<MessageId, Flight>,
    /// How many of `flights` are not done.
    open: usize,
    /// What drains found, newest last: the live twins may come from another node
    /// after the found ones are done.
    found: VecDeque<MessageId>,
    /// What the session must not get; drains pass over it. Nearly always empty, and
    /// each session has it: an empty set of this kind is half as large as others.
    refused: BTreeSet<MessageId>,
}

impl Directs {
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// How many are kept here: the open ones and those that the store must learn of.
    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub(super) fn contains(&self, id: &MessageId) -> bool {
        self.flights.contains_key(id)
    }

    /// Whether a live delivery has gone out before.
    pub(super) fn is_twin(&self, id: &MessageId) -> bool {
        self.contains(id) || self.found.contains(id)
    }

    /// Everything that a drain passes over.
    pub(super) fn skipped(&self) -> Vec<MessageId> {
        self.flights.keys().chain(&self.refused).cloned().collect()
    }

    pub(super) fn fly(&mut self, delivery: &Delivery) {
        let client_message_id = delivery.client_message_id.clone();
        let report_to = delivery.report_to.clone();
        let (written_ms, done, is_noted) = (None, false, false);
        let flight = Flight { client_message_id, written_ms, done, is_noted, report_to };
        self.flights.insert(delivery.id.clone(), flight);
        self.open += 1;
    }

    /// Lets a message fly that a drain found.
    pub(super) fn fly_found(&mut self, delivery: &Delivery) {
        if self.found.len() >= limits::FOUND_DELIVERIES_MAX {
            self.found.pop_front();
        }
        self.found.push_back(delivery.id.clone());
        self.fly(delivery);
    }

    /// The last one that flew did not leave after all.
    pub(super) fn take_back(&mut self, id: &MessageId) {
        self.forget(id);
        if self.found.back() == Some(id) {
            self.found.pop_back();
        }
    }

    fn forget(&mut self, id: &MessageId) {
        if self.flights.remove(id).is_some_and(|flight| !flight.done) {
            self.open -= 1;
        }
    }

    pub(super) fn wrote(&mut self, id: &MessageId, now_ms: i64) {
        if let Some(flight) = self.flights.get_mut(id) {
            flight.written_ms = Some(now_ms);
        }
    }

    /// The peer is done with one; `None` if that one was not on its way.
    pub(super) fn finish(&mut self, id: &str) -> Option<Landed> {
        let (id, _) = self.flights.get_key_value(id)?;
        let id = id.clone();
        let flight = self.flights.get_mut(&id)?;
        if !std::mem::replace(&mut flight.done, true) {
            self.open -= 1;
        }
        let client_message_id = flight.client_message_id.clone();
        Some(Landed { id, client_message_id, report_to: flight.report_to.take() })
    }

    pub(super) fn finish_by_client_id(&mut self, client_id: &str) -> Option<Landed> {
        let named = |flight: &Flight| flight.client_message_id.as_deref() == Some(client_id);
        let id = self.flights.iter().find(|(_, flight)| named(flight)).map(|(id, _)| id.clone());
        id.and_then(|id| self.finish(id.as_str()))
    }

    /// The open ones that were written until then, each once.
    pub(super) fn pushed(&mut self, before_ms: i64) -> Vec<MessageId> {
        let is_due = |flight: &&mut Flight| {
            let was_written = flight.written_ms.is_some_and(|written_ms| written_ms <= before_ms);
            was_written && !flight.done && !flight.is_noted
        };
        let mut pushed = Vec::new();
        for (id, flight) in &mut self.flights {
            if is_due(&flight) {
                flight.is_noted = true;
                pushed.push(id.clone());
            }
        }
        pushed
    }

    /// What is done and not yet in the store.
    pub(super) fn done(&self) -> Vec<MessageId> {
        let done = self.flights.iter().filter(|(_, flight)| flight.done);
        done.map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn saved(&mut self, done: &[MessageId]) {
        for id in done {
            self.forget(id);
        }
    }

    /// Forgets the open ones that were written until then; whether there were any.
    pub(super) fn expire(&mut self, before_ms: i64) -> bool {
        let before = self.flights.len();
        self.flights.retain(|_, flight| {
            flight.done || flight.written_ms.is_none_or(|written_ms| written_ms > before_ms)
        });
        self.open -= before - self.flights.len();
        self.flights.len() < before
    }

    /// Drains pass over this one from now on; `false` if too many are refused.
    pub(super) fn refuse(&mut self, id: MessageId) -> bool {
        let has_room = self.refused.len() < limits::REFUSED_DELIVERIES_MAX;
        if has_room {
            self.refused.insert(id);
        }
        has_room
    }

    pub(super) fn forget_refused(&mut self) {
        self.refused.clear();
    }
}
