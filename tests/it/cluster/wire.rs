//! One mesh over several nodes: everything works the same whichever nodes the
//! two sides are on.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::store::Role;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::raw::{hello_frame, session_hello_frame};
use crate::harness::{Cluster, Member, Node, Raw, Setup, http, until};

/// What must reach every node so soon.
const SOON: Duration = Duration::from_secs(1);

async fn rows(raw: &mut Raw) -> Vec<Value> {
    let listed = raw.ask(json!({ "type": "list_peers" })).await;
    listed["peers"].as_array().expect("rows").clone()
}

/// The row of that name, `null` if there is none.
async fn row(raw: &mut Raw, name: &str) -> Value {
    let found = rows(raw).await.into_iter().find(|row| row["displayName"] == name);
    found.unwrap_or_default()
}

/// Waits until each of them sees so many peers.
async fn until_all_see(raws: &mut [&mut Raw], peers: usize) {
    for raw in raws {
        until("all peers are seen", async || rows(raw).await.len() == peers).await;
    }
}

/// Exactly this message comes next.
async fn assert_comes(raw: &mut Raw, id: &str) -> Value {
    let push = raw.message().await;
    assert_eq!(push["messageId"], id);
    raw.confirm(&push).await;
    push
}

/// Messages, and events about peers, that came and were not asked for.
async fn news(raw: &mut Raw) -> Vec<Value> {
    let mut heard = raw.so_far().await;
    heard.retain(|frame| frame["type"] == "push");
    heard
}

async fn hook(node: &Node, member: &Member, status: &str) {
    let body = json!({ "cwd": format!("/work/{}", member.name), "pid": 4242, "status": status });
    let reply = http::post(node, "/hook/set-status", &body.to_string()).await;
    let answer = reply.json();
    assert_eq!((reply.status, &answer["ok"]), (200, &json!(true)), "{answer}");
    assert!(answer["presence_id"].is_string(), "it is found on another node: {answer}");
}

/// Two nodes with alice on the first and bob on the second, who see each other.
async fn pair(cluster: &Cluster) -> ((Member, Raw), (Member, Raw)) {
    let [one, two] = &cluster.nodes[..2] else { panic!("two nodes") };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let mut a = Raw::hello(one, &alice).await;
    let mut b = Raw::hello(two, &bob).await;
    until_all_see(&mut [&mut a, &mut b], 2).await;
    a.so_far().await;
    b.so_far().await;
    ((alice, a), (bob, b))
}

// --- messages --------------------------------------------------------------------

#[tokio::test]
async fn every_kind_of_message_reaches_the_other_node() {
    let cluster = Cluster::start(3).await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let alice = one.member("alice").await;
    let (bob, carol) = (one.member("bob").await, one.member("carol").await);
    let mut a = Raw::hello(one, &alice).await;
    let mut b = Raw::hello(two, &bob).await;
    let key = SecretKey::generate();
    let (mut c, _) = Raw::session(three, &carol, &key).await;
    c.ask(json!({ "type": "join_group", "name": "team/core" })).await;
    until_all_see(&mut [&mut a, &mut b, &mut c], 3).await;
    let (session_key, member_key) = (key.public_key(), carol.pubkey());
    for round in 0..3 {
        let text = format!("bXNnMDAw{round}A==");
        for target in [session_key.as_str(), member_key.as_str(), "@team"] {
            let id = a.sent(target, "next", &text).await;
            let push = assert_comes(&mut c, &id).await;
            assert_eq!((&push["ciphertext"], &push["senderName"]), (&json!(text), &json!("alice")));
        }
        let id = a.sent("*", "low", &text).await;
        assert_comes(&mut b, &id).await;
        assert_comes(&mut c, &id).await;
        let id = b.sent(alice.pubkey().as_str(), "now", &text).await;
        assert_comes(&mut a, &id).await;
    }
    for raw in [&mut a, &mut b, &mut c] {
        let mut left = news(raw).await;
        left.retain(|push| push["subtype"] != "system");
        assert!(left.is_empty(), "{left:?}");
    }
    assert_eq!(one.audit_count("message_sent").await, 15);
    assert!(one.audit_is_valid().await);
}

