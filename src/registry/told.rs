//! Which changes of a mesh's shared things the sessions here have been told of. Pure.
//!
//! Nodes hear of changes in whatever order, and may miss some. Of one thing only a later
//! change is told, so the last that is told of it is the last there is; and everything up
//! to the `place` has been read from the store, so whoever missed some reads on from it.

use std::collections::HashMap;

use crate::limits;

/// What has been told.
#[derive(Debug, Default)]
pub(super) struct Told {
    place: i64,
    /// The last change that was told of each thing, where that is after the place.
    last: HashMap<String, i64>,
}

impl Told {
    /// Whether a change is to be told: it is later than all that was told of its thing.
    pub(super) fn is_news(&mut self, thing: &str, seq: i64) -> bool {
        if seq <= self.place {
            return false;
        }
        match self.last.get_mut(thing) {
            Some(last) if *last >= seq => false,
            Some(last) => {
                *last = seq;
                true
            }
            None => {
                self.last.insert(thing.to_owned(), seq);
                true
            }
        }
    }

    /// Whether so much was told since the store was read that it should be again.
    pub(super) fn is_long(&self) -> bool {
        self.last.len() > limits::SHARED_TOLD_MAX
    }

    /// Up to where all has been read.
    pub(super) fn place(&self) -> i64 {
        self.place
    }

    /// All up to there has been read.
    pub(super) fn skip_to(&mut self, place: i64) {
        self.place = self.place.max(place);
        self.last.retain(|_, seq| *seq > place);
    }

    /// The store went back, and gives the seqs after `newest` away once more.
    pub(super) fn rewind(&mut self, newest: i64) {
        self.place = self.place.min(newest);
        self.last.retain(|_, seq| *seq <= newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_thing_only_a_later_change_is_news() {
        let mut told = Told::default();
        told.skip_to(10);
        assert!(!told.is_news("a", 10), "it was read");
        assert!(told.is_news("a", 13));
        assert!(!told.is_news("a", 12) && !told.is_news("a", 13));
        assert!(told.is_news("b", 12), "another thing has an order of its own");
        told.skip_to(12);
        assert!(!told.is_news("b", 12) && !told.is_news("a", 13) && told.is_news("a", 14));
    }

    #[test]
    fn what_is_remembered_ends_with_the_next_reading() {
        let mut told = Told::default();
        for seq in 1..=5_000 {
            assert!(told.is_news(&seq.to_string(), seq));
        }
        assert!(told.is_long());
        told.skip_to(4_999);
        assert_eq!((told.is_long(), told.place(), told.last.len()), (false, 4_999, 1));
    }

    #[test]
    fn seqs_that_are_given_away_again_are_news_again() {
        let mut told = Told::default();
        told.skip_to(5);
        assert!(told.is_news("a", 8));
        told.rewind(6);
        assert!(told.is_news("a", 7));
        told.rewind(3);
        assert_eq!(told.place(), 3);
    }
}
