//! Who is here: the events that tell it, the list, and the setters.

use claudemesh_broker::auth::SecretKey;
use serde_json::{Value, json};

use crate::harness::raw::{hello_frame, session_hello_frame};
use crate::harness::{Node, Raw, until};

async fn rows(raw: &mut Raw) -> Vec<Value> {
    let listed = raw.ask(json!({ "type": "list_peers" })).await;
    assert_eq!(listed["type"], "peers_list");
    listed["peers"].as_array().expect("rows").clone()
}

/// The events heard so far, with their data.
async fn events(raw: &mut Raw) -> Vec<(String, Value)> {
    let heard = raw.so_far().await;
    heard.iter().map(|push| (push["event"].to_string(), push["eventData"].clone())).collect()
}

fn event(name: &str, data: &Value) -> (String, Value) {
    (json!(name).to_string(), data.clone())
}

// --- events ----------------------------------------------------------------------

#[tokio::test]
async fn a_system_event_has_the_shape_that_clients_know() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    Raw::hello(&node, &bob).await;
    let mut push = a.event("peer_joined").await;
    let fields = push.as_object_mut().expect("an object");
    let id = fields.remove("messageId").expect("an id");
    assert_eq!(id.as_str().map(str::len), Some(36), "a UUID");
    let at = fields.remove("createdAt").expect("an instant");
    assert_eq!(at.as_str().map(str::len), Some(24), "{at}");
    let expected = json!({
        "type": "push", "subtype": "system", "event": "peer_joined",
        "eventData": { "name": "bob", "pubkey": bob.pubkey(), "groups": [] },
        "meshId": node.mesh, "senderPubkey": "system", "priority": "low",
        "nonce": "", "ciphertext": "",
    });
    assert_eq!(push, expected);
}

#[tokio::test]
async fn a_hello_is_told_to_other_members_a_session_to_all() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 300).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let (mesh, stranger) = node.another_mesh("elsewhere").await;
    let mut own = Raw::hello_with(&node, &alice, |f| f["sessionId"] = json!("own")).await.0;
    let mut other = Raw::hello(&node, &bob).await;
    let (mut elsewhere, _) = Raw::greet(&node, hello_frame(&mesh, &stranger)).await;
    own.so_far().await;

    // The member's own key.
    let groups = json!([{ "name": "team", "role": "lead" }]);
    let (by_hello, _) = Raw::hello_with(&node, &alice, |f| f["groups"] = groups.clone()).await;
    let joined = json!({ "name": "alice", "pubkey": alice.pubkey(), "groups": groups });
    assert_eq!(events(&mut other).await, [event("peer_joined", &joined)]);
    assert_eq!(events(&mut own).await, []);
    by_hello.goodbye().await;
    let left = json!({ "name": "alice", "pubkey": alice.pubkey() });
    assert_eq!(other.event("peer_left").await["eventData"], left);
    assert_eq!(events(&mut own).await, []);

    // The state that it left makes the next one a return.
    let (by_hello, ack) = Raw::hello_with(&node, &alice, |_| {}).await;
    let mut returned = joined.clone();
    returned["lastSeenAt"] = ack["lastSeenAt"].clone();
    assert_eq!(events(&mut other).await, [event("peer_returned", &returned)]);
    assert_eq!(events(&mut own).await, []);
    drop(by_hello);
    other.event("peer_left").await;

    // A session key.
    let key = SecretKey::generate();
    let (by_session, _) = Raw::session(&node, &alice, &key).await;
    let joined = json!({ "name": "alice", "pubkey": key.public_key(), "groups": [] });
    for raw in [&mut own, &mut other] {
        assert_eq!(events(raw).await, [event("peer_joined", &joined)]);
    }
    by_session.goodbye().await;
    let left = json!({ "name": "alice", "pubkey": key.public_key() });
    assert_eq!(other.event("peer_left").await["eventData"], left);
    assert_eq!(events(&mut own).await, []);
    assert_eq!(events(&mut elsewhere).await, [], "another mesh hears nothing");
}

