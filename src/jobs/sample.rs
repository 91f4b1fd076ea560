//! What operators see of this node, looked at by the clock: the record by which the
//! other nodes know of it, the points of its series, and the gauges.
//!
//! Only what the rooms count anyway is read; nothing is asked of the database. The
//! clock of [`jobs`](super) calls, the admin API for the record of now, and
//! [`app`](crate::app) when the node begins to drain.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::clock::Timestamp;
use crate::cluster::{Cluster, ClusterHealth, MeshLoad, NodeRecord, NodeState};
use crate::config::NodeConfig;
use crate::life::Life;
use crate::limits;
use crate::metrics::{Metrics, VERSION};
use crate::registry::Registry;
use crate::store::Database;
use crate::vitals::series::Point;
use crate::vitals::{SAMPLE_INTERVAL_MS, Throughput, Vitals, rounded};

/// How long a node that went silent is shown.
const NODE_TTL_MS: u64 = 5 * SAMPLE_INTERVAL_MS;

/// Looks at one node's parts, and keeps what it found.
pub(crate) struct Sampler {
    pub(crate) node: NodeConfig,
    pub(crate) database: Arc<dyn Database>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) life: Arc<Life>,
    /// What the samples have found.
    pub(crate) vitals: Vitals,
}

impl Sampler {
    /// Looks at everything once, and tells the cluster.
    pub(super) async fn sample(&self) {
        self.measure_traffic();
        self.set_gauges();
        self.announce().await;
    }

    /// Tells the cluster how this node does now.
    pub(crate) async fn announce(&self) {
        if let Err(error) = self.cluster.announce_node(&self.record(), NODE_TTL_MS).await {
            tracing::debug!(%error, "the other nodes hear of this one later");
        }
    }

    /// How this node does now.
    pub(crate) fn record(&self) -> NodeRecord {
        let rooms = self.registry.rooms();
        let mut loads: Vec<MeshLoad> = rooms
            .iter()
            .map(|room| {
                let rate = self.vitals.rate_of(room.mesh());
                MeshLoad {
                    mesh: room.mesh().clone(),
                    sockets: u32::try_from(room.session_count()).unwrap_or(u32::MAX),
                    accepted_per_second: rate.accepted_per_second,
                    delivered_per_second: rate.delivered_per_second,
                }
            })
            .collect();
        let (meshes, sockets) =
            (loads.len() as u64, loads.iter().map(|load| u64::from(load.sockets)).sum());
        let sum = |of: fn(&MeshLoad) -> f64| loads.iter().map(of).sum();
        let accepted_per_second = sum(|load| load.accepted_per_second);
        let delivered_per_second = sum(|load| load.delivered_per_second);
        if loads.len() > limits::NODE_RECORD_MESHES_MAX {
            let weight = |load: &MeshLoad| load.accepted_per_second + load.delivered_per_second;
            loads.sort_by(|a, b| {
                weight(b).total_cmp(&weight(a)).then_with(|| b.sockets.cmp(&a.sockets))
            });
            loads.truncate(limits::NODE_RECORD_MESHES_MAX);
        }
        NodeRecord {
            id: self.node.id.clone(),
            region: self.node.region.clone(),
            version: VERSION.to_owned(),
            state: self.state(),
            seen_at: Timestamp::now(),
            uptime_seconds: self.life.started.elapsed().as_secs(),
            sockets,
            meshes,
            bus_lag_ms: self.cluster.bus_lag().map(|lag| rounded(lag.as_secs_f64() * 1e3)),
            accepted_per_second: rounded(accepted_per_second),
            delivered_per_second: rounded(delivered_per_second),
            loads,
        }
    }

    fn state(&self) -> NodeState {
        if self.life.draining.is_cancelled() {
            NodeState::Draining
        } else if self.is_degraded() {
            NodeState::Degraded
        } else {
            NodeState::Ready
        }
    }

    /// Whether something that the node stands on is away or short.
    pub(crate) fn is_degraded(&self) -> bool {
        !self.life.store_up.load(Ordering::Relaxed)
            || self.life.disk_low.load(Ordering::Relaxed)
            || self.cluster.health() == ClusterHealth::Degraded
    }

    fn measure_traffic(&self) {
        let rooms = self.registry.rooms();
        let counts = rooms.iter().map(|room| (room.mesh().clone(), room.traffic())).collect();
        if let Some(throughput) = self.vitals.note(Instant::now(), counts) {
            self.end_point(throughput);
        }
    }

    fn end_point(&self, throughput: Throughput) {
        let (accept, deliver) =
            (self.metrics.accept_seconds.take_recent(), self.metrics.deliver_seconds.take_recent());
        self.vitals.push(Point {
            at: Timestamp::now(),
            accepted_per_second: throughput.accepted_per_second,
            delivered_per_second: throughput.delivered_per_second,
            sockets: self.registry.sessions() as u64,
            accept_p50_ms: rounded(accept.p50_ms),
            accept_p99_ms: rounded(accept.p99_ms),
            deliver_p50_ms: rounded(deliver.p50_ms),
            deliver_p99_ms: rounded(deliver.p99_ms),
        });
    }

    /// What is looked at rather than counted.
    fn set_gauges(&self) {
        let metrics = &self.metrics;
        let (mut sessions, mut bytes, mut largest) = (0_i64, 0, 0);
        for room in self.registry.rooms() {
            room.for_each_session(|session, _| {
                let waiting = session.outbox.bytes();
                sessions += 1;
                bytes += waiting;
                largest = largest.max(waiting);
            });
        }
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.leases_held.set(sessions);
        metrics.outbox_bytes.set(gauge(bytes));
        metrics.outbox_largest_bytes.set(gauge(largest));
        let pool = self.database.pool();
        metrics.db_pool_in_use.set(i64::from(pool.in_use));
        metrics.db_pool_max.set(i64::from(pool.max));
        metrics.ready.set(i64::from(self.life.is_ready()));
        let is_degraded = self.cluster.health() == ClusterHealth::Degraded;
        metrics.cluster_degraded.set(i64::from(is_degraded));
        let refused = self.cluster.refused();
        metrics.cluster_refused.inc_by(refused.saturating_sub(metrics.cluster_refused.get()));
        let lag = self.cluster.bus_lag().unwrap_or_default();
        metrics.bus_lag_seconds.set(lag.as_secs_f64());
        metrics.audit_lag_seconds.set(metrics.oldest_wait().as_secs_f64());
    }
}
