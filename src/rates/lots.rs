//! Tokens that this node took from the cluster and has not spent yet. Pure: told what time
//! it is.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::id::MemberId;

/// How long tokens that were taken and not spent are kept. Later they are lost
/// to the member, which has fewer than a lot of them.
pub(super) const KEPT: Duration = Duration::from_secs(120);

/// Whose lot: a member's, or a member's towards another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Whose {
    pub(super) member: MemberId,
    pub(super) to: Option<MemberId>,
}

impl Whose {
    pub(super) fn of(member: &MemberId) -> Self {
        Self { member: member.clone(), to: None }
    }

    pub(super) fn towards(member: &MemberId, to: &MemberId) -> Self {
        Self { member: member.clone(), to: Some(to.clone()) }
    }
}

struct Lot {
    tokens: u32,
    used: Instant,
    /// The cluster had no more: before this instant it need not be asked again.
    dry_until: Option<Instant>,
}

/// The lots of one kind of tokens.
pub(super) struct Lots {
    lots: HashMap<Whose, Lot>,
    /// More than that: those that have been quiet are forgotten; if that is not enough,
    /// the half that was used longest ago is, with what it holds.
    lots_max: usize,
}

impl Lots {
    pub(super) fn at_most(lots_max: usize) -> Self {
        Self { lots: HashMap::new(), lots_max }
    }

    /// Takes what something costs, if the lot covers it.
    pub(super) fn spend(&mut self, now: Instant, whose: &Whose, cost: u32) -> bool {
        match self.lots.get_mut(whose) {
            Some(lot) if lot.tokens >= cost => {
                lot.tokens -= cost;
                lot.used = now;
                true
            }
            _ => cost == 0,
        }
    }

    pub(super) fn held(&self, whose: &Whose) -> u32 {
        self.lots.get(whose).map_or(0, |lot| lot.tokens)
    }

    /// How long the cluster has no more for this lot, as far as is known.
    pub(super) fn dry_for(&self, now: Instant, whose: &Whose) -> Option<Duration> {
        let until = self.lots.get(whose)?.dry_until?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Adds tokens. `dry_for`: the cluster has no more than these for so long.
    pub(super) fn add(
        &mut self,
        now: Instant,
        whose: &Whose,
        tokens: u32,
        dry_for: Option<Duration>,
    ) {
        let dry_until = dry_for.map(|wait| now + wait);
        if let Some(lot) = self.lots.get_mut(whose) {
            lot.tokens = lot.tokens.saturating_add(tokens);
            lot.used = now;
            lot.dry_until = dry_until;
            return;
        }
        self.make_room(now);
        self.lots.insert(whose.clone(), Lot { tokens, used: now, dry_until });
    }

    /// Puts back what was spent on something that did not come about. A lot that was
    /// forgotten meanwhile stays so.
    pub(super) fn give_back(&mut self, whose: &Whose, cost: u32) {
        if let Some(lot) = self.lots.get_mut(whose) {
            lot.tokens = lot.tokens.saturating_add(cost);
        }
    }

    /// Forgets those that have been quiet.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.lots.retain(|_, lot| now.saturating_duration_since(lot.used) < KEPT);
    }

    fn make_room(&mut self, now: Instant) {
        if self.lots.len() < self.lots_max {
            return;
        }
        self.sweep(now);
        let half = self.lots_max / 2;
        if self.lots.len() > half {
            let mut ages: Vec<_> = self.lots.values().map(|lot| lot.used).collect();
            let (_, median, _) = ages.select_nth_unstable(half.saturating_sub(1));
            let median = *median;
            self.lots.retain(|_, lot| lot.used > median);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lots.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whose(number: usize) -> Whose {
        let to = (number % 2 == 1).then(|| MemberId::from(format!("peer {number}")));
        Whose { member: MemberId::from(format!("member {number}")), to }
    }

    #[test]
    fn however_many_there_are_the_memory_is_bounded_and_the_newest_stay() {
        let (mut lots, began) = (Lots::at_most(64), Instant::now());
        for number in 0..1_000 {
            let now = began + Duration::from_millis(number as u64);
            lots.add(now, &whose(number), 1, None);
            assert!(lots.len() <= 64);
        }
        assert_eq!(lots.held(&whose(999)), 1);
        assert_eq!(lots.held(&whose(0)), 0);
    }

    #[test]
    fn a_lot_is_dry_until_the_cluster_has_more() {
        let (mut lots, now) = (Lots::at_most(4), Instant::now());
        let second = Duration::from_secs(1);
        lots.add(now, &whose(0), 0, Some(second));
        assert_eq!(lots.dry_for(now, &whose(0)), Some(second));
        assert_eq!(lots.dry_for(now + second / 4, &whose(0)), Some(second * 3 / 4));
        assert_eq!(lots.dry_for(now + second, &whose(0)), None);
        assert_eq!(lots.dry_for(now, &whose(1)), None);
        lots.add(now, &whose(0), 3, None);
        assert_eq!(lots.dry_for(now, &whose(0)), None, "it had more");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(usize, u32),
        Spend(usize, u32),
        GiveBack(usize),
        Pass(u64),
        Sweep,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..6_usize, 0..9_u32).prop_map(|(whose, tokens)| Step::Add(whose, tokens)),
            (0..6_usize, 0..9_u32).prop_map(|(whose, cost)| Step::Spend(whose, cost)),
            (0..6_usize).prop_map(Step::GiveBack),
            (1..100_u64).prop_map(Step::Pass),
            Just(Step::Sweep),
        ]
    }

    proptest! {
        /// Whatever happens in between, no more is spent than was added.
        #[test]
        fn no_more_is_spent_than_was_taken(steps in prop::collection::vec(step(), 1..200)) {
            let (mut lots, mut now) = (Lots::at_most(4), Instant::now());
            let mut left = [0_u64; 6];
            let mut last = [0_u32; 6];
            for step in steps {
                match step {
                    Step::Add(at, tokens) => {
                        lots.add(now, &whose(at), tokens, None);
                        left[at] += u64::from(tokens);
                    }
                    Step::Spend(at, cost) => {
                        if lots.spend(now, &whose(at), cost) {
                            prop_assert!(left[at] >= u64::from(cost));
                            left[at] -= u64::from(cost);
                            last[at] = cost;
                        }
                    }
                    Step::GiveBack(at) => {
                        lots.give_back(&whose(at), last[at]);
                        left[at] += u64::from(std::mem::take(&mut last[at]));
                    }
                    Step::Pass(seconds) => now += Duration::from_secs(seconds),
                    Step::Sweep => lots.sweep(now),
                }
                for (at, left) in left.iter().enumerate() {
                    prop_assert!(u64::from(lots.held(&whose(at))) <= *left);
                }
                prop_assert!(lots.len() <= 4);
            }
        }
    }
}
