//! Visits: commands that come and go beside the sessions of their member.

use claudemesh_broker::auth::SecretKey;
use serde_json::{Value, json};

use crate::harness::raw::{hello_frame, session_hello_frame};
use crate::harness::{Member, Node, Raw, until};

const NO_PEER: &str = "no connected peer for target (not online, or targetSpec is your own key \
                       without another session)";

/// A one-shot command of the public command line, which never says that it visits.
pub fn command_frame(node: &Node, member: &Member, key: &SecretKey, session_id: &str) -> Value {
    let mut hello = hello_frame(&node.mesh, member);
    hello["sessionPubkey"] = json!(key.public_key());
    hello["channel"] = json!("claude-code");
    hello["sessionId"] = json!(session_id);
    hello["pid"] = json!(9999);
    hello
}

pub async fn command(node: &Node, member: &Member, session_id: &str) -> (Raw, SecretKey) {
    let key = SecretKey::generate();
    let (raw, ack) = Raw::greet(node, command_frame(node, member, &key, session_id)).await;
    assert_eq!(ack["type"], "hello_ack", "{ack}");
    (raw, key)
}

pub async fn rows(raw: &mut Raw) -> Vec<Value> {
    let listed = raw.ask(json!({ "type": "list_peers" })).await;
    listed["peers"].as_array().expect("rows").clone()
}

/// Commands come and go on these nodes while each message is sent, acked, and must
/// arrive, once, in order.
pub async fn sixty_arrive(sender: &mut Raw, to: &Member, reader: &mut Raw, nodes: &[Node]) {
    for number in 0..60 {
        let node = &nodes[number % nodes.len()];
        let (passing, _) = command(node, to, "passing").await;
        let id = sender.sent(to.pubkey().as_str(), "now", "bXNn").await;
        if number % 2 == 0 {
            passing.goodbye().await;
        }
        let push = reader.message().await;
        assert_eq!(push["messageId"], id.as_str(), "message {number}");
        reader.confirm(&push).await;
    }
    assert!(reader.messages_so_far().await.is_empty());
}

#[tokio::test]
async fn passing_commands_take_no_mail_of_their_member() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut daemon = Raw::hello(&node, &bob).await;
    let nodes = [node];
    sixty_arrive(&mut a, &bob, &mut daemon, &nodes).await;
    let key = SecretKey::generate();
    let (mut session, _) = Raw::session(&nodes[0], &bob, &key).await;
    sixty_arrive(&mut a, &bob, &mut session, &nodes).await;
    assert!(daemon.messages_so_far().await.is_empty());
}

#[tokio::test]
async fn what_waits_for_a_member_is_left_to_its_daemon() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let id = a.sent(bob.pubkey().as_str(), "next", "d2FpdHM=").await;
    let (mut passing, _) = command(&node, &bob, "passing").await;
    let (mut own, _) = Raw::hello_with(&node, &bob, |hello| {
        hello["visit"] = json!(true);
        hello["sessionId"] = json!("own");
    })
    .await;
    assert!(passing.messages_so_far().await.is_empty() && own.messages_so_far().await.is_empty());
    passing.goodbye().await;
    let mut daemon = Raw::hello(&node, &bob).await;
    assert_eq!(daemon.message().await["messageId"], id.as_str());
    assert!(own.messages_so_far().await.is_empty());
}

#[tokio::test]
async fn a_visitor_is_answered_and_hears_of_nothing_else() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    a.ask(json!({ "type": "join_group", "name": "team" })).await;
    let (mut passing, key) = command(&node, &bob, "passing").await;
    passing.ask(json!({ "type": "join_group", "name": "team" })).await;
    passing.sent(alice.pubkey().as_str(), "next", "YXNr").await;
    let asked = a.message().await;
    assert_eq!(asked["senderPubkey"], json!(key.public_key()), "its own key is shown");
    a.sent("*", "low", "YWxs").await;
    a.sent("@team", "low", "dGVhbQ==").await;
    a.sent(bob.pubkey().as_str(), "now", "bWVtYmVy").await;
    a.ask(json!({ "type": "set_visible", "visible": false })).await;
    Raw::hello(&node, &node.owner).await.goodbye().await;
    let answer = a.sent(key.public_key().as_str(), "next", "YW5zd2Vy").await;
    let heard = passing.message().await;
    assert_eq!(heard["messageId"], answer.as_str());
    let mut rest = passing.so_far().await;
    rest.retain(|frame| frame["type"] == "push");
    assert_eq!(rest, Vec::<Value>::new());
}

