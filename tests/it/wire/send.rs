//! `send` and its `ack`: what is checked, what is answered, whose name is on it.

use claudemesh_broker::auth::SecretKey;
use serde_json::{Value, json};

use crate::harness::{Node, Raw, http};

fn named(target: &str, client_message_id: &str, text: &str) -> Value {
    json!({
        "type": "send", "id": client_message_id, "targetSpec": target, "priority": "next",
        "nonce": "bm9uY2U=", "ciphertext": text,
        "client_message_id": client_message_id, "request_fingerprint": "f".repeat(64),
    })
}

async fn accepted(raw: &mut Raw) -> String {
    let ack = raw.hear("ack").await;
    assert_eq!(ack["queued"], true, "{ack}");
    ack["messageId"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_client_message_id_names_one_message_however_often_it_is_sent() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let (mut other, _) = Raw::session(&node, &alice, &SecretKey::generate()).await;
    let mut b = Raw::hello(&node, &bob).await;
    let target = bob.pubkey();
    let send = named(target.as_str(), "8e0c7a52-6d1f-4c8e-9d0e-3b1f5a7c9d11", "b25l");
    // Twice in one batch, once more later, once from another connection.
    a.say(send.clone()).await;
    a.say(send.clone()).await;
    let id = accepted(&mut a).await;
    assert_eq!(accepted(&mut a).await, id);
    a.say(send.clone()).await;
    assert_eq!(accepted(&mut a).await, id);
    other.say(send.clone()).await;
    assert_eq!(accepted(&mut other).await, id);
    let push = b.message().await;
    assert_eq!(push["messageId"], id.as_str());
    b.confirm(&push).await;
    b.so_far().await;
    a.say(send).await;
    assert_eq!(accepted(&mut a).await, id, "also after it was delivered");
    let marker = a.sent(target.as_str(), "next", "bWFyaw==").await;
    assert_eq!(b.message().await["messageId"], marker.as_str(), "delivered once");
    assert_eq!(node.audit_count("message_sent").await, 2, "one row each");
    assert!(node.audit_is_valid().await);
}

#[tokio::test]
async fn another_members_client_message_id_is_another_message() {
    let node = Node::start().await;
    let (alice, bob, carol) =
        (node.member("alice").await, node.member("bob").await, node.member("carol").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut c = Raw::hello(&node, &carol).await;
    let mut b = Raw::hello(&node, &bob).await;
    let send = named(bob.pubkey().as_str(), "the-same", "b25l");
    a.say(send.clone()).await;
    c.say(send).await;
    let (one, two) = (accepted(&mut a).await, accepted(&mut c).await);
    assert_ne!(one, two);
    let heard = [b.message().await, b.message().await];
    assert!(heard.iter().any(|push| push["messageId"] == one.as_str()));
    assert!(heard.iter().any(|push| push["messageId"] == two.as_str()));
}

#[tokio::test]
async fn an_empty_client_message_id_names_nothing() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    let send = named(bob.pubkey().as_str(), "", "b25l");
    a.say(send.clone()).await;
    a.say(send).await;
    assert_ne!(accepted(&mut a).await, accepted(&mut a).await);
    assert!(b.message().await.get("client_message_id").is_none(), "none is invented");
}

#[tokio::test]
async fn a_push_names_the_key_that_sealed_it_and_the_member_behind() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut b = Raw::hello(&node, &bob).await;
    let target = bob.pubkey();

    let mut daemon = Raw::hello(&node, &alice).await;
    daemon.say(named(target.as_str(), "from-daemon", "b25l")).await;
    let id = accepted(&mut daemon).await;
    let push = b.message().await;
    assert_eq!(push["messageId"], id.as_str());
    assert_eq!(push["meshId"], json!(node.mesh));
    assert_eq!(push["senderPubkey"], json!(alice.pubkey()));
    assert_eq!(push["senderMemberPubkey"], json!(alice.pubkey()));
    assert_eq!(push["senderMemberId"], json!(alice.id));
    assert_eq!(push["senderName"], "alice");
    assert_eq!(push["priority"], "next");
    assert_eq!(push["nonce"], "bm9uY2U=");
    assert_eq!(push["client_message_id"], "from-daemon");
    assert_eq!(push["request_fingerprint"], "f".repeat(64));
    assert!(push.get("subtype").is_none() && push.get("topic").is_none(), "{push}");
    let created_at = push["createdAt"].as_str().expect("a time");
    assert_eq!((created_at.len(), &created_at[23..]), (24, "Z"), "{created_at}");

    let key = SecretKey::generate();
    let (mut session, _) = Raw::session(&node, &alice, &key).await;
    session.sent(target.as_str(), "next", "dHdv").await;
    let push = b.message().await;
    assert_eq!(push["senderPubkey"], json!(key.public_key()), "the session's key");
    assert_eq!(push["senderMemberPubkey"], json!(alice.pubkey()));
    assert!(push.get("client_message_id").is_none(), "none is invented");
    assert!(push.get("request_fingerprint").is_none());

    let key = SecretKey::generate();
    let (mut cold, _) = Raw::hello_with(&node, &alice, |hello| {
        hello["sessionPubkey"] = json!(key.public_key());
        hello["sessionId"] = json!("cold");
        hello["channel"] = json!("claude-code");
    })
    .await;
    cold.sent(target.as_str(), "next", "dHJl").await;
    assert_eq!(b.message().await["senderPubkey"], json!(key.public_key()));
}

