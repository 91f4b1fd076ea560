//! Idle, working, do not disturb: who may say so over which door, and what is
//! held until when.

use std::time::Duration;

use claudemesh_broker::config::Secret;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::timeout;

use crate::harness::raw::hello_frame;
use crate::harness::{Member, Node, Raw, http, metric, until, until_in_grace};

const TOKEN: &str = "a-token-of-length-20";

const PATH: &str = "/hook/set-status";

type Header<'a> = (&'a str, &'a str);

/// As from elsewhere, through a proxy on this machine.
const FORWARDED: Header<'_> = ("x-forwarded-for", "203.0.113.9");

async fn post(node: &Node, body: &str) -> (u16, Value) {
    let reply = http::post(node, PATH, body).await;
    (reply.status, reply.json())
}

async fn post_with(node: &Node, headers: &[Header<'_>], body: &str) -> (u16, Value) {
    let reply = http::request(node, "POST", PATH, headers, body).await;
    (reply.status, reply.json())
}

/// A hook of that member's process; it must be taken.
async fn hook(node: &Node, member: &Member, status: &str) -> Value {
    let body = json!({ "cwd": format!("/work/{}", member.name), "pid": 4242, "status": status });
    let (code, answer) = post(node, &body.to_string()).await;
    assert_eq!((code, &answer["ok"]), (200, &json!(true)), "{answer}");
    answer
}

async fn status_of(raw: &mut Raw, name: &str) -> Value {
    let listed = raw.ask(json!({ "type": "list_peers" })).await;
    let peers = listed["peers"].as_array().expect("rows");
    let row = peers.iter().find(|peer| peer["displayName"] == name).expect("a row");
    row["status"].clone()
}

async fn set(raw: &mut Raw, status: &str) {
    raw.ask(json!({ "type": "set_status", "status": status })).await;
}

/// A node with alice, who sends, and bob, whose status is what this is about.
async fn pair(node: &Node) -> (Raw, Member, Raw) {
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let a = Raw::hello(node, &alice).await;
    let b = Raw::hello(node, &bob).await;
    wait_for_news(node, 2).await;
    (a, bob, b)
}

/// The members that a test makes are news to the node, as another program's
/// are, and on news every session reads its mail. After this none are left.
async fn wait_for_news(node: &Node, sessions: u64) {
    let before = metric(node, "broker_drains_total").await;
    node.member("news").await;
    until("the node has read the news", async || {
        metric(node, "broker_drains_total").await >= before + sessions
    })
    .await;
}

/// Less than the node's own rounds, which find forgotten mail after a while.
const AT_ONCE: Duration = Duration::from_secs(4);

/// This comes at once and in this order, and nothing else.
async fn assert_comes(raw: &mut Raw, ids: &[String]) {
    for id in ids {
        let push = timeout(AT_ONCE, raw.message()).await.expect("it is released");
        assert_eq!(push["messageId"], id.as_str());
        raw.confirm(&push).await;
    }
    assert!(raw.so_far().await.is_empty());
}

// --- hold and release ------------------------------------------------------------------

#[tokio::test]
async fn a_busy_peer_gets_what_is_urgent_and_the_rest_when_it_is_idle() {
    let node = Node::start().await;
    let (mut a, bob, mut b) = pair(&node).await;
    let to = bob.pubkey();
    for busy in ["working", "dnd"] {
        set(&mut b, busy).await;
        assert_eq!(status_of(&mut a, "bob").await, busy);
        let low = a.sent(to.as_str(), "low", "bG93").await;
        let next = a.sent(to.as_str(), "next", "bmV4dA==").await;
        let now = a.sent(to.as_str(), "now", "bm93").await;
        assert_comes(&mut b, &[now]).await;
        set(&mut b, "idle").await;
        assert_comes(&mut b, &[low, next]).await;
    }
}

#[tokio::test]
async fn multicasts_are_not_held() {
    let node = Node::start().await;
    let (mut a, _, mut b) = pair(&node).await;
    b.ask(json!({ "type": "join_group", "name": "team" })).await;
    set(&mut b, "dnd").await;
    let ids = [a.sent("*", "low", "YWxs").await, a.sent("@team", "next", "dGVhbQ==").await];
    assert_comes(&mut b, &ids).await;
}

#[tokio::test]
async fn a_return_does_not_release_what_is_held() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (mut a, bob, mut b) = pair(&node).await;
    set(&mut b, "dnd").await;
    let held = a.sent(bob.pubkey().as_str(), "next", "aGVsZA==").await;
    drop(b);
    let urgent = a.sent(bob.pubkey().as_str(), "now", "bm93").await;
    let mut b = Raw::hello(&node, &bob).await;
    assert_eq!(status_of(&mut a, "bob").await, "dnd");
    assert_comes(&mut b, &[urgent]).await;
    set(&mut b, "idle").await;
    assert_comes(&mut b, &[held]).await;
}

