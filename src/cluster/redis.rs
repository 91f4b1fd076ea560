//! A cluster of many nodes over Redis 7 or Valkey, one server or a Redis
//! Cluster.
//!
//! Everything here is a lease on attention: it has an expiry on the server's
//! clock, and can be lost at any moment. What was lost is written again by the
//! nodes from their live sockets, within one renewal, or at once when they see
//! Redis come back.
//!
//! Whoever writes Redis is not one of the nodes by that: what they say there is
//! signed by the cluster's key ([`seals`]), and what is not is ignored. Signed are
//! the frames of the bus and the probe, the records, the entries of the sets of
//! nodes and what nodes say of themselves, and hooks' words. Not signed is what
//! the scripts count and compare (leases, tokens, digests): it can be lost, made
//! up or put back, and then peers look present or gone, sockets are closed and
//! limits do not hold; no message is lost or made up, and no identity.
//!
//! `P` is `claudemesh:C:D:`, C the cluster's id out of its database and D the
//! number of the database in `REDIS_URL`: clusters that share a Redis do not
//! meet. `{M}` is the mesh's id as a hash tag. Names that an earlier release
//! used are not read: its nodes and this one's are apart, and what they kept
//! expires. An S is a signature.
//!
//!
//! | key | type: fields | TTL | writer | what its loss means |
//! | --- | --- | --- | --- | --- |
//! | `P{M}:online` | zset: presence → expiry of the lease of an open socket | the books' | lease scripts | the next renewal restores the lease |
//! | `P{M}:grace` | zset: presence → end of its grace | the books' | lease scripts | the store lists the presence, and a node adopts it |
//! | `P{M}:sessions` | hash: session identity → presence | the books' | lease scripts | with the leases |
//! | `P{M}:leases` | hash: presence → epoch, state, node, identity (packed) | the books' | lease scripts | with the leases |
//! | `P{M}:records` | hash: presence → S and record (MessagePack map) | the books' | lease scripts | with the leases |
//! | `P{M}:ended` | zset: `l:`/`r:` + presence → when it is forgotten, 1 h | the books' | lease scripts | a node that slept through a presence's end restores it; it ends again when its socket does |
//! | `P{M}:nodes` | zset: S, incarnation and node → 40 s after it last said it joined | 40 s | each node, every 10 s | nodes learn of each other at the next reading; until then they publish to whom they know |
//! | `Pdue` | zset: mesh → when something of it expires | none: one member per mesh with leases | lease scripts (in a Redis Cluster: the node after each) | expired presences wait for the mesh's next renewal or newcomer |
//! | `Pnodes` | zset: S, incarnation and node → 30 s after its last sign | 30 s | each node, every 2 s | as `P{M}:nodes`; a node alone takes the whole cap for its share |
//! | `Pnode:N` | string: S and what incarnation and node N says of itself (MessagePack map) | 10 s | each node, every 2 s | operators do not see the node until it says it again |
//! | `Ponce:D` | string `1`, D a digest | as asked | `use_once` | the digest can be used again on another node until it is too old |
//! | `Ptokens:B` | hash: parts, at | until the bucket is full again | `tokens.lua` | the bucket is full |
//! | `Ppending:PID:H` | string: S and a status; H a hash of the folder | 10 s | `put_pending_status` | the session begins idle |
//!
//! The books' TTL is an hour more than twice a lease with its grace: by then
//! every node would have renewed or reaped. Channels: `P{M}:bus` for a mesh's
//! frames, `Pbeats` for the last numbers of all channels, `Pprobe:N` where node
//! N hears itself.
//!
//! While Redis cannot be reached, or takes no writes, the `fallback` module
//! decides for this node. The node counts as degraded then, and also while its
//! bus does not hear itself or while nodes are there that sign otherwise.

mod bus;
mod connection;
mod examine;
mod extras;
pub mod fallback;
mod keeper;
mod keys;
mod leases;
mod link;
mod members;
mod moves;
mod nodes;
mod rows;
mod scripts;
pub mod seals;
mod work;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::RedisError;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::examine::{Need, RedisFacts, examine};

