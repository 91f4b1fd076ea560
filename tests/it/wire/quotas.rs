//! How much may wait, and how much room must be left: what senders are told.

use claudemesh_broker::auth::SecretKey;
use serde_json::{Value, json};

use crate::harness::raw::hello_frame;
use crate::harness::{Node, Raw, http, until};

/// What daemons look for in an error before they give a message up.
const DAEMONS_PERMANENT: [&str; 9] = [
    "payload_too_large",
    "forbidden",
    "not_found",
    "invalid",
    "schema",
    "auth",
    "signature",
    "unknown",
    "not_authorized",
];

fn is_permanent(error: &str) -> bool {
    DAEMONS_PERMANENT.iter().any(|word| error.to_lowercase().contains(word))
}

fn refusal(ack: &Value) -> &str {
    assert_eq!((&ack["queued"], &ack["messageId"]), (&json!(false), &json!("")), "{ack}");
    ack["error"].as_str().expect("a sentence")
}

#[tokio::test]
async fn a_full_mailbox_takes_no_more_until_it_was_read() {
    let node = Node::start_with(|config| {
        config.message.quotas.mailbox_messages_max = 5;
    })
    .await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let carol = node.member("carol").await;
    let mut a = Raw::hello(&node, &alice).await;
    for _ in 0..5 {
        a.sent(bob.pubkey().as_str(), "next", "eA==").await;
    }
    let ack = a.send(bob.pubkey().as_str(), "next", "eA==").await;
    assert!(refusal(&ack).starts_with("mailbox_full:"), "{ack}");
    assert!(is_permanent(refusal(&ack)), "a daemon does not try for ten minutes: {ack}");
    a.sent(carol.pubkey().as_str(), "next", "eA==").await;
    assert_eq!(node.audit_count("message_sent").await, 6);
    let metrics = http::get(&node, "/metrics").await.body;
    assert!(metrics.contains(r#"reason="mailbox_full""#), "{metrics}");
    // He comes, reads, and there is room again.
    let mut b = Raw::hello(&node, &bob).await;
    for _ in 0..5 {
        let push = b.message().await;
        b.confirm(&push).await;
    }
    until("the mailbox has room again", async || {
        a.send(bob.pubkey().as_str(), "next", "eA==").await["queued"] == true
    })
    .await;
}

#[tokio::test]
async fn mail_that_is_read_fills_nothing() {
    let node = Node::start_with(|config| {
        config.message.quotas.mailbox_messages_max = 5;
        config.message.quotas.mesh_bytes_max = 64 * 1024;
    })
    .await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    for _ in 0..60 {
        a.sent(bob.pubkey().as_str(), "now", "eA==").await;
        let push = b.message().await;
        b.confirm(&push).await;
        // The next send may measure the mailbox.
        until("it is written down", async || {
            node.store.messages.depth().await.expect("readable") == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_sender_and_a_mesh_have_bounds_of_their_own() {
    let node = Node::start_with(|config| {
        config.message.quotas.sender_bytes_max = 2 * 4096;
        config.message.quotas.mesh_bytes_max = 3 * 4096;
    })
    .await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let away = [node.member("x").await, node.member("y").await, node.member("z").await];
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    for peer in &away[..2] {
        a.sent(peer.pubkey().as_str(), "next", "eA==").await;
    }
    let ack = a.send(away[2].pubkey().as_str(), "next", "eA==").await;
    assert!(refusal(&ack).starts_with("sender_full:"), "{ack}");
    assert!(is_permanent(refusal(&ack)), "{ack}");
    b.sent(away[0].pubkey().as_str(), "next", "eA==").await;
    let ack = b.send(away[1].pubkey().as_str(), "next", "eA==").await;
    assert!(refusal(&ack).starts_with("mesh_full:"), "{ack}");
    assert!(!is_permanent(refusal(&ack)), "not this sender's doing: {ack}");
    // What goes to all waits for nobody in particular.
    a.sent("*", "now", "eA==").await;
}

#[tokio::test]
async fn a_repeat_is_acked_however_full_it_is() {
    let node = Node::start_with(|config| {
        config.message.quotas.mailbox_messages_max = 1;
    })
    .await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let named = |id: &str| {
        json!({
            "type": "send", "id": id, "targetSpec": bob.pubkey().as_str(), "priority": "next",
            "nonce": "bm9uY2U=", "ciphertext": "eA==", "client_message_id": id,
        })
    };
    a.say(named("one")).await;
    let first = a.hear("ack").await;
    assert_eq!(first["queued"], true, "{first}");
    a.say(named("two")).await;
    refusal(&a.hear("ack").await);
    a.say(named("one")).await;
    let again = a.hear("ack").await;
    assert_eq!((&again["queued"], &again["messageId"]), (&json!(true), &first["messageId"]));
}

#[tokio::test]
async fn below_the_floor_of_the_disk_nothing_new_is_taken() {
    let mut node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let key = SecretKey::generate();
    let (_, first) = Raw::session(&node, &alice, &key).await;
    // More than any disk has.
    node.config.message.disk_free_min_bytes = u64::MAX - 1;
    node.restart().await;
    let health = async || http::get(&node, "/health").await.json();
    until("the node has looked", async || health().await["status"] == "degraded").await;
    assert_eq!(health().await["db"], "up");
    let (refused, close) = Raw::refused(&node, hello_frame(&node.mesh, &bob)).await;
    assert_eq!((&refused["code"], close.0), (&json!("unavailable"), 1013), "{refused}");
    assert!(refused["retryAfterMs"].is_number(), "{refused}");
    let (mut a, again) = Raw::session(&node, &alice, &key).await;
    assert_eq!(again["presenceId"], first["presenceId"], "who comes back adds nothing");
    let ack = a.send(bob.pubkey().as_str(), "next", "eA==").await;
    assert!(refusal(&ack).starts_with("unavailable: the broker's disk"), "{ack}");
    assert!(!is_permanent(refusal(&ack)), "{ack}");
    assert_eq!(node.audit_count("message_sent").await, 0);
}
