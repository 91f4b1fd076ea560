//! Rate limits.
//!
//! Sends are limited per member across the cluster. A node takes tokens a few
//! at a time and spends them locally, so that a message does not cost a round
//! trip.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::cluster::Cluster;
use crate::config::MessageConfig;
use crate::id::MemberId;
use crate::limits;

/// Tokens taken from the cluster at once: at most this part of the burst.
const PART_OF_BURST: u32 = 10;

/// How long an address that tried too many wrong admin tokens is kept out.
const ADMIN_BLOCK: Duration = Duration::from_secs(60);

type Keyed<K> = RateLimiter<K, DashMapStateStore<K>, DefaultClock>;

/// Whose limit an address counts against. An IPv6 address counts by its network
/// of 64 bits: nobody is given less (RFC 6177), and one machine has all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        })
    }
}

/// All of a node's rate limits.
pub struct Rates {
    send_per_minute: u32,
    send_burst: u32,
    /// Tokens taken and not yet spent.
    send_tokens: Mutex<HashMap<MemberId, u32>>,
    /// By a hash of process and folder, which may be long.
    hook: Keyed<[u8; 16]>,
    hello: Option<Keyed<Client>>,
    admin_failures: Keyed<Client>,
    /// Those who tried too many wrong admin tokens, each until when.
    admin_blocked: Mutex<HashMap<Client, Instant>>,
}

fn per_minute(count: u32) -> Option<Quota> {
    NonZeroU32::new(count).map(Quota::per_minute)
}

impl Rates {
    /// Limits as configured.
    #[must_use]
    pub fn new(message: &MessageConfig, hook_per_minute: u32, hello_per_minute: u32) -> Self {
        let hook = per_minute(hook_per_minute).unwrap_or(Quota::per_minute(NonZeroU32::MAX));
        let failures = per_minute(limits::ADMIN_FAILURES_PER_MINUTE);
        let failures = failures.unwrap_or(Quota::per_minute(NonZeroU32::MIN));
        Self {
            send_per_minute: message.send_rate_per_minute,
            send_burst: message.send_burst.max(1),
            send_tokens: Mutex::default(),
            hook: RateLimiter::dashmap(hook),
            hello: per_minute(hello_per_minute).map(RateLimiter::dashmap),
            admin_failures: RateLimiter::dashmap(failures),
            admin_blocked: Mutex::default(),
        }
    }

    /// Whether the member may send now. A cluster that is away does not stop
    /// sends: it decides by itself what its local share is.
    pub async fn may_send(&self, cluster: &dyn Cluster, member: &MemberId) -> bool {
        if self.send_per_minute == 0 || self.spend(member) {
            return true;
        }
        let want = (self.send_burst / PART_OF_BURST).clamp(1, 32);
        let bucket = format!("send/{member}");
        let granted =
            cluster.take_tokens(&bucket, want, self.send_per_minute, self.send_burst).await;
        match granted {
            Ok(0) => false,
            Ok(granted) => {
                *self.send_tokens.lock().entry(member.clone()).or_default() += granted - 1;
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the send rate could not be checked");
                true
            }
        }
    }

    fn spend(&self, member: &MemberId) -> bool {
        match self.send_tokens.lock().get_mut(member) {
            Some(tokens) if *tokens > 0 => {
                *tokens -= 1;
                true
            }
            _ => false,
        }
    }

    /// The sentence for a member over its rate; clients show it.
    #[must_use]
    pub fn send_refusal(&self) -> String {
        format!(
            "rate_limit: max {} msg/min (burst {}) — slow down",
            self.send_per_minute, self.send_burst
        )
    }

    /// Whether a hook call for that process and directory may be served.
    pub fn may_hook(&self, pid: i32, cwd: &str) -> bool {
        if self.hook.len() >= limits::HOOK_BUCKETS_MAX {
            self.hook.retain_recent();
        }
        let digest = Sha256::new().chain_update(pid.to_be_bytes()).chain_update(cwd).finalize();
        let mut process = [0; 16];
        process.copy_from_slice(&digest[..16]);
        self.hook.check_key(&process).is_ok()
    }

    /// Whether an address may open one more socket now; else the seconds
    /// until it may.
    pub fn may_hello(&self, address: IpAddr) -> Result<(), u64> {
        let Some(hello) = &self.hello else { return Ok(()) };
        if hello.len() >= limits::TRACKED_ADDRESSES_MAX {
            hello.retain_recent();
        }
        hello.check_key(&address.into()).map_err(|not_until| {
            not_until.wait_time_from(DefaultClock::default().now()).as_secs().max(1)
        })
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
        if self.admin_failures.len() >= limits::TRACKED_ADDRESSES_MAX {
            self.admin_failures.retain_recent();
        }
        if self.admin_failures.check_key(&address.into()).is_ok() {
            return;
        }
        let mut blocked = self.admin_blocked.lock();
        // As many as that have other ways in than guessing.
        if blocked.len() < limits::TRACKED_ADDRESSES_MAX {
            blocked.insert(address.into(), Instant::now() + ADMIN_BLOCK);
        }
    }

    /// Forgets members and addresses that have been quiet.
    pub fn sweep(&self) {
        self.send_tokens.lock().retain(|_, tokens| *tokens > 0);
        self.hook.retain_recent();
        if let Some(hello) = &self.hello {
            hello.retain_recent();
        }
        self.admin_failures.retain_recent();
        let now = Instant::now();
        self.admin_blocked.lock().retain(|_, until| *until > now);
    }
}
