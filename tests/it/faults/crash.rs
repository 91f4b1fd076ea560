//! The real program, killed, stopped and started again; and data on which it
//! cannot start.

mod stages;
mod start_up;
mod storm;

use std::time::{Duration, Instant};

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::client::{Client, ClientOptions, Identity, Inbound, Inbox};
use claudemesh_broker::protocol::{Group, JoinGroup, Priority, Push};
use tokio::time::timeout;

use crate::harness::{BrokerProcess, PATIENCE, until};
use storm::Storm;

/// A session that comes back as itself also when the test connects it anew.
fn session(mut identity: Identity) -> ClientOptions {
    identity.session_key = Some(SecretKey::generate());
    ClientOptions::session(identity)
}

async fn message(inbox: &mut Inbox) -> Box<Push> {
    let message = timeout(PATIENCE, inbox.message()).await.ok().flatten();
    message.expect("a message").0
}

/// What came so far about others: all that was said before a request made now.
async fn events(client: &Client, inbox: &mut Inbox) -> Vec<(String, String)> {
    client.list_peers().await.expect("a list");
    let inbound = std::iter::from_fn(|| inbox.try_recv());
    let event = |inbound| match inbound {
        Inbound::Event { event, data } => {
            Some((event, data["name"].as_str().unwrap_or_default().to_owned()))
        }
        _ => None,
    };
    inbound.filter_map(event).collect()
}

#[tokio::test]
async fn what_was_acked_before_a_kill_is_delivered_after_it() {
    let mut broker = BrokerProcess::start(&[]).await;
    let bob = broker.identity("bob").await;
    let (alice, _inbox) = broker.connect(session(broker.identity("alice").await)).await;
    let ack = alice.send(bob.member_pubkey().as_str(), Priority::Next, "keep this").await;
    let id = ack.expect("accepted").message_id;
    broker.kill9().await;
    assert_eq!(broker.audited("message_sent").await, 1);
    broker.start_again().await;
    let (_bob, mut inbox) = broker.connect(session(bob)).await;
    let push = message(&mut inbox).await;
    assert_eq!(push.message_id.as_str(), id);
    assert_eq!(broker.audited("message_sent").await, 1, "one row, also after the restart");
}

#[tokio::test]
async fn a_delivery_comes_again_after_a_kill_until_it_is_confirmed() {
    let mut broker = BrokerProcess::start(&[]).await;
    let (alice, _inbox) = broker.connect(session(broker.identity("alice").await)).await;
    let mut options = session(broker.identity("bob").await);
    options.confirm = false;
    options.limits.remembered_max = 0;
    let (bob, mut inbox) = broker.connect(options).await;
    let target = bob.member_pubkey();
    let ack = alice.send(target.as_str(), Priority::Next, "first").await.expect("accepted");
    assert_eq!(message(&mut inbox).await.message_id.as_str(), ack.message_id);
    broker.kill9().await;
    broker.start_again().await;
    let again = message(&mut inbox).await;
    assert_eq!(again.message_id.as_str(), ack.message_id, "nobody said that it is done");
    bob.confirm(&again.message_id).await.expect("said");
    until("the confirmation is on disk", async || {
        alice.message_status(&ack.message_id).await.is_ok_and(|status| status.delivered)
    })
    .await;
    broker.kill9().await;
    broker.start_again().await;
    let ack = alice.send(target.as_str(), Priority::Next, "second").await.expect("accepted");
    assert_eq!(message(&mut inbox).await.message_id.as_str(), ack.message_id, "only the new one");
    assert_eq!(broker.audited("message_sent").await, 2);
}

#[tokio::test]
async fn a_peer_in_grace_returns_to_its_presence_after_a_kill() {
    let mut broker = BrokerProcess::start(&[]).await;
    let (alice, mut seen) = broker.connect(session(broker.identity("alice").await)).await;
    let options = session(broker.identity("bob").await);
    let (bob, _inbox) = broker.connect(options.clone()).await;
    let presence = bob.presence_id();
    let group = Group { name: "dev".to_owned(), role: None };
    bob.ask(&JoinGroup(group)).await.expect("joined");
    bob.abort();
    until("bob is in grace", async || broker.sessions().await == 1).await;
    let sent = [
        alice.send(bob.pubkey().as_str(), Priority::Next, "to bob").await.expect("accepted"),
        alice.send("@dev", Priority::Next, "to dev").await.expect("accepted"),
    ];
    broker.kill9().await;
    broker.start_again().await;
    let (bob, mut inbox) = broker.connect(options).await;
    assert_eq!(bob.presence_id(), presence);
    for ack in sent {
        assert_eq!(message(&mut inbox).await.message_id.as_str(), ack.message_id);
    }
    let seen = events(&alice, &mut seen).await;
    assert_eq!(seen, [("peer_joined".to_owned(), "bob".to_owned())], "the first time only");
    assert_eq!(broker.audited("peer_left").await, 0);
    assert_eq!(broker.audited("peer_joined").await, 2);
}

#[tokio::test]
async fn a_peer_that_does_not_return_after_a_kill_leaves_once() {
    let mut broker = BrokerProcess::start(&[("LEASE_GRACE_SECONDS", "2")]).await;
    let mut alice = session(broker.identity("alice").await);
    alice.reconnect = false;
    let (_alice, _inbox) = broker.connect(alice.clone()).await;
    let mut options = session(broker.identity("bob").await);
    options.reconnect = false;
    let (bob, _inbox) = broker.connect(options.clone()).await;
    let presence = bob.presence_id();
    broker.kill9().await;
    broker.start_again().await;
    let (alice, mut seen) = broker.connect(alice).await;
    let left = async {
        loop {
            match seen.recv().await.expect("alice stays") {
                Inbound::Event { event, data } if event == "peer_left" => return data,
                _ => {}
            }
        }
    };
    let left = timeout(PATIENCE, left).await.expect("bob leaves");
    assert_eq!(left["name"], "bob");
    let (bob, _inbox) = broker.connect(options).await;
    assert_ne!(bob.presence_id(), presence, "it left: this is a new one");
    let later = events(&alice, &mut seen).await;
    assert_eq!(later, [("peer_joined".to_owned(), "bob".to_owned())]);
    assert_eq!(broker.audited("peer_left").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_under_a_stream_of_sends_lose_and_repeat_nothing() {
    let mut broker = BrokerProcess::start(&[]).await;
    let storm = Storm::begin(&broker).await;
    for _ in 0..3 {
        storm.more_acks(60).await;
        broker.kill9().await;
        broker.start_again().await;
    }
    storm.more_acks(60).await;
    storm.end(&broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_is_in_time_and_nobody_has_left() {
    const DRAIN: Duration = Duration::from_secs(20);
    let drain = DRAIN.as_secs().to_string();
    let mut broker = BrokerProcess::start(&[("DRAIN_SECONDS", &drain)]).await;
    let storm = Storm::begin(&broker).await;
    for stops in 1..=2 {
        until("all are back", async || broker.sessions().await == storm::PEERS as u64).await;
        storm.more_acks(60).await;
        let asked = Instant::now();
        let ended = broker.sigterm().await;
        assert_eq!(ended.code(), Some(0), "{}", broker.log());
        assert!(asked.elapsed() < DRAIN, "{:?}", asked.elapsed());
        broker.start_again().await;
        storm.more_acks(60).await;
        assert_eq!(storm.closes(), vec![vec![1001; stops]; storm::PEERS]);
    }
    storm.end(&broker).await;
}
