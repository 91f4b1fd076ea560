//! The composition root: the only place that names concrete back ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept;
use crate::cluster::redis::{RedisCluster, RedisSettings};
use crate::cluster::single::{LeaseTimes, SingleCluster};
use crate::cluster::{Cluster, ClusterEvents};
use crate::config::{Config, Deployment, RedisConfig, StoreConfig};
use crate::http::half_open::HalfOpen;
use crate::http::upgrade::Addresses;
use crate::http::{self, listener};
use crate::jobs;
use crate::journal::{self, Journal};
use crate::ledger::Ledger;
use crate::limits;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::protocol::CloseReason;
use crate::rates::Rates;
use crate::registry::Registry;
use crate::router;
use crate::store::Store;
use crate::store::postgres::{PostgresSettings, PostgresStore};
use crate::store::sqlite::SqliteStore;
use crate::vitals::{self, Vitals};

/// Opens the store that the configuration names, with its schema up to date.
///
/// # Errors
///
/// A sentence that says what is wrong with the database or its folder.
pub async fn open_store(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    let store = connect_store(config).await?;
    store.migrate().await.context("the database could not be brought up to date")?;
    Ok(store)
}

/// Opens the store as it is; for those that look at migrations.
///
/// # Errors
///
/// As [`open_store`].
pub async fn connect_store(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    match &config.deployment {
        Deployment::Single { store: StoreConfig::Sqlite { file, .. } } => {
            Ok(Arc::new(SqliteStore::open(file).await?))
        }
        Deployment::Single { store: StoreConfig::Postgres(postgres) }
        | Deployment::Clustered { postgres, .. } => {
            let settings = PostgresSettings {
                url: postgres.url.expose().to_owned(),
                pool_max: postgres.pool_max,
                statement_cache_max: postgres.statement_cache_max,
            };
            Ok(Arc::new(PostgresStore::connect(&settings)?))
        }
    }
}

async fn open_cluster(config: &Config) -> anyhow::Result<(Arc<dyn Cluster>, ClusterEvents)> {
    let presence = &config.presence;
    let times = LeaseTimes {
        grace_ms: u64::try_from(presence.lease_grace_ms)?,
        ttl_ms: u64::try_from(presence.lease_ttl_ms)?,
    };
    match &config.deployment {
        Deployment::Single { .. } => {
            let (cluster, events) = SingleCluster::new(times);
            Ok((cluster, events))
        }
        Deployment::Clustered { redis, .. } => {
            let settings = redis_settings(config, redis)?;
            let (cluster, events) = RedisCluster::connect(settings).await?;
            Ok((cluster, events))
        }
    }
}

/// Where Redis is and who this node is in it.
///
/// # Errors
///
/// When a window of time is negative, which no configuration makes it.
pub fn redis_settings(config: &Config, redis: &RedisConfig) -> anyhow::Result<RedisSettings> {
    Ok(RedisSettings {
        url: redis.url.clone(),
        cluster_mode: redis.cluster,
        ca_file: redis.ca_file.clone(),
        node: config.node.id.clone(),
        region: config.node.region.clone(),
        lease_grace_ms: u64::try_from(config.presence.lease_grace_ms)?,
        lease_ttl_ms: u64::try_from(config.presence.lease_ttl_ms)?,
        key_prefix: REDIS_KEY_PREFIX.to_owned(),
    })
}

/// What every key in Redis begins with.
const REDIS_KEY_PREFIX: &str = "claudemesh";

/// What a node stands on, open.
pub struct Backends {
    store: Arc<dyn Store>,
    cluster: Arc<dyn Cluster>,
    events: ClusterEvents,
}

/// Opens what the configuration names.
///
/// # Errors
///
/// A sentence that says what is wrong with it.
pub async fn open(config: &Config) -> anyhow::Result<Backends> {
    let store = open_store(config).await?;
    let (cluster, events) = open_cluster(config).await?;
    Ok(Backends { store, cluster, events })
}

/// Runs a node until `shutdown`, then drains it.
///
/// # Errors
///
/// A sentence, if the node could not start.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let backends = open(&config).await?;
    run_on(backends, config, listener, shutdown).await;
    Ok(())
}

/// As [`run`], on what is open already.
pub async fn run_on(
    backends: Backends,
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) {
    let Backends { store, cluster, events } = backends;
    let (node, writers) = assemble(config, store, cluster);
    jobs::resume_presences(&node).await;
    let background = TaskTracker::new();
    start_background(&node, events, &background);
    let half_open = HalfOpen::new(limits::HALF_OPEN_SOCKETS_MAX);
    let app = http::App {
        node: Arc::clone(&node),
        half_open: half_open.clone(),
        addresses: Addresses::default(),
        admin: Arc::default(),
    };
    let accepting = tokio::spawn(listener::run(
        listener,
        http::routes(app),
        half_open,
        node.tasks.clone(),
        node.stopped.clone(),
    ));
    shutdown.cancelled().await;
    drain(&node, background, writers).await;
    // It ends with `stopped`; a panic in it has been reported.
    let _ = accepting.await;
}

/// The tasks that write, which end last.
struct Writers {
    tasks: TaskTracker,
    stop: CancellationToken,
}

