//! The calls that are in flight on one node: the book of what was asked of whom, and who
//! waits. Pure.
//!
//! Each call leaves the book once, with whoever waits for it: so it has one answer at
//! most. Nothing here knows a socket or a clock. For [`Relay`](super::Relay) alone.

use std::collections::{BTreeSet, HashMap};

use crate::id::{CallId, PresenceId};
use crate::limits;
use crate::protocol::Expects;

/// The socket that is asked: a presence under one holding of its lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Host {
    pub(super) presence: PresenceId,
    pub(super) epoch: u64,
}

/// One call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) id: CallId,
    /// Who asks, if its socket is here.
    pub(super) caller: Option<PresenceId>,
    pub(super) host: Host,
    pub(super) expects: Expects,
    /// Nobody waits for it after that.
    pub(super) until_ms: i64,
}

/// Why one more call is not begun: so many are in flight already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// On this node.
    Node(usize),
    /// Of this caller.
    Caller(usize),
    /// To this host, as far as this node knows.
    Host(usize),
}

/// The book. `W` is whoever waits for an answer.
pub(super) struct Calls<W> {
    open: HashMap<CallId, (Call, W)>,
    /// The calls to each host, oldest first.
    by_host: HashMap<PresenceId, Vec<CallId>>,
    /// How many calls each caller here has.
    by_caller: HashMap<PresenceId, usize>,
    ends: BTreeSet<(i64, CallId)>,
}

impl<W> Default for Calls<W> {
    fn default() -> Self {
        Self {
            open: HashMap::new(),
            by_host: HashMap::new(),
            by_caller: HashMap::new(),
            ends: BTreeSet::new(),
        }
    }
}

impl<W> Calls<W> {
    /// Enters a call. Those that nobody waits for any more make room first.
    pub(super) fn open(&mut self, now_ms: i64, call: Call, waiter: W) -> Result<(), Full> {
        self.drop_overdue(now_ms);
        let to_host = self.by_host.get(&call.host.presence).map_or(0, Vec::len);
        let of_caller = call.caller.as_ref().and_then(|caller| self.by_caller.get(caller));
        if of_caller.is_some_and(|calls| *calls >= limits::RELAYED_PER_CALLER_MAX) {
            return Err(Full::Caller(limits::RELAYED_PER_CALLER_MAX));
        }
        if to_host >= limits::RELAYED_PER_HOST_MAX {
            return Err(Full::Host(limits::RELAYED_PER_HOST_MAX));
        }
        if self.open.len() >= limits::RELAYED_MAX {
            return Err(Full::Node(limits::RELAYED_MAX));
        }
        self.by_host.entry(call.host.presence.clone()).or_default().push(call.id.clone());
        if let Some(caller) = &call.caller {
            *self.by_caller.entry(caller.clone()).or_default() += 1;
        }
        self.ends.insert((call.until_ms, call.id.clone()));
        self.open.insert(call.id.clone(), (call, waiter));
        self.check_invariants();
        Ok(())
    }

    /// The call's end, whoever brings it about; `None` if it has ended.
    pub(super) fn take(&mut self, id: &CallId) -> Option<W> {
        let (call, waiter) = self.open.remove(id)?;
        self.ends.remove(&(call.until_ms, call.id.clone()));
        let host = &call.host.presence;
        if let Some(calls) = self.by_host.get_mut(host) {
            calls.retain(|other| other != id);
            if calls.is_empty() {
                self.by_host.remove(host);
            }
        }
        if let Some(caller) = &call.caller
            && let Some(calls) = self.by_caller.get_mut(caller)
        {
            *calls -= 1;
            if *calls == 0 {
                self.by_caller.remove(caller);
            }
        }
        self.check_invariants();
        Some(waiter)
    }

    /// The end of the call that this socket has answered: only what it was asked
    /// itself, of the kind that it answers. Of several that fit, the oldest.
    pub(super) fn answered(
        &mut self,
        host: &Host,
        fits: impl Fn(&CallId, &Expects) -> bool,
    ) -> Option<(CallId, W)> {
        let calls = self.by_host.get(&host.presence)?;
        let fitting = calls.iter().find(|id| {
            let call = self.open.get(*id).map(|(call, _)| call);
            call.is_some_and(|call| call.host == *host && fits(id, &call.expects))
        });
        let id = fitting?.clone();
        self.take(&id).map(|waiter| (id, waiter))
    }

    /// The end of all calls to those of a presence's sockets that are gone.
    pub(super) fn gone(
        &mut self,
        presence: &PresenceId,
        is_gone: impl Fn(u64) -> bool,
    ) -> Vec<(CallId, W)> {
        let calls = self.by_host.get(presence).map(Vec::as_slice).unwrap_or_default();
        let was_asked =
            |id: &&CallId| self.open.get(*id).is_some_and(|(call, _)| is_gone(call.host.epoch));
        let gone: Vec<CallId> = calls.iter().filter(was_asked).cloned().collect();
        let taken = gone.into_iter().map(|id| (self.take(&id), id));
        taken.filter_map(|(waiter, id)| Some((id, waiter?))).collect()
    }

