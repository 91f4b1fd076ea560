//! A Redis that moves: to another server, or a slot of it to another shard.

use claudemesh_broker::cluster::Cluster;

use super::bus::{pair, until_heard};
use super::*;
use crate::harness::proxy::Proxy;

pub(super) async fn node_by(proxy: &Proxy, server: &PrivateRedis, name: &str) -> TestNode {
    let url = format!("redis://{}/", proxy.address);
    let url = claudemesh_broker::config::SecretUrl::parse(&url).unwrap();
    let settings = RedisSettings { url, ..settings(server, name) };
    let (cluster, events) = RedisCluster::connect(settings).await.unwrap();
    TestNode { cluster, events }
}

/// The name leads to the new primary, the old one follows it, and no connection
/// is cut: only writes tell.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_that_cuts_nothing_all_connections_move() {
    let (old, new) = (PrivateRedis::start(), PrivateRedis::start());
    let proxy = Proxy::start(old.address()).await;
    let mut first = node_by(&proxy, &old, "first").await;
    let second = node_by(&proxy, &old, "second").await;
    let mesh = MeshId::generate();
    for node in [&first, &second] {
        node.cluster.join_mesh(&mesh).await.unwrap();
    }
    proxy.lead_to(new.address());
    let mut follow = redis::cmd("REPLICAOF");
    follow.arg("127.0.0.1").arg(new.address().port());
    old.query::<()>(&follow);
    // One node begins again, and is on the new server.
    drop(second);
    let mut second = node_by(&proxy, &old, "second").await;
    second.cluster.join_mesh(&mesh).await.unwrap();
    until_heard(&first, &mut second, &mesh).await;
    until_heard(&second, &mut first, &mesh).await;
    until_health(&first, ClusterHealth::Up).await;
    let clients: String = old.query(redis::cmd("CLIENT").arg("LIST"));
    assert!(!clients.contains("claudemesh/"), "nobody stayed: {clients}");
}

/// The slot of a hash tag, as Redis Cluster has it.
fn slot(tag: &str) -> usize {
    let mut crc = 0_u16;
    for byte in tag.bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    usize::from(crc % 16_384)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_whose_slot_moves_is_subscribed_to_again() {
    assert_eq!(slot("123456789"), 0x31c3);
    let server = PrivateRedis::start_cluster();
    let (mut first, mut second, mesh) = pair(&server, true).await;
    server.move_slot(slot(mesh.as_str()));
    first.gap(&mesh).await;
    second.gap(&mesh).await;
    until_heard(&first, &mut second, &mesh).await;
    until_heard(&second, &mut first, &mesh).await;
}
