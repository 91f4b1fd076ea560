//! Which of a member's sessions gets a message, and under which key.

use claudemesh_broker::auth::SecretKey;
use serde_json::json;

use crate::harness::raw::session_hello_frame;
use crate::harness::{Member, Node, Raw, until};

const NO_PEER: &str = "no connected peer for target (not online, or targetSpec is your own key \
                       without another session)";

/// A member's daemon and two sessions; the second was active last.
struct Desk {
    daemon: Raw,
    first: Raw,
    second: Raw,
    keys: [SecretKey; 2],
}

impl Desk {
    async fn of(node: &Node, member: &Member) -> Self {
        let keys = [SecretKey::generate(), SecretKey::generate()];
        let daemon = Raw::hello(node, member).await;
        let first = Raw::session(node, member, &keys[0]).await.0;
        let mut second = Raw::session(node, member, &keys[1]).await.0;
        tick().await;
        second.so_far().await;
        Self { daemon, first, second, keys }
    }

    async fn messages_so_far(&mut self) -> [usize; 3] {
        [
            self.daemon.messages_so_far().await.len(),
            self.first.messages_so_far().await.len(),
            self.second.messages_so_far().await.len(),
        ]
    }
}

/// Until the clock, whose unit is a millisecond, has moved.
async fn tick() {
    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
}

#[tokio::test]
async fn a_member_key_reaches_one_session_the_one_that_was_active_last() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut desk = Desk::of(&node, &bob).await;
    let id = a.sent(bob.pubkey().as_str(), "next", "b25l").await;
    assert_eq!(desk.second.message().await["messageId"], id.as_str());
    assert_eq!(desk.messages_so_far().await, [0, 0, 0], "nobody else got it");

    tick().await;
    desk.first.so_far().await;
    let id = a.sent(bob.pubkey().as_str(), "next", "dHdv").await;
    assert_eq!(desk.first.message().await["messageId"], id.as_str());
    assert_eq!(desk.messages_so_far().await, [0, 0, 0]);
}

#[tokio::test]
async fn an_idle_session_comes_before_a_working_one_and_any_session_before_the_daemon() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut desk = Desk::of(&node, &bob).await;
    desk.second.ask(json!({ "type": "set_status", "status": "working" })).await;
    let id = a.sent(bob.pubkey().as_str(), "now", "b25l").await;
    assert_eq!(desk.first.message().await["messageId"], id.as_str(), "the idle one");
    desk.first.ask(json!({ "type": "set_status", "status": "dnd" })).await;
    let id = a.sent(bob.pubkey().as_str(), "now", "dHdv").await;
    let push = desk.first.hear_where("push", |push| push["messageId"] == id.as_str());
    assert_eq!(push.await["ciphertext"], "dHdv", "active last, and no daemon");
    assert_eq!(desk.messages_so_far().await, [0, 0, 0]);
}

#[tokio::test]
async fn what_a_session_leaves_unconfirmed_goes_to_another_of_its_member() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let Desk { mut daemon, mut first, mut second, .. } = Desk::of(&node, &bob).await;
    let id = a.sent(bob.pubkey().as_str(), "next", "b25l").await;
    assert_eq!(second.message().await["messageId"], id.as_str());
    drop(second);
    assert_eq!(first.message().await["messageId"], id.as_str(), "the other session");
    first.goodbye().await;
    let push = daemon.message().await;
    assert_eq!(push["messageId"], id.as_str(), "and then the daemon");
    daemon.confirm(&push).await;
    daemon.so_far().await;
    daemon.goodbye().await;
    let mut daemon = Raw::hello(&node, &bob).await;
    assert!(daemon.messages_so_far().await.is_empty(), "it was confirmed");
}

#[tokio::test]
async fn a_session_key_reaches_that_session_only_also_when_it_is_away() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut desk = Desk::of(&node, &bob).await;
    let key = desk.keys[0].public_key();
    let id = a.sent(key.as_str(), "next", "b25l").await;
    assert_eq!(desk.first.message().await["messageId"], id.as_str());
    assert_eq!(desk.messages_so_far().await, [0, 0, 0]);

    desk.first.goodbye().await;
    let away = a.sent(key.as_str(), "next", "dHdv").await;
    let marker = a.sent(desk.keys[1].public_key().as_str(), "next", "bWFyaw==").await;
    assert_eq!(desk.second.message().await["messageId"], marker.as_str());
    assert!(desk.daemon.messages_so_far().await.is_empty());
    let mut first = Raw::session(&node, &bob, &desk.keys[0]).await.0;
    assert_eq!(first.message().await["messageId"], id.as_str(), "left unconfirmed");
    assert_eq!(first.message().await["messageId"], away.as_str());
    assert!(desk.second.messages_so_far().await.is_empty());
}

