//! The books of tool calls: which messages the answer to a call shows the model, and
//! whether that answer got there.
//!
//! A message that stands in an answer is seen once the answer is written and the host did
//! not cancel the call. A cancellation may cross with the answer, so the books wait a
//! moment before they believe it. They never decide anything without the pipe having
//! said so. The pipe writes into them, the tools say what they show, and the server's
//! task takes out what is settled.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rmcp::model::RequestId;
use tokio::sync::Notify;

/// How long a cancellation may be on its way while the answer is written.
const CROSSING: Duration = Duration::from_millis(300);
/// Calls that are open at once. More: the oldest is forgotten, and the lease of what it
/// showed ends by itself.
const OPEN_MAX: usize = 1024;

/// One call. `S` is where what it shows comes from.
struct Open<S> {
    began: Instant,
    shown: Vec<(S, Vec<i64>)>,
    fate: Option<Fate>,
}

#[derive(Clone, Copy)]
enum Fate {
    Written(Instant),
    Cancelled,
}

/// What became of messages that calls have shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settled<S> {
    /// Those whose answer is with the host.
    pub(super) seen: Vec<(S, Vec<i64>)>,
    /// Those whose call was cancelled.
    pub(super) back: Vec<(S, Vec<i64>)>,
    /// When there will be more, if anything waits.
    pub(super) next: Option<Instant>,
}

/// The books.
pub(super) struct Calls<S> {
    open: Mutex<HashMap<RequestId, Open<S>>>,
    changed: Notify,
}

impl<S> Default for Calls<S> {
    fn default() -> Self {
        Self { open: Mutex::default(), changed: Notify::new() }
    }
}

impl<S> Calls<S> {
    /// The host calls a tool.
    pub(super) fn began(&self, call: &RequestId) {
        let mut open = self.open.lock();
        if open.len() >= OPEN_MAX {
            let oldest = open.iter().min_by_key(|(_, open)| open.began).map(|(id, _)| id.clone());
            oldest.map(|id| open.remove(&id));
        }
        let fresh = Open { began: Instant::now(), shown: Vec::new(), fate: None };
        open.insert(call.clone(), fresh);
    }

    /// The answer to a call is going to hold these messages.
    pub(super) fn shows(&self, call: &RequestId, from: S, messages: Vec<i64>) {
        if let Some(open) = self.open.lock().get_mut(call) {
            open.shown.push((from, messages));
        }
        self.changed.notify_one();
    }

    /// The answer is written.
    pub(super) fn written(&self, call: &RequestId) {
        self.decide(call, Fate::Written(Instant::now()));
    }

    /// The host does not want the answer any more.
    pub(super) fn cancelled(&self, call: &RequestId) {
        self.decide(call, Fate::Cancelled);
    }

    fn decide(&self, call: &RequestId, fate: Fate) {
        if let Some(open) = self.open.lock().get_mut(call) {
            // Whatever is written after the cancellation, nobody reads it.
            if !matches!(open.fate, Some(Fate::Cancelled)) {
                open.fate = Some(fate);
            }
        }
        self.changed.notify_one();
    }

    /// Waits for something to be different. Cancel safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes out what is settled at `now`.
    pub(super) fn settle(&self, now: Instant) -> Settled<S> {
        self.take(|written| written + CROSSING <= now)
    }

    /// Takes out what is settled when the host is gone: it cancels nothing any more.
    pub(super) fn settle_all(&self) -> Settled<S> {
        self.take(|_| true)
    }

    fn take(&self, is_over: impl Fn(Instant) -> bool) -> Settled<S> {
        let mut settled = Settled { seen: Vec::new(), back: Vec::new(), next: None };
        self.open.lock().retain(|_, open| match open.fate {
            Some(Fate::Written(at)) if is_over(at) || open.shown.is_empty() => {
                settled.seen.append(&mut open.shown);
                false
            }
            Some(Fate::Written(at)) => {
                let due = at + CROSSING;
                settled.next = Some(settled.next.map_or(due, |next| next.min(due)));
                true
            }
            Some(Fate::Cancelled) => {
                settled.back.append(&mut open.shown);
                // What the tool is still about to show goes back as well: the entry stays
                // until the answer that nobody reads would have been due.
                open.began.elapsed() < CROSSING
            }
            None => true,
        });
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: i64) -> RequestId {
        RequestId::Number(number)
    }

    fn later() -> Instant {
        Instant::now() + CROSSING
    }

    fn nothing() -> Settled<()> {
        Settled { seen: Vec::new(), back: Vec::new(), next: None }
    }

    #[test]
    fn what_an_answer_shows_is_seen_once_it_is_written_and_not_cancelled() {
        let calls = Calls::<()>::default();
        calls.began(&call(1));
        calls.shows(&call(1), (), vec![7, 8]);
        assert_eq!(calls.settle(later()), nothing(), "not written yet");
        calls.written(&call(1));
        let waiting = calls.settle(Instant::now());
        assert!(waiting.seen.is_empty() && waiting.next.is_some(), "{waiting:?}");
        assert_eq!(calls.settle(later()).seen, [((), vec![7, 8])]);
        assert_eq!(calls.settle(later()), nothing(), "once");
    }

    #[test]
    fn a_cancelled_call_has_shown_nothing_whenever_the_word_comes() {
        for written_first in [true, false] {
            let calls = Calls::<()>::default();
            calls.began(&call(1));
            if written_first {
                calls.shows(&call(1), (), vec![7]);
                calls.written(&call(1));
                calls.cancelled(&call(1));
            } else {
                calls.cancelled(&call(1));
                calls.shows(&call(1), (), vec![7]);
                calls.written(&call(1));
            }
            let settled = calls.settle(later());
            assert_eq!((settled.seen.len(), settled.back), (0, vec![((), vec![7])]));
        }
    }

    #[test]
    fn the_end_of_the_host_settles_what_was_written() {
        let calls = Calls::<()>::default();
        for number in 1..=2 {
            calls.began(&call(number));
            calls.shows(&call(number), (), vec![number]);
        }
        calls.written(&call(1));
        assert_eq!(calls.settle_all().seen, [((), vec![1])]);
    }

    #[test]
    fn a_host_that_never_reads_its_answers_fills_no_memory() {
        let calls = Calls::<()>::default();
        for number in 0..2_000 {
            calls.began(&call(number));
        }
        assert_eq!(calls.open.lock().len(), OPEN_MAX);
        calls.shows(&call(1_999), (), vec![1]);
        calls.written(&call(1_999));
        assert_eq!(calls.settle(later()).seen, [((), vec![1])]);
    }
}
