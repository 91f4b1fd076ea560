//! Visits, shared inboxes and hooks over several nodes.

use claudemesh_broker::auth::SecretKey;
use serde_json::{Value, json};

use crate::harness::raw::{hello_frame, session_hello_frame};
use crate::harness::{Cluster, Raw, Setup, until};
use crate::wire::hooks::{connect_from, hook, session_named};
use crate::wire::inbox::{daemon_on, gets, session_on};
use crate::wire::visitors::{command, rows, sixty_arrive, speaks_for_its_session};

async fn until_seen(raw: &mut Raw, peers: usize) {
    until("all peers are seen", async || rows(raw).await.len() == peers).await;
}

#[tokio::test]
async fn passing_commands_on_any_node_take_no_mail_of_their_member() {
    let cluster = Cluster::start(3).await;
    let [one, two, _] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let mut a = Raw::hello(one, &alice).await;
    let mut daemon = Raw::hello(two, &bob).await;
    until_seen(&mut a, 2).await;
    sixty_arrive(&mut a, &bob, &mut daemon, &cluster.nodes).await;
    assert_eq!(one.audit_count("peer_joined").await, 2, "the commands leave none");
}

#[tokio::test]
async fn a_visitor_is_answered_from_another_node_and_forgotten_by_all() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let mut a = Raw::hello(one, &alice).await;
    let mut b = Raw::hello(two, &bob).await;
    until_seen(&mut a, 2).await;
    let (mut passing, key) = command(two, &bob, "passing").await;
    until("its key is known there", async || {
        a.send(key.public_key().as_str(), "next", "YW5zd2Vy").await["queued"] == true
    })
    .await;
    assert_eq!(passing.message().await["ciphertext"], "YW5zd2Vy");
    assert_eq!((rows(&mut a).await.len(), rows(&mut b).await.len()), (2, 2));
    passing.goodbye().await;
    until("its key is known no more", async || {
        a.send(key.public_key().as_str(), "next", "bGF0ZQ==").await["queued"] == false
    })
    .await;
    let events =
        |raw: Vec<Value>| raw.into_iter().filter(|push| push["subtype"] == "system").count();
    a.heard();
    assert_eq!((events(a.so_far().await), events(b.so_far().await)), (0, 0));
}

#[tokio::test]
async fn what_a_command_says_is_about_its_session_on_another_node() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let bob = one.member("bob").await;
    speaks_for_its_session(one, two, &bob).await;
}

#[tokio::test]
async fn what_is_for_many_reaches_a_daemon_elsewhere_and_not_its_sessions() {
    let cluster = Cluster::start(3).await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let keys = [(); 2].map(|()| SecretKey::generate());
    let mut a = Raw::hello(one, &alice).await;
    let mut daemon = Raw::greet(two, daemon_on(two, &bob, "host")).await.0;
    let mut first = Raw::greet(three, session_on(three, &bob, &keys[0], "host")).await.0;
    let mut second = Raw::greet(one, session_on(one, &bob, &keys[1], "host")).await.0;
    for raw in [&mut a, &mut daemon, &mut first, &mut second] {
        until_seen(raw, 4).await;
    }
    let mut sent = Vec::new();
    for _ in 0..20 {
        sent.push(a.sent("*", "low", "YWxs").await);
    }
    gets(&mut daemon, &sent.iter().collect::<Vec<_>>()).await;
    gets(&mut first, &[]).await;
    gets(&mut second, &[]).await;
}

#[tokio::test]
async fn a_confirming_peer_elsewhere_comes_before_one_here_that_never_confirms() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let mut a = Raw::hello(one, &alice).await;
    let sdk = |hello: &mut Value, id: &str| {
        hello["channel"] = json!("sdk");
        hello["sessionId"] = json!(id);
    };
    let mut confirms = Raw::hello_with(two, &bob, |hello| sdk(hello, "one")).await.0;
    until_seen(&mut a, 2).await;
    let first = a.sent(bob.pubkey().as_str(), "next", "b25l").await;
    let push = confirms.message().await;
    assert_eq!(push["messageId"], first.as_str());
    confirms.confirm(&push).await;
    confirms.so_far().await;
    // Newer, and on the sender's node; the other has shown that it confirms.
    let mut silent = Raw::hello_with(one, &bob, |hello| sdk(hello, "two")).await.0;
    until_seen(&mut a, 3).await;
    until("the other node knows", async || {
        let id = a.sent(bob.pubkey().as_str(), "next", "dHdv").await;
        let got = confirms.messages_so_far().await;
        silent.messages_so_far().await;
        got.iter().any(|push| push["messageId"] == id.as_str())
    })
    .await;
    for _ in 0..10 {
        let id = a.sent(bob.pubkey().as_str(), "next", "bmV4dA==").await;
        let push = confirms.hear_where("push", |push| push["messageId"] == id.as_str()).await;
        confirms.confirm(&push).await;
    }
    assert!(silent.messages_so_far().await.is_empty());
}

