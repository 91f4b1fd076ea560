//! What one peer asks for slows that peer, and nobody else.

use claudemesh_broker::auth::SecretKey;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::cluster::Setup;
use crate::harness::raw::{hello_frame, session_hello_frame};
use crate::harness::{Node, Raw, metric};

/// Units of cost per minute that do not come back while a test runs.
const NEXT_TO_NOTHING: u32 = 1;

/// A node on which a member may ask for so much.
async fn node(per_minute: u32, burst: u32) -> Node {
    Node::start_with(|config| {
        config.message.request_rate_per_minute = per_minute;
        config.message.request_burst = burst;
    })
    .await
}

/// Asks again and again until it is refused; how often it was not.
async fn ask_until_refused(raw: &mut Raw, request: impl Fn(u32) -> Value) -> (u32, Value) {
    for number in 0..10_000 {
        let answer = raw.ask(request(number)).await;
        if answer["type"] == "error" {
            return (number, answer);
        }
    }
    panic!("never refused");
}

fn visible(number: u32) -> Value {
    json!({ "type": "set_visible", "visible": number % 2 == 1 })
}

#[tokio::test]
async fn a_peer_that_says_too_much_about_itself_is_refused_and_its_peers_are_spared() {
    let node = node(NEXT_TO_NOTHING, 400).await;
    let (mallory, bob) = (node.member("mallory").await, node.member("bob").await);
    let mut b = Raw::hello(&node, &bob).await;
    let mut m = Raw::hello(&node, &mallory).await;
    let (taken, refused) = ask_until_refused(&mut m, visible).await;
    assert_eq!(refused["code"], "rate_limit", "{refused}");
    assert!(refused["retryAfterMs"].as_u64() > Some(0), "{refused}");
    // A session has a quarter of what its member has; a change costs ten of it.
    assert_eq!(taken, 10);
    let events = b.so_far().await;
    let told = events.iter().filter(|push| push["event"] != "peer_joined").count();
    assert_eq!(told, 10, "each change once");
    // It still sends and gets messages.
    m.sent(bob.pubkey().as_str(), "now", "bXNn").await;
    let push = b.message().await;
    b.confirm(&push).await;
}

#[tokio::test]
async fn what_changes_nothing_is_told_to_nobody() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut b = Raw::hello(&node, &bob).await;
    let mut a = Raw::hello(&node, &alice).await;
    for visible in [true, false, false, false, true, true] {
        a.ask(json!({ "type": "set_visible", "visible": visible })).await;
    }
    let events: Vec<Value> = b.so_far().await.iter().map(|push| push["event"].clone()).collect();
    assert_eq!(events, ["peer_joined", "peer_hidden", "peer_visible"]);
}

#[tokio::test]
async fn a_request_that_nobody_could_be_told_of_waits_and_is_not_lost() {
    // A session has 25 at once and 250 a second: these cost 200.
    let node = node(60_000, 100).await;
    let alice = node.member("alice").await;
    let mut a = Raw::hello(&node, &alice).await;
    for number in 0..50 {
        a.say(json!({ "type": "set_summary", "summary": format!("step {number}") })).await;
    }
    let row = loop {
        let answer = a.ask(json!({ "type": "list_peers" })).await;
        if answer["type"] == "peers_list" {
            break answer["peers"][0].clone();
        }
        assert_eq!(answer["code"], "rate_limit", "{answer}");
    };
    assert_eq!(row["summary"], "step 49", "the last word stands");
}

#[tokio::test]
async fn a_member_has_one_budget_on_all_nodes_together() {
    let setup =
        Setup::new(3).set("REQUEST_RATE_PER_MINUTE", NEXT_TO_NOTHING).set("REQUEST_BURST", 400);
    let cluster = setup.start().await;
    let alice = cluster.nodes[0].member("alice").await;
    let mut sockets = Vec::new();
    for number in 0..6 {
        let node = &cluster.nodes[number % 3];
        sockets.push(Raw::session(node, &alice, &SecretKey::generate()).await.0);
    }
    let asks = sockets.iter_mut().map(async |raw| {
        let status = |number: u32| {
            let word = if number.is_multiple_of(2) { "working" } else { "idle" };
            json!({ "type": "set_status", "status": word })
        };
        ask_until_refused(raw, status).await.0
    });
    let taken: u32 = join_all(asks).await.into_iter().sum();
    // Six sessions cost ten each, a status costs four. A node may be left with a few
    // tokens that cover nothing any more.
    let (most, least) = ((400 - 60) / 4, (400 - 60 - 3 * 3) / 4);
    assert!((least..=most).contains(&taken), "{taken} of {most}");
}

#[tokio::test]
async fn new_sessions_of_a_member_are_metered_and_those_that_come_back_are_not() {
    let node = node(NEXT_TO_NOTHING, 100).await;
    let (mallory, bob) = (node.member("mallory").await, node.member("bob").await);
    let mut b = Raw::hello(&node, &bob).await;
    let keys: Vec<SecretKey> = (0..11).map(|_| SecretKey::generate()).collect();
    let mut open = Vec::new();
    for key in &keys[..10] {
        open.push(Raw::session(&node, &mallory, key).await.0);
    }
    let hello = session_hello_frame(&node.mesh, &mallory, &keys[10]);
    let (error, close) = Raw::refused(&node, hello).await;
    assert_eq!(error["code"], "rate_limit", "{error}");
    assert!(error["retryAfterMs"].as_u64() > Some(0), "{error}");
    assert_eq!(close, (1013, "rate_limit".to_owned()));
    // One of them comes back, and another member comes.
    open.remove(0).goodbye().await;
    Raw::session(&node, &mallory, &keys[0]).await;
    let carol = node.member("carol").await;
    let (_carol, answer) = Raw::greet(&node, hello_frame(&node.mesh, &carol)).await;
    assert_eq!(answer["type"], "hello_ack");
    let joined = b.so_far().await.iter().filter(|push| push["event"] == "peer_joined").count();
    assert_eq!(joined, 11, "ten of mallory's and carol");
}

#[tokio::test]
async fn confirmations_of_nothing_are_dropped_and_those_of_deliveries_are_not() {
    let node = node(NEXT_TO_NOTHING, 100).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    for number in 0..500 {
        b.say(json!({ "type": "client_ack", "brokerMessageId": format!("none{number}") })).await;
    }
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(a.sent(bob.pubkey().as_str(), "now", "bXNn").await);
        let push = b.message().await;
        b.confirm(&push).await;
    }
    // They stood before the first confirmation that counted: a session has 25 at once.
    let dropped = "broker_messages_rejected_total{reason=\"request_rate\"}";
    assert_eq!(metric(&node, dropped).await, 475);
    for id in ids {
        let settled = async {
            loop {
                let page = node.store.messages.find(&node.mesh, &id, None).await.expect("a page");
                if page[0].delivered_at.is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(crate::harness::PATIENCE, settled).await.expect("it is confirmed");
    }
}
