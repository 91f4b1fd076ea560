//! The places of a mesh: none leaks, the cap is exact, grace yields, and a
//! session that blinks or whose broker restarts comes back to its own.

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::config::Config;
use claudemesh_broker::store::Role;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::raw::{hello_frame, session_hello_frame};
use crate::harness::{Member, Node, Raw, metric, until, until_in_grace};

const HOUR_MS: i64 = 3_600_000;

/// Nothing expires while the test runs: what leaks stays visible.
fn lasting(cap: u32) -> impl FnOnce(&mut Config) {
    move |config| {
        config.presence.connections_per_mesh_max = cap;
        config.presence.lease_grace_ms = HOUR_MS;
        config.presence.lease_ttl_ms = HOUR_MS;
    }
}

fn is_presence_event(frame: &Value) -> bool {
    frame["event"].as_str().is_some_and(|event| event.starts_with("peer_"))
}

async fn names_listed(raw: &mut Raw) -> Vec<String> {
    let answer = raw.ask(json!({ "type": "list_peers" })).await;
    let peers = answer["peers"].as_array().expect("rows").clone();
    peers.iter().map(|peer| peer["displayName"].as_str().expect("a name").to_owned()).collect()
}

/// The mesh refuses: every place is taken by an open socket.
async fn assert_full(node: &Node, hello: Value, cap: u32) {
    let (error, close) = Raw::refused(node, hello).await;
    assert_eq!(error["code"], "capacity");
    assert_eq!(error["message"], "mesh at connection capacity");
    assert_eq!((&error["limit"], &error["current"]), (&json!(cap), &json!(cap)));
    assert!(error["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0), "{error}");
    assert_eq!(close, (1008, "capacity".to_owned()));
}

// --- the count -----------------------------------------------------------------

/// One session that goes by every way out.
struct Subject<'a> {
    node: &'a Node,
    admin: Raw,
    member: Member,
    key: SecretKey,
}

impl Subject<'_> {
    async fn enter(&self) -> Raw {
        Raw::session(self.node, &self.member, &self.key).await.0
    }

    async fn leave_by(&mut self, way: usize) {
        let mut raw = self.enter().await;
        let close = match way {
            0 => return raw.goodbye().await,
            1 => return drop(raw),
            2 => {
                let newer = self.enter().await;
                let close = raw.closed().await;
                newer.goodbye().await;
                assert_eq!(close, (1000, "session_replaced".to_owned()));
                return;
            }
            3 => {
                let kick = json!({ "type": "kick", "target": self.member.name });
                assert_eq!(self.admin.ask(kick).await["kicked"], json!([self.member.name]));
                raw.closed().await
            }
            4 => {
                let ban = json!({ "type": "ban", "target": self.member.name });
                assert_eq!(self.admin.ask(ban).await["banned"], json!(self.member.name));
                let close = raw.closed().await;
                let hello = session_hello_frame(&self.node.mesh, &self.member, &self.key);
                assert_eq!(Raw::refused(self.node, hello).await.0["code"], "revoked");
                let unban = json!({ "type": "unban", "target": self.member.name });
                assert_eq!(self.admin.ask(unban).await["unbanned"], json!(self.member.name));
                close
            }
            _ => {
                let mut hello = session_hello_frame(&self.node.mesh, &self.member, &self.key);
                hello["timestamp"] = json!(hello["timestamp"].as_i64().expect("ms") + 1);
                assert_eq!(Raw::refused(self.node, hello).await.0["code"], "bad_signature");
                return raw.goodbye().await;
            }
        };
        let expected = if way == 3 { (4001, "kicked") } else { (4002, "banned") };
        assert_eq!((close.0, close.1.as_str()), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_reconnects_by_every_way_out_use_one_place() {
    const CAP: u32 = 3;
    let node = Node::start_with(lasting(CAP)).await;
    let boss = node.member_as("boss", Role::Admin).await;
    let member = node.member("subject").await;
    let admin = Raw::hello(&node, &boss).await;
    let mut subject = Subject { node: &node, admin, member, key: SecretKey::generate() };
    for round in 0..300 {
        subject.leave_by(round % 6).await;
    }
    let _last = subject.enter().await;
    assert_eq!(names_listed(&mut subject.admin).await, ["subject", "boss"]);
    // Presences that began and did not end: exactly the two that are here.
    let begun = node.audit_count("peer_joined").await;
    assert_eq!(begun - node.audit_count("peer_left").await, 2);
    // A kick and a ban in each six, and nothing else, ended the presence.
    assert_eq!(node.audit_count("peer_left").await, 100);
    drop(fill(&node, CAP - 2, CAP).await);
    // Kicked and banned, the session has no place at all.
    for way in [3, 4] {
        subject.leave_by(way).await;
        drop(fill(&node, CAP - 1, CAP).await);
    }
    assert!(node.audit_is_valid().await);
}

/// Takes so many places, which must be all that are left.
async fn fill(node: &Node, places: u32, cap: u32) -> Vec<Raw> {
    let other = node.member("other").await;
    let hello = || session_hello_frame(&node.mesh, &other, &SecretKey::generate());
    let mut open = Vec::new();
    for _ in 0..places {
        let (raw, answer) = Raw::greet(node, hello()).await;
        assert_eq!(answer["type"], "hello_ack", "a place is free: {answer}");
        open.push(raw);
    }
    assert_full(node, hello(), cap).await;
    until("the open sockets count", async || {
        metric(node, "broker_connections_active").await == u64::from(cap)
    })
    .await;
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_hellos_is_admitted_exactly_up_to_the_cap() {
    const CAP: u32 = 10;
    let node = Node::start_with(lasting(CAP)).await;
    let member = node.member("many").await;
    let arrivals = (0..60).map(async |number| {
        let hello = if number % 2 == 0 {
            session_hello_frame(&node.mesh, &member, &SecretKey::generate())
        } else {
            let mut hello = hello_frame(&node.mesh, &member);
            hello["sessionPubkey"] = json!(SecretKey::generate().public_key());
            hello
        };
        Raw::greet(&node, hello).await
    });
    // All sockets stay open until every hello has been answered.
    let mut answered = join_all(arrivals).await;
    let admitted = answered.iter().filter(|(_, answer)| answer["type"] == "hello_ack").count();
    assert_eq!(admitted, CAP as usize);
    for (raw, error) in answered.iter_mut().filter(|(_, answer)| answer["type"] == "error") {
        assert_eq!(error["code"], "capacity", "{error}");
        assert_eq!((&error["limit"], &error["current"]), (&json!(CAP), &json!(CAP)));
        assert!(error["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0), "{error}");
        assert_eq!(raw.closed().await, (1008, "capacity".to_owned()));
    }
    assert_eq!(node.audit_count("peer_joined").await, i64::from(CAP));
}

#[tokio::test]
async fn a_place_in_grace_yields_to_a_newcomer_oldest_first() {
    const CAP: u32 = 3;
    let node = Node::start_with(lasting(CAP)).await;
    let mut members = Vec::new();
    for name in ["watcher", "first", "second", "third", "fourth"] {
        members.push(node.member(name).await);
    }
    let [watcher, first, second, third, fourth] = &members[..] else { unreachable!() };
    let mut w = Raw::hello(&node, watcher).await;
    let (away_first, away_second) =
        (Raw::hello(&node, first).await, Raw::hello(&node, second).await);
    let probe = w.sent("*", "low", "cHJvYmU=").await;
    drop(away_first);
    until_in_grace(&mut w, &probe, "first").await;
    away_second.goodbye().await;
    until_in_grace(&mut w, &probe, "second").await;
    w.so_far().await;

    let t = Raw::hello(&node, third).await;
    let events = w.so_far().await;
    let told: Vec<_> = events.iter().map(|push| (&push["event"], &push["eventData"])).collect();
    let left = json!({ "name": "first", "pubkey": first.pubkey() });
    let joined = json!({ "name": "third", "pubkey": third.pubkey(), "groups": [] });
    assert_eq!(told, [(&json!("peer_left"), &left), (&json!("peer_joined"), &joined)]);
    assert_eq!(names_listed(&mut w).await, ["watcher", "third", "second"]);

    // The session that is still in grace needs no place to come back.
    let (back, _) = Raw::hello_with(&node, second, |_| {}).await;
    assert_full(&node, hello_frame(&node.mesh, fourth), CAP).await;
    assert_full(&node, hello_frame(&node.mesh, first), CAP).await;
    assert!(w.so_far().await.is_empty(), "refusals and returns are nobody's news");
    assert_eq!(node.audit_count("peer_left").await, 1);
    drop((t, back));
}

#[tokio::test]
async fn at_capacity_a_reconnect_is_admitted_and_a_forger_learns_nothing() {
    let node = Node::start_with(lasting(1)).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let (mut old, ack) = Raw::hello_with(&node, &alice, |_| {}).await;
    assert_full(&node, hello_frame(&node.mesh, &bob), 1).await;
    let mut forged = hello_frame(&node.mesh, &bob);
    forged["signature"] = json!("0".repeat(128));
    assert_eq!(Raw::refused(&node, forged).await.0["code"], "bad_signature");
    let (_new, again) = Raw::hello_with(&node, &alice, |_| {}).await;
    assert_eq!(again["presenceId"], ack["presenceId"]);
    assert_eq!(old.closed().await, (1000, "session_replaced".to_owned()));
}

// --- a blip, and its end ---------------------------------------------------------

#[tokio::test]
async fn a_blip_is_silent_and_what_was_sent_meanwhile_arrives_in_order() {
    let node = Node::start_with(lasting(10)).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let team = json!([{ "name": "team" }]);
    let key = SecretKey::generate();
    let mut hello = session_hello_frame(&node.mesh, &bob, &key);
    hello["groups"] = team.clone();
    let (b, first) = Raw::greet(&node, hello).await;
    a.so_far().await;
    drop(b);
    let (session_key, member_key) = (key.public_key(), bob.pubkey());
    let targets = [session_key.as_str(), "*", "@team", member_key.as_str()];
    let mut ids = Vec::new();
    for (round, target) in targets.into_iter().cycle().take(24).enumerate() {
        ids.push(a.sent(target, "next", &format!("bXNn{round:04}")).await);
    }
    let (mut b, again) = Raw::session(&node, &bob, &key).await;
    assert_eq!(again["presenceId"], first["presenceId"]);
    for id in &ids {
        let push = b.message().await;
        assert_eq!(push["messageId"], id.as_str());
        b.confirm(&push).await;
    }
    assert!(b.so_far().await.is_empty());
    let heard = a.so_far().await;
    assert!(!heard.iter().any(is_presence_event), "{heard:?}");
    assert_eq!(node.audit_count("peer_left").await, 0);
    assert_eq!(node.audit_count("peer_joined").await, 2);
    let listed = a.ask(json!({ "type": "list_peers" })).await;
    assert_eq!(listed["peers"][0]["groups"], team, "a reattach keeps its groups");
}

#[tokio::test]
async fn when_grace_is_over_a_peer_leaves_once() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 300).await;
    let (alice, bob, carol) =
        (node.member("alice").await, node.member("bob").await, node.member("carol").await);
    let mut a = Raw::hello(&node, &alice).await;
    let (b, before) = Raw::hello_with(&node, &bob, |_| {}).await;
    drop(b);
    let left = a.event("peer_left").await;
    assert_eq!(left["eventData"], json!({ "name": "bob", "pubkey": bob.pubkey() }));
    assert_eq!(names_listed(&mut a).await, ["alice"]);
    // Another one's whole life: a second word about bob would come before its end.
    Raw::hello(&node, &carol).await.goodbye().await;
    let left = a.event("peer_left").await;
    assert_eq!(left["eventData"]["name"], "carol");
    let heard = a.so_far().await;
    assert!(!heard.iter().any(|push| push["event"] == "peer_left"), "{heard:?}");
    assert_eq!(node.audit_count("peer_left").await, 2, "one row each");
    let (_b, after) = Raw::hello_with(&node, &bob, |_| {}).await;
    assert_ne!(after["presenceId"], before["presenceId"], "it begins anew");
    assert!(node.audit_is_valid().await);
}

// --- a restart -------------------------------------------------------------------

#[tokio::test]
async fn after_a_restart_sessions_return_silently_and_the_others_leave_once() {
    let mut node = Node::start_with(|config| config.presence.lease_grace_ms = 4_000).await;
    let (alice, bob, carol) =
        (node.member("alice").await, node.member("bob").await, node.member("carol").await);
    let (mut a, alice_before) = Raw::hello_with(&node, &alice, |_| {}).await;
    let key = SecretKey::generate();
    let (mut b, bob_before) = Raw::session(&node, &bob, &key).await;
    let mut c = Raw::hello(&node, &carol).await;
    b.ask(json!({ "type": "set_summary", "summary": "still here" })).await;
    b.ask(json!({ "type": "join_group", "name": "team", "role": "lead" })).await;
    b.ask(json!({ "type": "set_status", "status": "working" })).await;
    node.restart().await;
    for raw in [&mut a, &mut b, &mut c] {
        assert_eq!(raw.closed().await, (1001, "shutting down".to_owned()));
    }
    let (mut a, alice_after) = Raw::hello_with(&node, &alice, |_| {}).await;
    assert_eq!(alice_after["presenceId"], alice_before["presenceId"]);
    let (mut b, bob_after) = Raw::session(&node, &bob, &key).await;
    assert_eq!(bob_after["presenceId"], bob_before["presenceId"]);
    let listed = a.ask(json!({ "type": "list_peers" })).await;
    let row = &listed["peers"][0];
    assert_eq!(row["summary"], "still here");
    assert_eq!(row["groups"], json!([{ "name": "team", "role": "lead" }]));
    assert_eq!(row["status"], "working");
    for raw in [&mut a, &mut b] {
        let left = raw.event("peer_left").await;
        assert_eq!(left["eventData"], json!({ "name": "carol", "pubkey": carol.pubkey() }));
        let heard = raw.so_far().await;
        assert!(!heard.iter().any(is_presence_event), "{heard:?}");
    }
    assert_eq!(node.audit_count("peer_left").await, 1);
    assert_eq!(node.audit_count("peer_joined").await, 3);
    assert_eq!(names_listed(&mut a).await, ["bob", "alice"]);
    assert!(node.audit_is_valid().await);
}