#[tokio::test]
async fn what_one_sends_arrives_on_another_node_in_order() {
    let cluster = Cluster::start(2).await;
    let ((_, mut a), (bob, mut b)) = pair(&cluster).await;
    let key = bob.pubkey();
    for number in 0..200 {
        let target = if number % 3 == 0 { "*" } else { key.as_str() };
        a.say(json!({
            "type": "send", "id": number.to_string(), "targetSpec": target, "priority": "next",
            "nonce": "bm9uY2U=", "ciphertext": format!("{number:08}"),
        }))
        .await;
    }
    for number in 0..200 {
        let push = b.message().await;
        assert_eq!(push["ciphertext"], format!("{number:08}"));
        b.confirm(&push).await;
    }
    for number in 0..200 {
        let id = number.to_string();
        let ack = a.hear_where("ack", |ack| ack["id"] == id.as_str()).await;
        assert_eq!(ack["queued"], true, "{ack}");
    }
}

#[tokio::test]
async fn a_resend_through_another_node_is_the_same_message() {
    let cluster = Cluster::start(2).await;
    let ((alice, mut a), (bob, mut b)) = pair(&cluster).await;
    let send = |id: &str, key: &str, text: &str| {
        json!({
            "type": "send", "id": id, "targetSpec": bob.pubkey(), "priority": "next",
            "nonce": "bm9uY2U=", "ciphertext": text, "client_message_id": key,
        })
    };
    a.say(send("first", "unique-1", "bXNnMQ==")).await;
    let first = a.hear("ack").await;
    assert_eq!(first["queued"], true, "{first}");
    let key = SecretKey::generate();
    let (mut other, _) = Raw::session(&cluster.nodes[1], &alice, &key).await;
    other.say(send("again", "unique-1", "bXNnMQ==")).await;
    let again = other.hear("ack").await;
    assert_eq!((&again["queued"], &again["messageId"]), (&json!(true), &first["messageId"]));
    other.say(send("next", "unique-2", "bXNnMg==")).await;
    other.hear("ack").await;
    assert_eq!(b.message().await["ciphertext"], "bXNnMQ==");
    assert_eq!(b.message().await["ciphertext"], "bXNnMg==", "not the first one again");
    assert_eq!(cluster.nodes[0].audit_count("message_sent").await, 2);
}

#[tokio::test]
async fn what_became_of_a_message_is_told_on_every_node() {
    let cluster = Cluster::start(2).await;
    let ((alice, mut a), (bob, mut b)) = pair(&cluster).await;
    let (mut elsewhere, _) = Raw::session(&cluster.nodes[1], &alice, &SecretKey::generate()).await;
    b.ask(json!({ "type": "set_status", "status": "working" })).await;
    until("it is busy", async || row(&mut a, "bob").await["status"] == "working").await;
    let id = a.sent(bob.pubkey().as_str(), "next", "aGVsZA==").await;
    let ask = json!({ "type": "message_status", "messageId": id });
    for raw in [&mut a, &mut elsewhere] {
        let status = raw.ask(ask.clone()).await;
        assert_eq!(status["delivered"], false, "{status}");
        assert_eq!(status["recipients"][0]["name"], "bob", "{status}");
        assert_eq!(status["recipients"][0]["status"], "held", "{status}");
    }
    b.ask(json!({ "type": "set_status", "status": "idle" })).await;
    assert_comes(&mut b, &id).await;
    for raw in [&mut a, &mut elsewhere] {
        until("it is done", async || raw.ask(ask.clone()).await["delivered"] == true).await;
        assert_eq!(raw.ask(ask.clone()).await["recipients"][0]["status"], "delivered");
    }
}