use self::bus::{Bus, Origin};
use self::connection::Opener;
use self::extras::Extras;
use self::fallback::Fallback;
use self::keeper::Keeper;
use self::keys::Keys;
use self::leases::{Counted, Leases, Released, SharedClock};
use self::link::Link;
use self::moves::Moves;
use self::nodes::Nodes;
use self::scripts::Scripts;
use self::seals::{ClusterKey, Seals};
use self::work::Work;
use super::books::{LeaseTimes, Renewal, close_ended};
use super::{
    Acquired, BusMessage, Cluster, ClusterError, ClusterEvent, ClusterEvents, ClusterHealth,
    HeldLease, LeaseRef, LeaseView, NodeRecord, PresenceRecord, Release, Result,
};
use crate::config::SecretUrl;
use crate::id::{MeshId, NodeId, PresenceId};
use crate::limits::BUS_INBOX_FRAMES_MAX;
use crate::protocol::Status;

/// How long a starting node waits for Redis. Later: it starts degraded.
const START_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a closing node waits for its last frames to be sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Where Redis is, and who this node is in it.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// `redis://` or `rediss://` (TLS).
    pub url: SecretUrl,
    /// Whether it is a Redis Cluster.
    pub cluster_mode: bool,
    /// The authorities to trust instead of the well-known ones (PEM).
    pub ca_file: Option<PathBuf>,
    /// This node.
    pub node: NodeId,
    /// Where it runs; shown in `CLIENT LIST`.
    pub region: Option<String>,
    /// How many milliseconds a session without a socket keeps its place.
    pub lease_grace_ms: u64,
    /// After how many milliseconds without renewal a lease counts as lost.
    pub lease_ttl_ms: u64,
    /// What every key and channel begins with, before the cluster's id.
    pub key_prefix: String,
    /// Which cluster it is, and what its nodes sign by.
    pub cluster_key: ClusterKey,
}

/// One node's part of the cluster.
pub struct RedisCluster {
    leases: Arc<Leases>,
    fallback: Arc<Fallback>,
    bus: Arc<Bus>,
    publishing: Arc<Link>,
    keeper: Arc<Keeper>,
    extras: Extras,
    nodes: Nodes,
    events: mpsc::Sender<ClusterEvent>,
    work: Work,
    _stop_when_dropped: DropGuard,
}

impl fmt::Debug for RedisCluster {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let health = self.health();
        out.debug_struct("RedisCluster").field("health", &health).finish_non_exhaustive()
    }
}

impl RedisCluster {
    /// Connects, and starts the background work. Where Redis cannot be reached
    /// the node starts degraded, and goes on trying.
    ///
    /// # Errors
    /// [`ClusterError::Unavailable`] when the URL is none of Redis.
    pub async fn connect(settings: RedisSettings) -> Result<(Arc<Self>, ClusterEvents)> {
        let node = settings.node.as_str().to_owned();
        let times = LeaseTimes { grace_ms: settings.lease_grace_ms, ttl_ms: settings.lease_ttl_ms };
        let opener = Arc::new(Opener::new(&settings).map_err(unavailable)?);
        let keys = keys_of(&settings, &opener);
        let seals = Arc::new(Seals::new(&settings.cluster_key));
        let moves = Arc::new(Moves::new());
        let link = |purpose| Arc::new(Link::new(Arc::clone(&opener), Arc::clone(&moves), purpose));
        let origin = Origin { node, incarnation: rand::random() };
        let (bus, queues) = Bus::new(origin, keys.clone(), Arc::clone(&seals), Arc::clone(&moves));
        let publishing = link("publishing");
        let leases = Arc::new(Leases {
            link: link("leases"),
            keys,
            seals,
            scripts: Scripts::new(),
            times,
            clock: SharedClock::start(),
        });
        let fallback = Arc::new(Fallback::new(times));
        let keeper = Arc::new(Keeper {
            leases: Arc::clone(&leases),
            fallback: Arc::clone(&fallback),
            bus: Arc::clone(&bus),
            nodes: AtomicU32::new(1),
            strangers: AtomicU32::new(0),
            link_is_up: Notify::new(),
            ready: Notify::new(),
        });
        let (events, receiver) = mpsc::channel(BUS_INBOX_FRAMES_MAX);
        let work = Work::default();
        bus::start(&bus, queues, (&opener, Arc::clone(&publishing)), &events, &work);
        start(&keeper, &work);
        let ready = async { tokio::join!(keeper.ready.notified(), bus.ready.notified()) };
        if tokio::time::timeout(START_TIMEOUT, ready).await.is_err() {
            tracing::warn!("Redis is away, or not wholly there: this node starts by itself");
        }
        let _stop_when_dropped = work.stop.clone().drop_guard();
        let extras = Extras { leases: Arc::clone(&leases), fallback: Arc::clone(&fallback) };
        let nodes = Nodes::new(Arc::clone(&leases), bus.origin().to_text());
        let cluster = Self {
            leases,
            fallback,
            bus,
            publishing,
            keeper,
            extras,
            nodes,
            events,
            work,
            _stop_when_dropped,
        };
        Ok((Arc::new(cluster), receiver))
    }

