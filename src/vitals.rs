//! What operators see of a node: rates, latencies of the last hour, and the
//! record by which the other nodes know of it.
//!
//! One job samples what the parts count anyway, every two seconds; nothing
//! here is on a message's way.

pub mod series;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::cluster::{ClusterHealth, MeshLoad, NodeRecord, NodeState};
use crate::id::MeshId;
use crate::limits;
use crate::metrics::VERSION;
use crate::node::Node;

use self::series::{Point, Series};

/// Between two samples.
pub const SAMPLE_INTERVAL_MS: u64 = 2_000;
/// How long a node that went silent is shown.
const NODE_TTL_MS: u64 = 5 * SAMPLE_INTERVAL_MS;
/// A point of the series covers this many samples.
const SAMPLES_PER_POINT: u64 = series::POINT_INTERVAL_MS / SAMPLE_INTERVAL_MS;

/// What the samples have found.
#[derive(Default)]
pub struct Vitals {
    state: Mutex<State>,
    series: Mutex<Series>,
}

/// Messages accepted and deliveries written, per mesh.
type Traffic = HashMap<MeshId, (u64, u64)>;

#[derive(Default)]
struct State {
    /// Accepted and delivered per mesh at the last sample, and its instant.
    last: Option<(Instant, Traffic)>,
    rates: HashMap<MeshId, Rate>,
    /// Since the last point of the series.
    samples: u64,
    accepted: u64,
    delivered: u64,
    point_since: Option<Instant>,
}

#[derive(Clone, Copy, Default)]
struct Rate {
    accepted: f64,
    delivered: f64,
}

impl Vitals {
    /// The points of the last hour, oldest first.
    #[must_use]
    pub fn points(&self) -> Vec<Point> {
        self.series.lock().points()
    }

    /// The newest of them.
    #[must_use]
    pub fn newest_point(&self) -> Option<Point> {
        self.series.lock().newest()
    }
}

/// Looks at everything once, and tells the cluster.
pub async fn sample(node: &Node) {
    measure_traffic(node);
    set_gauges(node);
    announce(node).await;
}

/// Tells the cluster how this node does now.
pub async fn announce(node: &Node) {
    if let Err(error) = node.cluster.announce_node(&record(node), NODE_TTL_MS).await {
        tracing::debug!(%error, "the other nodes hear of this one later");
    }
}

/// How this node does now.
#[must_use]
pub fn record(node: &Node) -> NodeRecord {
    let rooms = node.registry.rooms();
    let state = node.vitals.state.lock();
    let mut loads: Vec<MeshLoad> = rooms
        .iter()
        .map(|room| {
            let rate = state.rates.get(room.mesh()).copied().unwrap_or_default();
            MeshLoad {
                mesh: room.mesh().clone(),
                sockets: u32::try_from(room.session_count()).unwrap_or(u32::MAX),
                accepted_per_second: rate.accepted,
                delivered_per_second: rate.delivered,
            }
        })
        .collect();
    drop(state);
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
        id: node.config.node.id.clone(),
        region: node.config.node.region.clone(),
        version: VERSION.to_owned(),
        state: state_of(node),
        seen_at: Timestamp::now(),
        uptime_seconds: node.life.started.elapsed().as_secs(),
        sockets,
        meshes,
        bus_lag_ms: node.cluster.bus_lag().map(|lag| rounded(lag.as_secs_f64() * 1e3)),
        accepted_per_second: rounded(accepted_per_second),
        delivered_per_second: rounded(delivered_per_second),
        loads,
    }
}

fn state_of(node: &Node) -> NodeState {
    if node.life.draining.is_cancelled() {
        NodeState::Draining
    } else if !node.life.store_up.load(Ordering::Relaxed)
        || node.life.disk_low.load(Ordering::Relaxed)
        || node.cluster.health() == ClusterHealth::Degraded
    {
        NodeState::Degraded
    } else {
        NodeState::Ready
    }
}

/// To three decimals: more is noise that would have to be read.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn measure_traffic(node: &Node) {
    let now = Instant::now();
    let counts: Traffic =
        node.registry.rooms().iter().map(|room| (room.mesh().clone(), room.traffic())).collect();
    let mut state = node.vitals.state.lock();
    let (before, last) = state.last.take().unwrap_or_else(|| (node.life.started, HashMap::new()));
    let seconds = now.duration_since(before).as_secs_f64().max(0.001);
    let mut rates = HashMap::with_capacity(counts.len());
    let (mut accepted, mut delivered) = (0, 0);
    for (mesh, now) in &counts {
        let since = last.get(mesh).copied().unwrap_or_default();
        // A room that was left and entered anew counts from zero.
        let grown = |now: u64, since: u64| now.checked_sub(since).unwrap_or(now);
        let grown = (grown(now.0, since.0), grown(now.1, since.1));
        accepted += grown.0;
        delivered += grown.1;
        let rate = Rate {
            accepted: rounded(grown.0 as f64 / seconds),
            delivered: rounded(grown.1 as f64 / seconds),
        };
        rates.insert(mesh.clone(), rate);
    }
    state.rates = rates;
    state.last = Some((now, counts));
    state.accepted += accepted;
    state.delivered += delivered;
    state.samples += 1;
    if state.samples >= SAMPLES_PER_POINT {
        end_point(node, &mut state, now);
    }
}

fn end_point(node: &Node, state: &mut State, now: Instant) {
    let since = state.point_since.replace(now).unwrap_or(node.life.started);
    let seconds = now.duration_since(since).as_secs_f64().max(0.001);
    let metrics = &node.metrics;
    let (accept, deliver) =
        (metrics.accept_seconds.take_recent(), metrics.deliver_seconds.take_recent());
    let point = Point {
        at: Timestamp::now(),
        accepted_per_second: rounded(std::mem::take(&mut state.accepted) as f64 / seconds),
        delivered_per_second: rounded(std::mem::take(&mut state.delivered) as f64 / seconds),
        sockets: node.registry.sessions() as u64,
        accept_p50_ms: rounded(accept.p50_ms),
        accept_p99_ms: rounded(accept.p99_ms),
        deliver_p50_ms: rounded(deliver.p50_ms),
        deliver_p99_ms: rounded(deliver.p99_ms),
    };
    state.samples = 0;
    node.vitals.series.lock().push(point);
}

/// What is looked at rather than counted.
fn set_gauges(node: &Node) {
    let metrics = &node.metrics;
    let (mut sessions, mut bytes, mut largest) = (0_i64, 0, 0);
    for room in node.registry.rooms() {
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
    let pool = node.stores.database.pool();
    metrics.db_pool_in_use.set(i64::from(pool.in_use));
    metrics.db_pool_max.set(i64::from(pool.max));
    metrics.ready.set(i64::from(node.life.is_ready()));
    let is_degraded = node.cluster.health() == ClusterHealth::Degraded;
    metrics.cluster_degraded.set(i64::from(is_degraded));
    let refused = node.cluster.refused();
    metrics.cluster_refused.inc_by(refused.saturating_sub(metrics.cluster_refused.get()));
    let lag = node.cluster.bus_lag().unwrap_or_default();
    metrics.bus_lag_seconds.set(lag.as_secs_f64());
    metrics.audit_lag_seconds.set(metrics.oldest_wait().as_secs_f64());
}
