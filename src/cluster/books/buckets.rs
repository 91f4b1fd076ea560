//! Token buckets by name, in whole numbers: a token is 60 000 parts, so that
//! one per minute is one part per millisecond and nothing is rounded away.

use std::collections::HashMap;

/// Parts of one token.
const PARTS: u64 = 60_000;

/// Buckets kept of the cluster's rates.
const BUCKETS_MAX: usize = 65_536;

/// Tokens that are wanted of one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The bucket, among those of the same owner.
    pub bucket: String,
    /// How many; none to look only.
    pub want: u32,
    /// What comes back per minute; of 0 nothing does.
    pub per_minute: u32,
    /// What the bucket holds when it is full.
    pub burst: u32,
}

/// What came of a [`Draw`], and how the bucket is after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// How many were taken: as many as were wanted, or as there were.
    pub got: u32,
    /// Whole tokens that are left.
    pub left: u32,
    /// Until there is one more.
    pub next_ms: u64,
    /// Until the bucket is full.
    pub full_ms: u64,
}

impl Drawn {
    /// Takes from a bucket that holds so many parts; how many are left with that.
    fn of(draw: &Draw, parts: u64) -> (Self, u64) {
        let got = u64::from(draw.want).min(parts / PARTS);
        let parts = parts - got * PARTS;
        let full = u64::from(draw.burst) * PARTS;
        let until = |parts_missing: u64| match draw.per_minute {
            _ if parts_missing == 0 => 0,
            0 => u64::MAX,
            per_minute => parts_missing.div_ceil(u64::from(per_minute)),
        };
        let drawn = Self {
            got: whole(got),
            left: whole(parts / PARTS),
            next_ms: until((PARTS - parts % PARTS).min(full.saturating_sub(parts))),
            full_ms: until(full.saturating_sub(parts)),
        };
        (drawn, parts)
    }
}

#[cfg(test)]
impl Drawn {
    /// What a mock answers: all that is wanted, or nothing now.
    pub(crate) fn for_tests(draw: &Draw, gives: bool) -> Self {
        let got = if gives { draw.want } else { 0 };
        Self { got, left: 0, next_ms: 0, full_ms: 60_000 }
    }

    pub(crate) fn all_for_tests(draws: &[Draw], gives: bool) -> Vec<Self> {
        draws.iter().map(|draw| Self::for_tests(draw, gives)).collect()
    }
}

fn whole(tokens: u64) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

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

    /// Takes tokens of buckets of one owner, each as many as are wanted or as there are.
    pub(crate) fn draw_all(&mut self, now_ms: u64, owner: &str, draws: &[Draw]) -> Vec<Drawn> {
        draws
            .iter()
            .map(|draw| self.draw(now_ms, &format!("{owner}/{}", draw.bucket), draw))
            .collect()
    }

    /// Takes tokens of the bucket of that name, whatever the draw calls it.
    pub(crate) fn draw(&mut self, now_ms: u64, name: &str, draw: &Draw) -> Drawn {
        let full = u64::from(draw.burst) * PARTS;
        let known = self.buckets.get(name);
        let parts = known.map_or(full, |bucket| {
            let passed = now_ms.saturating_sub(bucket.at_ms);
            let refill = passed.saturating_mul(u64::from(draw.per_minute));
            bucket.parts.saturating_add(refill).min(full)
        });
        let (drawn, parts) = Drawn::of(draw, parts);
        if drawn.got == 0 {
            // Nothing was taken: what is known of it still says all.
            return drawn;
        }
        let bucket =
            Bucket { parts, at_ms: now_ms, full_at_ms: now_ms.saturating_add(drawn.full_ms) };
        if let Some(known) = self.buckets.get_mut(name) {
            *known = bucket;
        } else {
            self.make_room(now_ms);
            self.buckets.insert(name.to_owned(), bucket);
        }
        drawn
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

    fn draw(want: u32, per_minute: u32, burst: u32) -> Draw {
        Draw { bucket: String::new(), want, per_minute, burst }
    }

    #[test]
    fn a_bucket_refills_evenly_and_holds_no_more_than_its_burst() {
        let mut buckets = Buckets::default();
        let mut got = |now_ms, name, want| buckets.draw(now_ms, name, &draw(want, 60, 5)).got;
        assert_eq!(got(0, "a", 7), 5);
        assert_eq!(got(999, "a", 1), 0);
        assert_eq!(got(1000, "a", 9), 1);
        assert_eq!(got(3_600_000, "a", 9), 5);
        assert_eq!(got(0, "b", 1), 1);
    }

    #[test]
    fn a_draw_tells_what_is_left_and_when_there_is_more() {
        let mut buckets = Buckets::default();
        let look = |buckets: &mut Buckets, now_ms| buckets.draw(now_ms, "a", &draw(0, 60, 5));
        let full = Drawn { got: 0, left: 5, next_ms: 0, full_ms: 0 };
        assert_eq!(look(&mut buckets, 0), full);
        assert!(buckets.buckets.is_empty(), "who only looks leaves nothing behind");
        let empty = Drawn { got: 5, left: 0, next_ms: 1_000, full_ms: 5_000 };
        assert_eq!(buckets.draw(0, "a", &draw(9, 60, 5)), empty);
        let later = Drawn { got: 0, left: 1, next_ms: 600, full_ms: 3_600 };
        assert_eq!(look(&mut buckets, 1_400), later);
        let last = Drawn { got: 0, left: 4, next_ms: 1, full_ms: 1 };
        assert_eq!(look(&mut buckets, 4_999), last);
        assert_eq!(look(&mut buckets, 5_000), full);
    }

    #[test]
    fn owners_share_no_bucket() {
        let mut buckets = Buckets::default();
        let draws = ["a", "b"].map(|name| Draw { bucket: name.to_owned(), ..draw(3, 1, 3) });
        let got = |drawn: Vec<Drawn>| drawn.iter().map(|drawn| drawn.got).collect::<Vec<_>>();
        assert_eq!(got(buckets.draw_all(0, "ada", &draws)), [3, 3]);
        assert_eq!(got(buckets.draw_all(0, "ada", &draws)), [0, 0]);
        assert_eq!(got(buckets.draw_all(0, "bob", &draws)), [3, 3]);
    }

    #[test]
    fn however_many_names_there_are_the_memory_is_bounded() {
        let mut buckets = Buckets::default();
        for name in 0..(2 * BUCKETS_MAX as u64) {
            assert_eq!(buckets.draw(name / 1000, &name.to_string(), &draw(1, 1, 1)).got, 1);
        }
        assert!(buckets.buckets.len() <= BUCKETS_MAX);
    }
}