    /// Whether the books are kept in Redis now.
    fn is_up(&self) -> bool {
        self.leases.link.is_up()
    }

    fn now_ms(&self) -> u64 {
        self.leases.clock.now_ms()
    }

    fn node_count(&self) -> u32 {
        self.keeper.nodes.load(Ordering::Relaxed).max(1)
    }

    /// Keeps this node's own books after Redis has spoken.
    fn follow(&self, lease: &LeaseRef, record: &PresenceRecord, count: u32) {
        let record = PresenceRecord {
            id: lease.presence.clone(),
            epoch: lease.epoch,
            online: true,
            ..record.clone()
        };
        let held = HeldLease { lease: lease.clone(), record: Arc::new(record) };
        self.fallback.follow(self.now_ms(), &held);
        self.fallback.see_count(&lease.mesh, count);
    }

    fn renew_alone(&self, held: &[HeldLease]) -> Vec<LeaseRef> {
        let now_ms = self.now_ms();
        let mut replaced = Vec::new();
        for held in held {
            match self.fallback.renew(now_ms, held) {
                Renewal::Held => {}
                Renewal::Replaced => replaced.push(held.lease.clone()),
                Renewal::Ended => self.close_ended(&held.lease),
            }
        }
        replaced
    }

    /// Does not fit: said again at the next renewal.
    fn close_ended(&self, lease: &LeaseRef) {
        let _ = self.events.try_send(close_ended(lease));
    }
}

/// Starts to look after the leases.
fn start(keeper: &Arc<Keeper>, work: &Work) {
    let stop = &work.stop;
    work.spawn("the leases' link", {
        let (keeper, stop) = (Arc::clone(keeper), stop.clone());
        async move { keeper.leases.link.run(stop, || keeper.link_is_up.notify_one()).await }
    });
    let (keeper, stop) = (Arc::clone(keeper), stop.clone());
    work.spawn("the keeper of leases", async move { keeper.run(stop).await });
}

#[async_trait]
impl Cluster for RedisCluster {
    async fn acquire(&self, record: &PresenceRecord, cap: u32) -> Result<Acquired> {
        let epoch_min = record.epoch.max(self.fallback.epoch_of(record)) + 1;
        match self.leases.acquire(record, cap, epoch_min).await {
            Ok(Counted { answer, count }) => {
                match &answer {
                    Acquired::New { lease, .. } => self.follow(lease, record, count),
                    Acquired::Reattached { lease, record } => self.follow(lease, record, count),
                    Acquired::AtCapacity { .. } => self.fallback.see_count(&record.mesh, count),
                }
                Ok(answer)
            }
            Err(error) => {
                tracing::debug!(%error, mesh = %record.mesh, "admitted by this node alone");
                Ok(self.fallback.acquire(self.now_ms(), record, cap, self.node_count()))
            }
        }
    }

