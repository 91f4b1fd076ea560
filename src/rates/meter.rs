//! A rate that a member has in the whole cluster.
//!
//! A node takes tokens from the member's bucket a few at a time and spends them
//! locally, so that what is metered does not cost a round trip each time. The
//! rate is exact in the long run and a little loose within a lot per node.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cluster::Cluster;
use crate::id::MemberId;

/// Tokens taken from the cluster at once: at most this part of the burst, and at
/// most this many.
const PART_OF_BURST: u32 = 10;
const LOT_MAX: u32 = 32;

/// How long tokens that were taken and not spent are kept. Later they are lost
/// to the member, which has fewer than a lot of them.
const KEPT: Duration = Duration::from_secs(120);

/// One kind of thing of which each member may do so much.
pub(super) struct Meter {
    /// Names the buckets in the cluster: `name/member`.
    name: &'static str,
    per_minute: u32,
    burst: u32,
    lots: Mutex<HashMap<MemberId, Lot>>,
}

/// Tokens that this node took for a member and has not spent.
struct Lot {
    tokens: u32,
    used: Instant,
}

impl Meter {
    /// A rate of 0 is none: everything may be taken.
    pub(super) fn new(name: &'static str, per_minute: u32, burst: u32) -> Self {
        Self { name, per_minute, burst: burst.max(1), lots: Mutex::default() }
    }

    pub(super) fn per_minute(&self) -> u32 {
        self.per_minute
    }

    pub(super) fn burst(&self) -> u32 {
        self.burst
    }

    /// Takes what something costs, at most the burst.
    ///
    /// A cluster that does not answer stops nobody: it decides by itself what its
    /// local share is, and an error means that even that could not be asked.
    pub(super) async fn take(
        &self,
        cluster: &dyn Cluster,
        member: &MemberId,
        cost: u32,
    ) -> Result<(), Duration> {
        let cost = cost.min(self.burst);
        if self.per_minute == 0 || self.spend(member, cost) {
            return Ok(());
        }
        let missing = cost.saturating_sub(self.held(member));
        let want = missing.max((self.burst / PART_OF_BURST).clamp(1, LOT_MAX));
        let bucket = format!("{}/{member}", self.name);
        match cluster.take_tokens(&bucket, want, self.per_minute, self.burst).await {
            Ok(granted) => {
                let held = self.add(member, granted);
                if self.spend(member, cost) {
                    Ok(())
                } else {
                    Err(self.refill(cost - held.min(cost)))
                }
            }
            Err(error) => {
                tracing::debug!(%error, rate = self.name, "a rate could not be checked");
                Ok(())
            }
        }
    }

    /// How long it takes until so many tokens have come.
    fn refill(&self, tokens: u32) -> Duration {
        let ms = u64::from(tokens.max(1)) * 60_000 / u64::from(self.per_minute.max(1));
        Duration::from_millis(ms.max(1))
    }

    fn spend(&self, member: &MemberId, cost: u32) -> bool {
        match self.lots.lock().get_mut(member) {
            Some(lot) if lot.tokens >= cost => {
                lot.tokens -= cost;
                lot.used = Instant::now();
                true
            }
            _ => false,
        }
    }

    fn held(&self, member: &MemberId) -> u32 {
        self.lots.lock().get(member).map_or(0, |lot| lot.tokens)
    }

    fn add(&self, member: &MemberId, tokens: u32) -> u32 {
        let mut lots = self.lots.lock();
        let used = Instant::now();
        let lot = lots.entry(member.clone()).or_insert(Lot { tokens: 0, used });
        lot.tokens += tokens;
        lot.used = used;
        lot.tokens
    }

    /// Forgets members that have been quiet.
    pub(super) fn sweep(&self, now: Instant) {
        self.lots.lock().retain(|_, lot| now.duration_since(lot.used) < KEPT);
    }

    #[cfg(test)]
    fn members(&self) -> usize {
        self.lots.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::books::LeaseTimes;
    use crate::cluster::single::SingleCluster;

    const MEMBER: &str = "member";

    fn cluster() -> Arc<SingleCluster> {
        SingleCluster::new(LeaseTimes { ttl_ms: 1_000, grace_ms: 1_000 }).0
    }

    async fn taken(meter: &Meter, cluster: &dyn Cluster, cost: u32) -> u32 {
        let member = MemberId::from(MEMBER);
        let mut count = 0;
        while count < 10_000 && meter.take(cluster, &member, cost).await.is_ok() {
            count += 1;
        }
        count
    }

    #[tokio::test]
    async fn a_member_gets_its_burst_whatever_each_thing_costs() {
        let cluster = cluster();
        // Slow enough that nothing comes back meanwhile.
        for (name, cost, expected) in [("ones", 1, 100), ("sevens", 7, 14), ("all", 100, 1)] {
            let meter = Meter::new(name, 1, 100);
            assert_eq!(taken(&meter, &*cluster, cost).await, expected, "{name}");
        }
    }

    #[tokio::test]
    async fn what_costs_more_than_the_burst_costs_the_burst() {
        let cluster = cluster();
        let meter = Meter::new("dear", 1, 10);
        assert_eq!(taken(&meter, &*cluster, 1_000).await, 1);
    }

    #[tokio::test]
    async fn a_rate_of_none_refuses_nothing() {
        let cluster = cluster();
        assert_eq!(taken(&Meter::new("off", 0, 1), &*cluster, 5).await, 10_000);
    }

    #[tokio::test]
    async fn whoever_is_refused_is_told_for_how_long() {
        let cluster = cluster();
        let meter = Meter::new("told", 1, 10);
        let member = MemberId::from(MEMBER);
        meter.take(&*cluster, &member, 8).await.expect("the bucket is full");
        let wait = meter.take(&*cluster, &member, 5).await.expect_err("two are left");
        assert_eq!(wait, Duration::from_secs(180), "three are missing, one comes a minute");
    }

    #[tokio::test]
    async fn quiet_members_are_forgotten_and_busy_ones_are_not() {
        let cluster = cluster();
        let meter = Meter::new("quiet", 600, 100);
        for member in 0..50 {
            let member = MemberId::from(format!("member {member}"));
            meter.take(&*cluster, &member, 1).await.expect("the bucket is full");
        }
        let began = Instant::now();
        meter.sweep(began);
        assert_eq!(meter.members(), 50, "all have just been heard of");
        meter.sweep(began + 2 * KEPT);
        assert_eq!(meter.members(), 0, "also those that have tokens left");
    }
}
