//! More than a socket takes at once: nobody is closed for it, nothing is lost,
//! and what is held for those who are behind stays within its bound.

use std::time::Duration;

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::limits;
use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::harness::msgpack::Packed;
use crate::harness::{Cluster, Member, Node, Raw, Setup, http};

/// For all that is to arrive, on a busy machine.
const LONG: Duration = Duration::from_secs(180);
/// What is shorter is no message of these tests.
const SMALLEST: usize = 4_000;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Who reads, and how.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A session, which confirms.
    Session,
    /// A client that never confirms.
    Silent,
    /// As [`Kind::Session`], over MessagePack.
    Packed,
}

const KINDS: [Kind; 3] = [Kind::Session, Kind::Silent, Kind::Packed];

/// A connected reader of that member, with a key or a name of its own.
async fn connect(node: &Node, member: &Member, kind: Kind, number: usize) -> Socket {
    match kind {
        Kind::Session => Raw::session(node, member, &SecretKey::generate()).await.0.socket,
        Kind::Silent => {
            let adjust = |hello: &mut serde_json::Value| {
                hello["sessionId"] = json!(format!("silent-{number}"));
                hello["channel"] = json!("sdk");
            };
            Raw::hello_with(node, member, adjust).await.0.socket
        }
        Kind::Packed => Packed::session(node, member, &SecretKey::generate()).await.socket,
    }
}