#[tokio::test]
async fn nobody_is_told_of_a_visit_and_nothing_of_it_stays() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let (mut b, _) = Raw::session(&node, &bob, &SecretKey::generate()).await;
    a.event("peer_joined").await;
    let joined = node.audit_count("peer_joined").await;
    let (mut passing, key) = command(&node, &bob, "passing").await;
    passing.ask(json!({ "type": "set_summary", "summary": "of a visitor" })).await;
    passing.ask(json!({ "type": "set_profile", "bio": "of a visitor" })).await;
    passing.ask(json!({ "type": "set_visible", "visible": false })).await;
    passing.ask(json!({ "type": "set_visible", "visible": true })).await;
    passing.ask(json!({ "type": "join_group", "name": "visitors" })).await;
    let own = rows(&mut passing).await;
    assert_eq!(own.len(), 3, "it finds itself: {own:?}");
    let itself = own.iter().find(|row| row["pubkey"] == json!(key.public_key()));
    assert_eq!(itself.expect("its row")["summary"], "of a visitor");
    for raw in [&mut a, &mut b] {
        assert_eq!(rows(raw).await.len(), 2, "others do not");
    }
    let to_all = a.sent("*", "low", "YWxs").await;
    let status = a.ask(json!({ "type": "message_status", "messageId": to_all })).await;
    assert_eq!(status["recipients"].as_array().map(Vec::len), Some(1), "{status}");
    passing.goodbye().await;
    until("it is gone", async || {
        let ack = a.send(key.public_key().as_str(), "next", "bGF0ZQ==").await;
        ack["error"] == NO_PEER
    })
    .await;
    for raw in [&mut a, &mut b] {
        let mut heard = raw.so_far().await;
        heard.retain(|frame| frame["subtype"] == "system");
        assert_eq!(heard, Vec::<Value>::new());
    }
    assert_eq!(node.audit_count("peer_joined").await, joined);
    assert_eq!(node.audit_count("peer_left").await, 0);
    let (_daemon, ack) = Raw::hello_with(&node, &bob, |_| {}).await;
    assert!(ack.get("restored").is_none(), "a visit leaves nothing to restore: {ack}");
}

#[tokio::test]
async fn a_visitor_is_given_nothing_of_its_members_last_state() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 100).await;
    let bob = node.member("bob").await;
    let mut watch = Raw::hello(&node, &node.owner).await;
    let mut daemon = Raw::hello(&node, &bob).await;
    daemon.ask(json!({ "type": "join_group", "name": "team" })).await;
    daemon.ask(json!({ "type": "set_profile", "bio": "kept" })).await;
    daemon.goodbye().await;
    watch.event("peer_left").await;
    let key = SecretKey::generate();
    let (passing, ack) = Raw::greet(&node, command_frame(&node, &bob, &key, "x")).await;
    assert!(ack.get("restored").is_none() && ack.get("restoredGroups").is_none(), "{ack}");
    passing.goodbye().await;
    let (mut daemon, ack) = Raw::hello_with(&node, &bob, |_| {}).await;
    assert_eq!(
        (&ack["restored"], &ack["restoredGroups"][0]["name"]),
        (&json!(true), &json!("team"))
    );
    let row = rows(&mut daemon).await.into_iter().find(|row| row["displayName"] == "bob");
    assert_eq!(row.expect("its row")["profile"]["bio"], "kept");
}

#[tokio::test]
async fn a_visitor_has_a_place_while_its_socket_is_open() {
    let node = Node::start_with(|config| {
        config.presence.connections_per_mesh_max = 2;
        config.presence.lease_grace_ms = 60_000;
    })
    .await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let _a = Raw::hello(&node, &alice).await;
    let (passing, _) = command(&node, &bob, "one").await;
    let (refused, _) =
        Raw::refused(&node, command_frame(&node, &bob, &SecretKey::generate(), "two")).await;
    assert_eq!(refused["code"], "capacity");
    passing.goodbye().await;
    until("its place is free, without grace", async || {
        let key = SecretKey::generate();
        let (_, answer) = Raw::greet(&node, command_frame(&node, &bob, &key, "three")).await;
        answer["type"] == "hello_ack"
    })
    .await;
}

#[tokio::test]
async fn only_keys_that_can_come_back_are_written_to_when_they_are_away() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 100).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let (named, proven) = (SecretKey::generate(), SecretKey::generate());
    let (plain, _) = Raw::hello_with(&node, &bob, |hello| {
        hello["sessionPubkey"] = json!(named.public_key());
        hello["channel"] = json!("sdk");
    })
    .await;
    let (session, _) = Raw::session(&node, &bob, &proven).await;
    plain.goodbye().await;
    session.goodbye().await;
    for _ in 0..2 {
        a.event("peer_left").await;
    }
    let ack = a.send(named.public_key().as_str(), "next", "eA==").await;
    assert_eq!((&ack["queued"], &ack["error"]), (&json!(false), &json!(NO_PEER)));
    let id = a.sent(proven.public_key().as_str(), "next", "eA==").await;
    let (mut session, _) = Raw::session(&node, &bob, &proven).await;
    assert_eq!(session.message().await["messageId"], id.as_str());
}

