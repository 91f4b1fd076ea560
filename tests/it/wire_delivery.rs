//! Messages between peers: direct, away and back, confirmed and not.

use serde_json::json;

use crate::harness::{Node, Raw};

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
