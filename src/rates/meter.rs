//! A rate that a member has in the whole cluster.
//!
//! A node takes tokens from the member's buckets a few at a time and spends them
//! locally, so that what is metered does not cost a round trip each time, however many
//! rates it counts towards. A rate is exact in the long run and a little loose within a
//! lot per node.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::lots::{Lots, Whose};
use crate::cluster::{Cluster, Draw, Drawn};
use crate::id::MemberId;
use crate::limits;

/// Tokens taken from the cluster at once: at most this part of the burst, and at
/// most this many.
const PART_OF_BURST: u32 = 10;
const LOT_MAX: u32 = 32;

/// One kind of thing of which each member may do so much.
pub(super) struct Meter {
    /// Names the member's buckets in the cluster: `name`, or `name/peer`.
    name: &'static str,
    per_minute: u32,
    burst: u32,
    lots: Mutex<Lots>,
}

impl Meter {
    /// A rate of 0 is none: everything may be taken.
    pub(super) fn new(name: &'static str, per_minute: u32, burst: u32) -> Self {
        let lots = Mutex::new(Lots::at_most(limits::RATE_LOTS_MAX));
        Self { name, per_minute, burst: burst.max(1), lots }
    }

    pub(super) fn per_minute(&self) -> u32 {
        self.per_minute
    }

    pub(super) fn burst(&self) -> u32 {
        self.burst
    }

    pub(super) fn is_on(&self) -> bool {
        self.per_minute > 0
    }

    /// What something costs its member, at most the burst.
    pub(super) fn charge(&self, whose: Whose, cost: u32) -> Charge<'_> {
        Charge { meter: self, whose, cost: cost.min(self.burst) }
    }

    /// Takes what something costs that counts towards this rate alone.
    pub(super) async fn take(
        &self,
        cluster: &dyn Cluster,
        member: &MemberId,
        cost: u32,
    ) -> Result<(), Duration> {
        if !self.is_on() {
            return Ok(());
        }
        let charges = [self.charge(Whose::of(member), cost)];
        take_all(cluster, &charges).await.map(|_| ()).map_err(|short| short.wait)
    }

    /// Puts back one that was spent on something that did not come about.
    pub(super) fn give_back(&self, whose: &Whose) {
        self.lots.lock().give_back(whose, 1);
    }

    /// Forgets members that have been quiet.
    pub(super) fn sweep(&self, now: Instant) {
        self.lots.lock().sweep(now);
    }

    /// How long it takes until so many tokens have come.
    fn refill(&self, tokens: u32) -> Duration {
        let ms = u64::from(tokens) * 60_000 / u64::from(self.per_minute.max(1));
        Duration::from_millis(ms)
    }

    fn draw(&self, whose: &Whose, want: u32) -> Draw {
        let bucket = match &whose.to {
            Some(to) => format!("{}/{to}", self.name),
            None => self.name.to_owned(),
        };
        Draw { bucket, want, per_minute: self.per_minute, burst: self.burst }
    }

    #[cfg(test)]
    fn members(&self) -> usize {
        self.lots.lock().len()
    }
}

/// What something costs, of one rate that is on.
pub(super) struct Charge<'a> {
    meter: &'a Meter,
    whose: Whose,
    cost: u32,
}

/// Which of several charges is not covered, and for how long not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Short {
    pub(super) at: usize,
    pub(super) wait: Duration,
}

