//! Clusters that share a Redis, and nodes of one that sign otherwise.

use claudemesh_broker::cluster::Cluster;
use claudemesh_broker::cluster::redis::seals::ClusterKey;

use super::*;

async fn start(settings: RedisSettings) -> TestNode {
    let (cluster, events) = RedisCluster::connect(settings).await.unwrap();
    TestNode { cluster, events }
}

/// Two nodes of one cluster each, with the same mesh.
async fn assert_apart(one: RedisSettings, other: RedisSettings) {
    let (mut one, mut other) = (start(one).await, start(other).await);
    let mesh = MeshId::generate();
    for node in [&one, &other] {
        node.cluster.join_mesh(&mesh).await.unwrap();
    }
    let held = enter(&one, &session(&mesh, "ada", "one"), 1).await.unwrap();
    let ada = PresenceRecord::clone(&held.record);
    let presence = BusMessage::Presence { record: Box::new(ada), event: None };
    for node in [&mut one, &mut other] {
        // The subscription's own gap.
        node.settle(A_MOMENT).await;
        node.cluster.publish(&mesh, &presence);
        node.cluster.publish(&mesh, &numbered(1));
    }
    one.silence(A_MOMENT).await;
    other.silence(A_MOMENT).await;
    assert!(other.cluster.directory(&mesh).await.unwrap().is_empty());
    assert!(enter(&other, &session(&mesh, "bob", "other"), 1).await.is_some(), "its own cap");
    assert!(one.cluster.use_once(&[3; 32], 60_000).await.unwrap());
    assert!(other.cluster.use_once(&[3; 32], 60_000).await.unwrap());
    for node in [&one, &other] {
        assert_eq!((node.cluster.health(), node.cluster.refused()), (ClusterHealth::Up, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_on_two_databases_of_one_redis_do_not_meet() {
    let server = PrivateRedis::start();
    let [production, staging] = [0, 1].map(|number| RedisSettings {
        url: server.url_of_database(number),
        ..settings(&server, "n")
    });
    assert_apart(production, staging).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_of_two_stores_on_one_database_do_not_meet() {
    let server = PrivateRedis::start();
    let other = ClusterKey { id: "other".to_owned(), ..test_key() };
    let other = RedisSettings { cluster_key: other, ..settings(&server, "n") };
    assert_apart(settings(&server, "n"), other).await;
}

fn with_secrets(server: &PrivateRedis, name: &str, secrets: &[&str]) -> RedisSettings {
    let mut secrets = secrets.iter().map(|secret| secret.as_bytes().to_vec());
    let secret = secrets.next().unwrap();
    let cluster_key = ClusterKey { secret, others: secrets.collect(), ..test_key() };
    RedisSettings { cluster_key, ..settings(server, name) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_secret_is_degraded_and_says_so() {
    let server = PrivateRedis::start();
    let right = start(with_secrets(&server, "right", &["one"])).await;
    assert_eq!(right.cluster.trouble(), None);
    let wrong = start(with_secrets(&server, "wrong", &["two"])).await;
    for node in [&right, &wrong] {
        until_health(node, ClusterHealth::Degraded).await;
        let trouble = node.cluster.trouble().unwrap();
        assert!(trouble.contains("CLUSTER_SECRET"), "{trouble}");
    }
    let facts = examine(&with_secrets(&server, "doctor", &["one"])).await.unwrap();
    assert_eq!(facts.strangers, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_rotated_node_by_node_and_nothing_is_unheard() {
    let server = PrivateRedis::start();
    let mesh = MeshId::generate();
    let steps: [&[&str]; 4] = [&["old"], &["old", "new"], &["new", "old"], &["new"]];
    for pair in steps.windows(2) {
        let mut first = start(with_secrets(&server, "first", pair[0])).await;
        let mut second = start(with_secrets(&server, "second", pair[1])).await;
        for node in [&first, &second] {
            node.cluster.join_mesh(&mesh).await.unwrap();
        }
        super::bus::until_heard(&first, &mut second, &mesh).await;
        super::bus::until_heard(&second, &mut first, &mesh).await;
        let held = enter(&first, &session(&mesh, "ada", "first"), 5).await.unwrap();
        assert_eq!(second.cluster.directory(&mesh).await.unwrap().len(), 1);
        let moved = enter(&second, &session(&mesh, "ada", "second"), 5).await.unwrap();
        assert_eq!(moved.lease.presence, held.lease.presence);
        assert!(release(&second, &moved, Release::Now).await);
        for node in [&first, &second] {
            assert_eq!((node.cluster.trouble(), node.cluster.refused()), (None, 0));
            node.cluster.close().await;
        }
        server.flush_all();
    }
}