#[tokio::test]
async fn a_return_tells_the_last_summary() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 300).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut b = Raw::hello(&node, &bob).await;
    let mut a = Raw::hello(&node, &alice).await;
    a.ask(json!({ "type": "set_summary", "summary": "on it" })).await;
    a.goodbye().await;
    b.event("peer_left").await;
    let (_a, ack) = Raw::hello_with(&node, &alice, |_| {}).await;
    let expected = json!({
        "name": "alice", "pubkey": alice.pubkey(), "groups": [],
        "lastSeenAt": ack["lastSeenAt"], "summary": "on it",
    });
    assert_eq!(b.event("peer_returned").await["eventData"], expected);
}

#[tokio::test]
async fn hiding_and_showing_is_told_to_all_and_holds() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut own = Raw::hello_with(&node, &alice, |f| f["sessionId"] = json!("own")).await.0;
    let mut other = Raw::hello(&node, &bob).await;
    let key = SecretKey::generate();
    let (mut hidden, _) = Raw::session(&node, &alice, &key).await;
    for raw in [&mut own, &mut other] {
        raw.so_far().await;
    }
    let data = json!({ "name": "alice", "pubkey": key.public_key() });
    let answer = hidden.ask(json!({ "type": "set_visible", "visible": false })).await;
    let expected = json!({
        "type": "ack", "id": answer["_reqId"], "messageId": "", "queued": false,
        "_reqId": answer["_reqId"],
    });
    assert_eq!(answer, expected);
    for raw in [&mut own, &mut other] {
        assert_eq!(events(raw).await, [event("peer_hidden", &data)]);
    }
    assert_eq!(events(&mut hidden).await, []);

    // Seen by its own member only; directs reach it, multicasts do not.
    let listed = |rows: Vec<Value>| -> Vec<Value> {
        rows.into_iter().map(|row| row["pubkey"].clone()).collect()
    };
    let (all, few) = (
        [json!(key.public_key()), json!(alice.pubkey()), json!(bob.pubkey())],
        [json!(alice.pubkey()), json!(bob.pubkey())],
    );
    assert_eq!(listed(rows(&mut own).await), all);
    assert_eq!(listed(rows(&mut hidden).await), all);
    assert_eq!(listed(rows(&mut other).await), few);
    assert_eq!(rows(&mut own).await[0]["visible"], false);
    other.sent("*", "next", "dG8gYWxs").await;
    let direct = other.sent(key.public_key().as_str(), "next", "dG8gb25l").await;
    assert_eq!(hidden.message().await["messageId"], direct.as_str());
    own.message().await;

    // Without a `_reqId` the answer is the same ack.
    hidden.say(json!({ "type": "set_visible", "visible": true })).await;
    let expected = json!({ "type": "ack", "id": "", "messageId": "", "queued": false });
    assert_eq!(hidden.hear("ack").await, expected);
    for raw in [&mut own, &mut other] {
        assert_eq!(events(raw).await, [event("peer_visible", &data)]);
    }
    assert_eq!(listed(rows(&mut other).await), all);
}

#[tokio::test]
async fn a_removed_peer_leaves_once_too() {
    let node = Node::start().await;
    let (boss, alice, bob) = (
        node.member_as("boss", claudemesh_broker::store::Role::Admin).await,
        node.member("alice").await,
        node.member("bob").await,
    );
    let mut admin = Raw::hello(&node, &boss).await;
    let mut b = Raw::hello(&node, &bob).await;
    let key = SecretKey::generate();
    for (verb, close) in [
        ("kick", (4001, "kicked")),
        ("disconnect", (1000, "disconnected")),
        ("ban", (4002, "banned")),
    ] {
        let (mut a, _) = Raw::session(&node, &alice, &key).await;
        b.event("peer_joined").await;
        admin.ask(json!({ "type": verb, "target": "alice" })).await;
        assert_eq!(a.closed().await, (close.0, close.1.to_owned()));
        let data = json!({ "name": "alice", "pubkey": key.public_key() });
        assert_eq!(events(&mut b).await, [event("peer_left", &data)], "{verb}");
        assert_eq!(rows(&mut b).await.len(), 2);
    }
    assert_eq!(node.audit_count("peer_left").await, 3);
}

// --- the list ----------------------------------------------------------------------

