//! A session that came back, and what it sent shortly before. Pure.
//!
//! What it sent through a node that died may be committed and told to nobody.
//! What it sends next goes through another node and must not overtake that. So
//! its first message to each recipient makes that recipient read the store.

use std::collections::HashSet;
use std::time::Instant;

use crate::id::Key;
use crate::limits;

/// Whom a session that came back has written to since.
#[derive(Debug)]
pub struct Resumption {
    /// By then every claim of the time before has run out.
    until: Instant,
    met: HashSet<Key>,
    has_met_all: bool,
}

impl Resumption {
    /// Of a session that is back; it matters until then.
    #[must_use]
    pub fn new(until: Instant) -> Self {
        Self { until, met: HashSet::new(), has_met_all: false }
    }

    /// Whether it still matters.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// Whether this is its first message to that key.
    pub fn is_first_to(&mut self, key: &Key) -> bool {
        if self.has_met_all || self.met.contains(key) {
            return false;
        }
        if self.met.len() < limits::RESUMED_RECIPIENTS_MAX {
            self.met.insert(key.clone());
        }
        true
    }

    /// Whether this is its first message to many, at which everybody in the
    /// mesh reads the store, whoever the message is for.
    pub fn is_first_to_many(&mut self) -> bool {
        self.met = HashSet::new();
        !std::mem::replace(&mut self.has_met_all, true)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_recipient_is_met_once() {
        let now = Instant::now();
        let mut resumption = Resumption::new(now + Duration::from_secs(30));
        let (ada, bob) = (Key::from("ada"), Key::from("bob"));
        assert!(resumption.is_first_to(&ada));
        assert!(!resumption.is_first_to(&ada));
        assert!(resumption.is_first_to(&bob));
        assert!(!resumption.is_over(now));
        assert!(resumption.is_over(now + Duration::from_secs(30)));
    }

    #[test]
    fn who_has_written_to_all_has_met_everyone() {
        let mut resumption = Resumption::new(Instant::now());
        assert!(resumption.is_first_to_many());
        assert!(!resumption.is_first_to_many());
        assert!(!resumption.is_first_to(&Key::from("ada")));
    }

    #[test]
    fn beyond_the_bound_each_counts_as_the_first() {
        let mut resumption = Resumption::new(Instant::now());
        for number in 0..limits::RESUMED_RECIPIENTS_MAX {
            assert!(resumption.is_first_to(&Key::from(number.to_string())));
        }
        assert!(!resumption.is_first_to(&Key::from("0")));
        for _ in 0..2 {
            assert!(resumption.is_first_to(&Key::from("one too many")));
        }
    }
}