fn assemble(
    config: Config,
    store: Arc<dyn Store>,
    cluster: Arc<dyn Cluster>,
) -> (Arc<Node>, Writers) {
    let metrics = Arc::new(Metrics::new());
    // The store has just been opened.
    metrics.db_healthy.set(1);
    let (accept, lanes) = accept::lanes(accept_lanes(&config));
    let (journal, openings) = Journal::new();
    let rates = Rates::new(
        &config.message,
        config.http.hook_rate_per_minute,
        config.http.hello_rate_per_minute,
    );
    let writers = Writers { tasks: TaskTracker::new(), stop: CancellationToken::new() };
    for lane in lanes {
        let (store, metrics) = (Arc::clone(&store), Arc::clone(&metrics));
        writers.tasks.spawn(accept::run(lane, store, metrics, writers.stop.clone()));
    }
    let opening_store = Arc::clone(&store);
    let opening_stop = writers.stop.clone();
    writers.tasks.spawn(async move {
        journal::run_openings(openings, &*opening_store, opening_stop).await;
    });
    let node = Arc::new(Node {
        config,
        store,
        cluster,
        registry: Arc::new(Registry::default()),
        accept,
        ledger: Ledger::default(),
        journal,
        drains: Semaphore::new(limits::DRAINS_READING_MAX),
        verifying: AtomicBool::new(false),
        rates,
        metrics,
        vitals: Vitals::default(),
        tasks: TaskTracker::new(),
        draining: CancellationToken::new(),
        stopped: CancellationToken::new(),
        member_changes: AtomicU64::new(0),
        started: Instant::now(),
        store_up: AtomicBool::new(true),
    });
    start_followers(&node, &writers);
    (node, writers)
}

/// SQLite has one writer. Postgres takes the batches of different meshes side by
/// side, so that one of them need not wait for another's trip to the disk.
fn accept_lanes(config: &Config) -> usize {
    match &config.deployment {
        Deployment::Single { store: StoreConfig::Sqlite { .. } } => 1,
        Deployment::Single { store: StoreConfig::Postgres(postgres) }
        | Deployment::Clustered { postgres, .. } => {
            let half = usize::try_from(postgres.pool_max / 2).unwrap_or(1);
            limits::ACCEPT_LANES.min(half)
        }
    }
}

/// The writers of what may wait: confirmations and presence changes.
fn start_followers(node: &Arc<Node>, writers: &Writers) {
    let (ledger, stop) = (Arc::clone(node), writers.stop.clone());
    writers.tasks.spawn(async move {
        ledger.ledger.run(&*ledger.store, stop.cancelled()).await;
    });
    let (journal, stop) = (Arc::clone(node), writers.stop.clone());
    writers.tasks.spawn(async move {
        journal.journal.run_changes(&*journal.store, stop.cancelled()).await;
    });
}

fn start_background(node: &Arc<Node>, events: ClusterEvents, background: &TaskTracker) {
    background.spawn(router::bus::run(Arc::clone(node), events));
    jobs::start(node, background);
}

/// Not ready at once; sockets closed in waves, so that their peers do not all
/// arrive elsewhere in one moment; then the writers, then the rest. Sockets
/// have two thirds of the time at most: what is accepted must reach the disk.
async fn drain(node: &Arc<Node>, background: TaskTracker, writers: Writers) {
    let budget = Duration::from_millis(node.config.drain.drain_ms);
    let begun = Instant::now();
    node.draining.cancel();
    tracing::info!(sockets = node.registry.sessions(), "draining");
    // Operators see it at once; nobody waits for that.
    let told = Arc::clone(node);
    node.tasks.spawn(async move { vitals::announce(&told).await });
    close_in_waves(node, budget / 3).await;
    node.stopped.cancel();
    node.tasks.close();
    background.close();
    let sockets = async {
        if tokio::time::timeout(STRAGGLER_PATIENCE.min(budget / 6), node.tasks.wait())
            .await
            .is_err()
        {
            abort_stragglers(node);
            node.tasks.wait().await;
        }
        background.wait().await;
    };
    let sockets_left = budget / 3 * 2;
    if tokio::time::timeout(sockets_left.saturating_sub(begun.elapsed()), sockets).await.is_err() {
        let tasks = node.tasks.len();
        tracing::warn!(tasks, "some sockets did not end in time; their leases run out");
    }
    writers.stop.cancel();
    writers.tasks.close();
    let writing = async {
        writers.tasks.wait().await;
        // Beside each other: a Redis that does not answer costs its own time.
        tokio::join!(node.cluster.close(), node.store.close());
    };
    if tokio::time::timeout(budget.saturating_sub(begun.elapsed()), writing).await.is_err() {
        tracing::warn!("the drain took longer than DRAIN_SECONDS; stopping anyway");
    }
    tracing::info!(elapsed_ms = begun.elapsed().as_millis(), "stopped");
}

/// How long closed sockets may take to say goodbye.
const STRAGGLER_PATIENCE: Duration = Duration::from_secs(3);

/// Sockets whose peers do not read end now.
fn abort_stragglers(node: &Node) {
    for room in node.registry.rooms() {
        room.for_each_session(|session, _| session.outbox.abort(CloseReason::SHUTTING_DOWN));
    }
}

/// Between two waves.
const WAVE_INTERVAL: Duration = Duration::from_millis(100);
/// Sockets that may be closed at once without a second thought.
const WAVE_SOCKETS_MIN: usize = 50;

async fn close_in_waves(node: &Arc<Node>, budget: Duration) {
    let waves = (budget.as_millis() / WAVE_INTERVAL.as_millis()).max(1);
    let wave = node.registry.sessions().div_ceil(usize::try_from(waves).unwrap_or(1));
    let wave = wave.max(WAVE_SOCKETS_MIN);
    loop {
        let open: Vec<_> = node
            .registry
            .rooms()
            .iter()
            .flat_map(|room| room.sessions())
            .filter(|(session, _)| session.outbox.is_open())
            .take(wave)
            .collect();
        if open.is_empty() {
            return;
        }
        for (session, _) in &open {
            session.outbox.close(CloseReason::SHUTTING_DOWN);
        }
        if open.len() == wave {
            tokio::time::sleep(WAVE_INTERVAL).await;
        }
    }
}