#[tokio::test]
async fn each_presence_has_its_own_row_whoever_asks() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let (keys, named) = ([SecretKey::generate(), SecretKey::generate()], SecretKey::generate());
    let (mut daemon, _) = Raw::hello_with(&node, &alice, |hello| {
        hello["hostname"] = json!("tower");
        hello["model"] = json!("opus");
    })
    .await;
    let mut sessions = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        let mut hello = session_hello_frame(&node.mesh, &alice, key);
        hello["displayName"] = json!(format!("alice {number}"));
        hello["sessionId"] = json!(format!("launch {number}"));
        hello["cwd"] = json!(format!("/work/{number}"));
        hello["hostname"] = json!(format!("host{number}"));
        sessions.push(Raw::greet(&node, hello).await.0);
    }
    let (mut b, _) = Raw::hello_with(&node, &bob, |hello| {
        hello["sessionPubkey"] = json!(named.public_key());
        hello["channel"] = json!("slack");
        hello["peerType"] = json!("connector");
    })
    .await;
    sessions[0]
        .ask(json!({ "type": "set_stats", "stats": { "messagesIn": 4, "uptime": 9 } }))
        .await;
    sessions[1].ask(json!({ "type": "set_status", "status": "working" })).await;
    sessions[1].ask(json!({ "type": "set_summary", "summary": "deep in it" })).await;
    sessions[1].ask(json!({ "type": "set_profile", "bio": "second" })).await;

    let row = |member: &Value, number: usize| {
        json!({
            "pubkey": keys[number].public_key(), "memberPubkey": member,
            "displayName": format!("alice {number}"), "memberName": "alice", "status": "idle", "summary": null,
            "groups": [], "sessionId": format!("launch {number}"),
            "cwd": format!("/work/{number}"), "peerRole": "session",
            "hostname": format!("host{number}"), "peerType": "ai",
            "channel": "claudemesh-session", "visible": true,
        })
    };
    let member = json!(alice.pubkey());
    let mut expected = vec![
        row(&member, 0),
        row(&member, 1),
        json!({
            "pubkey": member, "memberPubkey": member, "displayName": "alice",
            "memberName": "alice", "status": "idle",
            "summary": null, "groups": [], "sessionId": "alice-session", "cwd": "/work/alice",
            "peerRole": "control-plane", "hostname": "tower", "peerType": "ai",
            "channel": "claudemesh-daemon", "model": "opus", "visible": true,
        }),
        json!({
            "pubkey": named.public_key(), "memberPubkey": bob.pubkey(), "displayName": "bob",
            "memberName": "bob", "status": "idle", "summary": null, "groups": [], "sessionId": "bob-session",
            "cwd": "/work/bob", "peerRole": "control-plane", "hostname": "test",
            "peerType": "connector", "channel": "slack", "visible": true,
        }),
    ];
    expected[0]["stats"] = json!({ "messagesIn": 4.0, "uptime": 9.0 });
    expected[1]["status"] = json!("working");
    expected[1]["summary"] = json!("deep in it");
    expected[1]["profile"] = json!({ "bio": "second" });
    let [first, second] = &mut sessions[..] else { unreachable!() };
    for raw in [&mut daemon, first, second, &mut b] {
        let mut listed = rows(raw).await;
        let mut since = [(); 2].map(|()| String::new());
        for row in &mut listed {
            let mut taken = |name: &str| {
                let at = row.as_object_mut().and_then(|row| row.remove(name));
                at.expect("an instant").as_str().expect("text").to_owned()
            };
            let (at, status_since) = (taken("connectedAt"), taken("statusSince"));
            assert!(status_since.len() == 24 && status_since >= at, "{status_since} before {at}");
            let since = &mut since[usize::from(row["peerRole"] == "session")];
            assert!(at.len() == 24 && at >= *since, "oldest of its kind first: {at} after {since}");
            *since = at;
        }
        assert_eq!(listed, expected);
    }
}

#[tokio::test]
async fn the_first_of_a_name_is_one_that_is_here() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let bob = node.member("bob").await;
    let mut watch = Raw::hello(&node, &node.owner).await;
    let (old, new) = (SecretKey::generate(), SecretKey::generate());
    let mut hello = session_hello_frame(&node.mesh, &bob, &old);
    hello["cwd"] = json!("/elsewhere");
    let (gone, _) = Raw::greet(&node, hello).await;
    let probe = watch.sent("*", "low", "cHJvYmU=").await;
    gone.goodbye().await;
    crate::harness::until_in_grace(&mut watch, &probe, "bob").await;
    let _daemon = Raw::hello(&node, &bob).await;
    let (_session, _) = Raw::session(&node, &bob, &new).await;
    let listed = rows(&mut watch).await;
    let of_bob: Vec<&Value> = listed.iter().filter(|row| row["displayName"] == "bob").collect();
    let keys: Vec<&Value> = of_bob.iter().map(|row| &row["pubkey"]).collect();
    assert_eq!(keys, [&json!(new.public_key()), &json!(bob.pubkey()), &json!(old.public_key())]);
}

