//! The composition root: the only place that names concrete back ends.

mod owner;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::owner::Owner;
use crate::bus;
use crate::cluster::books::LeaseTimes;
use crate::cluster::redis::seals::ClusterKey;
use crate::cluster::redis::{RedisCluster, RedisSettings};
use crate::cluster::single::SingleCluster;
use crate::cluster::{Cluster, ClusterEvents};
use crate::config::{ClusterSecret, Config, Deployment, PostgresConfig, RedisConfig, StoreConfig};
use crate::http::admin::Admin;
use crate::http::{self, HttpState};
use crate::jobs::{self, sample::Sampler};
use crate::life::Life;
use crate::limits;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::protocol::CloseReason;
use crate::rates::Rates;
use crate::registry::Registry;
use crate::socket::address::Addresses;
use crate::socket::connection::Sockets;
use crate::socket::half_open::HalfOpen;
use crate::socket::listener::{self, Door};
use crate::store::postgres::{PostgresSettings, PostgresStore};
use crate::store::sqlite::SqliteStore;
use crate::store::{ClusterIdentity, Stores};
use crate::vitals::Vitals;
use crate::writers::confirmations::Confirmations;
use crate::writers::group_commit;
use crate::writers::presences::{self, PresenceWriter};
use crate::{admission, delivery, features, presence};

/// Opens the store that the configuration names, with its schema up to date.
///
/// # Errors
///
/// A sentence that says what is wrong with the database or its folder.
pub async fn open_store(config: &Config) -> anyhow::Result<Stores> {
    let store = connect_store(config).await?;
    migrate(&store).await?;
    Ok(store)
}

async fn migrate(store: &Stores) -> anyhow::Result<()> {
    store.database.migrate().await.context("the database could not be brought up to date")
}

/// Opens the store as it is; for those that look at migrations.
///
/// # Errors
///
/// As [`open_store`].
pub async fn connect_store(config: &Config) -> anyhow::Result<Stores> {
    match &config.deployment {
        Deployment::Single { store: StoreConfig::Sqlite { file, .. } } => {
            Ok(Stores::of(Arc::new(SqliteStore::open(file).await?)))
        }
        Deployment::Single { store: StoreConfig::Postgres(postgres) }
        | Deployment::Clustered { postgres, .. } => {
            Ok(Stores::of(Arc::new(PostgresStore::connect(&postgres_settings(postgres))?)))
        }
    }
}

fn postgres_settings(postgres: &PostgresConfig) -> PostgresSettings {
    PostgresSettings {
        url: postgres.url.expose().to_owned(),
        pool_max: postgres.pool_max,
        statement_cache_max: postgres.statement_cache_max,
    }
}

