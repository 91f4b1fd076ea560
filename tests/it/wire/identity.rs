//! What a session is: who comes back to it, who cannot take it over, and what
//! its `hello_ack` says.

use claudemesh_broker::auth::SecretKey;
use serde_json::{Value, json};

use crate::harness::raw::{hello_frame, session_hello_frame};
use crate::harness::{Node, Raw};

const REPLACED: u16 = 1000;

async fn rows(raw: &mut Raw) -> Vec<Value> {
    let listed = raw.ask(json!({ "type": "list_peers" })).await;
    listed["peers"].as_array().expect("rows").clone()
}

async fn assert_replaced(raw: &mut Raw) {
    assert_eq!(raw.closed().await, (REPLACED, "session_replaced".to_owned()));
}

// --- the same session --------------------------------------------------------------

#[tokio::test]
async fn the_same_session_replaces_its_older_socket_silently() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut watcher = Raw::hello(&node, &bob).await;
    let own_key = SecretKey::generate();
    let named_key = json!(SecretKey::generate().public_key());
    let hellos: [&dyn Fn() -> Value; 3] = [
        // Without a session key: the same member and session id.
        &|| hello_frame(&node.mesh, &alice),
        // With one, whatever the session id.
        &|| {
            let mut hello = hello_frame(&node.mesh, &alice);
            hello["sessionPubkey"] = named_key.clone();
            hello["sessionId"] = hello["timestamp"].to_string().into();
            hello
        },
        // On another host than the daemon, whose inbox it would share.
        &|| {
            let mut hello = session_hello_frame(&node.mesh, &alice, &own_key);
            hello["hostname"] = json!("another");
            hello
        },
    ];
    // Sockets that stay open: a member that went would be one that returns.
    let mut open = Vec::new();
    for make in hellos {
        let (mut old, before) = Raw::greet(&node, make()).await;
        watcher.event("peer_joined").await;
        let mut hello = make();
        hello["cwd"] = json!("/moved");
        hello["displayName"] = json!("renamed");
        let (mut new, after) = Raw::greet(&node, hello).await;
        assert_eq!(after["presenceId"], before["presenceId"]);
        assert_replaced(&mut old).await;
        let mut moved = rows(&mut new).await;
        moved.retain(|row| {
            (&row["cwd"], &row["displayName"]) == (&json!("/moved"), &json!("renamed"))
        });
        assert_eq!(moved.len(), open.len() + 1, "{moved:?}");
        assert!(watcher.so_far().await.is_empty());
        let id = watcher.sent("*", "next", "c3RpbGwgaGVyZQ==").await;
        assert_eq!(new.message().await["messageId"], id.as_str(), "the new socket is in its place");
        open.push(new);
    }
    assert_eq!(node.audit_count("peer_joined").await, 4);
    assert_eq!(node.audit_count("peer_left").await, 0);
}

#[tokio::test]
async fn member_kind_and_session_key_must_all_agree() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let key = SecretKey::generate();
    let mut open = Vec::new();
    let mut seen = Vec::new();
    for (member, named, is_session) in [
        (&alice, None, false),
        (&bob, None, false),
        (&alice, Some(SecretKey::generate()), false),
        (&alice, Some(SecretKey::generate()), false),
        (&alice, Some(key.clone()), false),
        (&alice, Some(key.clone()), true),
    ] {
        let mut hello = match (&named, is_session) {
            (Some(key), true) => session_hello_frame(&node.mesh, member, key),
            _ => hello_frame(&node.mesh, member),
        };
        if let (Some(key), false) = (&named, is_session) {
            hello["sessionPubkey"] = json!(key.public_key());
        }
        hello["sessionId"] = json!("one id for all");
        let (raw, ack) = Raw::greet(&node, hello).await;
        assert_eq!(ack["type"], "hello_ack", "{ack}");
        seen.push(ack["presenceId"].as_str().expect("an id").to_owned());
        open.push(raw);
    }
    for raw in &mut open {
        assert_eq!(rows(raw).await.len(), 6, "every socket is still served");
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 6);
}

// --- somebody else's session ---------------------------------------------------------