#[tokio::test]
async fn a_busy_peer_on_another_node_is_left_alone_until_it_is_idle() {
    let cluster = Cluster::start(2).await;
    let ((_, mut a), (bob, mut b)) = pair(&cluster).await;
    let to = bob.pubkey();
    for by_hook in [false, true] {
        // What its socket began with is over: live frames wait for that.
        let first = a.sent(to.as_str(), "next", "Zmlyc3Q=").await;
        assert_comes(&mut b, &first).await;
        // The hook calls the node on which its peer is not.
        if by_hook {
            hook(&cluster.nodes[0], &bob, "working").await;
        } else {
            b.ask(json!({ "type": "set_status", "status": "working" })).await;
        }
        until("it is busy", async || row(&mut a, "bob").await["status"] == "working").await;
        until("its own node knows", async || row(&mut b, "bob").await["status"] == "working").await;
        let held = a.sent(to.as_str(), "next", "aGVsZA==").await;
        let urgent = a.sent(to.as_str(), "now", "bm93").await;
        assert_comes(&mut b, &urgent).await;
        assert_eq!(news(&mut b).await, Vec::<Value>::new(), "the other one waits");
        if by_hook {
            hook(&cluster.nodes[0], &bob, "idle").await;
        } else {
            b.ask(json!({ "type": "set_status", "status": "idle" })).await;
        }
        // The nodes' own rounds for forgotten mail are longer than this.
        let released = tokio::time::timeout(4 * SOON, assert_comes(&mut b, &held)).await;
        released.expect("at once");
        until("all know", async || row(&mut a, "bob").await["status"] == "idle").await;
    }
}

// --- presence ----------------------------------------------------------------------

#[tokio::test]
async fn all_nodes_tell_the_same_of_all_peers() {
    let cluster = Cluster::start(3).await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let mut a = Raw::hello(one, &alice).await;
    let mut b = Raw::hello(two, &bob).await;
    let joined = a.event("peer_joined").await;
    let expected = json!({ "name": "bob", "pubkey": bob.pubkey(), "groups": [] });
    assert_eq!(joined["eventData"], expected);
    for request in [
        json!({ "type": "set_summary", "summary": "on it" }),
        json!({ "type": "set_status", "status": "dnd" }),
        json!({ "type": "join_group", "name": "team", "role": "lead" }),
        json!({ "type": "set_profile", "title": "Engineer", "capabilities": ["rust"] }),
        json!({ "type": "set_stats", "stats": { "toolCalls": 7 } }),
    ] {
        assert_eq!(b.ask(request).await["type"], "ack");
    }
    let carol = one.member("carol").await;
    let (mut c, _) = Raw::session(three, &carol, &SecretKey::generate()).await;
    until_all_see(&mut [&mut a, &mut b, &mut c], 3).await;
    let own = rows(&mut b).await;
    let names: Vec<&Value> = own.iter().map(|row| &row["displayName"]).collect();
    assert_eq!(names, ["carol", "alice", "bob"], "a session, then those that are none");
    let bob_row = &own[2];
    assert_eq!(bob_row["summary"], "on it");
    assert_eq!(bob_row["status"], "dnd");
    assert_eq!(bob_row["groups"], json!([{ "name": "team", "role": "lead" }]));
    assert_eq!(bob_row["profile"], json!({ "title": "Engineer", "capabilities": ["rust"] }));
    for raw in [&mut a, &mut c] {
        until("all rows are equal", async || rows(raw).await == own).await;
    }
    // One that comes now to a node that knows nobody yet, sees all at once.
    let late = one.member("late").await;
    c.goodbye().await;
    let (mut late, _) = Raw::session(three, &late, &SecretKey::generate()).await;
    let mut seen = rows(&mut late).await;
    seen.retain(|row| row["peerRole"] == "control-plane");
    assert_eq!(seen, own[1..]);
}