#[tokio::test]
async fn a_session_that_was_started_again_is_listed_once_and_mail_to_the_old_one_kept() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let bob = node.member("bob").await;
    let mut watch = Raw::hello(&node, &node.owner).await;
    let session = async |key: &SecretKey, cwd: &str| {
        let mut hello = session_hello_frame(&node.mesh, &bob, key);
        hello["cwd"] = json!(cwd);
        Raw::greet(&node, hello).await.0
    };
    let [old, other, beside, new] = [(); 4].map(|()| SecretKey::generate());
    let keys = async |watch: &mut Raw| {
        let mut listed = rows(watch).await;
        listed.retain(|row| row["displayName"] == "bob");
        listed.into_iter().map(|row| row["pubkey"].clone()).collect::<Vec<_>>()
    };
    let both = [session(&old, "/work").await, session(&other, "/elsewhere").await];
    let probe = watch.sent("*", "low", "cHJvYmU=").await;
    let _beside = session(&beside, "/work").await;
    for raw in both {
        raw.goodbye().await;
    }
    until("both are known to be gone", async || {
        let asked = json!({ "type": "message_status", "messageId": probe });
        let recipients = watch.ask(asked).await["recipients"].clone();
        let recipients = recipients.as_array().expect("recipients").clone();
        recipients.iter().filter(|recipient| recipient["peerStatus"] == "away").count() == 2
    })
    .await;
    assert_eq!(keys(&mut watch).await.len(), 3, "nobody came after them");
    let _new = session(&new, "/work").await;
    assert_eq!(
        keys(&mut watch).await,
        [json!(beside.public_key()), json!(new.public_key()), json!(other.public_key())],
        "one of another place may be another"
    );
    let id = watch.sent(&old.public_key().to_string(), "next", "a2VwdA==").await;
    let mut again = session(&old, "/work").await;
    again.hear_where("push", |push| push["messageId"] == id.as_str()).await;
    assert_eq!(keys(&mut watch).await.len(), 4, "it is here, and so is who followed it");
}

#[tokio::test]
async fn a_daemon_that_was_started_again_is_there_once() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let bob = node.member("bob").await;
    let mut watch = Raw::hello(&node, &node.owner).await;
    let daemon = async |pid: &str, hostname: &str| {
        let (raw, _) = Raw::hello_with(&node, &bob, |hello| {
            hello["sessionId"] = json!(format!("daemon-{pid}"));
            hello["hostname"] = json!(hostname);
        })
        .await;
        raw
    };
    let (here, there) = (daemon("1", "here").await, daemon("2", "there").await);
    let probe = watch.sent("*", "low", "cHJvYmU=").await;
    here.goodbye().await;
    crate::harness::until_in_grace(&mut watch, &probe, "bob").await;
    let missed = watch.sent("*", "low", "bWlzc2Vk").await;
    let mut again = daemon("3", "here").await;
    let listed = rows(&mut watch).await;
    let mut ids: Vec<&Value> = listed.iter().map(|row| &row["sessionId"]).collect();
    ids.retain(|id| *id != "owner-session");
    assert_eq!(ids, ["daemon-2", "daemon-3"], "the other host's stays");
    assert_eq!(watch.event("peer_left").await["eventData"]["name"], "bob");
    for expected in [probe, missed] {
        assert_eq!(again.message().await["messageId"], expected.as_str(), "as if it were the same");
    }
    drop(there);
}

// --- setters -------------------------------------------------------------------------

