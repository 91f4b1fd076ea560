//! A rate that this node keeps by itself, per address or process.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cluster::books::buckets::{Buckets, Draw};

/// So many a minute for each name, all of them at once if need be.
pub(super) struct LocalRate {
    per_minute: u32,
    began: Instant,
    buckets: Mutex<Buckets>,
}

impl LocalRate {
    /// A rate of 0 is none. More names than `names_max`: the half of them that was
    /// seen longest ago is forgotten, and begins anew.
    pub(super) fn new(per_minute: u32, names_max: usize) -> Self {
        let buckets = Mutex::new(Buckets::at_most(names_max));
        Self { per_minute, began: Instant::now(), buckets }
    }

    /// Counts one more of that name.
    pub(super) fn check(&self, name: &str) -> Result<(), Duration> {
        if self.per_minute == 0 {
            return Ok(());
        }
        let Self { per_minute, .. } = *self;
        let draw = Draw { bucket: String::new(), want: 1, per_minute, burst: per_minute };
        let drawn = self.buckets.lock().draw(self.now_ms(), name, &draw);
        if drawn.got > 0 { Ok(()) } else { Err(Duration::from_millis(drawn.next_ms)) }
    }

    /// Forgets names that have been quiet.
    pub(super) fn sweep(&self) {
        let now_ms = self.now_ms();
        self.buckets.lock().drop_full(now_ms);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_rate_of_its_own() {
        let rate = LocalRate::new(2, 10);
        assert_eq!(rate.check("a"), Ok(()));
        assert_eq!(rate.check("a"), Ok(()));
        let wait = rate.check("a").expect_err("two a minute");
        assert!(wait <= Duration::from_secs(30), "{wait:?}");
        assert_eq!(rate.check("b"), Ok(()));
    }

    #[test]
    fn over_the_bound_those_seen_longest_ago_are_forgotten() {
        let rate = LocalRate::new(1, 4);
        for name in 0..100 {
            assert_eq!(rate.check(&name.to_string()), Ok(()), "a newcomer finds room");
        }
        assert!(rate.check("99").is_err(), "the newest is known");
    }
}
