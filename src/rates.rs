//! Rate limits: of members across the cluster, of addresses and processes on
//! this node.

mod budget;
pub(crate) mod cost;
mod local;
mod lots;
mod meter;
mod sends;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

pub(crate) use self::budget::Budget;
use self::local::LocalRate;
use self::lots::Whose;
pub(crate) use self::meter::Level;
use self::meter::{Meter, look};
use self::sends::Sends;
pub(crate) use self::sends::{Counted, Left, OverRate, Scope, Whom};
use crate::cluster::Cluster;
use crate::config::MessageConfig;
use crate::id::MemberId;
use crate::limits;

/// How long an address that tried too many wrong admin tokens is kept out.
const ADMIN_BLOCK: Duration = Duration::from_secs(60);

/// Whose limit an address counts against. An IPv6 address counts by its network
/// of 64 bits: nobody is given less (RFC 6177), and one machine has all of it.
/// An IPv4 address that is written as IPv6 is an IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client(IpAddr);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        })
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// All of a node's rate limits.
pub struct Rates {
    sends: Arc<Sends>,
    requests: Meter,
    hook: LocalRate,
    hello: LocalRate,
    api: LocalRate,
    admin_failures: LocalRate,
    /// Addresses that tried too many wrong admin tokens, each until when.
    admin_blocked: Mutex<HashMap<Client, Instant>>,
}

impl Rates {
    /// Limits as configured.
    pub fn new(message: &MessageConfig, hook_per_minute: u32, hello_per_minute: u32) -> Self {
        let of_addresses = |rate| LocalRate::new(rate, limits::TRACKED_ADDRESSES_MAX);
        Self {
            sends: Arc::new(Sends::new(message)),
            requests: Meter::new("request", message.request_rate_per_minute, message.request_burst),
            hook: LocalRate::new(hook_per_minute, limits::HOOK_BUCKETS_MAX),
            hello: of_addresses(hello_per_minute),
            api: of_addresses(limits::API_CALLS_PER_MINUTE),
            admin_failures: of_addresses(limits::ADMIN_FAILURES_PER_MINUTE),
            admin_blocked: Mutex::default(),
        }
    }

    /// Whether there is any rate of sends.
    pub(crate) fn meter_sends(&self) -> bool {
        self.sends.is_on()
    }

    /// Takes a message from all that it counts towards. `is_urgent`: one for an admin that
    /// cannot wait.
    pub(crate) async fn may_send(
        &self,
        cluster: &dyn Cluster,
        from: &MemberId,
        whom: Whom<'_>,
        is_urgent: bool,
    ) -> Result<Counted, OverRate> {
        self.sends.take(cluster, from, whom, is_urgent).await
    }

    /// As [`Self::may_send`], of a message that was taken for [`Whom::Unknown`]: what is
    /// left to take, now that it is known.
    pub(crate) async fn may_reach(
        &self,
        cluster: &dyn Cluster,
        from: &MemberId,
        to: &MemberId,
        is_urgent: bool,
    ) -> Result<Counted, OverRate> {
        self.sends.take_of_pair(cluster, from, to, is_urgent).await
    }

    /// What a member has left to send, and to that other.
    pub(crate) async fn left_to_send(
        &self,
        cluster: &dyn Cluster,
        from: &MemberId,
        to: Option<&MemberId>,
    ) -> crate::cluster::Result<Left> {
        self.sends.look(cluster, from, to).await
    }

    /// What a member has left to ask.
    pub(crate) async fn left_to_ask(
        &self,
        cluster: &dyn Cluster,
        member: &MemberId,
    ) -> crate::cluster::Result<Option<Level>> {
        let levels = look(cluster, &[(&self.requests, Whose::of(member))]).await?;
        Ok(levels.into_iter().next().flatten())
    }

    /// Takes the cost of a request from what its member may ask on all nodes.
    pub async fn may_ask(
        &self,
        cluster: &dyn Cluster,
        member: &MemberId,
        cost: u32,
    ) -> Result<(), Duration> {
        self.requests.take(cluster, member, cost).await
    }

    /// What one session may ask by itself: a part of what its member may.
    pub fn session_budget(&self) -> Budget {
        let part = |all: u32| all.div_ceil(limits::SESSIONS_TO_SPEND_A_BUDGET);
        Budget::new(part(self.requests.per_minute()), part(self.requests.burst()))
    }

    /// Whether a hook call for that process and directory may be served.
    pub fn may_hook(&self, pid: i32, cwd: &str) -> bool {
        // A folder may be long.
        let digest = Sha256::new().chain_update(pid.to_be_bytes()).chain_update(cwd).finalize();
        self.hook.check(&hex::encode(&digest[..16])).is_ok()
    }

    /// Whether an address may open one more socket now; else the seconds
    /// until it may.
    pub fn may_hello(&self, address: IpAddr) -> Result<(), u64> {
        let client = Client::from(address);
        self.hello.check(&client.to_string()).map_err(|wait| wait.as_secs().max(1))
    }

    /// Whether an address may call the HTTP API once more now; else the seconds until it
    /// may.
    pub fn may_call_api(&self, address: IpAddr) -> Result<(), u64> {
        let client = Client::from(address);
        self.api.check(&client.to_string()).map_err(|wait| wait.as_secs().max(1))
    }

    /// For how many seconds an address may not try admin tokens, right or wrong.
    pub fn admin_blocked(&self, address: IpAddr) -> Option<u64> {
        let until = *self.admin_blocked.lock().get(&address.into())?;
        let left = until.checked_duration_since(Instant::now())?;
        Some(left.as_secs().max(1))
    }

