//! Messages to everyone and to groups.

use claudemesh_broker::auth::SecretKey;
use serde_json::{Value, json};

use crate::harness::{Member, Node, Raw};

async fn in_groups(node: &Node, member: &Member, groups: &[&str]) -> Raw {
    let groups: Vec<Value> = groups.iter().map(|name| json!({ "name": name })).collect();
    Raw::hello_with(node, member, |hello| hello["groups"] = json!(groups)).await.0
}

/// Hears the marker as its next message: nothing came before it.
async fn hears_first(raw: &mut Raw, marker: &str) {
    let push = raw.message().await;
    assert_eq!(push["messageId"], marker, "{push}");
    raw.confirm(&push).await;
}

#[tokio::test]
async fn everyone_gets_a_broadcast_but_the_senders_own_sessions() {
    let node = Node::start().await;
    let (alice, bob, carol) =
        (node.member("alice").await, node.member("bob").await, node.member("carol").await);
    let key = SecretKey::generate();
    let mut a = Raw::hello(&node, &alice).await;
    let (mut own, _) = Raw::session(&node, &alice, &key).await;
    let mut b = Raw::hello(&node, &bob).await;
    let (mut c, _) = Raw::session(&node, &carol, &SecretKey::generate()).await;
    for target in ["*", "@all"] {
        let id = own.sent(target, "low", "aGVsbG8=").await;
        for raw in [&mut b, &mut c] {
            let push = raw.message().await;
            assert_eq!(push["messageId"], id.as_str());
            assert_eq!(push["senderPubkey"], json!(key.public_key()));
            assert_eq!(push["senderMemberPubkey"], json!(alice.pubkey()));
            assert_eq!(push["senderMemberId"], json!(alice.id));
            assert_eq!(push["senderName"], "alice");
            assert_eq!(
                (&push["priority"], &push["ciphertext"]),
                (&json!("low"), &json!("aGVsbG8="))
            );
            raw.confirm(&push).await;
        }
    }
    let marker = b.sent(alice.pubkey().as_str(), "next", "bWFyaw==").await;
    hears_first(&mut own, &marker).await;
    assert!(a.messages_so_far().await.is_empty(), "not to the sender's other connections");
}

#[tokio::test]
async fn a_broadcast_carries_what_it_answers_and_not_the_senders_own_id() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    let send = json!({
        "type": "send", "id": "s", "targetSpec": "*", "priority": "now", "nonce": "",
        "ciphertext": "eA==", "client_message_id": "mine", "replyToId": "0123456789abcdef",
    });
    a.say(send.clone()).await;
    let id = a.hear("ack").await["messageId"].clone();
    let push = b.message().await;
    assert_eq!((&push["messageId"], &push["replyToId"]), (&id, &json!("0123456789abcdef")));
    assert!(push.get("client_message_id").is_none(), "{push}");
    a.say(send).await;
    assert_eq!(a.hear("ack").await["messageId"], id, "idempotent too");
    let marker = a.sent("*", "now", "bWFyaw==").await;
    hears_first(&mut b, &marker).await;
}

#[tokio::test]
async fn a_group_reaches_itself_and_those_below_it_and_nobody_beside() {
    let node = Node::start().await;
    let names = ["sender", "top", "below", "deep", "beside", "above"];
    let mut members = Vec::new();
    for name in names {
        members.push(node.member(name).await);
    }
    let mut a = in_groups(&node, &members[0], &["a"]).await;
    let mut top = in_groups(&node, &members[1], &["x", "a"]).await;
    let mut below = in_groups(&node, &members[2], &["a/b"]).await;
    let mut deep = in_groups(&node, &members[3], &["a/b/c"]).await;
    let mut beside = in_groups(&node, &members[4], &["ab", "b", "A"]).await;
    let mut above = in_groups(&node, &members[5], &[]).await;

    let to_a = a.sent("@a", "next", "YQ==").await;
    let to_b = a.sent("@a/b", "next", "Yg==").await;
    let to_nobody = a.send("@nobody", "next", "eA==").await;
    assert_eq!(to_nobody["queued"], true, "a group without members is no error");
    let marker = a.sent("*", "next", "bWFyaw==").await;

    for raw in [&mut top, &mut below, &mut deep] {
        hears_first(raw, &to_a).await;
    }
    for raw in [&mut below, &mut deep] {
        hears_first(raw, &to_b).await;
    }
    for raw in [&mut top, &mut below, &mut deep, &mut beside, &mut above] {
        hears_first(raw, &marker).await;
    }
}

#[tokio::test]
async fn joining_and_leaving_a_group_counts_from_the_next_message() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    a.sent("@dev", "next", "MQ==").await;
    b.ask(json!({ "type": "join_group", "name": "dev/api", "role": "lead" })).await;
    let second = a.sent("@dev", "next", "Mg==").await;
    hears_first(&mut b, &second).await;
    b.ask(json!({ "type": "leave_group", "name": "dev/api" })).await;
    a.sent("@dev", "next", "Mw==").await;
    let marker = a.sent("*", "next", "bWFyaw==").await;
    hears_first(&mut b, &marker).await;
}