/// Reads so many messages, with a pause after each, and confirms them if its kind
/// does; their ids as they came.
fn read(mut socket: Socket, kind: Kind, count: usize, pause: Duration) -> JoinHandle<Vec<String>> {
    tokio::spawn(async move {
        let mut ids = Vec::new();
        let reading = async {
            while ids.len() < count {
                let bytes = match socket.next().await {
                    Some(Ok(Message::Text(text))) => text.as_bytes().to_vec(),
                    Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    other => panic!("closed after {} of {count}: {other:?}", ids.len()),
                };
                if bytes.len() < SMALLEST {
                    continue;
                }
                let id = message_id(&bytes);
                if kind != Kind::Silent {
                    let ack = json!({ "type": "client_ack", "brokerMessageId": id });
                    socket.send(Message::text(ack.to_string())).await.expect("an open socket");
                }
                ids.push(id);
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
        };
        if timeout(LONG, reading).await.is_err() {
            panic!("{} of {count} came", ids.len());
        }
        ids
    })
}

/// In either coding, without reading the rest.
fn message_id(frame: &[u8]) -> String {
    let name = b"messageId";
    let at = frame.windows(name.len()).position(|part| part == name).expect("a push");
    let id = frame[at + name.len()..].iter().skip_while(|byte| !byte.is_ascii_hexdigit());
    String::from_utf8(id.take(32).copied().collect()).expect("hex")
}

/// Sends so many of that size at once; their ids in the order of the acks.
async fn send_at_once(raw: &mut Raw, target: &str, count: usize, bytes: usize) -> Vec<String> {
    let text = "A".repeat(bytes);
    for number in 0..count {
        raw.say(json!({
            "type": "send", "id": format!("burst-{number}"), "targetSpec": target,
            "priority": "next", "nonce": "", "ciphertext": text,
        }))
        .await;
    }
    let mut ids = Vec::new();
    for number in 0..count {
        let ack = raw.hear("ack").await;
        assert_eq!((&ack["queued"], &ack["id"]), (&json!(true), &json!(format!("burst-{number}"))));
        ids.push(ack["messageId"].as_str().expect("an id").to_owned());
    }
    ids
}

async fn gauge(node: &Node, name: &str) -> usize {
    let metrics = http::get(node, "/metrics").await.body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Looks at what waits for the sockets until it is told to stop.
fn watch_outboxes(address: std::net::SocketAddr, node: &Node) -> JoinHandle<()> {
    let node = Node::elsewhere(
        address,
        node.config.clone(),
        node.store.clone(),
        node.mesh.clone(),
        node.owner.clone(),
    );
    tokio::spawn(async move {
        loop {
            let largest = gauge(&node, "broker_outbox_largest_bytes").await;
            assert!(largest <= limits::OUTBOX_TOTAL_BYTES_MAX, "{largest} bytes for one socket");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

async fn nobody_was_closed(node: &Node) {
    let metrics = http::get(node, "/metrics").await.body;
    for reason in ["slow_reader", "answer_too_large"] {
        let line = format!("broker_connections_closed_total{{reason=\"{reason}\"}} 0");
        assert!(metrics.contains(&line), "{reason}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_the_largest_messages_closes_nobody() {
    let (readers, messages) = (100, 200);
    let node = Node::start_with(|config| {
        config.presence.connections_per_mesh_max = 200;
        config.message.claim_ms = 600_000;
    })
    .await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut reading = Vec::new();
    for number in 0..readers {
        let kind = KINDS[number % KINDS.len()];
        let socket = connect(&node, &bob, kind, number).await;
        // One of them takes about a megabyte a second.
        let pause = Duration::from_millis(if number == 0 { 60 } else { 0 });
        reading.push(read(socket, kind, messages, pause));
    }
    let watching = watch_outboxes(node.address, &node);
    let sent = send_at_once(&mut a, "*", messages, 65_000).await;
    for came in join_all(reading).await {
        assert_eq!(came.expect("nobody is closed"), sent, "all of it, in order");
    }
    assert!(!watching.is_finished(), "within the bound");
    nobody_was_closed(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_messages_to_a_group_close_nobody() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut reading = Vec::new();
    for number in 0..12 {
        let kind = KINDS[number % KINDS.len()];
        let mut socket = connect(&node, &bob, kind, number).await;
        let join = json!({ "type": "join_group", "name": "readers" });
        socket.send(Message::text(join.to_string())).await.expect("open");
        reading.push((socket, kind));
    }
    crate::harness::until("all are in the group", async || {
        let listed = a.ask(json!({ "type": "list_peers" })).await;
        let rows = listed["peers"].as_array().expect("rows");
        rows.iter().filter(|row| row["groups"][0]["name"] == "readers").count() == 12
    })
    .await;
    let reading = reading.into_iter().map(|(socket, kind)| read(socket, kind, 100, Duration::ZERO));
    let reading: Vec<_> = reading.collect();
    let sent = send_at_once(&mut a, "@readers", 100, 14_000).await;
    for came in join_all(reading).await {
        assert_eq!(came.expect("nobody is closed"), sent, "all of it, in order");
    }
    nobody_was_closed(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_direct_messages_closes_nobody_and_waits_for_no_claim() {
    // Claims outlast the test: what comes late was not waited for.
    let node = Node::start_with(|config| config.message.claim_ms = 600_000).await;
    let alice = node.member("alice").await;
    let mut a = Raw::hello(&node, &alice).await;
    for (number, kind) in KINDS.into_iter().enumerate() {
        let bob = node.member(&format!("bob-{number}")).await;
        let socket = connect(&node, &bob, kind, number).await;
        let reading = read(socket, kind, 100, Duration::from_millis(2));
        let sent = send_at_once(&mut a, bob.pubkey().as_str(), 100, 65_000).await;
        assert_eq!(reading.await.expect("not closed"), sent, "all of it, in order");
    }
    nobody_was_closed(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_three_nodes_a_burst_closes_nobody() {
    let cluster: Cluster = Setup::new(3).set("REDELIVERY_SECONDS", 600).start().await;
    let node = &cluster.nodes[0];
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(node, &alice).await;
    let mut reading = Vec::new();
    for number in 0..9 {
        let kind = KINDS[number / 3];
        let socket = connect(&cluster.nodes[number % 3], &bob, kind, number).await;
        reading.push(read(
            socket,
            kind,
            60,
            Duration::from_millis(if number == 1 { 60 } else { 0 }),
        ));
    }
    crate::harness::until("all are seen", async || {
        let listed = a.ask(json!({ "type": "list_peers" })).await;
        listed["peers"].as_array().expect("rows").len() == 10
    })
    .await;
    let sent = send_at_once(&mut a, "*", 60, 65_000).await;
    for came in join_all(reading).await {
        assert_eq!(came.expect("nobody is closed"), sent, "all of it, in order");
    }
    for node in &cluster.nodes {
        nobody_was_closed(node).await;
    }
}