#[tokio::test]
async fn a_hook_holds_and_releases() {
    let node = Node::start().await;
    let (mut a, bob, mut b) = pair(&node).await;
    let answer = hook(&node, &bob, "working").await;
    assert_eq!(answer["presence_id"].as_str().map(str::len), Some(32), "{answer}");
    assert_eq!(status_of(&mut a, "bob").await, "working");
    assert_eq!(status_of(&mut a, "alice").await, "idle");
    let held = a.sent(bob.pubkey().as_str(), "next", "aGVsZA==").await;
    assert!(b.so_far().await.is_empty());
    hook(&node, &bob, "idle").await;
    assert_comes(&mut b, &[held]).await;
}

#[tokio::test]
async fn what_a_hook_set_decays_and_lets_go() {
    let node = Node::start_with(|config| config.presence.status_ttl_ms = 600).await;
    let (mut a, bob, mut b) = pair(&node).await;
    hook(&node, &bob, "working").await;
    let held = a.sent(bob.pubkey().as_str(), "low", "aGVsZA==").await;
    assert!(b.so_far().await.is_empty());
    // Nothing is said meanwhile: time alone releases it.
    assert_comes(&mut b, &[held]).await;
    assert_eq!(status_of(&mut a, "bob").await, "idle");
}

#[tokio::test]
async fn what_a_peer_said_itself_does_not_decay() {
    let node = Node::start_with(|config| config.presence.status_ttl_ms = 300).await;
    let (mut a, bob, mut b) = pair(&node).await;
    let carol = node.member("carol").await;
    let dave = node.member("dave").await;
    let (mut c, mut d) = (Raw::hello(&node, &carol).await, Raw::hello(&node, &dave).await);
    set(&mut b, "working").await;
    set(&mut d, "dnd").await;
    a.sent(bob.pubkey().as_str(), "next", "aGVsZA==").await;
    a.sent(dave.pubkey().as_str(), "next", "aGVsZA==").await;
    // Two decays of a hook's word, begun later, take longer than one of theirs.
    for _ in 0..2 {
        hook(&node, &carol, "working").await;
        let id = a.sent(carol.pubkey().as_str(), "next", "dGljaw==").await;
        let push = c.message().await;
        assert_eq!(push["messageId"], id.as_str());
        c.confirm(&push).await;
    }
    assert_eq!(status_of(&mut a, "bob").await, "working");
    assert_eq!(status_of(&mut a, "dave").await, "dnd");
    for raw in [&mut b, &mut d] {
        let heard = raw.so_far().await;
        assert!(heard.iter().all(|frame| frame["subtype"] == "system"), "{heard:?}");
    }
}

// --- what a hook may change --------------------------------------------------------------

#[tokio::test]
async fn a_hook_never_changes_dnd() {
    let node = Node::start().await;
    let (mut a, bob, mut b) = pair(&node).await;
    set(&mut b, "dnd").await;
    for status in ["idle", "working"] {
        let answer = hook(&node, &bob, status).await;
        assert!(answer["presence_id"].is_string(), "{answer}");
        assert_eq!(status_of(&mut a, "bob").await, "dnd");
    }
    // As soon as the peer says otherwise, hooks count again, also while the
    // store has yet to hear of it.
    for _ in 0..10 {
        set(&mut b, "dnd").await;
        set(&mut b, "idle").await;
        hook(&node, &bob, "working").await;
        assert_eq!(status_of(&mut a, "bob").await, "working");
    }
}

#[tokio::test]
async fn a_hook_finds_the_process_else_the_newest_in_its_folder() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let mut open = Vec::new();
    for (name, pid) in [("old", json!(null)), ("middle", json!(7)), ("new", json!(8))] {
        let mut hello = hello_frame(&node.mesh, &alice);
        hello["sessionId"] = json!(name);
        hello["displayName"] = json!(name);
        hello["cwd"] = json!("/shared");
        hello["pid"] = pid;
        open.push(Raw::greet(&node, hello).await.0);
    }
    let a = &mut open[0];
    for (pid, status, expected) in [
        (json!(7), "working", ["idle", "working", "idle"]),
        (json!(99), "working", ["idle", "working", "working"]),
        // No process: the newest, also where one said no process either.
        (json!(null), "dnd", ["idle", "working", "dnd"]),
    ] {
        let body = json!({ "cwd": "/shared", "pid": pid, "status": status });
        post(&node, &body.to_string()).await;
        let found =
            [status_of(a, "old").await, status_of(a, "middle").await, status_of(a, "new").await];
        assert_eq!(found, expected.map(|status| json!(status)), "{body}");
    }
}

