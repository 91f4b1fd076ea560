//! Token buckets by name, in whole numbers: a token is 60 000 parts, so that
//! one per minute is one part per millisecond and nothing is rounded away.

use std::collections::HashMap;

/// Parts of one token.
const PARTS: u64 = 60_000;

/// Buckets kept of the cluster's rates.
const BUCKETS_MAX: usize = 65_536;

/// Token buckets; one that is full again is as good as none.
#[derive(Clone, Debug)]
pub(crate) struct Buckets {
    buckets: HashMap<String, Bucket>,
    /// More than that: full ones are dropped, which changes nothing; if that is
    /// not enough, the half that was used longest ago is, and starts full again.
    buckets_max: usize,
}

impl Default for Buckets {
    fn default() -> Self {
        Self::at_most(BUCKETS_MAX)
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    parts: u64,
    at_ms: u64,
    full_at_ms: u64,
}

impl Buckets {
    /// No buckets yet, and never more than so many.
    pub(crate) fn at_most(buckets_max: usize) -> Self {
        Self { buckets: HashMap::new(), buckets_max }
    }

    /// Takes up to `want` tokens; says how many it got.
    pub(crate) fn take(
        &mut self,
        now_ms: u64,
        name: &str,
        want: u32,
        per_minute: u32,
        burst: u32,
    ) -> u32 {
        let full = u64::from(burst) * PARTS;
        let parts = self.buckets.get(name).map_or(full, |bucket| {
            let refill = now_ms.saturating_sub(bucket.at_ms).saturating_mul(u64::from(per_minute));
            bucket.parts.saturating_add(refill).min(full)
        });
        let got = u64::from(want).min(parts / PARTS);
        let parts = parts - got * PARTS;
        let full_at_ms = match per_minute {
            0 => u64::MAX,
            _ => now_ms.saturating_add((full - parts).div_ceil(u64::from(per_minute))),
        };
        let bucket = Bucket { parts, at_ms: now_ms, full_at_ms };
        if let Some(known) = self.buckets.get_mut(name) {
            *known = bucket;
        } else {
            self.make_room(now_ms);
            self.buckets.insert(name.to_owned(), bucket);
        }
        u32::try_from(got).unwrap_or(want)
    }

    /// After how many milliseconds a bucket holds a token again.
    pub(crate) fn next_token_ms(&self, now_ms: u64, name: &str, per_minute: u32) -> u64 {
        self.buckets.get(name).map_or(0, |bucket| {
            let due = PARTS.saturating_sub(bucket.parts).div_ceil(u64::from(per_minute.max(1)));
            bucket.at_ms.saturating_add(due).saturating_sub(now_ms)
        })
    }

    /// Forgets buckets that are full again.
    pub(crate) fn drop_full(&mut self, now_ms: u64) {
        self.buckets.retain(|_, bucket| bucket.full_at_ms > now_ms);
    }

    fn make_room(&mut self, now_ms: u64) {
        if self.buckets.len() < self.buckets_max {
            return;
        }
        self.drop_full(now_ms);
        let half = self.buckets_max / 2;
        if self.buckets.len() > half {
            let mut ages: Vec<_> = self.buckets.values().map(|bucket| bucket.at_ms).collect();
            let (_, median, _) = ages.select_nth_unstable(half.saturating_sub(1));
            let median = *median;
            self.buckets.retain(|_, bucket| bucket.at_ms > median);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refills_evenly_and_holds_no_more_than_its_burst() {
        let mut buckets = Buckets::default();
        assert_eq!(buckets.take(0, "a", 7, 60, 5), 5);
        assert_eq!(buckets.take(999, "a", 1, 60, 5), 0);
        assert_eq!(buckets.take(1000, "a", 9, 60, 5), 1);
        assert_eq!(buckets.take(3_600_000, "a", 9, 60, 5), 5);
        assert_eq!(buckets.take(0, "b", 1, 60, 5), 1);
    }

    #[test]
    fn an_empty_bucket_says_when_it_holds_a_token_again() {
        let mut buckets = Buckets::default();
        assert_eq!(buckets.next_token_ms(0, "a", 60), 0);
        assert_eq!(buckets.take(0, "a", 5, 60, 5), 5);
        assert_eq!(buckets.next_token_ms(0, "a", 60), 1_000);
        assert_eq!(buckets.next_token_ms(400, "a", 60), 600);
        assert_eq!(buckets.next_token_ms(4_000, "a", 60), 0);
    }

    #[test]
    fn however_many_names_there_are_the_memory_is_bounded() {
        let mut buckets = Buckets::default();
        for name in 0..(2 * BUCKETS_MAX as u64) {
            assert_eq!(buckets.take(name / 1000, &name.to_string(), 1, 1, 1), 1);
        }
        assert!(buckets.buckets.len() <= BUCKETS_MAX);
    }
}
