//! A mesh's multicasts in the order of their commits. Pure.
//!
//! Each names its seq and the seq of the one before it, so a node that
//! hears them from several others knows when one is missing: it is late (and
//! the rest waits a moment) or lost (and the store has it).

use std::collections::BTreeMap;

use crate::limits;

/// What to do with a multicast that arrives.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival<T> {
    /// Deliver these, in this order.
    Now(Vec<T>),
    /// The message waits for the one before it; the first to wait starts a timer.
    Waits {
        /// Whether the caller must give up waiting after a moment.
        first: bool,
    },
    /// Too many wait: everybody reads the store.
    Lost,
}

/// Puts a mesh's multicasts in order.
#[derive(Debug)]
pub struct Order<T> {
    /// The last that was delivered; 0: before the mesh's first.
    last: i64,
    /// Messages that came too early, by seq, each with the seq before it.
    waiting: BTreeMap<i64, (i64, T)>,
}

impl<T> Order<T> {
    /// Begins after that seq: what is up to there is in the store.
    pub fn after(last: i64) -> Self {
        Self { last, waiting: BTreeMap::new() }
    }

    /// Everything up to here is read from the store.
    pub fn skip_to(&mut self, position: i64) {
        self.last = self.last.max(position);
    }

    /// The store knows no seq beyond `newest` any more: those that come next are
    /// given away again. Whether any beyond it was believed in.
    pub fn rewind(&mut self, newest: i64) -> bool {
        let was_ahead = self.last > newest;
        if was_ahead {
            self.last = newest;
            self.waiting.clear();
        }
        was_ahead
    }

    /// The last that was delivered; 0: none.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.last
    }

    /// Whether any waits for one before it.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A message arrives. A late one is delivered too: sessions that have read it
    /// from the store skip it.
    pub fn arrive(&mut self, previous: i64, seq: i64, message: T) -> Arrival<T> {
        if previous > self.last {
            let first = self.waiting.is_empty();
            if self.waiting.len() >= limits::EARLY_MULTICASTS_MAX {
                self.give_up();
                self.last = self.last.max(seq);
                return Arrival::Lost;
            }
            self.waiting.insert(seq, (previous, message));
            return Arrival::Waits { first };
        }
        self.last = self.last.max(seq);
        let mut now = vec![message];
        while let Some(next) = self.waiting.first_entry() {
            if next.get().0 > self.last {
                break;
            }
            let (seq, (_, message)) = next.remove_entry();
            self.last = self.last.max(seq);
            now.push(message);
        }
        Arrival::Now(now)
    }

    /// What was waited for did not come. `true` if something waited: everybody
    /// reads the store, which has it all.
    pub fn give_up(&mut self) -> bool {
        let Some((&newest, _)) = self.waiting.last_key_value() else { return false };
        self.last = self.last.max(newest);
        self.waiting.clear();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_mesh_is_waited_for_too() {
        let mut order = Order::after(0);
        assert_eq!(order.arrive(1, 2, "b"), Arrival::Waits { first: true });
        assert_eq!(order.arrive(0, 1, "a"), Arrival::Now(vec!["a", "b"]));
    }

    #[test]
    fn what_follows_goes_out_at_once() {
        let mut order = Order::after(0);
        assert_eq!(order.arrive(0, 3, "a"), Arrival::Now(vec!["a"]));
        assert_eq!(order.arrive(3, 7, "b"), Arrival::Now(vec!["b"]));
        assert!(!order.give_up());
    }

    #[test]
    fn an_early_one_waits_for_the_one_before_it() {
        let mut order = Order::after(3);
        assert_eq!(order.arrive(9, 12, "c"), Arrival::Waits { first: true });
        assert_eq!(order.arrive(7, 9, "b"), Arrival::Waits { first: false });
        assert_eq!(order.arrive(3, 7, "a"), Arrival::Now(vec!["a", "b", "c"]));
        assert_eq!(order.last(), 12);
    }

    #[test]
    fn a_lost_one_is_given_up_and_a_late_one_still_passes() {
        let mut order = Order::after(3);
        assert_eq!(order.arrive(7, 9, "b"), Arrival::Waits { first: true });
        assert!(order.give_up());
        assert_eq!(order.arrive(3, 7, "a"), Arrival::Now(vec!["a"]));
        assert_eq!(order.arrive(9, 12, "c"), Arrival::Now(vec!["c"]));
    }

    #[test]
    fn seqs_that_are_given_away_again_are_new() {
        let mut order = Order::after(100);
        assert_eq!(order.arrive(120, 121, "old"), Arrival::Waits { first: true });
        assert!(!order.rewind(100), "the store is where it was");
        assert!(order.rewind(40));
        assert!(!order.is_waiting(), "what it waited for will never be");
        assert_eq!(order.arrive(41, 42, "b"), Arrival::Waits { first: true });
        assert_eq!(order.arrive(40, 41, "a"), Arrival::Now(vec!["a", "b"]));
    }

    #[test]
    fn too_many_early_ones_are_not_kept() {
        let mut order = Order::after(1);
        for seq in 0..i64::try_from(limits::EARLY_MULTICASTS_MAX).expect("small") {
            order.arrive(seq + 5, seq + 6, ());
        }
        assert_eq!(order.arrive(9_000, 9_001, ()), Arrival::Lost);
        assert_eq!(order.last(), 9_001);
        assert_eq!(order.arrive(9_001, 9_002, ()), Arrival::Now(vec![()]));
    }
}