#[tokio::test]
async fn a_hook_that_comes_first_waits_for_its_session() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    for status in ["dnd", "working"] {
        let answer = hook(&node, &bob, status).await;
        assert_eq!(answer, json!({ "ok": true, "pending": true }));
    }
    wait_for_news(&node, 1).await;
    let held = a.sent(bob.pubkey().as_str(), "next", "aGVsZA==").await;
    let mut b = Raw::hello(&node, &bob).await;
    assert_eq!(status_of(&mut a, "bob").await, "working", "the newest word counts");
    assert!(b.so_far().await.is_empty(), "the first drain knows it");
    set(&mut b, "idle").await;
    assert_comes(&mut b, &[held]).await;
    // It was used up, and another process has none.
    let (_other, _) = Raw::hello_with(&node, &bob, |hello| {
        hello["sessionId"] = json!("second");
        hello["displayName"] = json!("second");
    })
    .await;
    assert_eq!(status_of(&mut a, "second").await, "idle");
}

#[tokio::test]
async fn a_hook_during_a_blip_counts_when_the_peer_is_back() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (mut a, bob, mut b) = pair(&node).await;
    let probe = a.sent("*", "low", "cHJvYmU=").await;
    assert_comes(&mut b, std::slice::from_ref(&probe)).await;
    // A hook's process is seldom the one that the session named.
    for pid in [4242, 99] {
        set(&mut b, "working").await;
        let held = a.sent(bob.pubkey().as_str(), "next", "aGVsZA==").await;
        b.goodbye().await;
        until_in_grace(&mut a, &probe, "bob").await;
        let body = json!({ "cwd": "/work/bob", "pid": pid, "status": "idle" });
        let (_, answer) = post(&node, &body.to_string()).await;
        assert!(answer["presence_id"].is_string(), "{answer}");
        b = Raw::hello(&node, &bob).await;
        assert_comes(&mut b, &[held]).await;
        assert_eq!(status_of(&mut a, "bob").await, "idle");
    }
}

#[tokio::test]
async fn a_hook_that_comes_first_spares_dnd_and_is_kept() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (mut a, bob, mut b) = pair(&node).await;
    let probe = a.sent("*", "low", "cHJvYmU=").await;
    assert_comes(&mut b, std::slice::from_ref(&probe)).await;
    for (pid, before, after) in [(51, "dnd", "dnd"), (52, "idle", "working")] {
        set(&mut b, before).await;
        b.goodbye().await;
        until_in_grace(&mut a, &probe, "bob").await;
        // Of the process in which the session comes back.
        let cwd = format!("/moved/{pid}");
        let body = json!({ "cwd": cwd, "pid": pid, "status": "working" });
        assert_eq!(post(&node, &body.to_string()).await.1["pending"], true);
        let (raw, _) = Raw::hello_with(&node, &bob, |hello| {
            (hello["pid"], hello["cwd"]) = (json!(pid), json!(cwd));
        })
        .await;
        b = raw;
        assert_eq!(status_of(&mut a, "bob").await, after);
        let file = node.data_dir().join("broker.db");
        let mut file = SqliteConnectOptions::new().filename(file).connect().await.expect("opens");
        until("the row says so too", async || {
            let status: String = sqlx::query_scalar("select status from presence where pid = ?1")
                .bind(pid)
                .fetch_one(&mut file)
                .await
                .expect("the row");
            status == after
        })
        .await;
        file.close().await.expect("closed");
    }
}

// --- the door ----------------------------------------------------------------------------