#[tokio::test]
async fn what_was_kept_is_attributed_as_what_was_not() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let key = SecretKey::generate();
    let (mut session, _) = Raw::session(&node, &alice, &key).await;
    session.say(named(bob.pubkey().as_str(), "kept-1", "b25l")).await;
    accepted(&mut session).await;
    session.goodbye().await;
    let mut b = Raw::hello(&node, &bob).await;
    let push = b.message().await;
    assert_eq!(push["senderPubkey"], json!(key.public_key()));
    assert_eq!(push["senderMemberPubkey"], json!(alice.pubkey()));
    assert_eq!(push["senderMemberId"], json!(alice.id));
    assert_eq!(push["senderName"], "alice");
    assert_eq!(push["client_message_id"], "kept-1");
    assert_eq!(push["request_fingerprint"], "f".repeat(64));
}

#[tokio::test]
async fn among_one_members_sessions_the_member_key_is_left_out() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let keys = [SecretKey::generate(), SecretKey::generate()];
    let mut daemon = Raw::hello(&node, &alice).await;
    let (mut one, _) = Raw::session(&node, &alice, &keys[0]).await;
    let (mut two, _) = Raw::session(&node, &alice, &keys[1]).await;
    one.sent(keys[1].public_key().as_str(), "next", "b25l").await;
    daemon.sent(keys[1].public_key().as_str(), "next", "dHdv").await;
    for sender in [keys[0].public_key(), alice.pubkey()] {
        let push = two.message().await;
        assert_eq!(push["senderPubkey"], json!(sender));
        assert!(push.get("senderMemberPubkey").is_none(), "old daemons drop it: {push}");
        assert_eq!(push["senderMemberId"], json!(alice.id));
        assert_eq!(push["senderName"], "alice");
    }
}

#[tokio::test]
async fn a_members_rate_is_its_own_and_all_its_sessions_share_it() {
    let node = Node::start_with(|config| {
        config.message.send_rate_per_minute = 2;
        config.message.send_burst = 5;
    })
    .await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let (mut session, _) = Raw::session(&node, &alice, &SecretKey::generate()).await;
    let mut b = Raw::hello(&node, &bob).await;
    for number in 0..5 {
        let sender = if number % 2 == 0 { &mut a } else { &mut session };
        sender.sent(bob.pubkey().as_str(), "next", "eA==").await;
    }
    for sender in [&mut a, &mut session] {
        let ack = sender.send(bob.pubkey().as_str(), "next", "eA==").await;
        assert_eq!(ack["queued"], false);
        assert_eq!(ack["error"], "rate_limit: max 2 msg/min (burst 5) — slow down");
    }
    b.sent(alice.pubkey().as_str(), "next", "eA==").await;
    assert_eq!(node.audit_count("message_sent").await, 6);
    let metrics = http::get(&node, "/metrics").await.body;
    assert!(metrics.contains("broker_messages_rejected_total{reason=\"rate_limit\"} 2"));
}

