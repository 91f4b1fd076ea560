//! How much a member may send: in all, to one other member, to many; and what gets out to an
//! admin all the same.
//!
//! A message counts towards its sender's rate, and towards that of the pair or of multicasts
//! as well, so that two that always answer each other are slowed before they use up what
//! their members have for everybody else. What is not kept as a new message counts towards
//! the sender's rate only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lots::Whose;
use super::meter::{self, Charge, Level, Meter};
use crate::cluster::{Cluster, Result as ClusterResult};
use crate::config::MessageConfig;
use crate::id::MemberId;
use crate::limits;

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom<'a> {
    /// One member, which may be the sender.
    Member(&'a MemberId),
    /// A group, a topic, everyone.
    Many,
    /// That is not known yet.
    Unknown,
}

/// Which limit a message is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What a member sends.
    Member,
    /// What a member sends to one other.
    Pair,
    /// What a member sends to many.
    Multicast,
}

impl Scope {
    /// The word on the wire.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Pair => "pair",
            Self::Multicast => "multicast",
        }
    }

    const fn towards(self) -> &'static str {
        match self {
            Self::Member => "",
            Self::Pair => " to one member",
            Self::Multicast => " to groups, topics and everyone",
        }
    }
}

/// A message that may not be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OverRate {
    pub(crate) scope: Scope,
    pub(crate) per_minute: u32,
    burst: u32,
    /// Until one may be sent.
    pub(crate) wait: Duration,
}

impl OverRate {
    /// The sentence for the sender; clients show it.
    pub(crate) fn text(&self) -> String {
        let Self { scope, per_minute, burst, .. } = self;
        let towards = scope.towards();
        format!("rate_limit: max {per_minute} msg/min{towards} (burst {burst}) — slow down")
    }

    pub(crate) fn wait_ms(&self) -> u64 {
        u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// The rates of what members send.
pub(super) struct Sends {
    member: Meter,
    pair: Meter,
    multicast: Meter,
    urgent: Meter,
}

/// How much of each a member has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) member: Option<Level>,
    pub(crate) multicast: Option<Level>,
    pub(crate) urgent: Option<Level>,
    pub(crate) pair: Option<Level>,
}

impl Sends {
    /// Without a member's rate there is no other.
    pub(super) fn new(message: &MessageConfig) -> Self {
        let besides = |per_minute: u32| match message.send_rate_per_minute {
            0 => 0,
            _ => per_minute,
        };
        let urgent = besides(limits::URGENT_SENDS_PER_MINUTE);
        Self {
            member: Meter::new("send", message.send_rate_per_minute, message.send_burst),
            pair: Meter::new("pair", besides(message.pair_rate_per_minute), message.pair_burst),
            multicast: Meter::new(
                "multicast",
                besides(message.multicast_rate_per_minute),
                message.multicast_burst,
            ),
            urgent: Meter::new("urgent", urgent, limits::URGENT_SENDS_BURST),
        }
    }

    /// Whether anything is counted.
    pub(super) fn is_on(&self) -> bool {
        self.member.is_on()
    }

    /// The rates that a message counts towards.
    fn rates_of(&self, from: &MemberId, whom: Whom<'_>) -> Vec<(Scope, &Meter, Whose)> {
        let own = || Whose::of(from);
        let besides = match whom {
            Whom::Member(to) => Some((Scope::Pair, &self.pair, Whose::towards(from, to))),
            Whom::Many => Some((Scope::Multicast, &self.multicast, own())),
            Whom::Unknown => None,
        };
        let all = [Some((Scope::Member, &self.member, own())), besides];
        all.into_iter().flatten().filter(|(_, meter, _)| meter.is_on()).collect()
    }

    /// Takes a message from all that it counts towards. `is_urgent`: one for an admin that
    /// cannot wait.
    pub(super) async fn take(
        self: &Arc<Self>,
        cluster: &dyn Cluster,
        from: &MemberId,
        whom: Whom<'_>,
        is_urgent: bool,
    ) -> Result<Counted, OverRate> {
        if !self.is_on() {
            return Ok(Counted::nothing());
        }
        self.take_of(cluster, from, self.rates_of(from, whom), is_urgent).await
    }

    /// Takes a message, whose member's rate has been paid, from what it has for that other.
    pub(super) async fn take_of_pair(
        self: &Arc<Self>,
        cluster: &dyn Cluster,
        from: &MemberId,
        to: &MemberId,
        is_urgent: bool,
    ) -> Result<Counted, OverRate> {
        let mut rates = self.rates_of(from, Whom::Member(to));
        rates.retain(|(scope, ..)| *scope == Scope::Pair);
        self.take_of(cluster, from, rates, is_urgent).await
    }