#[tokio::test]
async fn from_elsewhere_a_hook_needs_the_token() {
    let body = r#"{"cwd":"/nowhere","pid":1,"status":"idle"}"#;
    let node = Node::start().await;
    for headers in [vec![FORWARDED], vec![FORWARDED, ("authorization", "Bearer ")]] {
        let (code, answer) = post_with(&node, &headers, body).await;
        assert_eq!((code, &answer["ok"]), (403, &json!(false)));
        assert!(answer["error"].as_str().is_some_and(|text| text.contains("HOOK_TOKEN")));
    }

    let old = "the-token-before-it";
    let node = Node::start_with(|config| {
        config.http.hook_tokens = vec![Secret::new(old), Secret::new(TOKEN)];
    })
    .await;
    let right = format!("Bearer {TOKEN}");
    for wrong in ["", "Bearer ", "Bearer wrong", &right[..right.len() - 1], TOKEN] {
        let (code, answer) = post_with(&node, &[FORWARDED, ("authorization", wrong)], body).await;
        assert_eq!((code, &answer["ok"]), (401, &json!(false)), "{wrong}");
        let text = answer["error"].as_str().expect("a sentence");
        assert!(text.contains("Authorization: Bearer") && !text.contains(TOKEN), "{text}");
    }
    for right in [right, format!("Bearer {old}")] {
        let headers = [FORWARDED, ("authorization", right.as_str())];
        let (code, answer) = post_with(&node, &headers, body).await;
        assert_eq!((code, &answer["ok"]), (200, &json!(true)), "either, during a rotation");
    }
    assert_eq!(post(&node, body).await.0, 401, "this machine needs it too: a proxy may be on it");
}

#[tokio::test]
async fn a_trusted_proxy_on_this_machine_does_not_open_the_door() {
    let node = Node::start_with(|config| {
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await;
    let body = r#"{"cwd":"/nowhere","status":"idle"}"#;
    for header in [
        FORWARDED,
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "for=x"),
        ("x-real-ip", "127.0.0.1"),
        ("via", "1.1 proxy"),
        ("cf-connecting-ip", "203.0.113.9"),
        ("x-forwarded-host", "mesh.example"),
        ("fly-client-ip", "127.0.0.1"),
        ("sec-fetch-site", "cross-site"),
    ] {
        assert_eq!(post_with(&node, &[header], body).await.0, 403, "{header:?}");
    }
    assert_eq!(post(&node, body).await.0, 200);
}

#[tokio::test]
async fn a_process_that_calls_too_often_is_told() {
    let node = Node::start_with(|config| config.http.hook_rate_per_minute = 3).await;
    let (mut a, bob, _b) = pair(&node).await;
    for status in ["working", "idle", "working"] {
        hook(&node, &bob, status).await;
    }
    let body = json!({ "cwd": "/work/bob", "pid": 4242, "status": "idle" });
    let refused = (429, json!({ "ok": false, "error": "rate limited" }));
    assert_eq!(post(&node, &body.to_string()).await, refused);
    assert_eq!(status_of(&mut a, "bob").await, "working", "the call that was refused did nothing");
    for other in [
        json!({ "cwd": "/work/bob", "pid": 4243, "status": "idle" }),
        json!({ "cwd": "/work/other", "pid": 4242, "status": "idle" }),
    ] {
        assert_eq!(post(&node, &other.to_string()).await.0, 200);
    }
}

#[tokio::test]
async fn wrong_bodies_change_nothing_and_say_so() {
    let node = Node::start().await;
    let (mut a, _bob, _b) = pair(&node).await;
    let required = json!({ "ok": false, "error": "cwd and status required" });
    for body in [
        r#"{}"#,
        r#"{"cwd":"/work/bob"}"#,
        r#"{"status":"dnd"}"#,
        r#"{"cwd":"","status":"dnd"}"#,
        r#"{"cwd":"/work/bob","status":""}"#,
        r#"{"cwd":"/work/bob","status":null}"#,
        r#"{"cwd":"/work/bob","status":0}"#,
        r#"{"cwd":"/work/bob","status":false}"#,
        r#"{"cwd":7,"status":"dnd"}"#,
    ] {
        assert_eq!(post(&node, body).await, (200, required.clone()), "{body}");
    }
    let deep = "[".repeat(30_000);
    let (sleeping, list) =
        (r#"{"cwd":"/work/bob","status":"sleeping"}"#, r#"{"cwd":"/work/bob","status":["idle"]}"#);
    for body in ["", "nonsense", deep.as_str(), sleeping, list] {
        let (code, answer) = post(&node, body).await;
        assert_eq!((code, &answer["ok"]), (500, &json!(false)), "{answer}");
        assert!(answer["error"].is_string());
    }
    let huge = json!({ "cwd": "x".repeat(70_000), "status": "dnd" }).to_string();
    let refused = (413, json!({ "ok": false, "error": "payload too large" }));
    assert_eq!(post(&node, &huge).await, refused);
    let reply = http::get(&node, PATH).await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    // An odd process counts as none.
    let odd = r#"{"cwd":"/work/bob","pid":"4242","status":"working","session_id":"x"}"#;
    assert_eq!(post(&node, odd).await.0, 200);
    assert_eq!(status_of(&mut a, "bob").await, "working");
    assert_eq!(status_of(&mut a, "alice").await, "idle");
}