    async fn renew(&self, held: &[HeldLease]) -> Result<Vec<LeaseRef>> {
        let has_let_go = |lease: &LeaseRef| self.fallback.has_let_go(self.now_ms(), lease);
        let renewed = match self.leases.renew(held, has_let_go).await {
            Ok(renewed) => renewed,
            Err(error) => {
                tracing::debug!(%error, leases = held.len(), "renewed by this node alone");
                return Ok(self.renew_alone(held));
            }
        };
        let now_ms = self.now_ms();
        let mut is_lost = vec![false; held.len()];
        for index in renewed.replaced.iter().chain(&renewed.ended) {
            let lease = &held[*index].lease;
            is_lost[*index] = true;
            self.fallback.forget(lease);
        }
        let kept = held.iter().zip(is_lost).filter(|(_, is_lost)| !is_lost);
        kept.for_each(|(held, _)| self.fallback.follow_renewal(now_ms, held));
        for (mesh, count) in &renewed.counts {
            self.fallback.see_count(mesh, *count);
        }
        renewed.ended.iter().for_each(|index| self.close_ended(&held[*index].lease));
        Ok(renewed.replaced.iter().map(|index| held[*index].lease.clone()).collect())
    }

    async fn release(&self, lease: &LeaseRef, how: Release) -> Result<bool> {
        let given_here = self.fallback.gave(lease);
        let held_here = self.fallback.release(self.now_ms(), lease, how, self.is_up());
        match self.leases.release(lease, how).await {
            Ok(Counted { answer, count }) => {
                self.fallback.see_count(&lease.mesh, count);
                if answer != Released::Unknown {
                    return Ok(answer == Released::Held || (held_here && given_here));
                }
                // Redis was wiped since the last renewal: its grace is new to it.
                let record = self.fallback.record_of(lease);
                if let Err(error) = self.leases.put_in_grace(record.as_slice()).await {
                    tracing::debug!(%error, "a grace is written when Redis is back");
                }
                Ok(held_here)
            }
            Err(error) => {
                tracing::debug!(%error, presence = %lease.presence, "released by this node alone");
                Ok(held_here)
            }
        }
    }

    async fn revoke(&self, mesh: &MeshId, presence: &PresenceId) -> Result<()> {
        match self.leases.revoke(&[(mesh.clone(), presence.clone())]).await {
            Ok(count) => {
                self.fallback.follow_revocation(self.now_ms(), mesh, presence);
                self.fallback.see_count(mesh, count);
                Ok(())
            }
            Err(error) => {
                self.fallback.revoke(self.now_ms(), mesh, presence);
                Err(unavailable(error))
            }
        }
    }

    async fn reap(&self, limit: usize) -> Result<Vec<PresenceRecord>> {
        match self.leases.reap(limit).await {
            Ok(reaped) => {
                // Its own books only follow.
                self.fallback.reap(self.now_ms(), usize::MAX, true);
                Ok(reaped)
            }
            Err(error) => {
                tracing::debug!(%error, "reaped by this node alone");
                Ok(self.fallback.reap(self.now_ms(), limit, false))
            }
        }
    }

    async fn adopt(&self, records: &[PresenceRecord]) -> Result<()> {
        self.leases.adopt(records, false).await.map_err(unavailable)
    }

    async fn write_record(&self, lease: &LeaseRef, record: &PresenceRecord) -> Result<bool> {
        let held_here = self.fallback.write_record(lease, record);
        match self.leases.write_records([(lease, record)]).await {
            // Redis does not know of what this node gave while it took no writes.
            Ok(written) => Ok(written == 1 || (held_here && self.fallback.gave(lease))),
            Err(error) => {
                tracing::debug!(%error, presence = %lease.presence, "written when Redis is back");
                Ok(held_here)
            }
        }
    }

    async fn join_mesh(&self, mesh: &MeshId) -> Result<Vec<PresenceRecord>> {
        let joining = self.bus.join(mesh);
        if self.bus.until_subscribed(mesh).await
            && let Err(error) = self.keeper.read_members(std::slice::from_ref(mesh), true).await
        {
            tracing::debug!(%error, %mesh, "the other nodes are read later");
        }
        // Where anything of this failed, a gap is told when Redis is back.
        let records = match self.leases.directory(mesh).await {
            Ok(Counted { answer, count }) => {
                self.fallback.see_count(mesh, count);
                answer
            }
            Err(error) => {
                tracing::debug!(%error, %mesh, "joined with what this node knows");
                self.fallback.directory(mesh)
            }
        };
        joining.keep();
        Ok(records)
    }