#[tokio::test]
async fn a_hook_finds_its_session_by_its_id_on_another_node() {
    let cluster = Setup::new(3).set("TRUSTED_PROXIES", "127.0.0.0/8").start().await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let bob = one.member("bob").await;
    let mut watch = Raw::hello(two, &one.owner).await;
    let home = "203.0.113.9";
    let hello = session_named(one, &bob, "uuid", "/p");
    let _session = connect_from(one, home, hello).await;
    until_seen(&mut watch, 2).await;
    let status = async |raw: &mut Raw| {
        let row = rows(raw).await.into_iter().find(|row| row["displayName"] == "uuid");
        row.expect("a row")["status"].clone()
    };
    let word = |status: &str| json!({ "cwd": "/q", "status": status, "session_id": "uuid" });
    // From this machine, through a node that mirrors the mesh, and one that does not.
    for (node, said) in [(two, "working"), (three, "idle")] {
        let (code, answer) = hook(node, None, word(said)).await;
        assert_eq!((code, &answer["ok"]), (200, &json!(true)), "{answer}");
        until("it is applied", async || status(&mut watch).await == said).await;
    }
    // From elsewhere: only the session's own machine.
    for node in [two, three] {
        hook(node, Some("203.0.113.77"), word("dnd")).await;
        let (code, answer) = hook(node, Some(home), word("working")).await;
        assert_eq!((code, &answer["forwarded"]), (200, &json!(true)), "{answer}");
        until("it is applied", async || status(&mut watch).await == "working").await;
        let (code, _) = hook(one, Some(home), word("idle")).await;
        assert_eq!(code, 200);
        until("it is applied", async || status(&mut watch).await == "idle").await;
    }
    assert_eq!(hook(one, Some("203.0.113.77"), word("working")).await.0, 403);
    let unknown = json!({ "cwd": "/q", "status": "idle", "session_id": "unknown" });
    assert_eq!(hook(three, Some(home), unknown).await.0, 403);
}

#[tokio::test]
async fn a_daemon_that_starts_again_on_another_node_is_there_once() {
    let cluster = Setup::new(2).set("LEASE_GRACE_SECONDS", 60).start().await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let bob = one.member("bob").await;
    let mut watch = Raw::hello(two, &one.owner).await;
    let named = |pid: u32| {
        let mut hello = hello_frame(&one.mesh, &bob);
        hello["sessionId"] = json!(format!("daemon-{pid}"));
        hello
    };
    let first = Raw::greet(one, named(1)).await.0;
    until_seen(&mut watch, 2).await;
    let probe = watch.sent("*", "low", "cHJvYmU=").await;
    first.goodbye().await;
    crate::harness::until_in_grace(&mut watch, &probe, "bob").await;
    let mut again = Raw::greet(two, named(2)).await.0;
    assert_eq!(again.message().await["messageId"], probe.as_str());
    until_seen(&mut watch, 2).await;
    assert_eq!(watch.event("peer_left").await["eventData"]["name"], "bob");
}

#[tokio::test]
async fn a_visitor_whose_node_dies_leaves_nothing_that_others_see() {
    let mut cluster = Setup::new(2).start_processes().await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let mut a = Raw::hello(one, &alice).await;
    let mut hello = session_hello_frame(&two.mesh, &bob, &SecretKey::generate());
    hello["sessionId"] = json!("x");
    let (_session, _) = Raw::greet(two, hello).await;
    let (_passing, key) = command(two, &bob, "passing").await;
    until_seen(&mut a, 2).await;
    cluster.processes[1].kill9().await;
    // Its member's session leaves, once its lease and its grace are over; so is the
    // visitor's lease then.
    a.event("peer_left").await;
    until("its key is known no more", async || {
        a.send(key.public_key().as_str(), "next", "bGF0ZQ==").await["queued"] == false
    })
    .await;
    let mut left = a.so_far().await;
    left.retain(|frame| frame["event"] == "peer_left");
    assert_eq!(left, Vec::<Value>::new());
}