    async fn take_of(
        self: &Arc<Self>,
        cluster: &dyn Cluster,
        from: &MemberId,
        rates: Vec<(Scope, &Meter, Whose)>,
        is_urgent: bool,
    ) -> Result<Counted, OverRate> {
        let charges: Vec<Charge<'_>> =
            rates.iter().map(|(_, meter, whose)| meter.charge(whose.clone(), 1)).collect();
        let short = match meter::take_all(cluster, &charges).await {
            Ok(is_counted) => {
                let besides = rates.into_iter().find(|(scope, ..)| *scope != Scope::Member);
                let besides = besides.filter(|_| is_counted);
                let paid = |(scope, _, whose)| Paid { sends: Arc::clone(self), scope, whose };
                return Ok(Counted(besides.map(paid)));
            }
            Err(short) => short,
        };
        let (scope, meter, _) = &rates[short.at];
        let (per_minute, burst) = (meter.per_minute(), meter.burst());
        let over = OverRate { scope: *scope, per_minute, burst, wait: short.wait };
        if !is_urgent {
            return Err(over);
        }
        match self.urgent.take(cluster, from, 1).await {
            Ok(()) => Ok(Counted(None)),
            Err(wait) => Err(OverRate { wait: wait.min(over.wait), ..over }),
        }
    }

    /// What a member has left, and for that other.
    pub(super) async fn look(
        &self,
        cluster: &dyn Cluster,
        from: &MemberId,
        to: Option<&MemberId>,
    ) -> ClusterResult<Left> {
        let own = || Whose::of(from);
        let mut asked =
            vec![(&self.member, own()), (&self.multicast, own()), (&self.urgent, own())];
        asked.extend(to.map(|to| (&self.pair, Whose::towards(from, to))));
        let mut levels = meter::look(cluster, &asked).await?.into_iter();
        let mut next = || levels.next().flatten();
        Ok(Left { member: next(), multicast: next(), urgent: next(), pair: next() })
    }

    /// Forgets members that have been quiet.
    pub(super) fn sweep(&self, now: Instant) {
        for meter in [&self.member, &self.pair, &self.multicast, &self.urgent] {
            meter.sweep(now);
        }
    }
}

/// What a message has taken beside its sender's rate. It is given back unless the message
/// is kept, and as a new one.
#[must_use]
pub(crate) struct Counted(Option<Paid>);

struct Paid {
    sends: Arc<Sends>,
    scope: Scope,
    whose: Whose,
}

impl Counted {
    /// Nothing was taken.
    pub(crate) const fn nothing() -> Self {
        Self(None)
    }

