//! The composition root: one node from its configuration to its end.
//!
//! Behaviour lives in the rooms; here they are only made, started and stopped in order.
//! The command line calls, and the integration tests.
//!
//! - [`backends`]: the store and the cluster that the configuration names
//! - [`owner`]: whose store it is
//! - [`assembly`]: the parts of a node
//! - [`mod@drain`]: how it ends

mod assembly;
mod backends;
mod drain;
mod owner;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::assembly::assemble;
pub use self::backends::{connect_store, open_store, redis_settings};

use self::assembly::{Writers, http_state};
use self::backends::{migrate, open_cluster};
use self::drain::drain;
use self::owner::Owner;
use crate::bus;
use crate::cluster::{Cluster, ClusterEvents};
use crate::config::Config;
use crate::http;
use crate::jobs;
use crate::limits;
use crate::node::Node;
use crate::socket::address::Addresses;
use crate::socket::half_open::HalfOpen;
use crate::socket::listener::{self, Door};
use crate::store::Stores;

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
        // The accept loop ends with `stopped`.
        self.accepting.close();
        self.accepting.wait().await;
        supervisor.failure().map_or(Ok(()), |failed| Err(failed.into()))
    }
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
        webhooks: Arc::clone(&node.webhooks),
        infers_status: node.config.infers_status(),
        audit: jobs::HeadSigner::new(node.config.audit.clone()),
    };
    jobs::start(&Arc::new(jobs), background);
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
        let taken = open(&again.node.config).await.err().map(|error| error.to_string());
        assert!(taken.is_some_and(|text| text.contains("process")), "its store has an owner");
    }
}