    async fn directory(&self, mesh: &MeshId) -> Result<Vec<PresenceRecord>> {
        let Counted { answer, count } = self.leases.directory(mesh).await.map_err(unavailable)?;
        self.fallback.see_count(mesh, count);
        Ok(answer)
    }

    async fn leave_mesh(&self, mesh: &MeshId) {
        if self.bus.leave(mesh) {
            self.keeper.leave(std::slice::from_ref(mesh)).await;
        }
    }

    fn publish(&self, mesh: &MeshId, message: &BusMessage) {
        self.bus.publish(mesh, message);
    }

    async fn use_once(&self, digest: &[u8; 32], ttl_ms: u64) -> Result<bool> {
        Ok(self.extras.use_once(digest, ttl_ms).await)
    }

    async fn take_tokens(
        &self,
        bucket: &str,
        want: u32,
        per_minute: u32,
        burst: u32,
    ) -> Result<u32> {
        let nodes = self.node_count();
        Ok(self.extras.take_tokens(bucket, want, per_minute, burst, nodes).await)
    }

    async fn put_pending_status(&self, pid: i32, cwd: &str, status: Status) -> Result<()> {
        self.extras.put_pending_status(pid, cwd, status).await;
        Ok(())
    }

    async fn take_pending_status(&self, pid: i32, cwd: &str) -> Result<Option<Status>> {
        Ok(self.extras.take_pending_status(pid, cwd).await)
    }

    async fn announce_node(&self, record: &NodeRecord, ttl_ms: u64) -> Result<()> {
        self.nodes.announce(record, ttl_ms).await;
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>> {
        Ok(self.nodes.all().await)
    }

    async fn leases(&self, mesh: &MeshId) -> Result<Vec<LeaseView>> {
        match self.leases.views(mesh).await {
            Ok(leases) => Ok(leases),
            Err(error) => {
                tracing::debug!(%error, %mesh, "only this node's leases are known");
                Ok(self.fallback.leases(mesh))
            }
        }
    }

    fn bus_lag(&self) -> Option<Duration> {
        self.bus.lag()
    }

    fn refused(&self) -> u64 {
        self.leases.seals.refused()
    }

    fn health(&self) -> ClusterHealth {
        if self.trouble().is_none() { ClusterHealth::Up } else { ClusterHealth::Degraded }
    }

    /// Each thing that the node needs of Redis is looked at for itself.
    fn trouble(&self) -> Option<&'static str> {
        if !self.leases.link.is_connected() {
            Some("Redis cannot be reached")
        } else if !self.leases.link.takes_writes() {
            Some("Redis takes no writes")
        } else if !self.is_up() {
            Some("Redis refuses what it is asked")
        } else if !self.publishing.is_connected() || !self.bus.hears() {
            Some("what this node publishes does not come back to it")
        } else if self.keeper.strangers.load(Ordering::Relaxed) > 0 {
            Some("nodes are there that sign otherwise: CLUSTER_SECRET differs")
        } else {
            None
        }
    }

    fn failed(&self) -> CancellationToken {
        self.work.failed.clone()
    }

    async fn close(&self) {
        let last_words = async {
            self.bus.flush().await;
            self.keeper.leave(&self.bus.joined()).await;
            self.nodes.withdraw().await;
        };
        if !self.work.stop.is_cancelled()
            && tokio::time::timeout(FLUSH_TIMEOUT, last_words).await.is_err()
        {
            tracing::debug!("the last frames were not sent");
        }
        self.work.stop.cancel();
    }
}

fn keys_of(settings: &RedisSettings, opener: &Opener) -> Keys {
    let RedisSettings { key_prefix, cluster_key, cluster_mode, .. } = settings;
    Keys::new(key_prefix, &cluster_key.id, opener.database(), *cluster_mode)
}

fn unavailable(error: RedisError) -> ClusterError {
    ClusterError::Unavailable(error.to_string())
}
