//! Messages between peers: direct, away and back, confirmed and not.

use serde_json::json;

use crate::harness::{Member, Node, Raw};

#[tokio::test]
async fn a_direct_message_reaches_its_peer_and_the_ack_its_sender() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    let id = a.sent(bob.pubkey().as_str(), "next", "aGVsbG8=").await;
    let push = b.message().await;
    assert_eq!(push["messageId"], id.as_str());
    assert_eq!(push["ciphertext"], "aGVsbG8=");
    assert_eq!(push["senderPubkey"], json!(alice.pubkey()));
    assert_eq!(push["senderName"], "alice");
    assert_eq!(node.audit_count("message_sent").await, 1);
    assert!(node.audit_is_valid().await);
}

#[tokio::test]
async fn what_was_sent_while_a_peer_was_away_arrives_in_order_once() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    Raw::hello(&node, &bob).await.goodbye().await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(a.sent(bob.pubkey().as_str(), "next", &format!("bXNn{number:04}")).await);
    }
    let mut b = Raw::hello(&node, &bob).await;
    for id in &ids {
        let push = b.message().await;
        assert_eq!(push["messageId"], id.as_str());
        b.confirm(&push).await;
    }
    assert!(b.so_far().await.is_empty());
    b.goodbye().await;
    let mut b = Raw::hello(&node, &bob).await;
    assert!(b.so_far().await.is_empty(), "what was confirmed does not come again");
}

/// A member connection of a client that never confirms.
async fn silent(node: &Node, member: &Member) -> Raw {
    Raw::hello_with(node, member, |hello| hello["channel"] = json!("sdk")).await.0
}

async fn hasty_node() -> Node {
    Node::start_with(|config| config.message.claim_ms = 200).await
}

/// Hears that message `times` times, and nothing else but it.
async fn hears_again(raw: &mut Raw, id: &str, times: usize) {
    for _ in 0..times {
        assert_eq!(raw.message().await["messageId"], id);
    }
}

#[tokio::test]
async fn an_unconfirmed_delivery_comes_again_and_a_confirmed_one_never() {
    let node = hasty_node().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    let first = a.sent(bob.pubkey().as_str(), "next", "b25l").await;
    hears_again(&mut b, &first, 2).await;
    let push = b.message().await;
    b.confirm(&push).await;
    // Copies that were on their way before the confirmation was read.
    let confirmed = b.messages_so_far().await.len();
    assert!(confirmed <= 1, "at most the one that crossed the confirmation");
    let second = a.sent(bob.pubkey().as_str(), "next", "dHdv").await;
    hears_again(&mut b, &second, 3).await;
    assert_eq!(node.audit_count("message_sent").await, 2, "a delivery is no new message");
}

#[tokio::test]
async fn an_unconfirmed_delivery_comes_again_on_the_next_socket_at_once() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    let mut ids = Vec::new();
    for text in ["b25l", "dHdv", "dGhy"] {
        ids.push(a.sent(bob.pubkey().as_str(), "next", text).await);
        assert_eq!(b.message().await["messageId"], ids[ids.len() - 1].as_str());
    }
    b.say(json!({ "type": "client_ack", "brokerMessageId": ids[1] })).await;
    b.so_far().await;
    b.goodbye().await;
    let mut b = Raw::hello(&node, &bob).await;
    for id in [&ids[0], &ids[2]] {
        assert_eq!(b.message().await["messageId"], id.as_str(), "in order, without the confirmed");
    }
    assert!(b.messages_so_far().await.is_empty());
}

#[tokio::test]
async fn a_dropped_connection_loses_nothing_and_keeps_the_order() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let b = Raw::hello(&node, &bob).await;
    drop(b);
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(a.sent(bob.pubkey().as_str(), "next", "eA==").await);
    }
    let mut b = Raw::hello(&node, &bob).await;
    for id in &ids {
        assert_eq!(b.message().await["messageId"], id.as_str());
    }
}