/// Takes what something costs that counts towards several rates of one member: all of it or
/// nothing. Whether anything was counted.
///
/// A cluster that does not answer stops nobody: it decides by itself what its
/// local share is, and an error means that even that could not be asked.
pub(super) async fn take_all(cluster: &dyn Cluster, charges: &[Charge<'_>]) -> Result<bool, Short> {
    let Some(owner) = charges.first().map(|charge| charge.whose.member.as_str()) else {
        return Ok(false);
    };
    let now = Instant::now();
    if spend_all(now, charges).is_ok() {
        return Ok(true);
    }
    if let Some(short) = charges.iter().enumerate().find_map(|(at, charge)| {
        let wait = charge.dry_for(now)?;
        Some(Short { at, wait })
    }) {
        return Err(short);
    }
    // What is asked once fills up all that are low.
    let wants: Vec<_> = charges
        .iter()
        .map(|charge| (charge, charge.wants()))
        .filter(|(_, want)| *want > 0)
        .collect();
    let draws: Vec<_> =
        wants.iter().map(|(charge, want)| charge.meter.draw(&charge.whose, *want)).collect();
    match cluster.take_tokens(owner, &draws).await {
        Ok(drawn) => {
            let now = Instant::now();
            for ((charge, want), drawn) in wants.iter().zip(drawn) {
                charge.pour(now, *want, drawn);
            }
        }
        Err(error) => {
            tracing::debug!(%error, "a rate could not be checked");
            return Ok(false);
        }
    }
    let now = Instant::now();
    spend_all(now, charges).map(|()| true).map_err(|at| Short { at, wait: charges[at].wait(now) })
}

/// Spends all, or tells which the lots here do not cover, and spends nothing.
fn spend_all(now: Instant, charges: &[Charge<'_>]) -> Result<(), usize> {
    for (at, charge) in charges.iter().enumerate() {
        if charge.meter.lots.lock().spend(now, &charge.whose, charge.cost) {
            continue;
        }
        for spent in &charges[..at] {
            spent.meter.lots.lock().give_back(&spent.whose, spent.cost);
        }
        return Err(at);
    }
    Ok(())
}

impl Charge<'_> {
    /// For how long it cannot be covered, where that is known without asking.
    fn dry_for(&self, now: Instant) -> Option<Duration> {
        let lots = self.meter.lots.lock();
        let missing = self.cost.saturating_sub(lots.held(&self.whose));
        let wait = lots.dry_for(now, &self.whose)?;
        (missing > 0).then(|| wait + self.meter.refill(missing - 1))
    }

    /// For how long it cannot be covered.
    fn wait(&self, now: Instant) -> Duration {
        let wait = self.dry_for(now).unwrap_or_else(|| {
            let held = self.meter.lots.lock().held(&self.whose);
            self.meter.refill(self.cost.saturating_sub(held).max(1))
        });
        wait.max(Duration::from_millis(1))
    }

    /// How many tokens to ask the cluster for: a lot more, or what is missing; where there
    /// are enough, those that the lot has room for.
    fn wants(&self) -> u32 {
        let lots = self.meter.lots.lock();
        let held = lots.held(&self.whose);
        let lot = (self.meter.burst / PART_OF_BURST).clamp(1, LOT_MAX);
        if lots.dry_for(Instant::now(), &self.whose).is_some() {
            0
        } else if held < self.cost {
            lot.max(self.cost - held)
        } else {
            (lot + self.cost).saturating_sub(held)
        }
    }

    fn pour(&self, now: Instant, want: u32, drawn: Drawn) {
        let dry = (drawn.got < want).then(|| Duration::from_millis(drawn.next_ms.min(DRY_MS_MAX)));
        self.meter.lots.lock().add(now, &self.whose, drawn.got, dry);
    }
}

/// For how long the cluster's word that there is nothing is believed at most.
const DRY_MS_MAX: u64 = 60_000;

/// How much of a rate is left to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    /// What comes back per minute.
    pub(crate) per_minute: u32,
    /// What there is at most.
    pub(crate) burst: u32,
    /// What can be done at once.
    pub(crate) left: u32,
    /// Until there is one more; nothing while there are some.
    pub(crate) next_ms: u64,
    /// Until all of it is back.
    pub(crate) full_ms: u64,
}