#[tokio::test]
async fn hidden_on_one_node_is_hidden_on_all() {
    let cluster = Cluster::start(2).await;
    let ((alice, mut a), (bob, mut b)) = pair(&cluster).await;
    assert_eq!(b.ask(json!({ "type": "set_visible", "visible": false })).await["type"], "ack");
    let data = json!({ "name": "bob", "pubkey": bob.pubkey() });
    assert_eq!(a.event("peer_hidden").await["eventData"], data);
    assert_eq!(row(&mut a, "bob").await, Value::Null);
    a.sent("*", "next", "dG8gYWxs").await;
    let direct = a.sent(bob.pubkey().as_str(), "next", "dG8gb25l").await;
    assert_comes(&mut b, &direct).await;
    assert_eq!(b.ask(json!({ "type": "set_visible", "visible": true })).await["type"], "ack");
    assert_eq!(a.event("peer_visible").await["eventData"], data);
    assert_eq!(row(&mut a, "bob").await["pubkey"], json!(bob.pubkey()));
    let back = b.sent(alice.pubkey().as_str(), "next", "YmFjaw==").await;
    assert_comes(&mut a, &back).await;
    assert!(news(&mut b).await.is_empty());
}

#[tokio::test]
async fn a_session_moves_to_another_node_silently() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let mut watchers = [Raw::hello(one, &alice).await, Raw::hello(two, &alice).await];
    // The second one is a session of its own: the same sessionId replaced it.
    assert_eq!(watchers[0].closed().await, (1000, "session_replaced".to_owned()));
    watchers[0] = Raw::hello_with(one, &alice, |hello| hello["sessionId"] = json!("w")).await.0;
    let key = SecretKey::generate();
    let (mut at, first) = Raw::session(one, &bob, &key).await;
    at.ask(json!({ "type": "set_summary", "summary": "same" })).await;
    at.ask(json!({ "type": "join_group", "name": "team" })).await;
    for watcher in &mut watchers {
        watcher.event("peer_joined").await;
        watcher.so_far().await;
    }
    let mut seen = HashSet::new();
    for round in 0..6 {
        let (next, again) = Raw::session([two, one][round % 2], &bob, &key).await;
        assert_eq!(again["presenceId"], first["presenceId"]);
        assert_eq!(at.closed().await, (1000, "session_replaced".to_owned()));
        at = next;
        let sender = &mut watchers[round % 2];
        for target in [key.public_key().as_str(), "@team"] {
            let id = sender.sent(target, "next", "aGVyZQ==").await;
            // The old node may not have written the last confirmations yet:
            // what they were about comes once more.
            let push = loop {
                let push = at.message().await;
                at.confirm(&push).await;
                if seen.insert(push["messageId"].to_string()) {
                    break push;
                }
            };
            assert_eq!(push["messageId"], id.as_str());
        }
    }
    for watcher in &mut watchers {
        let heard = news(watcher).await;
        assert!(heard.is_empty(), "nobody is told: {heard:?}");
        assert_eq!(row(watcher, "bob").await["summary"], "same");
    }
    until("one lease each", async || cluster.leases() == (3, 0)).await;
    assert_eq!(one.audit_count("peer_left").await, 0);
}

#[tokio::test]
async fn a_return_to_another_node_finds_what_came_meanwhile() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let mut a = Raw::hello(one, &alice).await;
    let key = SecretKey::generate();
    let (b, before) = Raw::session(two, &bob, &key).await;
    until_all_see(&mut [&mut a], 2).await;
    a.so_far().await;
    drop(b);
    let (member_key, session_key) = (bob.pubkey(), key.public_key());
    let mut ids = Vec::new();
    for target in ["*", session_key.as_str(), member_key.as_str()].repeat(5) {
        ids.push(a.sent(target, "next", "bXNn").await);
    }
    let (mut b, after) = Raw::session(one, &bob, &key).await;
    assert_eq!(after["presenceId"], before["presenceId"]);
    for id in &ids {
        assert_comes(&mut b, id).await;
    }
    assert!(news(&mut b).await.is_empty());
    assert!(news(&mut a).await.is_empty(), "nobody is told of a blip");
}

