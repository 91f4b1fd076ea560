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
