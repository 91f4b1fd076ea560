//! A node's parts, made and tied together, and the tasks that write for them.
//!
//! Each room is handed the parts that it uses and nothing else. Nothing here opens a
//! back end or a socket. The root calls, once for a node.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts::Keys;
use crate::cluster::Cluster;
use crate::config::{Config, Deployment, StoreConfig};
use crate::events::shared;
use crate::http::HttpState;
use crate::http::accounts::Stats;
use crate::http::admin::Admin;
use crate::http::api::Streams;
use crate::jobs::sample::Sampler;
use crate::life::Life;
use crate::limits;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::rates::Rates;
use crate::registry::Registry;
use crate::relay::Relay;
use crate::socket::address::Addresses;
use crate::socket::connection::Sockets;
use crate::store::Stores;
use crate::vitals::Vitals;
use crate::webhooks::noted::Noted;
use crate::writers::confirmations::Confirmations;
use crate::writers::group_commit::{self, CommitLane};
use crate::writers::presences::{self, Openings, PresenceWriter};
use crate::writers::states::{self, StateWrites};
use crate::{admission, delivery, features, presence, webhooks};

/// The tasks that write, which end last.
pub(crate) struct Writers {
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// A node's parts, with the writers running.
pub(crate) fn assemble(
    config: Config,
    stores: Stores,
    cluster: Arc<dyn Cluster>,
) -> (Arc<Node>, Writers) {
    let metrics = Arc::new(Metrics::new());
    // The store has just been opened.
    metrics.db_healthy.set(1);
    let (group_commit, lanes) = group_commit::lanes(accept_lanes(&config));
    let (writer, openings) = PresenceWriter::new();
    let rates = Arc::new(Rates::new(
        &config.message,
        config.http.hook_rate_per_minute,
        config.http.hello_rate_per_minute,
    ));
    let life = Arc::new(Life::default());
    let writers = Writers { tasks: TaskTracker::new(), stop: CancellationToken::new() };
    let noted = Arc::new(Noted::default());
    let base_url = config.webhooks.base_url(&config.http, config.listen.port);
    let webhooks = Arc::new(webhooks::Parts::new(
        &config.webhooks,
        base_url,
        Arc::clone(&stores.webhooks),
        Arc::clone(&noted),
        Arc::clone(&life),
    ));
    let delivery = Arc::new(delivery::Parts {
        config: config.message.clone(),
        members: Arc::clone(&stores.members),
        mail: Arc::clone(&stores.mail),
        stages: Arc::clone(&stores.stages),
        topics: Arc::clone(&stores.topic_mail),
        cluster: Arc::clone(&cluster),
        group_commit,
        noted,
        drains: Semaphore::new(limits::DRAINS_READING_MAX),
        rates: Arc::clone(&rates),
        metrics: Arc::clone(&metrics),
        life: Arc::clone(&life),
    });
    let (states, state_writes) = states::writer();
    let gathered = Gathered { lanes, openings, state_writes };
    start_leaders(gathered, &stores, &delivery, &writers);
    let registry = Arc::new(Registry::default());
    let shared = Arc::new(shared::Parts {
        states: Arc::clone(&stores.states),
        tasks: Arc::clone(&stores.tasks),
        contexts: Arc::clone(&stores.contexts),
        mail: Arc::clone(&stores.mail),
        cluster: Arc::clone(&cluster),
        life: Arc::clone(&life),
    });
    let presence = Arc::new(presence::Parts {
        config: config.presence.clone(),
        members: Arc::clone(&stores.members),
        presences: Arc::clone(&stores.presences),
        cluster: Arc::clone(&cluster),
        registry: Arc::clone(&registry),
        writer,
        delivery: Arc::clone(&delivery),
        mcp_servers: Arc::clone(&stores.mcp_servers),
        relay: Arc::new(Relay::new(config.node.id.clone(), Arc::clone(&cluster))),
        shared: Arc::clone(&shared),
        metrics: Arc::clone(&metrics),
        life: Arc::clone(&life),
        member_changes: AtomicU64::new(0),
        unsettled_ends: Mutex::default(),
    });
    let confirmations = Arc::new(Confirmations::default());
    let keys = Arc::new(Keys::new(Arc::clone(&stores.accounts)));
    let admission = Arc::new(admission::Parts {
        node: config.node.clone(),
        claim_ms: config.message.claim_ms,
        members: Arc::clone(&stores.members),
        invites: Arc::clone(&stores.invites),
        mail: Arc::clone(&stores.mail),
        topics: Arc::clone(&stores.topic_mail),
        presences: Arc::clone(&stores.presences),
        presence: Arc::clone(&presence),
        confirmations: Arc::clone(&confirmations),
        rates: Arc::clone(&rates),
        marks: matches!(config.deployment, Deployment::Clustered { .. }).then(|| Arc::clone(&keys)),
    });
    let verifying = Arc::new(Semaphore::new(1));
    let features = Arc::new(features::Parts {
        stores: stores.clone(),
        presence: Arc::clone(&presence),
        cluster: Arc::clone(&cluster),
        confirmations: Arc::clone(&confirmations),
        states,
        webhooks: Arc::clone(&webhooks),
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
        keys,
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
        webhooks,
        life,
    });
    start_followers(&node, &writers);
    (node, writers)
}

/// What the writers read.
struct Gathered {
    lanes: Vec<CommitLane<delivery::send::PendingSend>>,
    openings: Openings,
    state_writes: StateWrites,
}

/// The writers that peers wait for: sends, new presences, shared state.
fn start_leaders(
    Gathered { lanes, openings, state_writes }: Gathered,
    stores: &Stores,
    parts: &delivery::Parts,
    Writers { tasks, stop }: &Writers,
) {
    let supervisor = &parts.life.supervisor;
    for lane in lanes {
        let (store, metrics) = (Arc::clone(&stores.envelopes), Arc::clone(&parts.metrics));
        let lane = group_commit::run(lane, store, metrics, parts.config.quotas, stop.clone());
        supervisor.spawn(tasks, "the writer of sends", lane);
    }
    let (store, ends) = (Arc::clone(&stores.presences), stop.clone());
    supervisor.spawn(tasks, "the writer of new presences", async move {
        presences::run_openings(openings, &*store, ends).await;
    });
    let (store, ends) = (Arc::clone(&stores.states), stop.clone());
    supervisor.spawn(tasks, "the writer of shared state", async move {
        states::run(state_writes, &*store, ends).await;
    });
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

pub(super) fn http_state(node: &Arc<Node>, addresses: Addresses) -> Arc<HttpState> {
    let config = &node.config;
    Arc::new(HttpState {
        http: config.http.clone(),
        accounts: config.accounts.clone(),
        has_accounts: config.has_accounts(),
        node: config.node.clone(),
        mode: match config.deployment {
            Deployment::Single { .. } => "single",
            Deployment::Clustered { .. } => "clustered",
        },
        body_bytes_max: config.message.message_bytes_max.max(limits::HELLO_BYTES_MAX_FLOOR),
        stores: node.stores.clone(),
        keys: Arc::clone(&node.keys),
        cluster: Arc::clone(&node.cluster),
        registry: Arc::clone(&node.registry),
        presence: Arc::clone(&node.presence),
        rates: Arc::clone(&node.rates),
        metrics: Arc::clone(&node.metrics),
        sampler: Arc::clone(&node.sampler),
        webhooks: Arc::clone(&node.webhooks),
        life: Arc::clone(&node.life),
        verifying: Arc::clone(&node.verifying),
        addresses,
        sockets: Sockets::new(Arc::clone(node)),
        admin: Admin::default(),
        stats: Stats::default(),
        topic_streams: Streams::default(),
    })
}
