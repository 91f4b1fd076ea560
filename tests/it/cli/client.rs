//! The client library against a real broker.

use std::time::{Duration, Instant};

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::cli::enrol::{self, InviteTerms};
use claudemesh_broker::client::{
    self, Client, ClientError, ClientOptions, HelloKind, Identity, Inbound, Inbox, Outgoing,
};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::codec::Codec;
use claudemesh_broker::protocol::{
    AuditVerify, Ban, Disconnect, Group, JoinGroup, Kick, KickRequest, LeaveGroup, ListBans,
    Priority, SetStatus, SetSummary, SetVisible, Status, TargetRequest,
};
use claudemesh_broker::store::Role;

use crate::harness::ports::free_port;
use crate::harness::{BrokerProcess, Node, PATIENCE, until};

/// The next inbound for which `wanted` holds.
async fn next(inbox: &mut Inbox, what: &str, wanted: impl Fn(&Inbound) -> bool) -> Inbound {
    let reading = async {
        loop {
            let inbound = inbox.recv().await?;
            if wanted(&inbound) {
                return Some(inbound);
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, reading).await.ok().flatten();
    found.unwrap_or_else(|| panic!("there was no {what}"))
}

async fn text(inbox: &mut Inbox) -> String {
    let message =
        next(inbox, "message", |inbound| matches!(inbound, Inbound::Message { .. })).await;
    message.text().expect("a text for this peer").to_owned()
}

#[tokio::test]
async fn every_kind_of_hello_in_both_codings_can_talk() {
    let node = Node::start().await;
    let kinds = [HelloKind::Member, HelloKind::MemberWithSessionKey, HelloKind::Session];
    for codec in [Codec::Json, Codec::MsgPack] {
        for kind in kinds {
            let [mut one, mut two] = [node.identity("one").await, node.identity("two").await]
                .map(|identity| ClientOptions::new(identity, kind, "claudemesh-session"));
            one.codec = codec;
            two.about.groups = None;
            let (one, mut one_inbox) = node.connect(one).await;
            let (two, mut two_inbox) = node.connect(two).await;
            let sent = one.send(two.pubkey().as_str(), Priority::Now, "to the session").await;
            assert!(sent.expect("accepted").queued);
            assert_eq!(text(&mut two_inbox).await, "to the session", "{kind:?} {codec:?}");
            two.send(one.member_pubkey().as_str(), Priority::Now, "to the member")
                .await
                .expect("ok");
            assert_eq!(text(&mut one_inbox).await, "to the member", "{kind:?} {codec:?}");
            two.send("*", Priority::Next, "to all").await.expect("accepted");
            assert_eq!(text(&mut one_inbox).await, "to all", "{kind:?} {codec:?}");
            one.close().await;
            two.close().await;
        }
    }
}

#[tokio::test]
async fn requests_are_answered_by_their_kind() {
    let node = Node::start().await;
    let (admin, _inbox) = node
        .connect(ClientOptions::session(
            node.member_as("ada", Role::Admin).await.identity(&node.mesh),
        ))
        .await;
    let (bob, mut bob_inbox) =
        node.connect(ClientOptions::session(node.identity("bob").await)).await;
    admin.ask(&SetStatus { status: Status::Working }).await.expect("set");
    let summary = "writing tests".to_owned();
    admin.ask(&SetSummary { summary }).await.expect("set");
    let group = Group { name: "dev".to_owned(), role: Some("lead".to_owned()) };
    admin.ask(&JoinGroup(group)).await.expect("joined");
    let peers = bob.list_peers().await.expect("a list");
    let ada = peers.iter().find(|peer| peer.display_name == "ada").expect("listed");
    assert_eq!((ada.status, ada.summary.as_deref()), (Status::Working, Some("writing tests")));
    assert_eq!(ada.groups[0].name, "dev");
    admin.ask(&LeaveGroup { name: "dev".to_owned() }).await.expect("left");
    admin.ask(&SetVisible { visible: false }).await.expect("hidden");
    assert!(!bob.list_peers().await.expect("a list").iter().any(|peer| peer.display_name == "ada"));
    let ack = admin.send(bob.pubkey().as_str(), Priority::Now, "hi").await.expect("accepted");
    assert_eq!(text(&mut bob_inbox).await, "hi");
    until("the delivery is confirmed", async || {
        admin.message_status(&ack.message_id).await.expect("known").delivered
    })
    .await;
    assert!(admin.ask(&AuditVerify {}).await.expect("an answer").valid);
    let refused = bob.ask(&AuditVerify {}).await.expect_err("not an admin");
    assert_eq!(refused.code(), Some("forbidden"));
    let odd = bob.request("no_such_thing", &serde_json::json!({})).await.expect_err("unknown");
    assert_eq!(odd.code(), Some("unknown_type"));
}

#[tokio::test]
async fn a_ban_and_a_kick_are_the_end_and_a_disconnect_is_not() {
    let node = Node::start().await;
    let (admin, _inbox) =
        node.connect(ClientOptions::session(node.owner.identity(&node.mesh))).await;
    let bob = node.identity("bob").await;
    let whom = KickRequest { target: Some("bob".to_owned()), ..KickRequest::default() };

    let (client, mut inbox) = node.connect(ClientOptions::session(bob.clone())).await;
    admin.ask(&Disconnect(whom.clone())).await.expect("an admin may");
    next(&mut inbox, "disconnect", |inbound| {
        matches!(inbound, Inbound::Disconnected { code: 1000, .. })
    })
    .await;
    next(&mut inbox, "return", |inbound| matches!(inbound, Inbound::Reconnected { .. })).await;

    admin.ask(&Kick(whom)).await.expect("an admin may");
    next(&mut inbox, "end", |inbound| matches!(inbound, Inbound::Closed { code: 4001, .. })).await;
    assert!(inbox.recv().await.is_none());
    let refused = client.send("*", Priority::Now, "hi").await.expect_err("closed");
    assert!(matches!(refused, ClientError::Gone | ClientError::Closed { .. }), "{refused}");
    assert!(client.is_closed());

    let (_client, mut inbox) = node.connect(ClientOptions::session(bob.clone())).await;
    let whom = TargetRequest { target: Some("bob".to_owned()), reason: None };
    admin.ask(&Ban(whom)).await.expect("an admin may");
    next(&mut inbox, "end", |inbound| matches!(inbound, Inbound::Closed { code: 4002, .. })).await;
    let refused = Client::connect(&node.url(), ClientOptions::session(bob)).await;
    let error = refused.expect_err("banned");
    assert_eq!(error.code(), Some("revoked"));
    assert!(error.is_terminal());
    let banned = admin.ask(&ListBans::default()).await.expect("a list").bans;
    assert_eq!(banned.iter().map(|ban| ban.name.as_str()).collect::<Vec<_>>(), ["bob"]);
}

#[tokio::test]
async fn a_restart_of_the_broker_is_a_blip() {
    let mut broker = BrokerProcess::start(&[("DRAIN_SECONDS", "1")]).await;
    let (alice, _a) = broker.connect(ClientOptions::session(broker.identity("alice").await)).await;
    let (bob, mut inbox) =
        broker.connect(ClientOptions::session(broker.identity("bob").await)).await;
    let presence = bob.presence_id();
    let ended = broker.sigterm().await;
    assert!(ended.success(), "{ended}: {}", broker.log());
    broker.start_again().await;
    let back =
        next(&mut inbox, "return", |inbound| matches!(inbound, Inbound::Reconnected { .. })).await;
    assert!(matches!(back, Inbound::Reconnected { same_presence: true, .. }), "{back:?}");
    assert_eq!(bob.presence_id(), presence);
    alice.send(bob.pubkey().as_str(), Priority::Now, "still here").await.expect("accepted");
    assert_eq!(text(&mut inbox).await, "still here");
}

#[tokio::test]
async fn a_send_that_meets_a_crash_is_repeated_and_arrives_once() {
    let mut broker = BrokerProcess::start(&[]).await;
    let (alice, _a) = broker.connect(ClientOptions::session(broker.identity("alice").await)).await;
    let (bob, mut inbox) =
        broker.connect(ClientOptions::session(broker.identity("bob").await)).await;
    let target = bob.pubkey();
    let mut acks = Vec::new();
    for number in 0..40 {
        let text = number.to_string();
        let message = Outgoing::new(target.as_str(), Priority::Now, text.as_str());
        acks.push(alice.send_nowait(message).await.expect("on its way"));
        if number == 20 {
            broker.kill9().await;
            broker.start_again().await;
        }
    }
    for ack in acks {
        assert!(ack.await.expect("an ack").queued);
    }
    for number in 0..40 {
        assert_eq!(text(&mut inbox).await, number.to_string(), "in order, each once");
    }
    assert_eq!(broker.audited("message_sent").await, 40);
}

#[tokio::test]
async fn an_unread_inbox_loses_nothing() {
    let node = Node::start().await;
    let (alice, _a) = node.connect(ClientOptions::session(node.identity("alice").await)).await;
    let mut options = ClientOptions::session(node.identity("bob").await);
    options.limits.inbox_max = 2;
    let (bob, mut inbox) = node.connect(options).await;
    let target = bob.pubkey();
    for number in 0..50 {
        let text = number.to_string();
        alice.send(target.as_str(), Priority::Now, text.as_str()).await.expect("accepted");
    }
    for number in 0..50 {
        assert_eq!(text(&mut inbox).await, number.to_string());
    }
}

#[tokio::test]
async fn what_is_not_confirmed_comes_again_on_the_next_connection() {
    let node = Node::start().await;
    let (alice, _a) = node.connect(ClientOptions::session(node.identity("alice").await)).await;
    let mut identity: Identity = node.identity("bob").await;
    identity.session_key = Some(SecretKey::generate());
    let mut options = ClientOptions::session(identity);
    options.confirm = false;
    let (bob, mut inbox) = node.connect(options.clone()).await;
    alice.send(bob.pubkey().as_str(), Priority::Now, "hi").await.expect("accepted");
    assert_eq!(text(&mut inbox).await, "hi");
    bob.abort();
    let (bob, mut inbox) = node.connect(options.clone()).await;
    let (push, _) = inbox.message().await.expect("again");
    bob.confirm(&push.message_id).await.expect("said");
    bob.close().await;
    let (_bob, mut inbox) = node.connect(options).await;
    alice.send(bob.pubkey().as_str(), Priority::Now, "next").await.expect("accepted");
    assert_eq!(text(&mut inbox).await, "next", "the first was confirmed");
}

#[tokio::test]
async fn an_invite_makes_a_member_over_http_and_twice_is_the_same() {
    let node = Node::start().await;
    let mesh = node.store.meshes.get(&node.mesh).await.expect("the store answers").expect("there");
    let terms = InviteTerms {
        role: Role::Member,
        max_uses: 1,
        lifetime_ms: 60_000,
        broker_url: node.url(),
        certifies: false,
    };
    let now = Timestamp::now();
    let link = enrol::create_invite(&node.store, &mesh, &node.owner.key, &terms, now)
        .await
        .expect("an invite")
        .link;
    let key = SecretKey::generate();
    let first = client::join(None, &link, &key, "eve").await.expect("joined");
    assert!(!first.already_member);
    let again = client::join(Some(&node.url()), &link, &key, "eve").await.expect("ok");
    assert_eq!((again.member.clone(), again.already_member), (first.member.clone(), true));
    let (_eve, _inbox) = node.connect(ClientOptions::session(first.identity(key))).await;
    let error = client::join(None, "ic://join/nonsense", &SecretKey::generate(), "x").await;
    assert!(error.is_err());
}

#[tokio::test]
async fn nobody_there_is_said_so_and_strangers_are_refused() {
    let node = Node::start().await;
    let mut stranger = node.identity("bob").await;
    stranger.member_key = SecretKey::generate();
    let refused = Client::connect(&node.url(), ClientOptions::member(stranger)).await;
    assert_eq!(refused.expect_err("a stranger").code(), Some("unauthorized"));
    let port = free_port();
    let options = ClientOptions::session(node.identity("bob").await);
    let began = Instant::now();
    let url = format!("ws://127.0.0.1:{port}/ws");
    let nobody = Client::connect(&url, options.clone()).await.expect_err("nobody");
    assert!(matches!(nobody, ClientError::Unreachable { .. }), "{nobody}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let odd = Client::connect("http://x", options).await.expect_err("no address");
    assert!(matches!(odd, ClientError::Address(_)), "{odd}");
}
