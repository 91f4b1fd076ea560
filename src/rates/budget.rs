//! What one session may ask. Pure: the caller says what time it is.

use std::time::Duration;

/// Parts of one unit of cost, so that one unit per minute is one part per
/// millisecond and nothing is rounded away.
const PARTS: i64 = 60_000;

/// A budget that refills evenly up to its burst.
///
/// What can be refused is refused when the budget does not cover it. What cannot
/// (its sender could not be told) is done and paid for afterwards: the budget
/// goes below nothing, and the session's next frame waits until that is made up.
#[derive(Debug)]
pub struct Budget {
    per_minute: u32,
    burst: u32,
    parts: i64,
    at_ms: i64,
}

impl Budget {
    /// A full budget; of 0 per minute, one that covers everything.
    pub fn new(per_minute: u32, burst: u32) -> Self {
        Self { per_minute, burst, parts: i64::from(burst) * PARTS, at_ms: 0 }
    }

    /// Takes what a request costs, at most the burst. Times are milliseconds since
    /// the budget began, and never go back.
    pub fn take(&mut self, now_ms: i64, cost: u32) -> Result<(), Duration> {
        if self.per_minute == 0 {
            return Ok(());
        }
        self.refill(now_ms);
        let cost = i64::from(cost.min(self.burst)) * PARTS;
        if self.parts < cost {
            return Err(self.time_for(cost - self.parts));
        }
        self.parts -= cost;
        Ok(())
    }

    /// Takes a cost that is paid for afterwards.
    pub fn charge(&mut self, now_ms: i64, cost: u32) {
        if self.per_minute > 0 {
            self.refill(now_ms);
            self.parts -= i64::from(cost.min(self.burst)) * PARTS;
        }
    }

    /// How long until what was charged is paid for.
    pub fn owes(&mut self, now_ms: i64) -> Option<Duration> {
        self.refill(now_ms);
        (self.parts < 0).then(|| self.time_for(-self.parts))
    }

    fn refill(&mut self, now_ms: i64) {
        let passed = now_ms.saturating_sub(self.at_ms).max(0);
        self.at_ms = self.at_ms.max(now_ms);
        let came = passed.saturating_mul(i64::from(self.per_minute));
        self.parts = self.parts.saturating_add(came).min(i64::from(self.burst) * PARTS);
    }

    fn time_for(&self, parts: i64) -> Duration {
        let ms = parts.unsigned_abs().div_ceil(u64::from(self.per_minute.max(1)));
        Duration::from_millis(ms.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_covers_its_burst_and_then_what_comes_back() {
        let mut budget = Budget::new(60, 10);
        assert_eq!(budget.take(0, 7), Ok(()));
        assert_eq!(budget.take(0, 4), Err(Duration::from_secs(1)));
        assert_eq!(budget.take(0, 3), Ok(()), "a refusal took nothing");
        assert_eq!(budget.take(999, 1), Err(Duration::from_millis(1)));
        assert_eq!(budget.take(1_000, 1), Ok(()));
        assert_eq!(budget.take(3_600_000, 10), Ok(()));
        assert_eq!(budget.take(3_600_000, 1), Err(Duration::from_secs(1)), "no more than a burst");
    }

    #[test]
    fn what_cannot_be_refused_is_owed() {
        let mut budget = Budget::new(60, 10);
        budget.charge(0, 9);
        assert_eq!(budget.owes(0), None);
        budget.charge(0, 3);
        assert_eq!(budget.owes(0), Some(Duration::from_secs(2)));
        assert_eq!(budget.owes(1_500), Some(Duration::from_millis(500)));
        assert_eq!(budget.owes(2_000), None);
    }

    #[test]
    fn what_costs_more_than_the_burst_costs_the_burst() {
        let mut budget = Budget::new(60, 10);
        assert_eq!(budget.take(0, 1_000), Ok(()));
        assert_eq!(budget.take(0, 1_000), Err(Duration::from_secs(10)));
    }

    #[test]
    fn without_a_rate_nothing_is_refused_or_owed() {
        let mut budget = Budget::new(0, 0);
        assert_eq!(budget.take(0, 5), Ok(()));
        budget.charge(0, 5);
        assert_eq!(budget.owes(0), None);
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing() {
        let mut budget = Budget::new(60, 1);
        assert_eq!(budget.take(5_000, 1), Ok(()));
        assert!(budget.take(4_000, 1).is_err());
        assert!(budget.take(5_000, 1).is_err());
    }
}