    /// An address tried a wrong admin token.
    pub fn note_admin_failure(&self, address: IpAddr) {
        let client = Client::from(address);
        if self.admin_failures.check(&client.to_string()).is_ok() {
            return;
        }
        let mut blocked = self.admin_blocked.lock();
        // As many as that have other ways in than guessing.
        if blocked.len() < limits::TRACKED_ADDRESSES_MAX {
            blocked.insert(client, Instant::now() + ADMIN_BLOCK);
        }
    }

    /// Forgets members and addresses that have been quiet.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.sends.sweep(now);
        self.requests.sweep(now);
        for rate in [&self.hook, &self.hello, &self.api, &self.admin_failures] {
            rate.sweep();
        }
        self.admin_blocked.lock().retain(|_, until| *until > now);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cluster::{ClusterError, Draw, Drawn, MockCluster};
    use crate::config::Config;

    fn rates(hook_per_minute: u32, hello_per_minute: u32) -> Rates {
        let message = Config::for_tests(Path::new("unused")).message;
        Rates::new(&message, hook_per_minute, hello_per_minute)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_counts_by_what_one_client_is_given() {
        let is_one = |a: &str, b: &str| Client::from(address(a)) == Client::from(address(b));
        assert!(is_one("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"), "a network of 64 bits");
        assert!(!is_one("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(is_one("::ffff:192.0.2.1", "192.0.2.1"), "IPv4 written as IPv6");
        assert!(!is_one("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn an_address_opens_so_many_sockets_and_is_told_when_the_next() {
        let rates = rates(0, 2);
        for _ in 0..2 {
            assert_eq!(rates.may_hello(address("192.0.2.1")), Ok(()));
        }
        let wait = rates.may_hello(address("::ffff:192.0.2.1")).expect_err("the same client");
        assert!((1..=30).contains(&wait), "{wait}");
        assert_eq!(rates.may_hello(address("192.0.2.2")), Ok(()));
    }

    #[test]
    fn a_hook_is_limited_by_its_process_and_its_folder() {
        let rates = rates(1, 0);
        assert!(rates.may_hook(1, "/a") && rates.may_hook(1, "/b") && rates.may_hook(2, "/a"));
        assert!(!rates.may_hook(1, "/a"));
    }

    #[test]
    fn an_address_makes_so_many_calls_and_is_told_when_the_next() {
        let rates = rates(0, 0);
        for _ in 0..limits::API_CALLS_PER_MINUTE {
            assert_eq!(rates.may_call_api(address("192.0.2.1")), Ok(()));
        }
        assert_eq!(rates.may_call_api(address("192.0.2.1")), Err(1));
        assert_eq!(rates.may_call_api(address("192.0.2.2")), Ok(()));
    }

    #[test]
    fn who_guesses_admin_tokens_is_kept_out_and_others_are_not() {
        let (rates, guesser) = (rates(0, 0), address("2001:db8::1"));
        for _ in 0..limits::ADMIN_FAILURES_PER_MINUTE {
            rates.note_admin_failure(guesser);
            assert_eq!(rates.admin_blocked(guesser), None, "anybody mistypes");
        }
        rates.note_admin_failure(guesser);
        rates.sweep();
        let left = rates.admin_blocked(address("2001:db8::2")).expect("the same network");
        assert!((1..=ADMIN_BLOCK.as_secs()).contains(&left), "{left}");
        assert_eq!(rates.admin_blocked(address("2001:db8:0:1::1")), None);
    }

    async fn may_send(rates: &Rates, cluster: &MockCluster, member: &str) -> bool {
        let (from, to) = (MemberId::from(member), MemberId::from("peer"));
        rates.may_send(cluster, &from, Whom::Member(&to), false).await.is_ok()
    }

    #[tokio::test]
    async fn sends_and_requests_have_a_bucket_each_in_the_cluster() {
        let mut cluster = MockCluster::new();
        let take = cluster.expect_take_tokens();
        take.returning(|owner, draws| {
            let is_empty = |draw: &Draw| owner == "ada" && draw.bucket == "send";
            Ok(draws.iter().map(|draw| Drawn::for_tests(draw, !is_empty(draw))).collect())
        });
        let (rates, ada) = (rates(0, 0), MemberId::from("ada"));
        assert!(!may_send(&rates, &cluster, "ada").await);
        assert_eq!(rates.may_ask(&cluster, &ada, 1).await, Ok(()));
        assert!(may_send(&rates, &cluster, "bob").await);
    }

    #[tokio::test]
    async fn a_cluster_that_cannot_be_asked_stops_nobody() {
        let mut cluster = MockCluster::new();
        let away = |_: &str, _: &[Draw]| Err(ClusterError::Unavailable("away".to_owned()));
        cluster.expect_take_tokens().returning(away);
        let rates = rates(0, 0);
        for _ in 0..1_000 {
            assert!(may_send(&rates, &cluster, "ada").await);
        }
    }

    #[test]
    fn a_session_may_ask_a_part_of_what_its_member_may() {
        let rates = rates(0, 0);
        let part = rates.requests.burst().div_ceil(limits::SESSIONS_TO_SPEND_A_BUDGET);
        let mut budget = rates.session_budget();
        assert_eq!(budget.take(0, part - 1), Ok(()));
        assert_eq!(budget.take(0, 1), Ok(()));
        assert!(budget.take(0, 1).is_err());
    }
}
