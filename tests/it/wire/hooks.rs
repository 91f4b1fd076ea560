//! Whom a status hook means, and from where it may speak.

use claudemesh_broker::auth::SecretKey;
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::harness::raw::{hello_frame, session_hello_frame};
use crate::harness::{Member, Node, Raw, http, until_in_grace};
use crate::wire::visitors::{command, rows};

const PATH: &str = "/hook/set-status";

/// Where the session's machine is.
const HOME: &str = "203.0.113.9";
const AWAY: &str = "203.0.113.77";

pub async fn hook(node: &Node, from: Option<&str>, body: Value) -> (u16, Value) {
    let forwarded: Vec<(&str, &str)> =
        from.map(|address| ("x-forwarded-for", address)).into_iter().collect();
    let reply = http::request(node, "POST", PATH, &forwarded, &body.to_string()).await;
    (reply.status, reply.json())
}

/// A socket that comes from that address, as its proxy says.
pub async fn connect_from(node: &Node, address: &str, hello: Value) -> Raw {
    let mut request = node.url().into_client_request().expect("an address");
    request.headers_mut().insert("x-forwarded-for", address.parse().expect("an address"));
    let (socket, _) = connect_async(request).await.expect("an upgrade");
    let mut raw = Raw::of(socket);
    raw.say(hello).await;
    raw.hear("hello_ack").await;
    raw
}

pub fn session_named(node: &Node, member: &Member, session_id: &str, cwd: &str) -> Value {
    let mut hello = session_hello_frame(&node.mesh, member, &SecretKey::generate());
    hello["sessionId"] = json!(session_id);
    hello["displayName"] = json!(session_id);
    hello["cwd"] = json!(cwd);
    hello
}

async fn status_of(raw: &mut Raw, name: &str) -> Value {
    let row = rows(raw).await.into_iter().find(|row| row["displayName"] == name);
    row.expect("a row")["status"].clone()
}

#[tokio::test]
async fn a_hook_finds_its_session_whatever_else_ran_in_the_folder() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let bob = node.member("bob").await;
    let mut watch = Raw::hello(&node, &node.owner).await;
    let _daemon = Raw::hello_with(&node, &bob, |hello| hello["cwd"] = json!("/p")).await;
    let (_session, _) = Raw::greet(&node, session_named(&node, &bob, "uuid-1", "/p")).await;
    let (newer, _) = Raw::greet(&node, session_named(&node, &bob, "uuid-2", "/p")).await;
    let mut passing = hello_frame(&node.mesh, &bob);
    (passing["visit"], passing["cwd"], passing["sessionId"]) =
        (json!(true), json!("/p"), json!("uuid-1"));
    let (_passing, _) = Raw::greet(&node, passing).await;
    for (status, folder) in [("working", "/p"), ("idle", "/p/deeper"), ("working", "/p")] {
        let body = json!({ "cwd": folder, "pid": 777, "status": status, "session_id": "uuid-1" });
        let (code, answer) = hook(&node, None, body).await;
        assert_eq!((code, &answer["ok"]), (200, &json!(true)), "{answer}");
        assert_eq!(status_of(&mut watch, "uuid-1").await, status);
        assert_eq!(status_of(&mut watch, "uuid-2").await, "idle");
    }
    // Without the id: the newest session, also once a daemon came after it.
    hook(&node, None, json!({ "cwd": "/p", "status": "working" })).await;
    assert_eq!(status_of(&mut watch, "uuid-2").await, "working");
    // One that is gone hides nobody.
    let probe = watch.sent("*", "low", "cHJvYmU=").await;
    newer.goodbye().await;
    until_in_grace(&mut watch, &probe, "uuid-2").await;
    hook(&node, None, json!({ "cwd": "/p", "status": "idle" })).await;
    assert_eq!(status_of(&mut watch, "uuid-1").await, "idle");
}

#[tokio::test]
async fn commands_are_found_by_no_hook() {
    let node = Node::start().await;
    let bob = node.member("bob").await;
    let (mut passing, _) = command(&node, &bob, "uuid").await;
    let body =
        json!({ "cwd": "/work/bob", "pid": 9999, "status": "working", "session_id": "uuid" });
    assert_eq!(hook(&node, None, body).await.1, json!({ "ok": true, "pending": true }));
    assert_eq!(status_of(&mut passing, "bob").await, "idle");
}

#[tokio::test]
async fn of_several_members_or_meshes_none_is_guessed() {
    let node = Node::start().await;
    let bob = node.member("bob").await;
    let mut b = Raw::greet(&node, session_named(&node, &bob, "uuid", "/p")).await.0;
    let (mesh, owner) = node.another_mesh("other").await;
    let mut stranger = session_hello_frame(&mesh, &owner, &SecretKey::generate());
    (stranger["cwd"], stranger["displayName"]) = (json!("/p"), json!("stranger"));
    let mut stranger = Raw::greet(&node, stranger).await.0;
    let (code, answer) = hook(&node, None, json!({ "cwd": "/p", "status": "working" })).await;
    assert_eq!((code, &answer["ok"]), (200, &json!(false)), "{answer}");
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("session_id")), "{answer}");
    assert_eq!(status_of(&mut b, "uuid").await, "idle");
    assert_eq!(status_of(&mut stranger, "stranger").await, "idle");
    hook(&node, None, json!({ "cwd": "/p", "status": "working", "session_id": "uuid" })).await;
    assert_eq!(status_of(&mut b, "uuid").await, "working");
    assert_eq!(status_of(&mut stranger, "stranger").await, "idle");
}

