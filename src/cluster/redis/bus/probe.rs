//! The probe: what this node publishes to itself, to know whether the bus is deaf.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// No probe has been heard on this subscription.
const NOT_HEARD: u64 = u64::MAX;

pub(super) struct Probe {
    /// A probe was heard on this subscription.
    hears: AtomicBool,
    /// The number of the last one.
    number: AtomicU64,
    /// The publisher is to send the last one.
    pub(super) due: Notify,
    /// Microseconds that the last one took; [`NOT_HEARD`] if none was heard.
    lag_us: AtomicU64,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            hears: AtomicBool::new(false),
            number: AtomicU64::new(0),
            due: Notify::new(),
            lag_us: AtomicU64::new(NOT_HEARD),
        }
    }
}

impl Probe {
    pub(super) fn hears(&self) -> bool {
        self.hears.load(Ordering::Relaxed)
    }

    pub(super) fn note_hears(&self, hears: bool) {
        self.hears.store(hears, Ordering::Relaxed);
    }

    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Has the publisher send one of that number.
    pub(super) fn send(&self, number: u64) {
        self.number.store(number, Ordering::Relaxed);
        self.due.notify_one();
    }

    /// How long the last one took.
    pub(super) fn lag(&self) -> Option<Duration> {
        match self.lag_us.load(Ordering::Relaxed) {
            NOT_HEARD => None,
            lag_us => Some(Duration::from_micros(lag_us)),
        }
    }

    pub(super) fn note_lag(&self, lag: Option<Duration>) {
        let lag_us = lag.map(|lag| u64::try_from(lag.as_micros()).unwrap_or(u64::MAX - 1));
        self.lag_us.store(lag_us.unwrap_or(NOT_HEARD), Ordering::Relaxed);
    }
}