#[tokio::test]
async fn a_client_that_never_confirms_gets_each_message_once() {
    let node = hasty_node().await;
    let (alice, bob, carol) =
        (node.member("alice").await, node.member("bob").await, node.member("carol").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = silent(&node, &bob).await;
    let mut c = Raw::hello(&node, &carol).await;
    let first = a.sent(bob.pubkey().as_str(), "next", "b25l").await;
    hears_again(&mut b, &first, 1).await;
    // As long as it takes a peer that confirms to hear its own three times.
    let clock = a.sent(carol.pubkey().as_str(), "next", "dGljaw==").await;
    hears_again(&mut c, &clock, 3).await;
    assert!(b.messages_so_far().await.is_empty(), "not again on the same connection");
    b.goodbye().await;
    let mut b = silent(&node, &bob).await;
    let last = a.sent(bob.pubkey().as_str(), "next", "bGFzdA==").await;
    assert_eq!(b.message().await["messageId"], last.as_str(), "and not on the next");
}

#[tokio::test]
async fn whoever_confirms_once_is_held_to_it() {
    let node = hasty_node().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = silent(&node, &bob).await;
    a.sent(bob.pubkey().as_str(), "next", "b25l").await;
    let push = b.message().await;
    b.confirm(&push).await;
    b.so_far().await;
    let second = a.sent(bob.pubkey().as_str(), "next", "dHdv").await;
    hears_again(&mut b, &second, 3).await;
}

#[tokio::test]
async fn a_client_may_confirm_by_its_senders_id() {
    let node = hasty_node().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    a.say(json!({
        "type": "send", "id": "s1", "targetSpec": bob.pubkey(), "priority": "next",
        "nonce": "", "ciphertext": "eA==", "client_message_id": "from-alice-1",
    }))
    .await;
    b.message().await;
    b.say(json!({ "type": "client_ack", "clientMessageId": "from-alice-1" })).await;
    assert!(b.messages_so_far().await.len() <= 1);
    let second = a.sent(bob.pubkey().as_str(), "next", "dHdv").await;
    hears_again(&mut b, &second, 3).await;
}

#[tokio::test]
async fn a_stranger_cannot_confirm_for_the_recipient() {
    let node = Node::start().await;
    let (alice, bob, mallory) =
        (node.member("alice").await, node.member("bob").await, node.member("mallory").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut m = Raw::hello(&node, &mallory).await;
    Raw::hello(&node, &bob).await.goodbye().await;
    let id = a.sent(bob.pubkey().as_str(), "next", "eA==").await;
    let ack = m.ask(json!({ "type": "client_ack", "brokerMessageId": id })).await;
    assert_eq!(ack["type"], "ack");
    m.goodbye().await;
    let mut b = Raw::hello(&node, &bob).await;
    assert_eq!(b.message().await["messageId"], id.as_str());
}

#[tokio::test]
async fn pipelined_sends_are_answered_and_delivered_in_order() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    const COUNT: usize = 300;
    for number in 0..COUNT {
        a.say(json!({
            "type": "send", "id": format!("p{number}"), "targetSpec": bob.pubkey(),
            "priority": "next", "nonce": "", "ciphertext": format!("{number:04}"),
        }))
        .await;
    }
    let mut ids = Vec::new();
    for number in 0..COUNT {
        let ack = a.hear("ack").await;
        assert_eq!(ack["id"], format!("p{number}"));
        ids.push(ack["messageId"].as_str().expect("an id").to_owned());
    }
    for (number, id) in ids.iter().enumerate() {
        let push = b.message().await;
        assert_eq!(push["messageId"], id.as_str());
        assert_eq!(push["ciphertext"], format!("{number:04}"));
        b.confirm(&push).await;
    }
    assert!(b.messages_so_far().await.is_empty());
}

#[tokio::test]
async fn what_a_client_says_just_before_it_closes_is_done() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    for number in 0..20 {
        a.say(json!({
            "type": "send", "id": "", "targetSpec": bob.pubkey(), "priority": "next",
            "nonce": "", "ciphertext": format!("{number:04}"),
        }))
        .await;
    }
    a.goodbye().await;
    for number in 0..20 {
        assert_eq!(b.message().await["ciphertext"], format!("{number:04}"));
    }
}

#[tokio::test]
async fn what_was_acked_before_a_restart_is_delivered_after_it() {
    let mut node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    let confirmed = a.sent(bob.pubkey().as_str(), "next", "b25l").await;
    let push = b.message().await;
    assert_eq!(push["messageId"], confirmed.as_str());
    b.confirm(&push).await;
    b.so_far().await;
    let unconfirmed = a.sent(bob.pubkey().as_str(), "next", "dHdv").await;
    let wide = a.sent("*", "next", "dHJl").await;
    node.restart().await;
    let mut b = Raw::hello(&node, &bob).await;
    for id in [&unconfirmed, &wide] {
        assert_eq!(b.message().await["messageId"], id.as_str());
    }
    assert!(b.messages_so_far().await.is_empty());
    assert_eq!(node.audit_count("message_sent").await, 3);
    assert!(node.audit_is_valid().await);
}
