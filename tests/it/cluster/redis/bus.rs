//! Frames between nodes, and how a missing one is noticed.

use claudemesh_broker::cluster::BusDelivery;
use claudemesh_broker::cluster::redis::seals::{FrameWords, Seals};
use claudemesh_broker::protocol::Push;
use serde_json::json;

use super::*;

pub(super) async fn pair(
    server: &PrivateRedis,
    cluster_mode: bool,
) -> (TestNode, TestNode, MeshId) {
    let mut first = node_with(server, "first", cluster_mode, 60_000).await;
    let mut second = node_with(server, "second", cluster_mode, 60_000).await;
    let mesh = MeshId::generate();
    first.cluster.join_mesh(&mesh).await.unwrap();
    second.cluster.join_mesh(&mesh).await.unwrap();
    // A node that believes itself alone in a mesh sends nothing: each must have
    // heard of the other.
    until_heard(&first, &mut second, &mesh).await;
    until_heard(&second, &mut first, &mesh).await;
    first.settle(A_MOMENT).await;
    second.settle(A_MOMENT).await;
    (first, second, mesh)
}

/// Publishes until the last that was published is heard; drops what comes before.
pub(super) async fn until_heard(from: &TestNode, to: &mut TestNode, mesh: &MeshId) {
    for number in 1_000_000..1_000_100 {
        from.cluster.publish(mesh, &numbered(number));
        let heard = async {
            loop {
                if let ClusterEvent::Message { message, .. } = to.event().await
                    && number_of(&message) == number
                {
                    return;
                }
            }
        };
        if tokio::time::timeout(A_MOMENT, heard).await.is_ok() {
            return;
        }
    }
    panic!("the nodes do not hear each other");
}

