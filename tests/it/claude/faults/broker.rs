//! The broker of a session, and what befalls it.

use std::net::SocketAddr;
use std::time::Duration;

use claudemesh_broker::client::{Client, ClientOptions, Inbox};
use claudemesh_broker::id::MeshId;
use claudemesh_broker::store::Role;
use tokio::time::Instant;

use crate::harness::node::new_member;
use crate::harness::proxy::{Fault as Wire, Proxy};
use crate::harness::{BrokerProcess, Cluster, Member, Setup};

/// For one that has lost its broker to come back: it tries ever more rarely.
const RETURN: Duration = Duration::from_secs(60);

/// Waits until `check` says so, as long as a return may take.
pub async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut check: F) {
    let deadline = Instant::now() + RETURN;
    while !check().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What befalls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a start on the same data.
    Killed,
    /// SIGKILL of the session's node of three; another one serves the session.
    Moved,
    /// The session's way to it is cut until its presence has ended.
    Away,
}

/// A broker of one node or three, and the session's way to it.
pub struct Broker {
    pub fault: Fault,
    processes: Vec<BrokerProcess>,
    /// The session's node.
    at: usize,
    proxy: Proxy,
    _cluster: Option<Cluster>,
}

impl Broker {
    pub async fn start(fault: Fault) -> Self {
        let (mut cluster, processes) = match fault {
            Fault::Killed => (None, vec![BrokerProcess::start(&[]).await]),
            Fault::Away => {
                let short = [("LEASE_TTL_SECONDS", "3"), ("LEASE_GRACE_SECONDS", "1")];
                (None, vec![BrokerProcess::start(&short).await])
            }
            Fault::Moved => (Some(Setup::new(3).start_processes().await), Vec::new()),
        };
        let processes = match &mut cluster {
            Some(cluster) => std::mem::take(&mut cluster.processes),
            None => processes,
        };
        let proxy = Proxy::start(address(&processes[0])).await;
        Self { fault, processes, at: 0, proxy, _cluster: cluster }
    }

    pub fn mesh(&self) -> &MeshId {
        &self.processes[0].mesh
    }

    /// Where the session finds it.
    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.proxy.address)
    }

    pub async fn member(&self, name: &str) -> Member {
        let broker = &self.processes[0];
        new_member(&broker.store, &broker.mesh, &broker.owner, name, Role::Member).await
    }

    /// A client by a way that nothing befalls.
    pub async fn connect(&self, options: ClientOptions) -> (Client, Inbox) {
        self.processes[self.processes.len() - 1].connect(options).await
    }

    /// Whether others than the session are served while it lasts.
    pub fn serves_others(&self) -> bool {
        self.fault != Fault::Killed
    }

    pub async fn until_here(&self, client: &Client) {
        eventually("the session is in the mesh", async || is_here(client).await).await;
    }

    /// From here on the session has no broker.
    pub async fn breaks(&mut self, other: &Client) {
        match self.fault {
            Fault::Killed | Fault::Moved => self.processes[self.at].kill9().await,
            Fault::Away => {
                self.proxy.set(Wire::Cut);
                eventually("its presence ends", async || !is_here(other).await).await;
            }
        }
    }

    /// From here on it has one again.
    pub async fn heals(&mut self) {
        match self.fault {
            Fault::Killed => self.processes[0].start_again().await,
            Fault::Away => self.proxy.set(Wire::Pass),
            Fault::Moved => {
                let killed = self.at;
                self.at = 1 - killed;
                self.proxy.lead_to(address(&self.processes[self.at]));
                self.processes[killed].start_again().await;
            }
        }
    }
}

async fn is_here(client: &Client) -> bool {
    let peers = client.list_peers().await.expect("a list");
    peers.iter().any(|peer| peer.display_name == "ada")
}

fn address(broker: &BrokerProcess) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], broker.port))
}