#[tokio::test]
async fn who_is_gone_leaves_once_for_all_nodes() {
    let cluster = Setup::new(3).set("LEASE_GRACE_SECONDS", "0.5").start().await;
    let owner = cluster.nodes[0].owner.clone();
    let mut watchers = Vec::new();
    for (number, node) in cluster.nodes.iter().enumerate() {
        let hello = Raw::hello_with(node, &owner, |hello| hello["sessionId"] = json!(number));
        watchers.push(hello.await.0);
    }
    let members = ["first", "second", "third"];
    for (node, name) in cluster.nodes.iter().zip(members) {
        let member = node.member(name).await;
        Raw::hello(node, &member).await.goodbye().await;
    }
    for watcher in &mut watchers {
        for name in members {
            let left = watcher.hear_where("push", |push| {
                push["event"] == "peer_left" && push["eventData"]["name"] == name
            });
            left.await;
        }
    }
    // A word from each node: another `peer_left` would come before it.
    let last = cluster.nodes[0].member("last").await;
    for node in &cluster.nodes {
        let mut raw = Raw::hello(node, &last).await;
        let id = raw.sent("*", "next", "d29yZA==").await;
        for watcher in &mut watchers {
            watcher.hear_where("push", |push| push["messageId"] == id.as_str()).await;
        }
    }
    for watcher in &mut watchers {
        let heard = news(watcher).await;
        assert!(!heard.iter().any(|push| push["event"] == "peer_left"), "{heard:?}");
    }
    assert_eq!(cluster.nodes[0].audit_count("peer_left").await, 3);
}

// --- moderation ----------------------------------------------------------------------

#[tokio::test]
async fn kick_and_ban_reach_every_node_within_a_second() {
    let cluster = Cluster::start(3).await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let boss = one.member_as("boss", Role::Admin).await;
    let bob = one.member("bob").await;
    let mut admin = Raw::hello(one, &boss).await;
    let (mut kicked, _) = Raw::session(two, &bob, &SecretKey::generate()).await;
    until_all_see(&mut [&mut admin], 2).await;
    let begun = Instant::now();
    let answer = admin.ask(json!({ "type": "kick", "target": "bob" })).await;
    assert_eq!(answer["kicked"], json!(["bob"]), "{answer}");
    assert_eq!(kicked.closed().await, (4001, "kicked".to_owned()));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    admin.event("peer_left").await;
    until("no lease is left", async || cluster.leases() == (1, 0)).await;

    let (mut daemon, _) = Raw::hello_with(two, &bob, |_| {}).await;
    let (mut session, _) = Raw::session(three, &bob, &SecretKey::generate()).await;
    until_all_see(&mut [&mut admin], 3).await;
    let begun = Instant::now();
    let answer = admin.ask(json!({ "type": "ban", "target": bob.pubkey() })).await;
    assert_eq!(answer["banned"], "bob", "{answer}");
    for raw in [&mut daemon, &mut session] {
        assert_eq!(raw.closed().await, (4002, "banned".to_owned()));
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    for node in &cluster.nodes {
        let mut raw = Raw::connect(node).await;
        raw.say(session_hello_frame(&node.mesh, &bob, &SecretKey::generate())).await;
        assert_eq!(raw.hear("error").await["code"], "revoked");
        assert_eq!(raw.closed().await, (4002, "banned".to_owned()));
    }
    let ack = admin.send(bob.pubkey().as_str(), "next", "Z29uZQ==").await;
    assert_eq!(ack["queued"], false, "{ack}");
    until("no lease is left", async || cluster.leases() == (1, 0)).await;
    assert_eq!(one.audit_count("peer_left").await, 3);

    let answer = admin.ask(json!({ "type": "unban", "target": "bob" })).await;
    assert_eq!(answer["unbanned"], "bob", "{answer}");
    Raw::hello(three, &bob).await;
}

// --- limits ------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_over_all_nodes_is_admitted_exactly_up_to_the_cap() {
    const CAP: usize = 10;
    let cluster = Setup::new(3).set("MAX_CONNECTIONS_PER_MESH", CAP).start().await;
    let member = cluster.nodes[0].member("many").await;
    let arrivals = (0..60).map(async |number| {
        let node = &cluster.nodes[number % 3];
        Raw::greet(node, session_hello_frame(&node.mesh, &member, &SecretKey::generate())).await
    });
    // All sockets stay open until every hello has been answered.
    let answered = join_all(arrivals).await;
    let (admitted, refused): (Vec<_>, Vec<_>) =
        answered.into_iter().partition(|(_, answer)| answer["type"] == "hello_ack");
    assert_eq!(admitted.len(), CAP);
    for (mut raw, error) in refused {
        assert_eq!(error["code"], "capacity", "{error}");
        assert_eq!((&error["limit"], &error["current"]), (&json!(CAP), &json!(CAP)));
        assert_eq!(raw.closed().await, (1008, "capacity".to_owned()));
    }
    assert_eq!(cluster.leases(), (CAP, 0));
    assert_eq!(cluster.nodes[0].audit_count("peer_joined").await, 10);
}