/// How these rates of one member stand; `None` for one that is off. Takes nothing. What
/// other nodes hold of them counts as spent.
pub(super) async fn look(
    cluster: &dyn Cluster,
    asked: &[(&Meter, Whose)],
) -> crate::cluster::Result<Vec<Option<Level>>> {
    let on: Vec<_> = asked.iter().filter(|(meter, _)| meter.is_on()).collect();
    let Some((_, first)) = on.first() else { return Ok(vec![None; asked.len()]) };
    let draws: Vec<_> = on.iter().map(|(meter, whose)| meter.draw(whose, 0)).collect();
    let mut drawn = cluster.take_tokens(first.member.as_str(), &draws).await?.into_iter();
    let level = |(meter, whose): &(&Meter, Whose)| {
        if !meter.is_on() {
            return None;
        }
        let drawn = drawn.next()?;
        let held = meter.lots.lock().held(whose);
        let left = drawn.left.saturating_add(held).min(meter.burst);
        let here = u64::try_from(meter.refill(held).as_millis()).unwrap_or(u64::MAX);
        Some(Level {
            per_minute: meter.per_minute,
            burst: meter.burst,
            left,
            next_ms: if left > 0 { 0 } else { drawn.next_ms },
            full_ms: if left == meter.burst {
                0
            } else {
                drawn.full_ms.saturating_sub(here).max(1)
            },
        })
    };
    Ok(asked.iter().map(level).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::lots::KEPT;
    use super::*;
    use crate::cluster::MockCluster;
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
        let about = Duration::from_secs(170)..=Duration::from_secs(180);
        assert!(about.contains(&wait), "three are missing, one comes a minute: {wait:?}");
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

    fn charges<'a>(meters: [&'a Meter; 2]) -> [Charge<'a>; 2] {
        let member = MemberId::from(MEMBER);
        meters.map(|meter| meter.charge(Whose::of(&member), 1))
    }

    #[tokio::test]
    async fn what_counts_towards_two_rates_takes_of_both_or_of_none() {
        let cluster = cluster();
        let (wide, narrow) = (Meter::new("wide", 1, 10), Meter::new("narrow", 1, 3));
        for _ in 0..3 {
            assert_eq!(take_all(&*cluster, &charges([&wide, &narrow])).await, Ok(true));
        }
        for _ in 0..20 {
            let short = take_all(&*cluster, &charges([&wide, &narrow])).await;
            assert_eq!(short.map_err(|short| short.at), Err(1), "the narrow one");
        }
        assert_eq!(taken(&wide, &*cluster, 1).await, 7, "those that were refused took nothing");
    }

    #[tokio::test]
    async fn the_cluster_is_asked_once_for_several_rates_and_not_while_it_has_nothing() {
        let calls = Arc::new(AtomicU32::new(0));
        let (noted, mut cluster) = (Arc::clone(&calls), MockCluster::new());
        cluster.expect_take_tokens().returning(move |_, draws| {
            let call = noted.fetch_add(1, Ordering::Relaxed);
            let left = |draw: &Draw| if call < 5 { draw.want } else { 0 };
            let drawn = |draw| Drawn { got: left(draw), left: 0, next_ms: 30_000, full_ms: 90_000 };
            Ok(draws.iter().map(drawn).collect())
        });
        let meters = (Meter::new("wide", 2, 100), Meter::new("narrow", 2, 60));
        let take = async || take_all(&cluster, &charges([&meters.0, &meters.1])).await;
        for _ in 0..30 {
            assert_eq!(take().await, Ok(true));
        }
        assert_eq!(calls.load(Ordering::Relaxed), 5, "once for six sends of both");
        for _ in 0..30 {
            let short = take().await.expect_err("there is nothing");
            assert!(short.wait <= Duration::from_secs(30) && short.at == 1, "{short:?}");
        }
        assert_eq!(calls.load(Ordering::Relaxed), 6, "it said when there is more");
    }

    #[tokio::test]
    async fn what_is_left_is_told_and_nothing_taken() {
        let cluster = cluster();
        let (wide, narrow) = (Meter::new("wide", 1, 10), Meter::new("narrow", 1, 3));
        let off = Meter::new("off", 0, 1);
        take_all(&*cluster, &charges([&wide, &narrow])).await.expect("both are full");
        let asked = [&off, &wide, &narrow].map(|meter| (meter, Whose::of(&MemberId::from(MEMBER))));
        for _ in 0..3 {
            let levels = look(&*cluster, &asked).await.expect("it answers");
            let left = levels.iter().map(|level| level.map(|level| level.left));
            assert_eq!(left.collect::<Vec<_>>(), [None, Some(9), Some(2)]);
            let level = levels[1].expect("it is on");
            assert_eq!((level.per_minute, level.burst, level.next_ms), (1, 10, 0));
            assert!((50_000..=60_000).contains(&level.full_ms), "{level:?}");
        }
    }
}