#[tokio::test]
async fn setters_answer_whoever_asks_and_only_them() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let mut a = Raw::hello(&node, &alice).await;
    let requests = [
        json!({ "type": "set_status", "status": "dnd" }),
        json!({ "type": "set_summary", "summary": "quiet" }),
        json!({ "type": "set_stats", "stats": { "errors": 1 } }),
        json!({ "type": "join_group", "name": "team", "role": "lead" }),
        json!({ "type": "join_group", "name": "team/core" }),
        json!({ "type": "leave_group", "name": "nothing" }),
        json!({ "type": "set_status", "status": "sleeping" }),
        json!({ "type": "join_group", "role": "lead" }),
        json!({ "type": "set_visible" }),
    ];
    for request in &requests {
        a.say(request.clone()).await;
    }
    assert_eq!(a.so_far().await, Vec::<Value>::new(), "older brokers kept silent");
    let row = rows(&mut a).await.remove(0);
    assert_eq!((&row["status"], &row["summary"]), (&json!("dnd"), &json!("quiet")));
    assert_eq!(row["stats"], json!({ "errors": 1.0 }));
    assert_eq!(row["groups"], json!([{ "name": "team", "role": "lead" }, { "name": "team/core" }]));

    let (good, bad) = requests.split_at(6);
    for request in good {
        let answer = a.ask(request.clone()).await;
        let expected = json!({
            "type": "ack", "id": answer["_reqId"], "messageId": "", "queued": false,
            "_reqId": answer["_reqId"],
        });
        assert_eq!(answer, expected, "{request}");
    }
    for request in bad {
        let answer = a.ask(request.clone()).await;
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("error"), &json!("invalid_argument"))
        );
    }
}

#[tokio::test]
async fn groups_are_joined_by_name_and_left() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    a.so_far().await;
    for (request, expected) in [
        (
            json!({ "type": "join_group", "name": "x", "role": "lead" }),
            json!([{ "name": "x", "role": "lead" }]),
        ),
        (
            json!({ "type": "join_group", "name": "@x" }),
            json!([{ "name": "x", "role": "lead" }, { "name": "@x" }]),
        ),
        (json!({ "type": "join_group", "name": "x" }), json!([{ "name": "x" }, { "name": "@x" }])),
        (json!({ "type": "leave_group", "name": "@x" }), json!([{ "name": "x" }])),
    ] {
        b.ask(request).await;
        assert_eq!(rows(&mut a).await[1]["groups"], expected);
    }
    let id = a.sent("@x", "next", "dGVhbQ==").await;
    assert_eq!(b.message().await["messageId"], id.as_str());
    b.ask(json!({ "type": "leave_group", "name": "x" })).await;
    a.sent("@x", "next", "bm9ib2R5").await;
    assert!(b.so_far().await.is_empty());
    assert!(a.so_far().await.is_empty(), "groups are no event");
}

#[tokio::test]
async fn a_profile_keeps_what_is_not_named() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let mut a = Raw::hello(&node, &alice).await;
    assert!(rows(&mut a).await[0].get("profile").is_none());
    a.say(json!({ "type": "set_profile", "title": "Engineer", "capabilities": ["rust"] })).await;
    let expected = json!({ "type": "ack", "id": "", "messageId": "", "queued": false });
    assert_eq!(a.hear("ack").await, expected);
    a.ask(json!({ "type": "set_profile", "avatar": "🦀", "title": "Lead" })).await;
    let expected = json!({ "avatar": "🦀", "title": "Lead", "capabilities": ["rust"] });
    assert_eq!(rows(&mut a).await[0]["profile"], expected);
}

#[tokio::test]
async fn nobody_is_told_of_a_hidden_peer() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 100).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut other = Raw::hello(&node, &bob).await;
    let mut hidden = Raw::hello(&node, &alice).await;
    hidden.ask(json!({ "type": "set_summary", "summary": "secret plans" })).await;
    hidden.ask(json!({ "type": "set_visible", "visible": false })).await;
    other.event("peer_hidden").await;
    other.so_far().await;
    let status = async |other: &mut Raw| {
        let id = other.sent(alice.pubkey().as_str(), "low", "eA==").await;
        other.ask(json!({ "type": "message_status", "messageId": id })).await["recipients"].clone()
    };
    hidden.ask(json!({ "type": "set_status", "status": "dnd" })).await;
    let while_here = status(&mut other).await;
    hidden.goodbye().await;
    until("it has left", async || node.audit_count("peer_left").await == 1).await;
    assert_eq!(status(&mut other).await, while_here, "whether it is there shows nowhere");
    // It comes back as hidden as it went.
    let (mut hidden, ack) = Raw::hello_with(&node, &alice, |_| {}).await;
    assert_eq!(ack["restored"], true);
    assert_eq!(rows(&mut hidden).await.len(), 2);
    assert_eq!(events(&mut other).await, []);
}
