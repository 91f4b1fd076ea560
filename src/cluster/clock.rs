//! The clock that the books are kept by on one node.

use tokio::time::Instant;

use crate::clock::Timestamp;

/// Milliseconds since the epoch that never go back: the wall clock at the
/// start, moved by the monotonic one.
#[derive(Clone, Copy, Debug)]
pub(super) struct MonotonicClock {
    origin_ms: u64,
    origin: Instant,
}

impl MonotonicClock {
    pub(super) fn start() -> Self {
        let origin_ms = Timestamp::now().as_ms().unsigned_abs();
        Self { origin_ms, origin: Instant::now() }
    }

    pub(super) fn now_ms(&self) -> u64 {
        let elapsed_ms = self.origin.elapsed().as_millis();
        self.origin_ms.saturating_add(u64::try_from(elapsed_ms).unwrap_or(u64::MAX))
    }
}