#[tokio::test]
async fn a_session_that_has_left_for_good_is_still_known() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 100).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let key = SecretKey::generate();
    let (b, before) = Raw::session(&node, &bob, &key).await;
    b.goodbye().await;
    a.event("peer_left").await;
    let id = a.sent(key.public_key().as_str(), "next", "bGF0ZQ==").await;
    let (mut b, after) = Raw::session(&node, &bob, &key).await;
    assert_ne!(before["presenceId"], after["presenceId"], "a new presence");
    assert_eq!(b.message().await["messageId"], id.as_str());
}

#[tokio::test]
async fn a_member_that_was_never_here_gets_its_mail_on_its_first_visit() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let id = a.sent(bob.pubkey().as_str(), "low", "d2VsY29tZQ==").await;
    let mut b = Raw::hello(&node, &bob).await;
    assert_eq!(b.message().await["messageId"], id.as_str());
}

#[tokio::test]
async fn who_joins_after_a_peer_came_can_be_written_to() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let mut a = Raw::hello(&node, &alice).await;
    // By another program on the same database.
    let bob = node.member("bob").await;
    let target = bob.pubkey();
    until("the newcomer is known", async || {
        a.send(target.as_str(), "next", "aGk=").await["queued"] == true
    })
    .await;
    let mut b = Raw::hello(&node, &bob).await;
    assert_eq!(b.message().await["ciphertext"], "aGk=");
}

#[tokio::test]
async fn unknown_keys_names_and_ones_own_key_are_refused_in_the_words_clients_know() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let (other_mesh, other_owner) = node.another_mesh("other").await;
    let mut elsewhere = Raw::connect(&node).await;
    elsewhere.say(crate::harness::raw::hello_frame(&other_mesh, &other_owner)).await;
    elsewhere.hear("hello_ack").await;
    let mut a = Raw::hello(&node, &alice).await;
    let unknown = SecretKey::generate().public_key();
    for target in [
        unknown.as_str(),
        alice.pubkey().as_str(),
        other_owner.pubkey().as_str(),
        &node.owner.pubkey().as_str()[..16],
        "owner",
        "",
    ] {
        let ack = a.send(target, "next", "eA==").await;
        assert_eq!(ack["queued"], false, "{target}: {ack}");
        assert_eq!(ack["messageId"], "");
        assert_eq!(ack["error"], NO_PEER, "{target}");
    }
    assert_eq!(node.audit_count("message_sent").await, 0);
    assert!(elsewhere.messages_so_far().await.is_empty());
}

#[tokio::test]
async fn ones_own_key_reaches_ones_other_session_once_there_is_one() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let mut daemon = Raw::hello(&node, &alice).await;
    let key = SecretKey::generate();
    let (mut session, _) = Raw::session(&node, &alice, &key).await;
    let id = daemon.sent(alice.pubkey().as_str(), "next", "b25l").await;
    let push = session.message().await;
    assert_eq!(push["messageId"], id.as_str());
    session.confirm(&push).await;
    let id = session.sent(alice.pubkey().as_str(), "next", "dHdv").await;
    assert_eq!(daemon.message().await["messageId"], id.as_str());
    let ack = session.send(key.public_key().as_str(), "next", "c2VsZg==").await;
    assert_eq!(ack["error"], NO_PEER, "one's own session key");
}

#[tokio::test]
async fn a_session_is_taken_over_and_its_messages_follow_it() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let key = SecretKey::generate();
    let (mut old, first) = Raw::session(&node, &bob, &key).await;
    let id = a.sent(key.public_key().as_str(), "next", "b25l").await;
    assert_eq!(old.message().await["messageId"], id.as_str());
    let mut new = Raw::connect(&node).await;
    new.say(session_hello_frame(&node.mesh, &bob, &key)).await;
    assert_eq!(new.hear("hello_ack").await["presenceId"], first["presenceId"]);
    assert_eq!(old.closed().await, (1000, "session_replaced".to_owned()));
    assert_eq!(new.message().await["messageId"], id.as_str());
}