async fn open_cluster(
    config: &Config,
    store: &Stores,
) -> anyhow::Result<(Arc<dyn Cluster>, ClusterEvents)> {
    let presence = &config.presence;
    let times = LeaseTimes {
        grace_ms: u64::try_from(presence.lease_grace_ms)?,
        ttl_ms: u64::try_from(presence.lease_ttl_ms)?,
    };
    match &config.deployment {
        Deployment::Single { .. } => {
            let (cluster, events) = match config.deployment.data_dir() {
                Some(folder) => SingleCluster::remembering(times, folder),
                None => SingleCluster::new(times),
            };
            Ok((cluster, events))
        }
        Deployment::Clustered { redis, .. } => {
            let identity = store.database.cluster_identity().await;
            let identity = identity.context("who the cluster is could not be read")?;
            let settings = redis_settings(config, redis, identity)?;
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
pub fn redis_settings(
    config: &Config,
    redis: &RedisConfig,
    identity: ClusterIdentity,
) -> anyhow::Result<RedisSettings> {
    Ok(RedisSettings {
        url: redis.url.clone(),
        cluster_mode: redis.cluster,
        ca_file: redis.ca_file.clone(),
        node: config.node.id.clone(),
        region: config.node.region.clone(),
        lease_grace_ms: u64::try_from(config.presence.lease_grace_ms)?,
        lease_ttl_ms: u64::try_from(config.presence.lease_ttl_ms)?,
        key_prefix: REDIS_KEY_PREFIX.to_owned(),
        cluster_key: cluster_key(redis, identity),
    })
}

/// The secrets that are set, in their order, or the one in the database.
fn cluster_key(redis: &RedisConfig, identity: ClusterIdentity) -> ClusterKey {
    let ClusterIdentity { id, secret } = identity;
    let mut secrets = redis.secrets.iter().map(|one| match one {
        ClusterSecret::OfDatabase => secret.clone(),
        ClusterSecret::Given(given) => given.expose().as_bytes().to_vec(),
    });
    let first = secrets.next().unwrap_or_else(|| secret.clone());
    ClusterKey { id, secret: first, others: secrets.collect() }
}

/// What every key in Redis begins with.
const REDIS_KEY_PREFIX: &str = "claudemesh";

/// What a node stands on, open.
pub struct Backends {
    store: Stores,
    owner: Owner,
    cluster: Arc<dyn Cluster>,
    events: ClusterEvents,
}

/// Opens what the configuration names, for one broker that serves from it.
///
/// # Errors
///
/// A sentence that says what is wrong with it, or which broker has it.
pub async fn open(config: &Config) -> anyhow::Result<Backends> {
    let store = connect_store(config).await?;
    let owner = Owner::claim(config).await?;
    migrate(&store).await?;
    let (cluster, events) = open_cluster(config, &store).await?;
    Ok(Backends { store, owner, cluster, events })
}

/// Runs a node until `shutdown`, then drains it.
///
/// # Errors
///
/// A sentence, if the node could not start or could not go on.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let backends = open(&config).await?;
    run_on(backends, config, listener, shutdown).await
}

/// As [`run`], on what is open already.
///
/// # Errors
///
/// A sentence, if the node could not go on.
pub async fn run_on(
    backends: Backends,
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    Running::start(backends, config, listener).await.until(shutdown).await
}

/// A node that serves.
struct Running {
    node: Arc<Node>,
    owner: Owner,
    background: TaskTracker,
    writers: Writers,
    accepting: TaskTracker,
}

impl Running {
    async fn start(backends: Backends, config: Config, listener: TcpListener) -> Self {
        let Backends { store, owner, cluster, events } = backends;
        let (node, writers) = assemble(config, store, cluster);
        jobs::leases::resume(&*node.stores.presence_search, &*node.cluster).await;
        let background = TaskTracker::new();
        start_background(&node, events, &background);
        let addresses = Addresses::new(&node.config);
        let door = Door {
            routes: http::routes(http_state(&node, addresses.clone())),
            half_open: HalfOpen::for_process(&node.config),
            addresses,
            always_served: http::health::PATHS,
        };
        let accepting = TaskTracker::new();
        let (tasks, stopped) = (node.life.tasks.clone(), node.life.stopped.clone());
        let accept = listener::run(listener, door, tasks, stopped);
        node.life.supervisor.spawn(&accepting, "the accept loop", accept);
        Self { node, owner, background, writers, accepting }
    }

    /// Serves until it is told to stop, or cannot go on: then its peers are sent
    /// away as far as there is time, and come back when it is started again.
    async fn until(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let supervisor = self.node.life.supervisor.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = supervisor.failed() => {}
            other = self.owner.lost() => supervisor.fail(other),
        }
        supervisor.release();
        let budget_ms = match supervisor.is_well() {
            true => self.node.config.drain.drain_ms,
            false => self.node.config.drain.drain_ms.min(limits::FAILED_DRAIN_MS),
        };
        drain(&self.node, self.background, self.writers, Duration::from_millis(budget_ms)).await;
        // It ends with `stopped`.
        self.accepting.close();
        self.accepting.wait().await;
        supervisor.failure().map_or(Ok(()), |failed| Err(failed.into()))
    }
}

fn http_state(node: &Arc<Node>, addresses: Addresses) -> Arc<HttpState> {
    let config = &node.config;
    Arc::new(HttpState {
        http: config.http.clone(),
        node: config.node.clone(),
        mode: match config.deployment {
            Deployment::Single { .. } => "single",
            Deployment::Clustered { .. } => "clustered",
        },
        body_bytes_max: config.message.message_bytes_max.max(limits::HELLO_BYTES_MAX_FLOOR),
        stores: node.stores.clone(),
        cluster: Arc::clone(&node.cluster),
        registry: Arc::clone(&node.registry),
        presence: Arc::clone(&node.presence),
        rates: Arc::clone(&node.rates),
        metrics: Arc::clone(&node.metrics),
        sampler: Arc::clone(&node.sampler),
        life: Arc::clone(&node.life),
        verifying: Arc::clone(&node.verifying),
        addresses,
        sockets: Sockets::new(Arc::clone(node)),
        admin: Admin::default(),
    })
}

/// The tasks that write, which end last.
pub(crate) struct Writers {
    tasks: TaskTracker,
    stop: CancellationToken,
}

pub(crate) fn assemble(
    config: Config,
    stores: Stores,
    cluster: Arc<dyn Cluster>,
) -> (Arc<Node>, Writers) {
    let metrics = Arc::new(Metrics::new());
    // The store has just been opened.
    metrics.db_healthy.set(1);
    let (accept, lanes) = group_commit::lanes(accept_lanes(&config));
    let (journal, openings) = PresenceWriter::new();
    let rates = Arc::new(Rates::new(
        &config.message,
        config.http.hook_rate_per_minute,
        config.http.hello_rate_per_minute,
    ));
    let life = Arc::new(Life::default());
    let writers = Writers { tasks: TaskTracker::new(), stop: CancellationToken::new() };
    let supervisor = life.supervisor.clone();
    for lane in lanes {
        let (store, metrics) = (Arc::clone(&stores.envelopes), Arc::clone(&metrics));
        let quotas = config.message.quotas;
        let lane = group_commit::run(lane, store, metrics, quotas, writers.stop.clone());
        supervisor.spawn(&writers.tasks, "the writer of sends", lane);
    }
    let opening_store = Arc::clone(&stores.presences);
    let opening_stop = writers.stop.clone();
    supervisor.spawn(&writers.tasks, "the writer of new presences", async move {
        presences::run_openings(openings, &*opening_store, opening_stop).await;
    });
    let delivery = Arc::new(delivery::Parts {
        config: config.message.clone(),
        members: Arc::clone(&stores.members),
        mail: Arc::clone(&stores.mail),
        cluster: Arc::clone(&cluster),
        group_commit: accept,
        drains: Semaphore::new(limits::DRAINS_READING_MAX),
        rates: Arc::clone(&rates),
        metrics: Arc::clone(&metrics),
        life: Arc::clone(&life),
    });
    let registry = Arc::new(Registry::default());
    let presence = Arc::new(presence::Parts {
        config: config.presence.clone(),
        members: Arc::clone(&stores.members),
        presences: Arc::clone(&stores.presences),
        cluster: Arc::clone(&cluster),
        registry: Arc::clone(&registry),
        writer: journal,
        delivery: Arc::clone(&delivery),
        metrics: Arc::clone(&metrics),
        life: Arc::clone(&life),
        member_changes: AtomicU64::new(0),
        unsettled_ends: Mutex::default(),
    });
    let confirmations = Arc::new(Confirmations::default());
    let admission = Arc::new(admission::Parts {
        node: config.node.clone(),
        claim_ms: config.message.claim_ms,
        members: Arc::clone(&stores.members),
        mail: Arc::clone(&stores.mail),
        presences: Arc::clone(&stores.presences),
        presence: Arc::clone(&presence),
        confirmations: Arc::clone(&confirmations),
        rates: Arc::clone(&rates),
    });
    let verifying = Arc::new(Semaphore::new(1));
    let features = Arc::new(features::Parts {
        stores: stores.clone(),
        presence: Arc::clone(&presence),
        cluster: Arc::clone(&cluster),
        confirmations: Arc::clone(&confirmations),
        rates: Arc::clone(&rates),
        metrics: Arc::clone(&metrics),
        verifying: Arc::clone(&verifying),
        life: Arc::clone(&life),
    });
    let sampler = Arc::new(Sampler {
        node: config.node.clone(),
        database: Arc::clone(&stores.database),
        cluster: Arc::clone(&cluster),
        registry: Arc::clone(&registry),
        metrics: Arc::clone(&metrics),
        life: Arc::clone(&life),
        vitals: Vitals::new(life.started),
    });
    let node = Arc::new(Node {
        config,
        stores,
        cluster,
        registry,
        delivery,
        presence,
        admission,
        features,
        confirmations,
        verifying,
        rates,
        metrics,
        sampler,
        life,
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
    let (confirmations, mail) = (Arc::clone(&node.confirmations), Arc::clone(&node.stores.mail));
    let stop = writers.stop.clone();
    node.life.supervisor.spawn(&writers.tasks, "the writer of confirmations", async move {
        confirmations.run(&*mail, stop.cancelled()).await;
    });
    let (presence, stop) = (Arc::clone(&node.presence), writers.stop.clone());
    node.life.supervisor.spawn(&writers.tasks, "the writer of presence changes", async move {
        presence.writer.run_changes(&*presence.presences, stop.cancelled()).await;
    });
}

fn start_background(node: &Arc<Node>, events: ClusterEvents, background: &TaskTracker) {
    let bus = bus::run(Arc::clone(&node.presence), events);
    node.life.supervisor.spawn(background, "the reader of the bus", bus);
    let (failed, stopped) = (node.cluster.failed(), node.life.stopped.clone());
    node.life.supervisor.spawn(background, "the work behind Redis", async move {
        tokio::select! {
            () = failed.cancelled() => {}
            () = stopped.cancelled() => {}
        }
    });
    let jobs = jobs::Parts {
        stores: node.stores.clone(),
        presence: Arc::clone(&node.presence),
        sampler: Arc::clone(&node.sampler),
        infers_status: node.config.infers_status(),
    };
    jobs::start(&Arc::new(jobs), background);
}

/// Not ready at once; sockets closed in waves, so that their peers do not all
/// arrive elsewhere in one moment; then the writers, then the rest. Sockets
/// have two thirds of the time at most: what is accepted must reach the disk.
async fn drain(node: &Arc<Node>, background: TaskTracker, writers: Writers, budget: Duration) {
    let begun = Instant::now();
    node.life.draining.cancel();
    tracing::info!(sockets = node.registry.sessions(), "draining");
    // Operators see it at once; nobody waits for that.
    let sampler = Arc::clone(&node.sampler);
    node.life.tasks.spawn(async move { sampler.announce().await });
    close_in_waves(node, budget / 3).await;
    node.life.stopped.cancel();
    node.life.tasks.close();
    background.close();
    let sockets = async {
        if tokio::time::timeout(STRAGGLER_PATIENCE.min(budget / 6), node.life.tasks.wait())
            .await
            .is_err()
        {
            abort_stragglers(node);
            node.life.tasks.wait().await;
        }
        background.wait().await;
    };
    let sockets_left = budget / 3 * 2;
    if tokio::time::timeout(sockets_left.saturating_sub(begun.elapsed()), sockets).await.is_err() {
        let tasks = node.life.tasks.len();
        tracing::warn!(tasks, "some sockets did not end in time; their leases run out");
    }
    writers.stop.cancel();
    writers.tasks.close();
    let writing = async {
        writers.tasks.wait().await;
        // Beside each other: a Redis that does not answer costs its own time.
        tokio::join!(node.cluster.close(), node.stores.database.close());
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn start(folder: &std::path::Path) -> (Running, std::net::SocketAddr) {
        let config = Config::for_tests(folder);
        let backends = open(&config).await.expect("open");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        (Running::start(backends, config, listener).await, address)
    }

    #[tokio::test]
    async fn a_job_that_panics_ends_the_node_with_a_sentence() {
        let folder = tempfile::tempdir().expect("a folder");
        let (running, address) = start(folder.path()).await;
        let node = Arc::clone(&running.node);
        assert!(node.life.is_ready());
        let doom = async |_: Arc<Node>| panic!("on purpose");
        jobs::every(&node.life, &running.background, Duration::from_millis(1), &node, doom);
        node.life.supervisor.failed().await;
        assert!(!node.life.is_ready());
        // Before it has stopped, it says so itself.
        let mut client = TcpStream::connect(address).await.expect("it still answers");
        let ask = "GET /health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        client.write_all(ask.as_bytes()).await.expect("open");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("failing"), "{answer}");
        let error = running.until(CancellationToken::new()).await.expect_err("it cannot go on");
        let text = error.to_string();
        assert!(text.contains("the job at src/app.rs") && text.contains("panicked"), "{text}");
        assert!(text.contains("has stopped"), "{text}");
    }

    #[tokio::test]
    async fn every_task_of_a_node_that_stops_may_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let (running, _) = start(folder.path()).await;
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        running.until(shutdown).await.expect("a clean stop");
        let (again, _) = start(folder.path()).await;
        assert!(open(&again.node.config).await.is_err_and(|it| it.to_string().contains("process")));
    }
}