#[tokio::test]
async fn a_member_has_one_rate_on_all_nodes_together() {
    const BURST: usize = 12;
    let setup = Setup::new(3).set("SEND_RATE_PER_MINUTE", 1).set("SEND_BURST", BURST);
    let cluster = setup.start().await;
    let (alice, bob) =
        (cluster.nodes[0].member("alice").await, cluster.nodes[0].member("bob").await);
    let mut sockets = Vec::new();
    for node in &cluster.nodes {
        sockets.push(Raw::session(node, &alice, &SecretKey::generate()).await.0);
    }
    let sends = sockets.iter_mut().map(async |raw| {
        let mut accepted = 0;
        for _ in 0..BURST {
            let ack = raw.send(bob.pubkey().as_str(), "next", "bXNn").await;
            if ack["queued"] == true {
                accepted += 1;
            } else {
                let error = ack["error"].as_str().expect("a text");
                assert!(error.starts_with("rate_limit"), "{error}");
            }
        }
        accepted
    });
    assert_eq!(join_all(sends).await.into_iter().sum::<usize>(), BURST);
    assert_eq!(cluster.nodes[0].audit_count("message_sent").await, 12);
}

#[tokio::test]
async fn a_hello_that_another_node_has_seen_is_a_replay() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let alice = one.member("alice").await;
    for hello in [
        hello_frame(&one.mesh, &alice),
        session_hello_frame(&one.mesh, &alice, &SecretKey::generate()),
    ] {
        let mut owner = Raw::connect(one).await;
        owner.say(hello.clone()).await;
        owner.hear("hello_ack").await;
        let mut thief = Raw::connect(two).await;
        thief.say(hello).await;
        assert_eq!(thief.hear("error").await["code"], "replayed");
        assert_eq!(thief.closed().await, (1008, "replayed".to_owned()));
        // And its victim is not disturbed.
        assert_eq!(rows(&mut owner).await[0]["displayName"], "alice");
    }
}

// --- Redis takes no writes ------------------------------------------------------------

/// As when it is away: who comes is let in by the node alone, also who comes back to
/// another node, and mail goes by the store.
#[tokio::test]
async fn while_redis_takes_no_writes_everyone_gets_in_on_every_node() {
    for (setting, on, off) in [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")] {
        let cluster = Setup::new(2).set("LEASE_GRACE_SECONDS", 15).start().await;
        let [one, two] = &cluster.nodes[..] else { unreachable!() };
        let ada = one.member("ada").await;
        let key = SecretKey::generate();
        let (before, _) = Raw::session(one, &ada, &key).await;
        let set = |value: &str| {
            let mut set = redis::cmd("CONFIG");
            set.arg("SET").arg(setting).arg(value);
            cluster.redis.query::<()>(&set);
        };
        set(on);
        let (mut back, _) = Raw::session(two, &ada, &key).await;
        let mut newcomers = Vec::new();
        for number in 0..20 {
            let node = &cluster.nodes[number % 2];
            let member = one.member(&format!("{setting} {number}")).await;
            newcomers.push((Raw::hello(node, &member).await, member));
        }
        for (raw, member) in &mut newcomers {
            let id = back.sent(member.pubkey().as_str(), "next", "bXNn").await;
            let push = raw.message().await;
            assert_eq!(push["messageId"], id, "{setting}");
            raw.confirm(&push).await;
        }
        let health = http::get(one, "/health").await.json();
        assert_eq!(health["redisTrouble"], "Redis takes no writes", "{health}");
        set(off);
        until("Redis has them all", async || cluster.leases().0 == 21).await;
        drop(before);
    }
}
