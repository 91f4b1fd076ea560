//! How long to wait before the next attempt.

use std::time::Duration;

/// The first attempt comes soon: most cuts are blips, and peers of a node that
/// died should be back before anybody misses them.
const FIRST_MS: u64 = 250;
/// The caps of the following ones.
const CAPS_MS: [u64; 6] = [1_000, 2_000, 4_000, 8_000, 16_000, 30_000];

/// Full jitter under growing caps: many clients that lost the same node do
/// not come back at the same instant.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: usize,
}

impl Backoff {
    /// The next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        let cap_ms = Self::cap_ms(self.attempts);
        self.attempts += 1;
        Duration::from_millis(rand::random_range(0..cap_ms))
    }

    fn cap_ms(attempts: usize) -> u64 {
        match attempts {
            0 => FIRST_MS,
            more => CAPS_MS.get(more - 1).copied().unwrap_or(CAPS_MS[CAPS_MS.len() - 1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blip_heals_fast_and_an_outage_is_not_hammered() {
        let caps: Vec<u64> = (0..9).map(Backoff::cap_ms).collect();
        assert_eq!(caps, [250, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        let mut backoff = Backoff::default();
        for cap_ms in caps {
            assert!(backoff.pause() < Duration::from_millis(cap_ms));
        }
    }
}
