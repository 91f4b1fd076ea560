//! Kick, disconnect, ban, unban: who may, whom it hits, what everyone sees.

use std::time::{Duration, Instant};

use claudemesh_broker::audit::AuditEvent;
use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::store::{Moderation, Role};
use serde_json::{Value, json};

use crate::harness::raw::hello_frame;
use crate::harness::{Member, Node, Raw, until};

/// What another program changes, and what happens on any node, is done by then.
const SOON: Duration = Duration::from_secs(3);

async fn session(node: &Node, member: &Member) -> Raw {
    Raw::session(node, member, &SecretKey::generate()).await.0
}

fn names(answer: &Value, field: &str) -> Vec<String> {
    let list = answer[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut names: Vec<String> =
        list.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    names.sort();
    names
}

/// A presence that ended is gone: told once, and nobody lists it.
async fn left_once(observer: &mut Raw, name: &str) {
    assert_eq!(observer.event("peer_left").await["eventData"]["name"], name);
    let peers = observer.ask(json!({ "type": "list_peers" })).await;
    let rows = peers["peers"].as_array().expect("rows");
    assert!(!rows.iter().any(|row| row["displayName"] == name), "{peers}");
    let again = observer.so_far().await;
    assert!(!again.iter().any(|frame| frame["event"] == "peer_left"), "{again:?}");
}

#[tokio::test]
async fn only_the_owner_and_admins_may_moderate() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let mut a = Raw::hello(&node, &alice).await;
    for verb in ["kick", "disconnect", "ban", "unban"] {
        let error = a.ask(json!({ "type": verb, "target": "owner" })).await;
        assert_eq!(error["code"], "forbidden");
        assert_eq!(error["message"], format!("only owner or admin can {verb}"));
    }
    let bans = a.ask(json!({ "type": "list_bans" })).await;
    assert_eq!((&bans["type"], &bans["bans"]), (&json!("list_bans_result"), &json!([])));
    let admin = node.member_as("admin", Role::Admin).await;
    for member in [&admin, &node.owner] {
        let mut raw = Raw::hello(&node, member).await;
        let answer = raw.ask(json!({ "type": "kick", "target": "nobody" })).await;
        assert_eq!((&answer["kicked"], &answer["affected"]), (&json!([]), &json!([])));
        assert!(answer.get("skipped_control_plane").is_none());
    }
}

#[tokio::test]
async fn a_kick_ends_sessions_and_spares_daemons() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (bob, watcher) = (node.member("bob").await, node.member("watcher").await);
    let mut owner = Raw::hello(&node, &node.owner).await;
    let mut w = Raw::hello(&node, &watcher).await;
    let mut daemon =
        Raw::hello_with(&node, &bob, |hello| hello["displayName"] = json!("bob-daemon")).await.0;
    let mut b = session(&node, &bob).await;
    let answer = owner.ask(json!({ "type": "kick", "target": bob.pubkey() })).await;
    assert_eq!(answer["type"], "kick_ack");
    assert_eq!(
        (names(&answer, "kicked"), names(&answer, "affected")),
        (vec!["bob".to_owned()], vec!["bob".to_owned()])
    );
    assert_eq!(names(&answer, "skipped_control_plane"), ["bob-daemon"]);
    assert_eq!(b.closed().await, (4001, "kicked".to_owned()));
    left_once(&mut w, "bob").await;
    daemon.so_far().await;
    assert_eq!(node.audit_count("peer_kicked").await, 1);
    assert_eq!(node.audit_count("peer_left").await, 1);
    assert!(node.audit_is_valid().await);
    // It may come back: as somebody new.
    let mut b = session(&node, &bob).await;
    assert_eq!(w.event("peer_joined").await["eventData"]["name"], "bob");
    b.so_far().await;
}

#[tokio::test]
async fn a_kick_by_name_or_prefix_hits_whom_it_names_also_in_grace() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (bob, bobby) = (node.member("bob").await, node.member("bobby").await);
    let mut owner = Raw::hello(&node, &node.owner).await;
    let mut b = session(&node, &bob).await;
    let mut y = session(&node, &bobby).await;
    let answer = owner.ask(json!({ "type": "kick", "target": "bob" })).await;
    assert_eq!(names(&answer, "kicked"), ["bob"], "a name is a whole name");
    assert_eq!(b.closed().await, (4001, "kicked".to_owned()));
    y.so_far().await;
    y.goodbye().await;
    let answer =
        owner.ask(json!({ "type": "kick", "target": &bobby.pubkey().as_str()[..8] })).await;
    assert_eq!(names(&answer, "kicked"), ["bobby"], "a key may be a prefix");
    assert_eq!(owner.event("peer_left").await["eventData"]["name"], "bob");
    left_once(&mut owner, "bobby").await;
}