#[tokio::test]
async fn nobody_comes_back_to_a_session_of_somebody_else() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (alice, mallory, bob) =
        (node.member("alice").await, node.member("mallory").await, node.member("bob").await);
    let mut b = Raw::hello(&node, &bob).await;
    let (key, named) = (SecretKey::generate(), SecretKey::generate());
    let with_named_key = |member| {
        let mut hello = hello_frame(&node.mesh, member);
        hello["sessionPubkey"] = json!(named.public_key());
        hello
    };
    let (session, session_ack) = Raw::session(&node, &alice, &key).await;
    let (command, command_ack) = Raw::greet(&node, with_named_key(&alice)).await;
    let (plain, plain_ack) = Raw::hello_with(&node, &alice, |_| {}).await;
    let own_ids = [&session_ack, &command_ack, &plain_ack].map(|ack| ack["presenceId"].clone());
    drop((session, command, plain));

    // By its session id, another session begins.
    let (mut m, ack) = Raw::hello_with(&node, &mallory, |hello| {
        hello["sessionId"] = json!("alice-session");
    })
    .await;
    assert!(!own_ids.contains(&ack["presenceId"]));
    // A key that is not proven and is known to be another member's: no entry.
    for stolen in [key.public_key(), named.public_key(), alice.pubkey()] {
        let mut hello = hello_frame(&node.mesh, &mallory);
        hello["sessionPubkey"] = json!(stolen);
        let (error, close) = Raw::refused(&node, hello).await;
        assert_eq!(error["code"], "bad_session_pubkey");
        assert_eq!(close, (1008, "bad_session_pubkey".to_owned()));
    }
    // What is sent to alice's keys meanwhile is for her alone.
    let mut ids = Vec::new();
    for target in [key.public_key(), named.public_key()] {
        ids.push(b.sent(target.as_str(), "now", "Zm9yIGhlcg==").await);
    }
    assert!(m.so_far().await.iter().all(|frame| frame["subtype"] == "system"));
    let (mut session, again) = Raw::session(&node, &alice, &key).await;
    assert_eq!(again["presenceId"], own_ids[0]);
    assert_eq!(session.message().await["messageId"], ids[0].as_str());
    let (mut command, again) = Raw::greet(&node, with_named_key(&alice)).await;
    assert_eq!(again["presenceId"], own_ids[1]);
    assert_eq!(command.message().await["messageId"], ids[1].as_str());
}

#[tokio::test]
async fn an_open_session_is_not_disturbed_by_another_member() {
    let node = Node::start().await;
    let (alice, mallory) = (node.member("alice").await, node.member("mallory").await);
    let key = SecretKey::generate();
    let (mut a, _) = Raw::session(&node, &alice, &key).await;
    for field in ["sessionPubkey", "sessionId"] {
        let mut hello = hello_frame(&node.mesh, &mallory);
        hello[field] = match field {
            "sessionPubkey" => json!(key.public_key()),
            _ => json!("alice-launch"),
        };
        let (mut m, _) = Raw::greet(&node, hello).await;
        let expected = if field == "sessionPubkey" { 1 } else { 2 };
        assert_eq!(rows(&mut a).await.len(), expected);
        if expected == 2 {
            m.sent(key.public_key().as_str(), "next", "aGk=").await;
            a.message().await;
        }
    }
    // Vouching for a key is not having it.
    let mut hello = session_hello_frame(&node.mesh, &mallory, &key);
    hello["signature"] = session_hello_frame(&node.mesh, &alice, &key)["signature"].clone();
    assert_eq!(Raw::refused(&node, hello).await.0["code"], "bad_signature");
    assert_eq!(rows(&mut a).await.len(), 2);
}

// --- hello_ack -----------------------------------------------------------------------

#[tokio::test]
async fn a_hello_ack_says_where_one_is() {
    let node = Node::start_with(|config| {
        config.node.region = Some("fra".to_owned());
        config.presence.lease_grace_ms = 1_234;
    })
    .await;
    let alice = node.member("alice").await;
    let expected = json!({
        "type": "hello_ack",
        "memberDisplayName": "alice",
        "memberProfile": { "roleTag": null, "groups": [], "messageMode": "push" },
        "services": [],
        "node": node.config.node.id,
        "region": "fra",
        "leaseTtlMs": 1_234,
        "protocolVersion": 1,
        "features": ["stages", "freshness", "hops", "holds", "sealed_multicast"],
    });
    let (_daemon, mut ack) = Raw::hello_with(&node, &alice, |hello| {
        hello["displayName"] = json!("alice's daemon");
    })
    .await;
    let policy = ack.as_object_mut().and_then(|ack| ack.remove("meshPolicy")).expect("a policy");
    for field in ["displayName", "roleTag", "groups", "messageMode"] {
        assert!(policy["selfEditable"][field].is_boolean(), "{policy}");
    }
    let presence = ack.as_object_mut().and_then(|ack| ack.remove("presenceId")).expect("an id");
    assert_eq!(presence.as_str().map(str::len), Some(32));
    assert_eq!(ack, expected);

    let key = SecretKey::generate();
    let (first, mut ack) = Raw::session(&node, &alice, &key).await;
    for field in ["presenceId", "meshPolicy"] {
        assert!(ack.as_object_mut().is_some_and(|ack| ack.remove(field).is_some()), "{field}");
    }
    let mut expected = expected;
    expected.as_object_mut().expect("an object").remove("services");
    assert_eq!(ack, expected, "a session gets no services");
    drop(first);
    let (_second, ack) = Raw::session(&node, &alice, &key).await;
    assert!(ack.get("memberProfile").is_none(), "known from before: {ack}");
}