#[tokio::test]
async fn from_elsewhere_a_hook_speaks_of_the_session_beside_it() {
    let node = Node::start_with(|config| {
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
        config.http.hook_rate_per_minute = 1000;
    })
    .await;
    let bob = node.member("bob").await;
    let mut watch = Raw::hello(&node, &node.owner).await;
    let session = connect_from(&node, HOME, session_named(&node, &bob, "uuid", "/p")).await;
    let word = |status: &str, session_id: &str| json!({ "cwd": "/p", "pid": 4243, "status": status, "session_id": session_id });
    let (code, answer) = hook(&node, Some(HOME), word("working", "uuid")).await;
    assert_eq!((code, &answer["ok"]), (200, &json!(true)), "{answer}");
    assert_eq!(status_of(&mut watch, "uuid").await, "working");
    for (from, body) in [
        (AWAY, word("idle", "uuid")),
        (HOME, word("idle", "another")),
        (HOME, word("idle", "")),
        (HOME, json!({ "cwd": "/p", "pid": 4243, "status": "idle" })),
        // A proxy's own address is everybody's.
        ("127.0.0.1", word("idle", "uuid")),
    ] {
        let (code, answer) = hook(&node, Some(from), body.clone()).await;
        assert_eq!((code, &answer["ok"]), (403, &json!(false)), "{from} {body}");
        assert!(answer["error"].as_str().is_some_and(|text| text.contains("session_id")));
    }
    let page = [("x-forwarded-for", HOME), ("sec-fetch-site", "cross-site")];
    let body = word("idle", "uuid").to_string();
    let reply = http::request(&node, "POST", PATH, &page, &body).await;
    assert_eq!(reply.status, 403, "a page in a browser beside it is a stranger");
    assert_eq!(status_of(&mut watch, "uuid").await, "working");
    let probe = watch.sent("*", "low", "cHJvYmU=").await;
    session.goodbye().await;
    until_in_grace(&mut watch, &probe, "uuid").await;
    let (code, _) = hook(&node, Some(HOME), word("idle", "uuid")).await;
    assert_eq!(code, 403, "its socket is not open");
}

#[tokio::test]
async fn without_a_trusted_proxy_an_address_shows_nothing() {
    let node = Node::start().await;
    let bob = node.member("bob").await;
    let _session = Raw::greet(&node, session_named(&node, &bob, "uuid", "/p")).await;
    let body = json!({ "cwd": "/p", "status": "working", "session_id": "uuid" });
    assert_eq!(hook(&node, Some("127.0.0.1"), body.clone()).await.0, 403);
    assert_eq!(hook(&node, Some(HOME), body.clone()).await.0, 403);
    assert_eq!(hook(&node, None, body).await.0, 200);
}

#[tokio::test]
async fn folders_as_long_as_they_can_be_find_their_session() {
    let node = Node::start().await;
    let bob = node.member("bob").await;
    let long = format!("/{}", "x".repeat(5000));
    let mut b = Raw::greet(&node, session_named(&node, &bob, "long", &long)).await.0;
    hook(&node, None, json!({ "cwd": long, "status": "working" })).await;
    assert_eq!(status_of(&mut b, "long").await, "working");
}

/// Of clients that their proxy does not name, or that come by one which nobody trusts
/// to, all have one address: that shows nothing.
#[tokio::test]
async fn who_cannot_be_told_from_others_sets_nobodys_status() {
    let trusted = Node::start_with(|config| {
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await;
    let untrusted = Node::start().await;
    for (node, header) in [
        (&trusted, ("x-forwarded-for", "unknown")),
        (&untrusted, ("x-forwarded-for", HOME)),
        (&untrusted, ("x-forwarded-proto", "https")),
    ] {
        let bob = node.member("bob").await;
        let mut request = node.url().into_client_request().expect("an address");
        request.headers_mut().insert(header.0, header.1.parse().expect("a value"));
        let (socket, _) = connect_async(request).await.expect("an upgrade");
        let mut b = Raw::of(socket);
        b.say(session_named(node, &bob, "uuid-b", "/p")).await;
        b.hear("hello_ack").await;
        let body = json!({ "cwd": "/p", "status": "working", "session_id": "uuid-b" });
        let reply = http::request(node, "POST", PATH, &[header], &body.to_string()).await;
        assert_eq!(reply.status, 403, "{header:?}");
        assert_eq!(status_of(&mut b, "uuid-b").await, "idle", "{header:?}");
        b.goodbye().await;
    }
}
