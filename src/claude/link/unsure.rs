//! Messages of which nobody knows whether the broker has them: sent again as they are,
//! they go under the same idempotence key, and are no second message.

use std::collections::VecDeque;

use crate::id;

/// Messages that are remembered. More: the oldest is a new message when it is sent again.
const UNSURE_MAX: usize = 16;

/// A message's target and text with its key.
#[derive(Debug, Default)]
pub(super) struct Unsure(VecDeque<(String, String, String)>);

impl Unsure {
    /// The key for a message: that of its earlier attempt, if there was one.
    pub(super) fn key_of(&mut self, target: &str, text: &str) -> String {
        let found = self.0.iter().position(|(to, said, _)| to == target && said == text);
        match found.and_then(|at| self.0.remove(at)) {
            Some((.., key)) => key,
            None => id::generate(),
        }
    }

    /// Nobody knows what became of the attempt with that key.
    pub(super) fn note(&mut self, target: &str, text: &str, key: &str) {
        if self.0.len() >= UNSURE_MAX {
            self.0.pop_front();
        }
        self.0.push_back((target.to_owned(), text.to_owned(), key.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_attempt_that_nobody_knows_of_is_repeated_under_its_key() {
        let mut unsure = Unsure::default();
        let first = unsure.key_of("k", "hi");
        assert_ne!(unsure.key_of("k", "hi"), first, "that one was answered");
        unsure.note("k", "hi", &first);
        assert_ne!(unsure.key_of("k", "ho"), first);
        assert_ne!(unsure.key_of("l", "hi"), first);
        assert_eq!(unsure.key_of("k", "hi"), first);
        assert_ne!(unsure.key_of("k", "hi"), first, "once");
        for number in 0..40 {
            unsure.note("k", &number.to_string(), "key");
        }
        assert_eq!(unsure.0.len(), UNSURE_MAX);
    }
}