    /// How many are in flight.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    fn drop_overdue(&mut self, now_ms: i64) {
        while let Some((until_ms, id)) = self.ends.first()
            && *until_ms < now_ms
        {
            let id = id.clone();
            self.take(&id);
        }
    }

    /// The indexes and the calls agree; checked after every change where assertions are
    /// on, as long as there are few.
    fn check_invariants(&self) {
        if !cfg!(debug_assertions) || self.open.len() > 64 {
            return;
        }
        debug_assert_eq!(self.open.len(), self.ends.len());
        debug_assert_eq!(self.open.len(), self.by_host.values().map(Vec::len).sum::<usize>());
        let here = self.open.values().filter(|(call, _)| call.caller.is_some()).count();
        debug_assert_eq!(here, self.by_caller.values().sum::<usize>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Ticket;

    fn host(presence: &str, epoch: u64) -> Host {
        Host { presence: PresenceId::from(presence), epoch }
    }

    fn call(id: &str, caller: &str, to: Host) -> Call {
        Call {
            id: CallId::from(id),
            caller: (!caller.is_empty()).then(|| PresenceId::from(caller)),
            host: to,
            expects: Expects::Call,
            until_ms: 100,
        }
    }

    fn file(path: &str) -> Expects {
        Expects::File(Ticket { requester: "k".to_owned(), path: path.to_owned(), req_id: None })
    }

    fn by_id(id: &str) -> impl Fn(&CallId, &Expects) -> bool {
        move |other, expects| other.as_str() == id && *expects == Expects::Call
    }

    #[test]
    fn a_call_ends_once() {
        let mut calls = Calls::default();
        calls.open(0, call("a", "ada", host("h", 1)), "waits").expect("room");
        let answered = calls.answered(&host("h", 1), by_id("a"));
        assert_eq!(answered, Some((CallId::from("a"), "waits")));
        assert_eq!(calls.answered(&host("h", 1), by_id("a")), None);
        assert_eq!(calls.take(&CallId::from("a")), None);
        assert_eq!(calls.gone(&PresenceId::from("h"), |_| true), []);
        assert_eq!(calls.len(), 0);
    }

    #[test]
    fn only_the_socket_that_was_asked_answers() {
        let mut calls = Calls::default();
        calls.open(0, call("a", "ada", host("h", 2)), ()).expect("room");
        calls.open(0, call("b", "ada", host("other", 1)), ()).expect("room");
        for wrong in [host("h", 1), host("h", 3), host("other", 1), host("nobody", 2)] {
            assert_eq!(calls.answered(&wrong, by_id("a")), None, "{wrong:?}");
        }
        assert_eq!(calls.answered(&host("h", 2), by_id("b")), None);
        assert_eq!(calls.answered(&host("h", 2), |_, expects| *expects == file("/x")), None);
        assert!(calls.answered(&host("h", 2), by_id("a")).is_some());
    }

    #[test]
    fn of_those_that_an_answer_fits_the_oldest_is_answered() {
        let mut calls = Calls::default();
        for (id, path) in [("a", "/y"), ("b", "/x"), ("c", "/x")] {
            let call = Call { expects: file(path), ..call(id, "ada", host("h", 1)) };
            calls.open(0, call, id).expect("room");
        }
        let mut next = || {
            let fits = |_: &CallId, expects: &Expects| *expects == file("/x");
            calls.answered(&host("h", 1), fits).map(|(_, id)| id)
        };
        assert_eq!([next(), next(), next()], [Some("b"), Some("c"), None]);
    }

    #[test]
    fn what_was_asked_of_a_socket_ends_with_it_and_nothing_else_does() {
        let mut calls = Calls::default();
        for (id, to) in [("a", host("h", 1)), ("b", host("h", 2)), ("c", host("other", 1))] {
            calls.open(0, call(id, "ada", to), ()).expect("room");
        }
        let ended = calls.gone(&PresenceId::from("h"), |epoch| epoch < 2);
        assert_eq!(ended, [(CallId::from("a"), ())]);
        assert_eq!(calls.len(), 2);
    }

    #[test]
    fn a_caller_a_host_and_the_node_have_so_many_and_no_more() {
        let mut calls = Calls::default();
        let mut begin = |number: usize, caller: &str, host_name: &str| {
            calls.open(0, call(&format!("{number}"), caller, host(host_name, 1)), ())
        };
        let (per_caller, per_host) = (limits::RELAYED_PER_CALLER_MAX, limits::RELAYED_PER_HOST_MAX);
        let mut number = 0;
        for _ in 0..per_caller {
            number += 1;
            assert_eq!(begin(number, "ada", "h"), Ok(()));
        }
        assert_eq!(begin(0, "ada", "other"), Err(Full::Caller(per_caller)));
        for _ in per_caller..per_host {
            number += 1;
            assert_eq!(begin(number, "", "h"), Ok(()));
        }
        assert_eq!(begin(0, "bob", "h"), Err(Full::Host(per_host)));
        while number < limits::RELAYED_MAX {
            number += 1;
            assert_eq!(begin(number, "", &format!("host-{number}")), Ok(()));
        }
        assert_eq!(begin(0, "bob", "one more"), Err(Full::Node(limits::RELAYED_MAX)));
        calls.take(&CallId::from("1")).expect("in flight");
        assert_eq!(calls.open(0, call("0", "ada", host("h", 1)), ()), Ok(()), "one has ended");
    }

    #[test]
    fn what_nobody_waits_for_any_more_makes_room() {
        let mut calls = Calls::default();
        for number in 0..limits::RELAYED_PER_HOST_MAX {
            calls.open(0, call(&format!("{number}"), "", host("h", 1)), ()).expect("room");
        }
        assert!(calls.open(100, call("late", "", host("h", 1)), ()).is_err(), "they wait still");
        assert_eq!(calls.open(101, call("late", "", host("h", 1)), ()), Ok(()));
        assert_eq!(calls.len(), 1);
    }
}