#[tokio::test]
async fn what_a_hello_leaves_out_has_its_default() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    for odd in [json!("4242"), json!(1.5), json!(99_999_999_999_i64), json!(null), json!([1])] {
        let (mut raw, _) = Raw::hello_with(&node, &alice, |hello| {
            hello["pid"] = odd;
            for field in ["cwd", "displayName", "hostname", "peerType", "channel"] {
                hello.as_object_mut().expect("an object").remove(field);
            }
            hello["sessionPubkey"] = json!("");
            hello["protocolVersion"] = json!(7);
            hello["capabilities"] = json!(["none"]);
        })
        .await;
        let row = rows(&mut raw).await.remove(0);
        assert_eq!((&row["cwd"], &row["displayName"]), (&json!(""), &json!("alice")));
        assert_eq!(row["pubkey"], json!(alice.pubkey()));
        for field in ["hostname", "peerType", "channel", "model"] {
            assert!(row.get(field).is_none(), "{row}");
        }
        raw.goodbye().await;
    }
}

#[tokio::test]
async fn an_earlier_sessions_state_is_restored_by_hello_only() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 300).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut watcher = Raw::hello(&node, &bob).await;
    let (mut a, ack) = Raw::hello_with(&node, &alice, |_| {}).await;
    for field in ["restored", "lastSummary", "lastSeenAt", "restoredGroups", "restoredStats"] {
        assert!(ack.get(field).is_none(), "nothing to restore: {ack}");
    }
    let team = json!([{ "name": "team", "role": "lead" }]);
    a.ask(json!({ "type": "set_summary", "summary": "was busy" })).await;
    a.ask(json!({ "type": "join_group", "name": "team", "role": "lead" })).await;
    a.ask(json!({ "type": "set_profile", "title": "Engineer" })).await;
    a.ask(json!({ "type": "set_stats", "stats": { "messagesIn": 3, "toolCalls": 5 } })).await;
    a.goodbye().await;
    watcher.event("peer_left").await;

    let (a, ack) = Raw::hello_with(&node, &alice, |_| {}).await;
    assert_eq!(ack["restored"], true);
    assert_eq!(ack["lastSummary"], "was busy");
    assert_eq!(ack["restoredGroups"], team);
    let stats = json!({ "messagesIn": 3.0, "messagesOut": 0.0, "toolCalls": 5.0, "errors": 0.0 });
    assert_eq!(ack["restoredStats"], stats);
    let seen = ack["lastSeenAt"].as_str().expect("an instant");
    assert!(seen.len() == 24 && seen.ends_with('Z'), "{seen}");
    let row = rows(&mut watcher).await.pop().expect("a row");
    assert_eq!((&row["groups"], &row["profile"]), (&team, &json!({ "title": "Engineer" })));
    assert_eq!(row["summary"], Value::Null, "a summary is told, not restored");

    // A reattach restores nothing; groups that were named stay.
    drop(a);
    let (a, ack) = Raw::hello_with(&node, &alice, |_| {}).await;
    assert!(ack.get("restored").is_none() && ack.get("restoredStats").is_none(), "{ack}");
    a.goodbye().await;
    watcher.event("peer_left").await;
    let (_a, ack) = Raw::hello_with(&node, &alice, |hello| {
        hello["groups"] = json!([{ "name": "new" }]);
    })
    .await;
    assert_eq!(ack["restored"], true);
    assert!(ack.get("restoredGroups").is_none(), "{ack}");
    let row = rows(&mut watcher).await.pop().expect("a row");
    assert_eq!(row["groups"], json!([{ "name": "new" }]));

    let (_session, ack) = Raw::session(&node, &alice, &SecretKey::generate()).await;
    assert!(ack.get("restored").is_none() && ack.get("lastSeenAt").is_none(), "{ack}");
    assert_eq!(rows(&mut watcher).await[0]["groups"], json!([]), "sessions come first");
}
