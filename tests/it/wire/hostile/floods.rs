//! Those who ask and never read, and those who say too much.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::{MEBIBYTE, Pair, narrow_hello};
use crate::harness::raw::hello_frame;
use crate::harness::{Node, PATIENCE, Raw, http};

async fn closed_as(node: &Node, reason: &str) -> u64 {
    let metrics = http::get(node, "/metrics").await.body;
    let name = format!("broker_connections_closed_total{{reason=\"{reason}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// What the misbehaviour of one costs the others and the program.
#[derive(Default)]
struct Watch {
    slowest: Duration,
    peak_bytes: u64,
}

impl Watch {
    async fn look(&mut self, node: &Node, pair: &mut Pair) {
        self.slowest = self.slowest.max(pair.exchange().await);
        self.peak_bytes = self.peak_bytes.max(node.resident_bytes());
    }

    fn assert_bounded(&self, before_bytes: u64) {
        assert!(self.slowest < Duration::from_secs(3), "an exchange took {:?}", self.slowest);
        let grown = self.peak_bytes.saturating_sub(before_bytes) / MEBIBYTE;
        assert!(grown < 64, "the program grew by {grown} MiB");
    }
}

/// Says that request without end and reads nothing; gives the socket back
/// when it is closed, or when told to stop.
fn flood_with(mut raw: Raw, request: Value, stop: CancellationToken) -> JoinHandle<Raw> {
    tokio::spawn(async move {
        let frame = Message::Text(request.to_string().into());
        loop {
            tokio::select! {
                sent = raw.socket.send(frame.clone()) => if sent.is_err() { return raw },
                () = stop.cancelled() => return raw,
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_and_never_reads_is_closed_and_others_go_on() {
    // Who takes nothing for five of these pauses is closed.
    let node = Node::program(&[("PING_INTERVAL_SECONDS", "2")]).await;
    let mallory = node.member("mallory").await;
    let mut pair = Pair::meet(&node).await;
    pair.exchange().await;
    let before = node.resident_bytes();
    let flood = narrow_hello(&node, &mallory, "sdk").await;
    // A refusal is small, and waits for nobody.
    let request = json!({ "type": "kick", "_reqId": "q".repeat(100) });
    let flooding = flood_with(flood, request, CancellationToken::new());
    let mut watch = Watch::default();
    let begun = Instant::now();
    while closed_as(&node, "slow_reader").await == 0 {
        assert!(begun.elapsed() < 3 * PATIENCE, "it is never closed");
        watch.look(&node, &mut pair).await;
        watch.assert_bounded(before);
    }
    let mut flood = timeout(PATIENCE, flooding).await.expect("closed").expect("no panic");
    let (code, reason) = flood.closed().await;
    // Reset, if it wrote on after the close.
    assert!((code, reason.as_str()) == (1013, "slow_reader") || code == 1006, "{code} {reason}");
    pair.exchange().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_wait_for_their_reader_and_nobody_else_does() {
    let node = Node::program(&[]).await;
    let mallory = node.member("mallory").await;
    let mut pair = Pair::meet(&node).await;
    pair.exchange().await;
    let before = node.resident_bytes();
    let flood = narrow_hello(&node, &mallory, "sdk").await;
    let stop = CancellationToken::new();
    let flooding = flood_with(flood, json!({ "type": "list_peers" }), stop.clone());
    let mut watch = Watch::default();
    for _ in 0..100 {
        watch.look(&node, &mut pair).await;
    }
    watch.assert_bounded(before);
    stop.cancel();
    let mut flood = timeout(PATIENCE, flooding).await.expect("stopped").expect("no panic");
    assert_eq!(closed_as(&node, "slow_reader").await, 0);
    assert_eq!(flood.hear("peers_list").await["type"], "peers_list", "it may read on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_reads_costs_a_bounded_sum_and_loses_nothing() {
    let env = [("LEASE_GRACE_SECONDS", "60"), ("PING_INTERVAL_SECONDS", "2")];
    let node = Node::program(&env).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut pair = Pair::meet(&node).await;
    pair.exchange().await;
    let before = node.resident_bytes();
    let mut a = Raw::hello(&node, &alice).await;
    let deaf = narrow_hello(&node, &bob, "claudemesh-daemon").await;
    let large = "A".repeat(60_000);
    let mut ids = Vec::new();
    let mut watch = Watch::default();
    // What is sent to it is kept, whether or not it reads.
    for _ in 0..100 {
        ids.push(a.sent(bob.pubkey().as_str(), "next", &large).await);
        watch.look(&node, &mut pair).await;
    }
    let begun = Instant::now();
    while closed_as(&node, "slow_reader").await == 0 {
        assert!(begun.elapsed() < 3 * PATIENCE, "it is never closed");
        watch.look(&node, &mut pair).await;
        a.ask(json!({ "type": "list_peers" })).await;
    }
    watch.assert_bounded(before);
    drop(deaf);
    let mut b = Raw::hello(&node, &bob).await;
    for id in &ids {
        let push = b.message().await;
        assert_eq!(push["messageId"], id.as_str(), "in order, none missing");
        b.confirm(&push).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_sends_from_one_leaves_room_for_others() {
    let rates = [("SEND_RATE_PER_MINUTE", "600"), ("SEND_BURST", "100")];
    let node = Node::program(&[&rates[..], &[("PAIR_RATE_PER_MINUTE", "0")]].concat()).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut pair = Pair::meet(&node).await;
    let mut a = Raw::hello(&node, &alice).await;
    let mut taken = 0;
    let mut refused = 0;
    for round in 0..20 {
        for number in 0..100 {
            a.say(json!({
                "type": "send", "id": format!("{round}-{number}"), "targetSpec": bob.pubkey(),
                "priority": "low", "nonce": "", "ciphertext": "eA==",
            }))
            .await;
        }
        // What is refused is answered at once, what is taken once it is kept.
        let mut answered = BTreeSet::new();
        for _ in 0..100 {
            let ack = a.hear("ack").await;
            match ack["queued"] == true {
                true => taken += 1,
                false => refused += 1,
            }
            answered.insert(ack["id"].as_str().expect("an id").to_owned());
        }
        let said: BTreeSet<String> = (0..100).map(|number| format!("{round}-{number}")).collect();
        assert_eq!(answered, said, "one answer each");
        if round % 5 == 0 {
            assert!(pair.exchange().await < Duration::from_secs(3));
        }
    }
    assert!(taken >= 100 && refused >= 1000, "{taken} taken, {refused} refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_without_end_are_read_at_a_pace_and_requests_behind_them_are_answered() {
    let node = Node::program(&[]).await;
    let mallory = node.member("mallory").await;
    let mut flood = Raw::hello(&node, &mallory).await;
    // Two seconds' worth of them, before a request.
    for _ in 0..20 {
        flood.socket.send(Message::Ping(Bytes::new())).await.expect("open");
    }
    let begun = Instant::now();
    assert_eq!(flood.ask(json!({ "type": "list_peers" })).await["type"], "peers_list");
    assert!(begun.elapsed() > Duration::from_millis(900), "it was read behind them");

    let mut stranger = Raw::connect(&node).await;
    for _ in 0..20 {
        stranger.socket.send(Message::Ping(Bytes::new())).await.expect("open");
    }
    let begun = Instant::now();
    stranger.say(hello_frame(&node.mesh, &node.member("stranger").await)).await;
    stranger.hear("hello_ack").await;
    assert!(begun.elapsed() > Duration::from_millis(900), "before a hello, too");
}
