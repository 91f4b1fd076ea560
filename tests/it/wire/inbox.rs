//! A daemon keeps one inbox for all its sessions: what is for many comes once.

use claudemesh_broker::auth::SecretKey;
use serde_json::{Value, json};

use crate::harness::raw::{hello_frame, session_hello_frame};
use crate::harness::{Member, Node, Raw, until, until_in_grace};

pub fn daemon_on(node: &Node, member: &Member, host: &str) -> Value {
    let mut hello = hello_frame(&node.mesh, member);
    hello["hostname"] = json!(host);
    hello["sessionId"] = json!(format!("daemon on {host}"));
    hello
}

pub fn session_on(node: &Node, member: &Member, key: &SecretKey, host: &str) -> Value {
    let mut hello = session_hello_frame(&node.mesh, member, key);
    hello["hostname"] = json!(host);
    hello["displayName"] = json!(format!("{} on {host}", member.name));
    hello
}

/// Exactly these come, in this order.
pub async fn gets(raw: &mut Raw, ids: &[&String]) {
    for id in ids {
        let push = raw.message().await;
        assert_eq!(push["messageId"], id.as_str());
        raw.confirm(&push).await;
    }
    assert!(raw.messages_so_far().await.is_empty());
}

#[tokio::test]
async fn what_is_for_many_reaches_a_daemon_and_not_its_sessions_again() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let keys = [(); 3].map(|()| SecretKey::generate());
    let mut daemon = Raw::greet(&node, daemon_on(&node, &bob, "one")).await.0;
    let mut first = Raw::greet(&node, session_on(&node, &bob, &keys[0], "one")).await.0;
    let mut second = Raw::greet(&node, session_on(&node, &bob, &keys[1], "one")).await.0;
    let mut far = Raw::greet(&node, session_on(&node, &bob, &keys[2], "two")).await.0;
    let all = a.sent("*", "low", "YWxs").await;
    gets(&mut daemon, &[&all]).await;
    gets(&mut far, &[&all]).await;
    gets(&mut first, &[]).await;
    gets(&mut second, &[]).await;

    // The daemon is not in that group: who is in it gets it.
    first.ask(json!({ "type": "join_group", "name": "team" })).await;
    let team = a.sent("@team", "low", "dGVhbQ==").await;
    gets(&mut first, &[&team]).await;
    gets(&mut daemon, &[]).await;
    daemon.ask(json!({ "type": "join_group", "name": "team" })).await;
    let team = a.sent("@team", "low", "dGVhbQ==").await;
    gets(&mut daemon, &[&team]).await;
    gets(&mut first, &[]).await;

    // A hidden daemon gets none, and keeps none away.
    daemon.ask(json!({ "type": "set_visible", "visible": false })).await;
    let all = a.sent("*", "low", "YWxs").await;
    for raw in [&mut first, &mut second, &mut far] {
        gets(raw, &[&all]).await;
    }
    gets(&mut daemon, &[]).await;
}

#[tokio::test]
async fn what_a_session_passed_over_does_not_come_later() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let key = SecretKey::generate();
    let mut daemon = Raw::greet(&node, daemon_on(&node, &bob, "one")).await.0;
    let session = Raw::greet(&node, session_on(&node, &bob, &key, "one")).await.0;
    let probe = a.sent("*", "low", "cHJvYmU=").await;
    gets(&mut daemon, &[&probe]).await;
    session.goodbye().await;
    until_in_grace(&mut a, &probe, "bob on one").await;
    let meanwhile = a.sent("*", "low", "bWVhbndoaWxl").await;
    gets(&mut daemon, &[&meanwhile]).await;
    let mut session = Raw::greet(&node, session_on(&node, &bob, &key, "one")).await.0;
    gets(&mut session, &[]).await;
}

#[tokio::test]
async fn while_a_daemon_is_away_its_sessions_get_what_is_for_many() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let key = SecretKey::generate();
    let daemon = Raw::greet(&node, daemon_on(&node, &bob, "one")).await.0;
    let mut session = Raw::greet(&node, session_on(&node, &bob, &key, "one")).await.0;
    let probe = a.sent("*", "low", "cHJvYmU=").await;
    daemon.goodbye().await;
    until_in_grace(&mut a, &probe, "bob").await;
    let id = a.sent("*", "low", "YXdheQ==").await;
    gets(&mut session, &[&id]).await;
    // Its own, which it had not confirmed.
    let mut daemon = Raw::greet(&node, daemon_on(&node, &bob, "one")).await.0;
    gets(&mut daemon, &[&probe, &id]).await;
}

#[tokio::test]
async fn nothing_is_lost_between_a_daemon_and_its_sessions_when_both_start_again() {
    let mut node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let key = SecretKey::generate();
    let mut sent = Vec::new();
    for round in 0..3 {
        let mut a = Raw::hello(&node, &alice).await;
        let mut hello = daemon_on(&node, &bob, "one");
        // Another process each time.
        hello["sessionId"] = json!(format!("daemon-{round}"));
        let mut daemon = Raw::greet(&node, hello).await.0;
        let mut session = Raw::greet(&node, session_on(&node, &bob, &key, "one")).await.0;
        let mut got: Vec<String> = Vec::new();
        until("all that was sent has come to one of them", async || {
            for raw in [&mut daemon, &mut session] {
                let ids = raw.messages_so_far().await.into_iter();
                got.extend(ids.map(|push| push["messageId"].as_str().expect("an id").to_owned()));
            }
            sent.iter().all(|id| got.contains(id))
        })
        .await;
        sent.clear();
        daemon.goodbye().await;
        session.goodbye().await;
        let probe = sent_until_away(&mut a).await;
        sent.push(probe);
        sent.push(a.sent("*", "low", "bWlzc2Vk").await);
        if round == 1 {
            // Also if the broker starts anew meanwhile, and knows only what is written.
            drop(a);
            node.restart().await;
        }
    }
}

/// A message that everybody who is away holds.
async fn sent_until_away(a: &mut Raw) -> String {
    let probe = a.sent("*", "low", "cHJvYmU=").await;
    until_in_grace(a, &probe, "bob").await;
    until_in_grace(a, &probe, "bob on one").await;
    a.sent("*", "low", "cHJvYmU=").await
}