#[tokio::test]
async fn a_send_that_is_none_is_answered_with_its_id() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let whole = json!({
        "type": "send", "targetSpec": bob.pubkey(), "priority": "next",
        "nonce": "bg==", "ciphertext": "eA==",
    });
    let wrong = [
        ("priority", json!("urgent")),
        ("priority", json!(1)),
        ("priority", Value::Null),
        ("targetSpec", json!(["x"])),
        ("targetSpec", json!("k".repeat(300))),
        ("nonce", json!({})),
        ("ciphertext", json!(42)),
        ("client_message_id", json!("c".repeat(200))),
        ("request_fingerprint", json!("f".repeat(200))),
    ];
    for (number, (field, value)) in wrong.into_iter().enumerate() {
        let mut send = whole.clone();
        send[field] = value;
        send["id"] = json!(format!("wrong-{number}"));
        a.say(send).await;
        let ack = a.hear("ack").await;
        assert_eq!(ack["id"], format!("wrong-{number}"));
        assert_eq!((&ack["queued"], &ack["messageId"]), (&json!(false), &json!("")), "{ack}");
        let error = ack["error"].as_str().expect("a sentence");
        assert!(error.starts_with("invalid send: "), "{field}: {error}");
        assert!(!error.contains("urgent"), "no value is quoted: {error}");
        assert!(ack.get("_reqId").is_none());
    }
    for field in ["targetSpec", "priority", "nonce", "ciphertext"] {
        let mut send = whole.clone();
        send.as_object_mut().expect("an object").remove(field);
        send["id"] = json!(field);
        a.say(send).await;
        let ack = a.hear("ack").await;
        assert_eq!((&ack["id"], &ack["queued"]), (&json!(field), &json!(false)));
    }
    assert_eq!(node.audit_count("message_sent").await, 0);
    a.sent(bob.pubkey().as_str(), "next", "eA==").await;
}

#[tokio::test]
async fn an_ack_carries_the_id_or_an_empty_one_and_the_request_id_if_there_is_one() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut send = named(bob.pubkey().as_str(), "", "eA==");
    send.as_object_mut().expect("an object").remove("id");
    a.say(send.clone()).await;
    let ack = a.hear("ack").await;
    assert_eq!((&ack["id"], &ack["queued"]), (&json!(""), &json!(true)));
    assert!(ack.get("_reqId").is_none() && ack.get("error").is_none(), "{ack}");

    send["id"] = json!("mine");
    let ack = a.ask(send.clone()).await;
    assert_eq!(
        (&ack["type"], &ack["id"], &ack["queued"]),
        (&json!("ack"), &json!("mine"), &json!(true))
    );
    send["priority"] = json!("never");
    let ack = a.ask(send).await;
    assert_eq!(
        (&ack["type"], &ack["id"], &ack["queued"]),
        (&json!("ack"), &json!("mine"), &json!(false))
    );
    assert!(a.so_far().await.is_empty(), "one frame each");
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_refused() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let mut a = Raw::hello(&node, &alice).await;
    let ack = a.send("#general", "next", "eA==").await;
    assert_eq!((&ack["queued"], &ack["messageId"]), (&json!(false), &json!("")));
    assert_eq!(ack["error"], "invalid target \"#general\": there is no such topic");
    assert_eq!(node.audit_count("message_sent").await, 0);
}

#[tokio::test]
async fn a_member_enrolled_a_moment_ago_is_known_at_once() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let mut a = Raw::hello(&node, &alice).await;
    // Beside the broker, as another node or another program would: nothing has
    // told it yet.
    let bob = node.member("bob").await;
    let id = a.sent(bob.pubkey().as_str(), "next", "c29vbg==").await;
    let mut b = Raw::hello(&node, &bob).await;
    assert_eq!(b.message().await["messageId"], id.as_str());
}

/// Postgres cannot hold a NUL, and half of a surrogate pair is no text: replaced,
/// an id or a target would be another.
#[tokio::test]
async fn what_cannot_be_kept_as_sent_is_refused() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let mut a = Raw::hello(&node, &alice).await;
    for field in ["targetSpec", "client_message_id", "request_fingerprint", "nonce", "ciphertext"] {
        for odd in [r"\u0000", r"\ud83d"] {
            let mut send = named("*", "mine", "eA==");
            send[field] = json!("x-ODD");
            a.say_text(send.to_string().replace("ODD", odd)).await;
            let ack = a.hear("ack").await;
            assert_eq!((&ack["queued"], &ack["id"]), (&json!(false), &json!("mine")), "{field}");
            let error = ack["error"].as_str().expect("a sentence");
            assert!(error.starts_with("invalid send:"), "{error}");
        }
    }
    assert_eq!(node.audit_count("message_sent").await, 0);
    // What nobody reads may hold anything.
    let send = named("*", "mine", "eA==").to_string();
    a.say_text(format!(r#"{},"new":"\ud83d"}}"#, &send[..send.len() - 1])).await;
    accepted(&mut a).await;
}
