//! How much a drain reads at once. Pure.

use crate::limits;
use crate::store::StoredEnvelope;

/// How much a drain reads at once: so many envelopes as fit into the bytes that
/// it may hold, by the size of those that it has read.
pub(super) struct Reading {
    pub(super) envelopes: usize,
}

impl Default for Reading {
    fn default() -> Self {
        Self { envelopes: limits::DRAIN_FIRST_ENVELOPES }
    }
}

impl Reading {
    /// How many more, after `read` of so many `bytes`.
    pub(super) fn left(&self, read: usize, bytes: usize) -> usize {
        if read == 0 {
            return self.envelopes;
        }
        let left = limits::DRAIN_BATCH_BYTES_MAX.saturating_sub(bytes);
        let most = limits::DRAIN_BATCH_ENVELOPES_MAX.saturating_sub(read);
        (left / bytes.div_ceil(read).max(1)).min(most)
    }

    /// So much was read at once: from now on as many as fit, and not much more
    /// than what is known to.
    pub(super) fn learn(&mut self, read: usize, bytes: usize) {
        if read > 0 {
            let fit = limits::DRAIN_BATCH_BYTES_MAX / bytes.div_ceil(read).max(1);
            let most = (4 * self.envelopes).min(limits::DRAIN_BATCH_ENVELOPES_MAX);
            self.envelopes = fit.clamp(1, most);
        }
    }
}

/// The same of all lists.
#[derive(Default)]
pub(super) struct Readings {
    pub(super) directs: Reading,
    pub(super) multicasts: Reading,
    pub(super) posts: Reading,
}

/// What an envelope takes, about.
pub(super) fn bytes_of(envelope: &StoredEnvelope) -> usize {
    envelope.ciphertext.len() + envelope.nonce.len() + limits::ENVELOPE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_takes_as_many_as_fit_by_the_size_of_those_it_has_read() {
        let large = 90_000;
        let mut reading = Reading::default();
        reading.learn(8, 8 * large);
        assert_eq!(reading.envelopes, limits::DRAIN_BATCH_BYTES_MAX / large);
        assert_eq!(reading.left(2, 2 * large), limits::DRAIN_BATCH_BYTES_MAX / large - 2);
        assert_eq!(reading.left(8, 8 * large), 0);
        // One is always taken, however large.
        reading.learn(1, 2 * limits::DRAIN_BATCH_BYTES_MAX);
        assert_eq!(reading.envelopes, 1);
    }

    #[test]
    fn a_drain_of_small_ones_grows_to_its_bound() {
        let small = limits::ENVELOPE_BYTES + 100;
        let mut reading = Reading::default();
        let mut grown = Vec::new();
        for _ in 0..4 {
            reading.learn(reading.envelopes, reading.envelopes * small);
            grown.push(reading.envelopes);
        }
        assert_eq!(grown, [32, 128, 128, 128]);
        assert_eq!(reading.left(128, 128 * small), 0);
        assert_eq!(Reading::default().left(0, 0), limits::DRAIN_FIRST_ENVELOPES);
    }
}