#[tokio::test]
async fn whoever_says_that_it_stays_is_a_peer_like_others() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut hello = command_frame(&node, &bob, &SecretKey::generate(), "stays");
    hello["visit"] = json!(false);
    let (mut b, _) = Raw::greet(&node, hello).await;
    a.event("peer_joined").await;
    assert_eq!(rows(&mut a).await.len(), 2);
    for target in [bob.pubkey().as_str(), "*"] {
        let id = a.sent(target, "next", "eA==").await;
        assert_eq!(b.message().await["messageId"], id.as_str());
    }
}

#[tokio::test]
async fn a_visitor_evicts_nobody() {
    let node = Node::start().await;
    let bob = node.member("bob").await;
    let mut daemon = Raw::hello(&node, &bob).await;
    // The same session id, and no session key: the same session, if it were one.
    let (visitor, _) = Raw::hello_with(&node, &bob, |hello| hello["visit"] = json!(true)).await;
    assert_eq!(rows(&mut daemon).await.len(), 1);
    visitor.goodbye().await;
    assert_eq!(rows(&mut daemon).await.len(), 1);
}

#[tokio::test]
async fn the_members_own_key_is_no_way_to_its_mail() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let (mut visitor, _) = Raw::greet(&node, command_frame(&node, &bob, &bob.key, "x")).await;
    let id = a.sent(bob.pubkey().as_str(), "now", "eA==").await;
    assert!(visitor.messages_so_far().await.is_empty());
    let mut daemon = Raw::hello(&node, &bob).await;
    assert_eq!(daemon.message().await["messageId"], id.as_str());
}

/// What a command says of itself inside a session is about that session.
pub async fn speaks_for_its_session(there: &Node, here: &Node, bob: &Member) {
    let mut hello = session_hello_frame(&there.mesh, bob, &SecretKey::generate());
    hello["sessionId"] = json!("claude-1");
    hello["displayName"] = json!("session");
    let (mut session, _) = Raw::greet(there, hello).await;
    let mut other = session_hello_frame(&there.mesh, bob, &SecretKey::generate());
    other["sessionId"] = json!("claude-2");
    other["displayName"] = json!("other");
    let (mut other, _) = Raw::greet(there, other).await;
    let mut watch = Raw::hello(here, &here.owner).await;
    let row_of = async |raw: &mut Raw, name: &str| {
        rows(raw).await.into_iter().find(|row| row["displayName"] == name).unwrap_or_default()
    };
    until("the session is seen", async || row_of(&mut watch, "session").await != Value::Null).await;
    watch.so_far().await;
    let (mut passing, _) = command(here, bob, "claude-1").await;
    for request in [
        json!({ "type": "set_status", "status": "working" }),
        json!({ "type": "set_summary", "summary": "by a command" }),
        json!({ "type": "join_group", "name": "left" }),
        json!({ "type": "join_group", "name": "team", "role": "lead" }),
        json!({ "type": "leave_group", "name": "left" }),
        json!({ "type": "set_profile", "bio": "by a command" }),
    ] {
        let answer = passing.ask(request.clone()).await;
        assert_eq!(answer["type"], "ack", "{request}: {answer}");
    }
    let expected = json!(["working", "by a command", [{ "name": "team", "role": "lead" }],
        { "bio": "by a command" }]);
    let shown = |row: Value| json!([row["status"], row["summary"], row["groups"], row["profile"]]);
    for raw in [&mut watch, &mut session] {
        until("everybody sees it", async || shown(row_of(raw, "session").await) == expected).await;
    }
    let untouched = shown(row_of(&mut watch, "other").await);
    assert_eq!(untouched, json!(["idle", null, [], null]));
    passing.ask(json!({ "type": "set_visible", "visible": false })).await;
    assert_eq!(watch.event("peer_hidden").await["eventData"]["name"], "session");
    let long = json!({ "type": "join_group", "name": "x".repeat(200) });
    assert_eq!(passing.ask(long).await["code"], "invalid_argument");
    let own = rows(&mut passing).await;
    let itself = own.iter().find(|row| row["channel"] == "claude-code").expect("itself");
    assert_eq!((&itself["status"], &itself["summary"]), (&json!("idle"), &json!(null)));
    for raw in [&mut session, &mut other] {
        let mut heard = raw.so_far().await;
        heard.retain(|frame| frame["type"] != "push");
        assert_eq!(heard, Vec::<Value>::new(), "the command is answered, not the session");
    }
}

#[tokio::test]
async fn what_a_command_says_of_itself_is_about_its_session() {
    let node = Node::start().await;
    let bob = node.member("bob").await;
    speaks_for_its_session(&node, &node, &bob).await;
}

#[tokio::test]
async fn another_members_session_is_not_spoken_for() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut hello = session_hello_frame(&node.mesh, &alice, &SecretKey::generate());
    hello["sessionId"] = json!("claude-1");
    let (mut session, _) = Raw::greet(&node, hello).await;
    let (mut passing, _) = command(&node, &bob, "claude-1").await;
    passing.ask(json!({ "type": "set_status", "status": "dnd" })).await;
    let row = rows(&mut session).await.remove(0);
    assert_eq!((&row["displayName"], &row["status"]), (&json!("alice"), &json!("idle")));
}
