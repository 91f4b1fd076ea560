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
const NODE_TTL_MS: u64 = limits::NODE_WORD_MS.unsigned_abs();

// It may be late a few times.
const _: () = assert!(NODE_TTL_MS >= 5 * SAMPLE_INTERVAL_MS);

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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use axum::body::Bytes;

    use super::*;
    use crate::config::Config;
    use crate::jobs::fixture::{Mocks, Scene, cluster_away};
    use crate::store::PoolUse;

    fn sampler(scene: &Scene) -> Sampler {
        let presence = &scene.presence;
        Sampler {
            node: Config::for_tests(Path::new("/nowhere")).node,
            database: Arc::clone(&scene.stores.database),
            cluster: Arc::clone(&presence.cluster),
            registry: Arc::clone(&presence.registry),
            metrics: Arc::clone(&presence.metrics),
            life: Arc::clone(&presence.life),
            vitals: Vitals::new(presence.life.started),
        }
    }

    /// A node whose cluster does so.
    fn node(health: ClusterHealth) -> Mocks {
        let mut mocks = Mocks::default();
        mocks.cluster.expect_health().return_const(health);
        mocks.cluster.expect_bus_lag().return_const(Some(Duration::from_millis(3)));
        mocks
    }

    #[tokio::test]
    async fn a_node_that_lacks_something_is_degraded_and_one_that_stops_is_draining() {
        use NodeState::{Degraded, Draining, Ready};
        for (health, store_up, disk_low, state) in [
            (ClusterHealth::Single, true, false, Ready),
            (ClusterHealth::Up, true, false, Ready),
            (ClusterHealth::Degraded, true, false, Degraded),
            (ClusterHealth::Up, false, false, Degraded),
            (ClusterHealth::Up, true, true, Degraded),
        ] {
            let sampler = sampler(&node(health).scene());
            sampler.life.store_up.store(store_up, Ordering::Relaxed);
            sampler.life.disk_low.store(disk_low, Ordering::Relaxed);
            let record = sampler.record();
            assert_eq!((record.state, record.bus_lag_ms), (state, Some(3.0)), "{health:?}");
            sampler.life.draining.cancel();
            assert_eq!(sampler.record().state, Draining, "whatever else is wrong");
        }
    }

    #[tokio::test]
    async fn of_many_meshes_the_busiest_are_listed_and_all_are_counted() {
        const MESHES: usize = limits::NODE_RECORD_MESHES_MAX + 2;
        let scene = node(ClusterHealth::Up).scene();
        let mut rooms = Vec::new();
        for number in 0..MESHES {
            rooms.push(scene.enter(&format!("mesh-{number}")).await);
        }
        for (room, sessions) in [(0, 1), (1, 2)] {
            for number in 0..sessions {
                scene.session(&rooms[room], &format!("session-{room}-{number}"));
            }
        }
        // Nobody is there any more to whom it is sent.
        (0..1_000).for_each(|_| rooms[MESHES - 1].note_accepted());
        rooms[MESHES - 2].note_delivered(500);
        let sampler = sampler(&scene);
        sampler.measure_traffic();
        let record = sampler.record();
        assert_eq!((record.meshes, record.sockets), (MESHES as u64, 3));
        assert_eq!(record.loads.len(), limits::NODE_RECORD_MESHES_MAX);
        let listed: Vec<_> = record.loads[..4].iter().map(|load| load.mesh.as_str()).collect();
        let (accepts, delivers) = (format!("mesh-{}", MESHES - 1), format!("mesh-{}", MESHES - 2));
        assert_eq!(listed, [accepts.as_str(), &delivers, "mesh-1", "mesh-0"]);
        assert_eq!(record.accepted_per_second, record.loads[0].accepted_per_second);
        assert_eq!(record.delivered_per_second, record.loads[1].delivered_per_second);
    }

    #[tokio::test]
    async fn gauges_are_set_however_often_the_cluster_is_away() {
        let mut mocks = node(ClusterHealth::Degraded);
        let pool = PoolUse { in_use: 2, max: 9 };
        mocks.stores.database.expect_pool().returning(move || pool);
        mocks.cluster.expect_refused().return_const(5_u64);
        mocks.cluster.expect_announce_node().times(2).returning(|record, ttl_ms| {
            assert_eq!((record.state, ttl_ms), (NodeState::Degraded, NODE_TTL_MS));
            Err(cluster_away())
        });
        let scene = mocks.scene();
        let room = scene.enter("mesh").await;
        let (one, other) = (scene.session(&room, "one"), scene.session(&room, "other"));
        one.outbox.say(Bytes::from_static(b"a short answer"));
        other.outbox.say(Bytes::from_static(b"an answer that is longer than the other"));
        let (sampler, metrics) = (sampler(&scene), &scene.presence.metrics);
        for _ in 0..2 {
            sampler.sample().await;
            let waiting = [one.outbox.bytes(), other.outbox.bytes()].map(|bytes| bytes as i64);
            assert_eq!(metrics.leases_held.get(), 2);
            assert_eq!(metrics.outbox_bytes.get(), waiting.iter().sum::<i64>());
            assert_eq!(metrics.outbox_largest_bytes.get(), waiting[1]);
            assert_eq!((metrics.db_pool_in_use.get(), metrics.db_pool_max.get()), (2, 9));
            assert_eq!((metrics.ready.get(), metrics.cluster_degraded.get()), (1, 1));
            assert_eq!(metrics.cluster_refused.get(), 5, "each is counted once");
        }
    }
}