#[tokio::test]
async fn hidden_peers_are_skipped_and_can_still_be_written_to() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = in_groups(&node, &bob, &["dev"]).await;
    b.ask(json!({ "type": "set_visible", "visible": false })).await;
    a.sent("*", "next", "eA==").await;
    a.sent("@dev", "next", "eA==").await;
    let direct = a.sent(bob.pubkey().as_str(), "next", "ZGlyZWN0").await;
    hears_first(&mut b, &direct).await;
    b.ask(json!({ "type": "set_visible", "visible": true })).await;
    let marker = a.sent("*", "next", "bWFyaw==").await;
    hears_first(&mut b, &marker).await;
}

#[tokio::test]
async fn a_broadcast_does_not_wait_for_a_busy_peer_to_be_idle() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    for status in ["working", "dnd"] {
        b.ask(json!({ "type": "set_status", "status": status })).await;
        let id = a.sent("*", "low", "eA==").await;
        hears_first(&mut b, &id).await;
    }
}

#[tokio::test]
async fn those_in_grace_get_it_on_their_return_and_late_joiners_never() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (alice, bob, late) =
        (node.member("alice").await, node.member("bob").await, node.member("late").await);
    let mut a = Raw::hello(&node, &alice).await;
    let b = in_groups(&node, &bob, &["dev"]).await;
    b.goodbye().await;
    let mut ids = Vec::new();
    for target in ["*", "@dev", "*", "@ops", "@all"] {
        ids.push((target, a.sent(target, "next", "eA==").await));
    }
    let mut l = in_groups(&node, &late, &["dev"]).await;
    let mut b = Raw::hello(&node, &bob).await;
    for (_, id) in ids.iter().filter(|(target, _)| *target != "@ops") {
        hears_first(&mut b, id).await;
    }
    let marker = a.sent("*", "next", "bWFyaw==").await;
    hears_first(&mut b, &marker).await;
    hears_first(&mut l, &marker).await;
    b.so_far().await;
    b.goodbye().await;
    let mut b = Raw::hello(&node, &bob).await;
    let marker = a.sent("*", "next", "bWFyaw==").await;
    hears_first(&mut b, &marker).await;
}

#[tokio::test]
async fn a_presence_that_has_ended_gets_nothing_of_the_meantime() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 100).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    Raw::hello(&node, &bob).await.goodbye().await;
    a.event("peer_left").await;
    a.sent("*", "next", "eA==").await;
    let mut b = Raw::hello(&node, &bob).await;
    let marker = a.sent("*", "next", "bWFyaw==").await;
    hears_first(&mut b, &marker).await;
}

#[tokio::test]
async fn an_unconfirmed_broadcast_comes_again_to_those_who_confirm() {
    let node = Node::start_with(|config| config.message.claim_ms = 200).await;
    let (alice, bob, carol) =
        (node.member("alice").await, node.member("bob").await, node.member("carol").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    let (mut silent, _) =
        Raw::hello_with(&node, &carol, |hello| hello["channel"] = json!("sdk")).await;
    let id = a.sent("*", "next", "eA==").await;
    assert_eq!(silent.message().await["messageId"], id.as_str());
    for _ in 0..3 {
        assert_eq!(b.message().await["messageId"], id.as_str());
    }
    assert!(silent.messages_so_far().await.is_empty(), "once to those who do not");
    b.say(json!({ "type": "client_ack", "brokerMessageId": id })).await;
    assert!(b.messages_so_far().await.len() <= 1);
    let second = a.sent("*", "next", "eQ==").await;
    for _ in 0..3 {
        assert_eq!(b.message().await["messageId"], second.as_str());
    }
    b.goodbye().await;
    let mut b = Raw::hello(&node, &bob).await;
    hears_first(&mut b, &second).await;
}

#[tokio::test]
async fn everyone_hears_two_senders_in_the_same_order() {
    let node = Node::start().await;
    let mut raws = Vec::new();
    for name in ["one", "two", "three", "four"] {
        raws.push(Raw::hello(&node, &node.member(name).await).await);
    }
    const COUNT: usize = 100;
    for number in 0..COUNT {
        for (sender, raw) in raws.iter_mut().take(2).enumerate() {
            raw.say(json!({
                "type": "send", "id": "", "targetSpec": "*", "priority": "next", "nonce": "",
                "ciphertext": format!("{sender}{number:03}"),
            }))
            .await;
        }
    }
    let mut orders = Vec::new();
    for raw in raws.iter_mut().skip(2) {
        let mut order = Vec::new();
        for _ in 0..2 * COUNT {
            let push = raw.message().await;
            raw.confirm(&push).await;
            order.push(push["ciphertext"].as_str().expect("text").to_owned());
        }
        orders.push(order);
    }
    assert_eq!(orders[0], orders[1]);
    for sender in ["0", "1"] {
        let own: Vec<&String> = orders[0].iter().filter(|text| text.starts_with(sender)).collect();
        assert!(own.is_sorted(), "each sender's own order holds: {own:?}");
        assert_eq!(own.len(), COUNT);
    }
}