    /// The message is kept: what it took is spent.
    pub(crate) fn spend(&mut self) {
        self.0 = None;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some(Paid { sends, scope, whose }) = self.0.take() else { return };
        match scope {
            Scope::Member => {}
            Scope::Pair => sends.pair.give_back(&whose),
            Scope::Multicast => sends.multicast.give_back(&whose),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cluster::books::LeaseTimes;
    use crate::cluster::single::SingleCluster;
    use crate::config::Config;

    /// Slow enough that nothing comes back meanwhile.
    fn sends(change: impl FnOnce(&mut MessageConfig)) -> (Arc<Sends>, Arc<SingleCluster>) {
        let mut message = Config::for_tests(Path::new("unused")).message;
        (message.send_rate_per_minute, message.send_burst) = (1, 20);
        (message.pair_rate_per_minute, message.pair_burst) = (1, 6);
        (message.multicast_rate_per_minute, message.multicast_burst) = (1, 4);
        change(&mut message);
        let times = LeaseTimes { ttl_ms: 1_000, grace_ms: 1_000 };
        (Arc::new(Sends::new(&message)), SingleCluster::new(times).0)
    }

    fn ids() -> [MemberId; 3] {
        ["ada", "bob", "cy"].map(MemberId::from)
    }

    struct Scene {
        sends: Arc<Sends>,
        cluster: Arc<SingleCluster>,
    }

    impl Scene {
        fn new(change: impl FnOnce(&mut MessageConfig)) -> Self {
            let (sends, cluster) = sends(change);
            Self { sends, cluster }
        }

        /// How many of so many messages are sent, and which limit the last is over.
        async fn sent(
            &self,
            from: &MemberId,
            whom: Whom<'_>,
            urgent: bool,
        ) -> (u32, Option<Scope>) {
            let (mut count, mut over) = (0, None);
            for _ in 0..50 {
                match self.sends.take(&*self.cluster, from, whom, urgent).await {
                    Ok(mut counted) => {
                        counted.spend();
                        count += 1;
                    }
                    Err(refused) => over = Some(refused.scope),
                }
            }
            (count, over)
        }
    }

    #[tokio::test]
    async fn a_pair_has_a_rate_of_its_own_in_each_direction() {
        let (scene, [ada, bob, cy]) = (Scene::new(|_| {}), ids());
        assert_eq!(scene.sent(&ada, Whom::Member(&bob), false).await, (6, Some(Scope::Pair)));
        assert_eq!(scene.sent(&ada, Whom::Member(&cy), false).await, (6, Some(Scope::Pair)));
        assert_eq!(scene.sent(&bob, Whom::Member(&ada), false).await, (6, Some(Scope::Pair)));
        assert_eq!(scene.sent(&ada, Whom::Member(&ada), false).await, (6, Some(Scope::Pair)));
        let left = scene.sent(&ada, Whom::Unknown, false).await;
        assert_eq!(left, (2, Some(Scope::Member)), "those that were refused took nothing");
    }

    #[tokio::test]
    async fn what_goes_to_many_has_a_rate_of_its_own() {
        let (scene, [ada, bob, _]) = (Scene::new(|_| {}), ids());
        assert_eq!(scene.sent(&ada, Whom::Many, false).await, (4, Some(Scope::Multicast)));
        assert_eq!(scene.sent(&ada, Whom::Member(&bob), false).await, (6, Some(Scope::Pair)));
    }

    #[tokio::test]
    async fn nought_turns_one_off_and_a_members_nought_all_of_them() {
        let [ada, bob, _] = ids();
        let scene = Scene::new(|message| message.pair_rate_per_minute = 0);
        assert_eq!(scene.sent(&ada, Whom::Many, false).await, (4, Some(Scope::Multicast)));
        assert_eq!(scene.sent(&ada, Whom::Member(&bob), false).await, (16, Some(Scope::Member)));
        let scene = Scene::new(|message| message.multicast_rate_per_minute = 0);
        assert_eq!(scene.sent(&ada, Whom::Many, false).await, (20, Some(Scope::Member)));
        let scene = Scene::new(|message| message.send_rate_per_minute = 0);
        for whom in [Whom::Many, Whom::Member(&bob), Whom::Unknown] {
            assert_eq!(scene.sent(&ada, whom, false).await, (50, None));
        }
        let off = Left { member: None, multicast: None, urgent: None, pair: None };
        let left = scene.sends.look(&*scene.cluster, &ada, Some(&bob)).await;
        assert_eq!(left.expect("it answers"), off);
    }

    #[tokio::test]
    async fn what_cannot_wait_gets_out_to_an_admin_whichever_rate_is_used_up() {
        let (scene, [ada, bob, cy]) = (Scene::new(|_| {}), ids());
        scene.sent(&ada, Whom::Member(&bob), false).await;
        let urgent = scene.sent(&ada, Whom::Member(&bob), true).await;
        assert_eq!(urgent, (limits::URGENT_SENDS_BURST, Some(Scope::Pair)));
        for _ in 0..2 {
            scene.sent(&cy, Whom::Member(&cy), false).await;
            scene.sent(&cy, Whom::Unknown, false).await;
        }
        let urgent = scene.sent(&cy, Whom::Member(&bob), true).await;
        assert_eq!(urgent, (limits::URGENT_SENDS_BURST, Some(Scope::Member)));
    }

    #[tokio::test]
    async fn what_is_not_kept_counts_towards_no_pair() {
        let (scene, [ada, bob, _]) = (Scene::new(|_| {}), ids());
        for _ in 0..13 {
            let taken = scene.sends.take(&*scene.cluster, &ada, Whom::Member(&bob), false).await;
            drop(taken.expect("what was taken is given back"));
        }
        assert_eq!(scene.sent(&ada, Whom::Member(&bob), false).await, (6, Some(Scope::Pair)));
        assert_eq!(scene.sent(&ada, Whom::Unknown, false).await, (1, Some(Scope::Member)));
    }

    #[tokio::test]
    async fn who_asks_is_told_what_is_left_of_each() {
        let (scene, [ada, bob, cy]) = (Scene::new(|_| {}), ids());
        scene.sends.take(&*scene.cluster, &ada, Whom::Many, false).await.expect("full").spend();
        let mut to_bob = scene.sends.take_of_pair(&*scene.cluster, &ada, &bob, false).await;
        to_bob.as_mut().expect("full").spend();
        let left = async |to| {
            let left = scene.sends.look(&*scene.cluster, &ada, to).await.expect("it answers");
            [left.member, left.multicast, left.urgent, left.pair]
                .map(|level| level.map(|level| level.left))
        };
        assert_eq!(left(Some(&bob)).await, [Some(19), Some(3), Some(3), Some(5)]);
        assert_eq!(left(Some(&cy)).await, [Some(19), Some(3), Some(3), Some(6)]);
        assert_eq!(left(None).await, [Some(19), Some(3), Some(3), None]);
    }

    #[test]
    fn the_sentence_of_a_members_rate_is_as_it_always_was() {
        let over = |scope| {
            let wait = Duration::from_micros(1);
            OverRate { scope, per_minute: 600, burst: 100, wait }
        };
        let text = over(Scope::Member).text();
        assert_eq!(text, "rate_limit: max 600 msg/min (burst 100) — slow down");
        let text = over(Scope::Pair).text();
        assert_eq!(text, "rate_limit: max 600 msg/min to one member (burst 100) — slow down");
        for word in ["invalid", "forbidden", "unauthorized", "too large"] {
            assert!(!over(Scope::Multicast).text().contains(word), "daemons would give up");
        }
        assert_eq!(over(Scope::Pair).wait_ms(), 1);
    }
}
