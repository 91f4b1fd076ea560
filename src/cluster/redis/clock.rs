//! The clock that all nodes go by: the server's.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::cluster::clock::MonotonicClock;

/// The server's clock as this node last saw it.
#[derive(Debug)]
pub(super) struct SharedClock {
    local: MonotonicClock,
    ahead_ms: AtomicI64,
}

impl SharedClock {
    pub(super) fn start() -> Self {
        Self { local: MonotonicClock::start(), ahead_ms: AtomicI64::new(0) }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.local.now_ms().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }

    pub(super) fn see(&self, server_ms: u64) {
        let ahead_ms = server_ms.cast_signed() - self.local.now_ms().cast_signed();
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }
}