async fn frames_arrive_in_order(cluster_mode: bool) {
    let server = if cluster_mode { PrivateRedis::start_cluster() } else { PrivateRedis::start() };
    let (mut first, mut second, mesh) = pair(&server, cluster_mode).await;
    for number in 0..2000 {
        first.cluster.publish(&mesh, &numbered(number));
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(second.numbers(2000).await, (0..2000).collect::<Vec<_>>());
    second.cluster.publish(&mesh, &numbered(7));
    assert_eq!(first.numbers(1).await, [7], "own frames do not come back");
    // Nor do the beats that follow find anything missing.
    first.silence(Duration::from_secs(3)).await;
    second.silence(Duration::from_millis(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_arrive_in_order_and_own_ones_do_not() {
    frames_arrive_in_order(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_arrive_in_order_over_a_redis_cluster() {
    frames_arrive_in_order(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_arrives_whole() {
    let server = PrivateRedis::start();
    let (first, mut second, mesh) = pair(&server, false).await;
    let push: Push = serde_json::from_value(json!({
        "messageId": "m1", "meshId": mesh.as_str(), "senderPubkey": "ab", "priority": "now",
        "nonce": "AAEC", "ciphertext": "/////w==", "createdAt": "2026-01-01T00:00:00.000Z",
    }))
    .unwrap();
    let delivery = BusDelivery { seq: i64::MAX - 3, push: Box::new(push), resumed: false };
    let presence = PresenceId::generate();
    let sent = BusMessage::Direct { presence, delivery };
    first.cluster.publish(&mesh, &sent);
    let ClusterEvent::Message { message, .. } = second.event().await else { panic!("a gap") };
    let as_json = |message: &BusMessage| serde_json::to_value(message).unwrap();
    assert_eq!(as_json(&message), as_json(&sent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_that_was_left_is_silent_and_other_meshes_are_not() {
    let server = PrivateRedis::start();
    let (first, mut second, mesh) = pair(&server, false).await;
    let other = MeshId::generate();
    second.cluster.join_mesh(&other).await.unwrap();
    // Joined twice, left once: still joined.
    second.cluster.join_mesh(&mesh).await.unwrap();
    second.cluster.leave_mesh(&mesh).await;
    first.cluster.publish(&mesh, &numbered(1));
    assert_eq!(second.numbers(1).await, [1]);
    second.cluster.leave_mesh(&mesh).await;
    first.cluster.publish(&mesh, &numbered(2));
    // A node that has not joined can publish: a reaper does.
    first.cluster.publish(&other, &numbered(3));
    assert_eq!(second.numbers(1).await, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_published_alone_and_a_newcomer_is_told_that_it_may_have_missed_some() {
    let server = PrivateRedis::start();
    let mut first = node(&server, "first").await;
    let mesh = MeshId::generate();
    first.cluster.join_mesh(&mesh).await.unwrap();
    let listening = redis::Client::open(server.url().expose()).unwrap();
    let mut listening = listening.get_connection().unwrap();
    let mut heard = listening.as_pubsub();
    heard.subscribe(format!("{PREFIX}:{{{mesh}}}:bus")).unwrap();
    heard.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    first.cluster.publish(&mesh, &numbered(1));
    let published = tokio::task::block_in_place(|| heard.get_message());
    assert!(published.is_err(), "published to nobody");

    let mut second = node(&server, "second").await;
    second.cluster.join_mesh(&mesh).await.unwrap();
    second.gap(&mesh).await;
    first.cluster.publish(&mesh, &numbered(2));
    assert_eq!(second.numbers(1).await, [2]);
    assert!(tokio::task::block_in_place(|| heard.get_message()).is_ok());
    // What a node says itself does not come back to it.
    while let Ok(event) = first.events.try_recv() {
        assert!(matches!(event, ClusterEvent::Gap { .. }), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_a_later_release_are_skipped() {
    let server = PrivateRedis::start();
    let (first, mut second, mesh) = pair(&server, false).await;
    let seals = Seals::new(&test_key());
    let channel = format!("{PREFIX}:{{{mesh}}}:bus");
    let publish = |seq: u64, body: serde_json::Value| {
        let body = rmp_serde::to_vec_named(&body).unwrap();
        let signature = seals.sign_frame(&FrameWords {
            channel: &channel,
            node: "later",
            incarnation: 1,
            seq,
            first: false,
            body: Some(&body),
            control: None,
        });
        let frame = rmp_serde::to_vec_named(&LaterFrame {
            v: 2,
            node: "later",
            incarnation: 1,
            seq,
            news: vec![1, 2],
            body: serde_bytes::ByteBuf::from(body),
            signature: serde_bytes::ByteBuf::from(signature),
        });
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&channel).arg(frame.unwrap());
        assert_eq!(server.query::<u32>(&publish), 2);
    };
    publish(1, json!({"kind": "not_known_yet", "x": 1}));
    second.gap(&mesh).await;
    publish(2, json!({"kind": "mail_for", "keys": ["5"], "hint": true}));
    assert_eq!(second.numbers(1).await, [5]);
    publish(4, json!({"kind": "mail_for", "keys": ["6"]}));
    second.gap(&mesh).await;
    let mut garbage = redis::cmd("PUBLISH");
    garbage.arg(format!("{PREFIX}:{{{mesh}}}:bus")).arg(&b"\xff\x00garbage"[..]);
    server.query::<u32>(&garbage);
    first.cluster.publish(&mesh, &numbered(9));
    while number_of_event(second.event().await) != Some(9) {}
}

#[derive(serde::Serialize)]
struct LaterFrame {
    v: u32,
    node: &'static str,
    incarnation: u64,
    seq: u64,
    news: Vec<u32>,
    body: serde_bytes::ByteBuf,
    signature: serde_bytes::ByteBuf,
}

fn number_of_event(event: ClusterEvent) -> Option<u32> {
    match event {
        ClusterEvent::Message { message, .. } => Some(number_of(&message)),
        ClusterEvent::Gap { .. } => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_subscription_is_rebuilt_and_makes_a_gap() {
    let server = PrivateRedis::start();
    let (mut first, mut second, mesh) = pair(&server, false).await;
    kill_connections(&server, "pubsub");
    first.gap(&mesh).await;
    second.gap(&mesh).await;
    first.settle(A_MOMENT).await;
    second.settle(ALL_BEATS).await;
    first.cluster.publish(&mesh, &numbered(1));
    assert_eq!(second.numbers(1).await, [1]);
    assert_eq!(second.cluster.health(), ClusterHealth::Up);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_were_not_sent_make_a_gap() {
    let server = PrivateRedis::start();
    let (first, mut second, mesh) = pair(&server, false).await;
    kill_connections(&server, "normal");
    // Some of these go to a connection that is dead, or to none.
    for number in 0..20 {
        first.cluster.publish(&mesh, &numbered(number));
    }
    second.gap(&mesh).await;
    until_health(&first, ClusterHealth::Up).await;
    second.settle(ALL_BEATS).await;
    first.cluster.publish(&mesh, &numbered(99));
    assert_eq!(second.numbers(1).await, [99]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_noticed_and_makes_a_gap() {
    let server = PrivateRedis::start();
    let (mut first, mut second, mesh) = pair(&server, false).await;
    server.freeze();
    until_health(&first, ClusterHealth::Degraded).await;
    first.cluster.publish(&mesh, &numbered(1));
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.thaw();
    first.gap(&mesh).await;
    second.gap(&mesh).await;
    until_health(&first, ClusterHealth::Up).await;
    until_health(&second, ClusterHealth::Up).await;
    first.settle(ALL_BEATS).await;
    second.settle(A_MOMENT).await;
    second.cluster.publish(&mesh, &numbered(2));
    assert_eq!(first.numbers(1).await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_read_gets_gaps_not_memory() {
    let server = PrivateRedis::start();
    let (first, mut second, mesh) = pair(&server, false).await;
    let keys = vec![Key::from("k".repeat(1000))];
    for number in 0..20_000 {
        first.cluster.publish(&mesh, &BusMessage::MailFor { keys: keys.clone(), many: false });
        if number % 64 == 0 {
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut messages = 0;
    loop {
        match second.event().await {
            ClusterEvent::Message { .. } => messages += 1,
            ClusterEvent::Gap { mesh: of } => {
                assert_eq!(of, mesh);
                break;
            }
        }
    }
    assert!(messages < 20_000, "{messages}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_before_closing_is_sent() {
    let server = PrivateRedis::start();
    let (first, mut second, mesh) = pair(&server, false).await;
    for number in 0..500 {
        first.cluster.publish(&mesh, &numbered(number));
    }
    first.cluster.close().await;
    assert_eq!(second.numbers(500).await, (0..500).collect::<Vec<_>>());
    drop(first);
    let mut members = redis::cmd("ZRANGE");
    members.arg(format!("{PREFIX}:{{{mesh}}}:nodes")).arg(0).arg(-1);
    let members: Vec<String> = server.query(&members);
    assert!(members.len() == 1 && members[0].ends_with(":second"), "{members:?}");
}
