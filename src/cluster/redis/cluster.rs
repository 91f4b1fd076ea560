//! One node's part of the cluster: asks Redis, and decides by itself where Redis
//! does not answer. Every call of [`Cluster`] ends here.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::bus::{self, Bus, Origin};
use super::clock::SharedClock;
use super::connection::{Opener, unavailable};
use super::extras::Extras;
use super::fallback::Fallback;
use super::keeper::Keeper;
use super::keys::Keys;
use super::leases::{Counted, Leases, Released};
use super::link::Link;
use super::moves::Moves;
use super::nodes::Nodes;
use super::scripts::Scripts;
use super::seals::Seals;
use super::settings::RedisSettings;
use super::sim_clocks::SimClocks;
use super::work::Work;
use crate::cluster::books::{LeaseTimes, Renewal, close_ended};
use crate::cluster::{
    Acquired, BusMessage, ClockChange, ClockTurn, Cluster, ClusterEvent, ClusterEvents,
    ClusterHealth, Draw, Drawn, HeldLease, LeaseRef, LeaseView, NodeRecord, Release, Result,
    SimClock,
};
use crate::id::{MeshId, NodeId, PresenceId};
use crate::limits::BUS_INBOX_FRAMES_MAX;
use crate::protocol::Status;
use crate::record::PresenceRecord;

/// How long a starting node waits for Redis. Later: it starts degraded.
const START_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a closing node waits for its last frames to be sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// One node's part of the cluster.
pub struct RedisCluster {
    leases: Arc<Leases>,
    fallback: Arc<Fallback>,
    bus: Arc<Bus>,
    publishing: Arc<Link>,
    keeper: Arc<Keeper>,
    extras: Extras,
    sim_clocks: SimClocks,
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
    /// [`ClusterError::Unavailable`](crate::cluster::ClusterError::Unavailable) when the URL is none of Redis.
    pub async fn connect(settings: RedisSettings) -> Result<(Arc<Self>, ClusterEvents)> {
        let node = settings.node.as_str().to_owned();
        let times = LeaseTimes { grace_ms: settings.lease_grace_ms, ttl_ms: settings.lease_ttl_ms };
        let opener = Arc::new(Opener::new(&settings).map_err(unavailable)?);
        let keys = Keys::of(&settings, opener.database());
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
        let sim_clocks = SimClocks::new(Arc::clone(&leases), bus.origin().to_text());
        let nodes = Nodes::new(Arc::clone(&leases), bus.origin().to_text());
        let cluster = Self {
            leases,
            fallback,
            bus,
            publishing,
            keeper,
            extras,
            sim_clocks,
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
        renewed.restored.iter().for_each(|mesh| self.bus.note_untold(mesh));
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
        let held_here = self.fallback.release(self.now_ms(), lease, how);
        match self.leases.release(lease, how).await {
            Ok(Counted { answer, count }) => {
                self.fallback.see_count(&lease.mesh, count);
                if answer != Released::Unknown {
                    return Ok(answer == Released::Held || (held_here && given_here));
                }
                // Redis was wiped since the last renewal: its grace is new to it.
                let record = self.fallback.record_of(lease);
                match self.leases.put_in_grace(record.as_slice()).await {
                    Ok(()) => self.bus.note_untold(&lease.mesh),
                    Err(error) => tracing::debug!(%error, "a grace is written when Redis is back"),
                }
                Ok(held_here)
            }
            Err(error) => {
                tracing::debug!(%error, presence = %lease.presence, "released by this node alone");
                if held_here && how == Release::Now {
                    self.fallback.note_release(lease);
                }
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

    async fn take_tokens(&self, owner: &str, draws: &[Draw]) -> Result<Vec<Drawn>> {
        Ok(self.extras.take_tokens(owner, draws, self.node_count()).await)
    }

    async fn put_pending_status(&self, pid: i32, cwd: &str, status: Status) -> Result<()> {
        self.extras.put_pending_status(pid, cwd, status).await;
        Ok(())
    }

    async fn take_pending_status(&self, pid: i32, cwd: &str) -> Result<Option<Status>> {
        Ok(self.extras.take_pending_status(pid, cwd).await)
    }

    async fn change_clock(&self, mesh: &MeshId, change: ClockChange) -> Result<Option<SimClock>> {
        self.sim_clocks.change(mesh, change).await.map_err(unavailable)
    }

    async fn clocks(&self, meshes: &[MeshId]) -> Result<Vec<Option<SimClock>>> {
        self.sim_clocks.look(meshes).await.map_err(unavailable)
    }

    async fn tick_clocks(&self, known: &[(MeshId, SimClock)]) -> Result<Vec<ClockTurn>> {
        self.sim_clocks.tick(known).await.map_err(unavailable)
    }

    async fn announce_node(&self, record: &NodeRecord, ttl_ms: u64) -> Result<()> {
        self.nodes.announce(record, ttl_ms).await;
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>> {
        Ok(self.nodes.all().await)
    }

    async fn nodes_heard(&self) -> Result<BTreeSet<NodeId>> {
        self.nodes.heard().await.map_err(unavailable)
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
