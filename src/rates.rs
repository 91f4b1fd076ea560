//! Rate limits: of members across the cluster, of addresses and processes on
//! this node.

mod budget;
pub mod cost;
mod local;
mod meter;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

pub use self::budget::Budget;
use self::local::LocalRate;
use self::meter::Meter;
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
pub struct Client(IpAddr);

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
    sends: Meter,
    requests: Meter,
    hook: LocalRate,
    hello: LocalRate,
    admin_failures: LocalRate,
    /// Those who tried too many wrong admin tokens, each until when.
    admin_blocked: Mutex<HashMap<Client, Instant>>,
}

impl Rates {
    /// Limits as configured.
    #[must_use]
    pub fn new(message: &MessageConfig, hook_per_minute: u32, hello_per_minute: u32) -> Self {
        let of_addresses = |rate| LocalRate::new(rate, limits::TRACKED_ADDRESSES_MAX);
        Self {
            sends: Meter::new("send", message.send_rate_per_minute, message.send_burst),
            requests: Meter::new("request", message.request_rate_per_minute, message.request_burst),
            hook: LocalRate::new(hook_per_minute, limits::HOOK_BUCKETS_MAX),
            hello: of_addresses(hello_per_minute),
            admin_failures: of_addresses(limits::ADMIN_FAILURES_PER_MINUTE),
            admin_blocked: Mutex::default(),
        }
    }

    /// Whether the member may send now.
    pub async fn may_send(&self, cluster: &dyn Cluster, member: &MemberId) -> bool {
        self.sends.take(cluster, member, 1).await.is_ok()
    }

    /// Takes the cost of a request from what its member may ask on all nodes.
    ///
    /// # Errors
    ///
    /// After how long the member may ask it.
    pub async fn may_ask(
        &self,
        cluster: &dyn Cluster,
        member: &MemberId,
        cost: u32,
    ) -> Result<(), Duration> {
        self.requests.take(cluster, member, cost).await
    }

    /// What one session may ask by itself: a part of what its member may.
    #[must_use]
    pub fn session_budget(&self) -> Budget {
        let part = |all: u32| all.div_ceil(limits::SESSIONS_TO_SPEND_A_BUDGET);
        Budget::new(part(self.requests.per_minute()), part(self.requests.burst()))
    }

    /// The sentence for a member over its rate; clients show it.
    #[must_use]
    pub fn send_refusal(&self) -> String {
        format!(
            "rate_limit: max {} msg/min (burst {}) — slow down",
            self.sends.per_minute(),
            self.sends.burst()
        )
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

    /// For how many seconds an address may not try admin tokens, right or wrong.
    #[must_use]
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
        for rate in [&self.hook, &self.hello, &self.admin_failures] {
            rate.sweep();
        }
        self.admin_blocked.lock().retain(|_, until| *until > now);
    }
}