#[tokio::test]
async fn a_session_key_is_no_target() {
    let node = Node::start().await;
    let bob = node.member("bob").await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    let key = SecretKey::generate();
    let (mut b, _) = Raw::session(&node, &bob, &key).await;
    let answer = owner.ask(json!({ "type": "kick", "target": key.public_key() })).await;
    assert_eq!(names(&answer, "kicked"), Vec::<String>::new());
    b.so_far().await;
}

#[tokio::test]
async fn disconnect_ends_daemons_too_and_they_may_return() {
    let node = Node::start().await;
    let bob = node.member("bob").await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    let mut daemon = Raw::hello(&node, &bob).await;
    let mut b = session(&node, &bob).await;
    let answer = owner.ask(json!({ "type": "disconnect", "target": "bob" })).await;
    assert_eq!(answer["type"], "disconnect_ack");
    assert_eq!(names(&answer, "kicked"), ["bob", "bob"]);
    assert!(answer.get("skipped_control_plane").is_none());
    assert_eq!(daemon.closed().await, (1000, "disconnected".to_owned()));
    assert_eq!(b.closed().await, (1000, "disconnected".to_owned()));
    Raw::hello(&node, &bob).await.so_far().await;
}

#[tokio::test]
async fn all_and_stale_spare_the_caller_and_all_comes_first() {
    let node = Node::start().await;
    let bob = node.member("bob").await;
    let (mut owner, _) = Raw::session(&node, &node.owner, &SecretKey::generate()).await;
    let mut daemon = Raw::hello(&node, &bob).await;
    let mut one = session(&node, &bob).await;
    let answer = owner
        .ask(json!({ "type": "kick", "all": true, "stale": 3_600_000, "target": "nobody" }))
        .await;
    assert_eq!(
        (names(&answer, "kicked"), names(&answer, "skipped_control_plane")),
        (vec!["bob".to_owned()], vec!["bob".to_owned()])
    );
    assert_eq!(one.closed().await, (4001, "kicked".to_owned()));
    owner.so_far().await;

    let mut quiet = session(&node, &bob).await;
    let mut busy = session(&node, &bob).await;
    let answer = owner.ask(json!({ "type": "kick", "stale": 3_600_000, "target": "bob" })).await;
    assert_eq!(names(&answer, "kicked"), Vec::<String>::new(), "stale comes before target");
    // Until the quiet one has been quiet for long enough and the other not.
    let kicked = loop {
        busy.so_far().await;
        let answer = owner.ask(json!({ "type": "kick", "stale": 400 })).await;
        let kicked = names(&answer, "kicked");
        if !kicked.is_empty() {
            break kicked;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(kicked, ["bob"]);
    assert_eq!(quiet.closed().await, (4001, "kicked_stale".to_owned()));
    busy.so_far().await;
    let answer = owner.ask(json!({ "type": "disconnect", "stale": 1 })).await;
    assert!(!names(&answer, "kicked").is_empty(), "{answer}");
    assert_eq!(daemon.closed().await, (1000, "disconnected_stale".to_owned()));
    owner.so_far().await;
}

#[tokio::test]
async fn who_names_itself_gets_the_answer_before_the_close() {
    let node = Node::start().await;
    let (mut owner, _) = Raw::session(&node, &node.owner, &SecretKey::generate()).await;
    let answer = owner.ask(json!({ "type": "kick", "target": "owner" })).await;
    assert_eq!(names(&answer, "kicked"), ["owner"]);
    assert_eq!(owner.closed().await, (4001, "kicked".to_owned()));
    assert_eq!(node.audit_count("peer_kicked").await, 1);
}

#[tokio::test]
async fn a_ban_closes_every_socket_of_the_member_and_keeps_it_out() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (bob, watcher) = (node.member("bob").await, node.member("watcher").await);
    let mut owner = Raw::hello(&node, &node.owner).await;
    let mut w = Raw::hello(&node, &watcher).await;
    let mut daemon = Raw::hello(&node, &bob).await;
    let mut b = session(&node, &bob).await;
    session(&node, &bob).await.goodbye().await;
    let answer = owner.ask(json!({ "type": "ban", "target": "bob", "reason": "noise" })).await;
    assert_eq!((&answer["type"], &answer["banned"]), (&json!("ban_ack"), &json!("bob")));
    assert_eq!(daemon.closed().await, (4002, "banned".to_owned()));
    assert_eq!(b.closed().await, (4002, "banned".to_owned()));
    for _ in 0..3 {
        w.event("peer_left").await;
    }
    assert!(!w.so_far().await.iter().any(|frame| frame["event"] == "peer_left"));
    assert_eq!(node.audit_count("member_banned").await, 1);
    assert_eq!(node.audit_count("peer_left").await, 3);

    let mut again = Raw::connect(&node).await;
    again.say(hello_frame(&node.mesh, &bob)).await;
    let error = again.hear("error").await;
    assert_eq!(error["code"], "revoked");
    assert_eq!(
        error["message"],
        "You've been removed from \"test\". Contact the mesh owner to rejoin."
    );
    assert_eq!(again.closed().await, (4002, "banned".to_owned()));
    let ack = owner.send(bob.pubkey().as_str(), "next", "eA==").await;
    assert_eq!(ack["queued"], false, "nobody writes to it either: {ack}");

    let bans = w.ask(json!({ "type": "list_bans" })).await;
    assert_eq!(bans["bans"].as_array().map(Vec::len), Some(1));
    let entry = &bans["bans"][0];
    assert_eq!((&entry["name"], &entry["pubkey"]), (&json!("bob"), &json!(bob.pubkey())));
    assert!(entry["revokedAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{bans}");

    let error = owner.ask(json!({ "type": "ban", "target": "bob" })).await;
    assert_eq!(
        (&error["code"], &error["message"]),
        (&json!("not_found"), &json!("peer \"bob\" not found"))
    );
    let answer = owner.ask(json!({ "type": "unban", "target": "bob" })).await;
    assert_eq!((&answer["type"], &answer["unbanned"]), (&json!("unban_ack"), &json!("bob")));
    assert_eq!(node.audit_count("member_unbanned").await, 1);
    Raw::hello(&node, &bob).await.so_far().await;
    owner.sent(bob.pubkey().as_str(), "next", "eA==").await;
    assert!(node.audit_is_valid().await);
}

#[tokio::test]
async fn whom_a_ban_and_an_unban_do_not_hit() {
    let node = Node::start().await;
    let (admin, bob) = (node.member_as("admin", Role::Admin).await, node.member("bob").await);
    let mut raw = Raw::hello(&node, &admin).await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    let cases = [
        ("ban", json!(null), "invalid", "target required"),
        ("ban", json!(""), "invalid", "target required"),
        ("ban", json!("nobody"), "not_found", "peer \"nobody\" not found"),
        ("ban", json!("admin"), "invalid", "cannot ban yourself"),
        ("ban", json!("owner"), "forbidden", "the owner cannot be banned"),
        (
            "ban",
            json!(&node.owner.pubkey().as_str()[..20]),
            "forbidden",
            "the owner cannot be banned",
        ),
        ("unban", json!("bob"), "not_found", "no banned peer \"bob\""),
    ];
    for (verb, target, code, message) in cases {
        let error = raw.ask(json!({ "type": verb, "target": target })).await;
        assert_eq!(
            (&error["code"], &error["message"]),
            (&json!(code), &json!(message)),
            "{verb} {target}"
        );
    }
    owner.so_far().await;
    let key = bob.pubkey();
    let prefix = &key.as_str()[..12];
    assert_eq!(raw.ask(json!({ "type": "ban", "target": prefix })).await["banned"], "bob");
    let error = raw.ask(json!({ "type": "unban", "target": prefix })).await;
    assert_eq!(error["code"], "not_found", "an unban wants the name or the whole key");
    let answer = raw.ask(json!({ "type": "unban", "target": bob.pubkey() })).await;
    assert_eq!(answer["unbanned"], "bob");
}

#[tokio::test]
async fn a_kicked_place_is_free_at_once() {
    let node = Node::start_with(|config| config.presence.connections_per_mesh_max = 2).await;
    let bob = node.member("bob").await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    for _ in 0..10 {
        let mut b = session(&node, &bob).await;
        owner.ask(json!({ "type": "kick", "target": "bob" })).await;
        assert_eq!(b.closed().await.0, 4001);
    }
}

#[tokio::test]
async fn a_ban_by_another_program_closes_sockets_soon() {
    let node = Node::start().await;
    let (bob, watcher) = (node.member("bob").await, node.member("watcher").await);
    let mut w = Raw::hello(&node, &watcher).await;
    let mut b = Raw::hello(&node, &bob).await;
    let begun = Instant::now();
    let ban = Moderation {
        mesh: node.mesh.clone(),
        member: bob.id.clone(),
        actor: None,
        actor_name: None,
        audit: AuditEvent::MemberBanned { target: "bob".to_owned(), target_pubkey: bob.pubkey() },
    };
    assert!(node.store.bans.ban(Timestamp::now(), &ban).await.expect("the store answers"));
    assert_eq!(b.closed().await, (4002, "banned".to_owned()));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    left_once(&mut w, "bob").await;
    assert_eq!(node.audit_count("peer_left").await, 1);
}

#[tokio::test]
async fn a_role_given_by_another_program_counts_soon() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let mut a = Raw::hello(&node, &alice).await;
    assert_eq!(a.ask(json!({ "type": "kick", "target": "x" })).await["code"], "forbidden");
    node.store
        .members
        .set_role(Timestamp::now(), &alice.id, Role::Admin)
        .await
        .expect("the store answers");
    until("the role is known", async || {
        a.ask(json!({ "type": "kick", "target": "x" })).await["type"] == "kick_ack"
    })
    .await;
}
