//! What only a cluster over Redis does: the bus, its gaps, and life without
//! Redis.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod apart;
mod bus;
mod forged;
mod health;
mod moves;
mod outage;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use claudemesh_broker::cluster::redis::{RedisCluster, RedisSettings, examine};
use claudemesh_broker::cluster::{
    Acquired, BusMessage, Cluster, ClusterEvent, ClusterEvents, ClusterHealth, Draw, HeldLease,
    Release,
};
use claudemesh_broker::id::{Key, MeshId, NodeId, PresenceId};
use claudemesh_broker::protocol::Status;
use claudemesh_broker::record::PresenceRecord;

use crate::harness::redis::{PrivateRedis, test_key};

/// With the cluster's id, and the number of the database.
const PREFIX: &str = "test:of-tests:0";

/// Longer than anything here takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is under way between two nodes has arrived.
const A_MOMENT: Duration = Duration::from_millis(300);

/// Every beat that tells of something missing has come.
const ALL_BEATS: Duration = Duration::from_secs(4);

struct TestNode {
    cluster: Arc<RedisCluster>,
    events: ClusterEvents,
}

async fn node(server: &PrivateRedis, name: &str) -> TestNode {
    node_with(server, name, false, 60_000).await
}

async fn node_with(
    server: &PrivateRedis,
    name: &str,
    cluster_mode: bool,
    lease_ttl_ms: u64,
) -> TestNode {
    let settings = RedisSettings { cluster_mode, lease_ttl_ms, ..settings(server, name) };
    let (cluster, events) = RedisCluster::connect(settings).await.unwrap();
    TestNode { cluster, events }
}

fn settings(server: &PrivateRedis, name: &str) -> RedisSettings {
    RedisSettings {
        url: server.url(),
        cluster_mode: false,
        ca_file: None,
        node: NodeId::from(name),
        region: Some("test region".to_owned()),
        lease_grace_ms: 60_000,
        lease_ttl_ms: 60_000,
        key_prefix: "test".to_owned(),
        cluster_key: test_key(),
    }
}

impl TestNode {
    async fn event(&mut self) -> ClusterEvent {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        event.expect("an event in time").expect("an open channel")
    }

    /// Waits for a gap of this mesh; messages before it are dropped.
    async fn gap(&mut self, expected: &MeshId) {
        loop {
            if let ClusterEvent::Gap { mesh } = self.event().await {
                assert_eq!(mesh, *expected);
                return;
            }
        }
    }

    /// The numbers of the next messages; a gap is a failure.
    async fn numbers(&mut self, count: usize) -> Vec<u32> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            match self.event().await {
                ClusterEvent::Message { message, .. } => numbers.push(number_of(&message)),
                ClusterEvent::Gap { mesh } => panic!("a gap of {mesh} after {numbers:?}"),
            }
        }
        numbers
    }

    /// Asserts that nothing comes for a while.
    async fn silence(&mut self, duration: Duration) {
        let event = tokio::time::timeout(duration, self.events.recv()).await;
        assert!(event.is_err(), "{event:?}");
    }

    /// Drops what comes until nothing does for so long.
    async fn settle(&mut self, quiet: Duration) {
        while tokio::time::timeout(quiet, self.events.recv()).await.is_ok() {}
    }
}

fn numbered(number: u32) -> BusMessage {
    BusMessage::MailFor { keys: vec![Key::from(number.to_string())], many: false }
}

fn number_of(message: &BusMessage) -> u32 {
    match message {
        BusMessage::MailFor { keys, .. } => keys[0].as_str().parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_health(node: &TestNode, health: ClusterHealth) {
    until(&format!("{health:?}"), async || node.cluster.health() == health).await;
}

fn session(mesh: &MeshId, name: &str, node: &str) -> PresenceRecord {
    PresenceRecord { node: node.to_owned(), online: true, ..super::session(mesh, name) }
}

async fn enter(node: &TestNode, record: &PresenceRecord, cap: u32) -> Option<HeldLease> {
    match node.cluster.acquire(record, cap).await.unwrap() {
        Acquired::New { lease, .. } => {
            let record = PresenceRecord { epoch: lease.epoch, ..record.clone() };
            Some(HeldLease { lease, record: Arc::new(record) })
        }
        Acquired::Reattached { lease, record } => {
            Some(HeldLease { lease, record: Arc::from(record) })
        }
        Acquired::AtCapacity { .. } => None,
    }
}

async fn online_in(node: &TestNode, mesh: &MeshId) -> usize {
    let rows = node.cluster.directory(mesh).await.unwrap_or_default();
    rows.iter().filter(|row| row.online).count()
}

fn kill_connections(server: &PrivateRedis, kind: &str) {
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg(kind).arg("SKIPME").arg("yes");
    let killed: u32 = server.query(&kill);
    assert!(killed > 0);
}

async fn release(node: &TestNode, held: &HeldLease, how: Release) -> bool {
    node.cluster.release(&held.lease, how).await.unwrap()
}
