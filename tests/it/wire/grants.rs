//! What a member lets others send it.

use std::time::{Duration, Instant};

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::id::Key;
use claudemesh_broker::limits;
use serde_json::{Value, json};

use crate::harness::{Member, Node, Raw, http, until};

const NO_GRANT: &str = "blocked by recipient grants (sender lacks dm capability)";
/// What another program changes is known to the broker by then.
const PICKUP: Duration = Duration::from_secs(3);

/// As another program does it.
async fn grant(node: &Node, member: &Member, sender: &Key, capabilities: Option<&[&str]>) {
    let capabilities: Option<Vec<String>> =
        capabilities.map(|given| given.iter().map(|name| (*name).to_owned()).collect());
    let granted =
        node.store.members.set_grant(&member.id, sender.as_str(), capabilities.as_deref()).await;
    granted.expect("the store answers");
}

/// Broadcasts until the recipient gets one or does not, as wanted; everyone
/// else must get each.
async fn until_broadcasts(a: &mut Raw, recipient: &mut Raw, other: &mut Raw, reach: bool) {
    let begun = Instant::now();
    loop {
        let id = a.sent("*", "next", "eA==").await;
        let push = other.hear_where("push", |push| push["messageId"] == id.as_str()).await;
        other.confirm(&push).await;
        let heard = recipient.messages_so_far().await;
        for push in &heard {
            recipient.confirm(push).await;
        }
        if heard.iter().any(|push| push["messageId"] == id.as_str()) == reach {
            return;
        }
        assert!(begun.elapsed() < PICKUP, "a changed grant is not picked up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_broadcast_passes_those_by_who_do_not_want_it() {
    let node = Node::start().await;
    let (alice, bob, carol) =
        (node.member("alice").await, node.member("bob").await, node.member("carol").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut c = Raw::hello(&node, &carol).await;
    let (mut b, _) = Raw::hello_with(&node, &bob, |hello| {
        hello["channel"] = json!("sdk");
        hello["groups"] = json!([{ "name": "dev" }]);
    })
    .await;
    until_broadcasts(&mut a, &mut b, &mut c, true).await;

    grant(&node, &bob, &alice.pubkey(), Some(&["dm", "read"])).await;
    until_broadcasts(&mut a, &mut b, &mut c, false).await;
    a.sent("@dev", "next", "Z3JvdXA=").await;
    let direct = a.sent(bob.pubkey().as_str(), "next", "ZGlyZWN0").await;
    assert_eq!(b.message().await["messageId"], direct.as_str(), "neither to groups; dm is");
    let others = c.sent("*", "next", "eA==").await;
    assert_eq!(b.message().await["messageId"], others.as_str(), "only that sender");
    let metrics = http::get(&node, "/metrics").await.body;
    assert!(metrics.contains("broker_messages_dropped_by_grant_total{cap=\"broadcast\"}"));

    grant(&node, &bob, &alice.pubkey(), None).await;
    until_broadcasts(&mut a, &mut b, &mut c, true).await;
}

#[tokio::test]
async fn a_direct_message_is_refused_before_it_is_taken() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    grant(&node, &bob, &alice.pubkey(), Some(&["broadcast"])).await;
    let mut a = Raw::hello(&node, &alice).await;
    let ack = a.send(bob.pubkey().as_str(), "next", "eA==").await;
    assert_eq!(ack["error"], NO_GRANT, "also while the recipient is away");
    let key = SecretKey::generate();
    let (mut b, _) = Raw::session(&node, &bob, &key).await;
    for target in [bob.pubkey(), key.public_key()] {
        let ack = a.send(target.as_str(), "now", "eA==").await;
        assert_eq!((&ack["queued"], &ack["messageId"]), (&json!(false), &json!("")));
        assert_eq!(ack["error"], NO_GRANT);
    }
    let id = a.sent("*", "next", "eA==").await;
    assert_eq!(b.message().await["messageId"], id.as_str(), "broadcast is granted");
    assert_eq!(node.audit_count("message_sent").await, 1);
}

#[tokio::test]
async fn the_member_keys_entry_comes_before_the_session_keys() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let (good, bad) = (SecretKey::generate(), SecretKey::generate());
    grant(&node, &bob, &bad.public_key(), Some(&[])).await;
    let (mut from_good, _) = Raw::session(&node, &alice, &good).await;
    let (mut from_bad, _) = Raw::session(&node, &alice, &bad).await;
    let mut b = Raw::hello(&node, &bob).await;
    let target = bob.pubkey();
    assert_eq!(from_bad.send(target.as_str(), "next", "eA==").await["error"], NO_GRANT);
    from_bad.sent("*", "next", "eA==").await;
    let id = from_good.sent(target.as_str(), "next", "eA==").await;
    assert_eq!(b.message().await["messageId"], id.as_str(), "and nothing of the other session");

    grant(&node, &bob, &alice.pubkey(), Some(&["dm"])).await;
    let begun = Instant::now();
    let id = loop {
        let ack = from_bad.send(target.as_str(), "next", "eQ==").await;
        if ack["queued"] == true {
            break ack["messageId"].clone();
        }
        assert!(begun.elapsed() < PICKUP, "a changed grant is not picked up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(b.message().await["messageId"], id);
}

#[tokio::test]
async fn what_was_kept_is_not_delivered_once_it_is_not_wanted() {
    let node = Node::start().await;
    let (alice, bob, carol) =
        (node.member("alice").await, node.member("bob").await, node.member("carol").await);
    let asks = |hello: &mut Value| hello["capabilities"] = json!(["stages"]);
    let mut a = Raw::hello_with(&node, &alice, asks).await.0;
    let mut c = Raw::hello(&node, &carol).await;
    let kept = a.sent(bob.pubkey().as_str(), "next", "a2VwdA==").await;
    grant(&node, &bob, &alice.pubkey(), Some(&["broadcast"])).await;
    let mut b = Raw::hello(&node, &bob).await;
    let marker = c.sent(bob.pubkey().as_str(), "next", "bWFyaw==").await;
    let push = b.message().await;
    assert_eq!(push["messageId"], marker.as_str());
    b.confirm(&push).await;
    assert!(b.messages_so_far().await.is_empty());
    let blocked = a.event("message_blocked").await;
    assert_eq!(blocked["eventData"]["messageId"], kept.as_str(), "its sender is told at once");
    let status = a.ask(json!({ "type": "message_status", "messageId": kept })).await;
    assert_eq!(
        (&status["delivered"], &status["recipients"][0]["stage"]),
        (&json!(false), &json!("blocked"))
    );

    grant(&node, &bob, &alice.pubkey(), None).await;
    let mut marker = String::new();
    until("alice may write again", async || {
        let ack = a.send(bob.pubkey().as_str(), "next", "bWFyaw==").await;
        marker = ack["messageId"].as_str().unwrap_or_default().to_owned();
        ack["queued"] == true
    })
    .await;
    assert_eq!(b.message().await["messageId"], marker.as_str(), "what was blocked never comes");
}

#[tokio::test]
async fn a_broadcast_kept_for_grace_is_not_delivered_once_it_is_not_wanted() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (alice, bob, carol) =
        (node.member("alice").await, node.member("bob").await, node.member("carol").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut c = Raw::hello(&node, &carol).await;
    Raw::hello(&node, &bob).await.goodbye().await;
    a.sent("*", "next", "eA==").await;
    let marker = c.sent("*", "next", "bWFyaw==").await;
    grant(&node, &bob, &alice.pubkey(), Some(&[])).await;
    let mut b = Raw::hello(&node, &bob).await;
    assert_eq!(b.message().await["messageId"], marker.as_str());
}

#[tokio::test]
async fn who_blocked_a_flood_while_away_still_gets_the_news() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 600_000).await;
    let (alice, bob, mallory) =
        (node.member("alice").await, node.member("bob").await, node.member("mallory").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut m = Raw::hello(&node, &mallory).await;
    Raw::hello(&node, &bob).await.goodbye().await;
    // More than are remembered as refused.
    let flood = limits::REFUSED_DELIVERIES_MAX + 10;
    for number in 0..flood {
        m.say(json!({
            "type": "send", "id": format!("f{number}"), "targetSpec": bob.pubkey(),
            "priority": "low", "nonce": "", "ciphertext": "eA==",
        }))
        .await;
    }
    for _ in 0..flood {
        assert_eq!(m.hear("ack").await["queued"], true);
    }
    grant(&node, &bob, &mallory.pubkey(), Some(&[])).await;
    let news = a.sent("*", "next", "bmV3cw==").await;
    let mut b = Raw::hello(&node, &bob).await;
    assert_eq!(b.message().await["messageId"], news.as_str());
}
