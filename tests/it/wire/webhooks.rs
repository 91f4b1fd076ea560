//! Webhooks from outside: the recorded answers, who sees which secret, who may call,
//! and what an address is told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::store::Role;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::http::{Reply, request};
use crate::harness::raw::session_hello_frame;
use crate::harness::receiver::{Called, Receiver};
use crate::harness::{Node, Raw, Setup, until, until_in_grace};

/// Calls a webhook by its address.
pub async fn post(node: &Node, url: &Value, headers: &[(&str, &str)], body: &str) -> Reply {
    let url = url.as_str().expect("an address");
    let path = &url[url.find("/hook/").expect("a path")..];
    request(node, "POST", path, headers, body).await
}

fn answer(reply: &Reply) -> (u16, Value) {
    (reply.status, reply.json())
}

fn refusal(status: u16, error: &str) -> (u16, Value) {
    (status, json!({ "ok": false, "error": error }))
}

fn hmac(key: &[u8], parts: &[&str]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    parts.iter().for_each(|part| mac.update(part.as_bytes()));
    mac.finalize().into_bytes().to_vec()
}

/// As Standard Webhooks has it, of a `whsec_` secret.
pub fn standard(secret: &str, id: &str, timestamp: &str, body: &str) -> String {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("a secret")).expect("base64");
    format!("v1,{}", STANDARD.encode(hmac(&key, &[id, ".", timestamp, ".", body])))
}

pub fn is_signed(call: &Called, secret: &str) -> bool {
    let body = std::str::from_utf8(&call.body).expect("text");
    call.signature == standard(secret, &call.id, &call.timestamp, body)
}

/// A program that reads what came from its fields.
fn in_older_program(hello: &mut Value) {
    hello["channel"] = json!("sdk");
}

fn without_frame(answer: &Value, kind: &str) -> Value {
    assert_eq!(answer["type"], kind, "{answer}");
    let mut fields = answer.as_object().expect("an object").clone();
    fields.remove("type");
    fields.remove("_reqId");
    Value::Object(fields)
}

#[tokio::test]
async fn what_is_posted_comes_to_every_connection_as_older_brokers_had_it() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let (mut a, _) = Raw::hello_with(&node, &ada, in_older_program).await;
    let (mut b, _) = Raw::hello_with(&node, &bob, in_older_program).await;
    b.ask(json!({ "type": "set_visible", "visible": false })).await;
    let made = a.ask(json!({ "type": "create_webhook", "name": "ci" })).await;
    let secret = made["secret"].as_str().expect("a secret").to_owned();
    let url = format!("http://localhost:0/hook/{}/{secret}", node.mesh);
    assert_eq!(
        without_frame(&made, "webhook_ack"),
        json!({ "name": "ci", "url": url, "secret": secret })
    );
    assert!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let reply = post(&node, &made["url"], &[], r#"{"build":"ok"}"#).await;
    assert_eq!(answer(&reply), (200, json!({ "ok": true, "delivered": 2 })));
    for raw in [&mut a, &mut b] {
        let push = raw.hear_where("push", |push| push["subtype"] == "webhook").await;
        let (id, at) = (&push["messageId"], &push["createdAt"]);
        let expected = json!({ "type": "push", "subtype": "webhook", "event": "ci",
            "eventData": { "build": "ok" }, "messageId": id, "meshId": node.mesh,
            "senderPubkey": "webhook:ci", "priority": "next", "nonce": "", "ciphertext": "",
            "createdAt": at });
        assert_eq!(push, expected);
    }
    let list = a.ask(json!({ "type": "list_webhooks" })).await;
    let at = &list["webhooks"][0]["createdAt"];
    let row = json!({ "name": "ci", "url": url, "active": true, "createdAt": at });
    assert_eq!(without_frame(&list, "webhook_list"), json!({ "webhooks": [row] }));
    let gone = a.ask(json!({ "type": "delete_webhook", "name": "ci" })).await;
    let empty = json!({ "name": "ci", "url": "", "secret": "" });
    assert_eq!(without_frame(&gone, "webhook_ack"), empty);
    let reply = post(&node, &made["url"], &[], r#"{"build":"ok"}"#).await;
    assert_eq!(answer(&reply), refusal(401, "unauthorized"));
    let list = a.ask(json!({ "type": "list_webhooks" })).await;
    assert_eq!(list["webhooks"], json!([]));
    let again = a.ask(json!({ "type": "create_webhook", "name": "ci" })).await;
    assert_eq!(
        (&again["code"], &again["message"]),
        (&json!("webhook_exists"), &json!("Webhook \"ci\" already exists in this mesh"))
    );
    let received = node.store.audit.page(&node.mesh, Some("webhook_received"), 0, 10).await;
    assert_eq!(received.expect("readable").0[0].payload, json!({ "name": "ci", "bytes": 14 }));
    assert!(node.audit_is_valid().await);
}

#[tokio::test]
async fn a_daemon_shows_what_was_posted_as_a_text_of_the_webhook_and_for_all_its_sessions() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &ada).await;
    let here = |hello: &mut Value| hello["hostname"] = json!("here");
    let (mut daemon, _) = Raw::hello_with(&node, &bob, here).await;
    let mut hello = session_hello_frame(&node.mesh, &bob, &SecretKey::generate());
    here(&mut hello);
    hello["channel"] = json!("claudemesh-session");
    let (mut session, _) = Raw::greet(&node, hello).await;
    let ask = json!({ "type": "create_webhook", "name": "ci", "durable": true });
    let made = a.ask(ask).await;
    let is_post = |frame: &Value| frame["subtype"] == "webhook";
    let shown = |push: &Value| {
        assert_eq!(push["senderName"], "webhook ci", "{push}");
        let text = STANDARD.decode(push["ciphertext"].as_str().expect("text")).expect("base64");
        serde_json::from_slice::<Value>(&text).expect("what was posted")
    };
    let reply = post(&node, &made["url"], &[], r#"{"build":"ok"}"#).await;
    assert_eq!(answer(&reply), (200, json!({ "ok": true, "delivered": 2 })), "once for bob");
    let push = daemon.hear_where("push", is_post).await;
    assert_eq!(shown(&push), json!({ "build": "ok" }));
    assert!(!session.so_far().await.iter().any(is_post), "its daemon has it");
    // Kept for who is away, and shown as well.
    daemon.goodbye().await;
    session.goodbye().await;
    until("both are known to be gone", async || {
        let reply = post(&node, &made["url"], &[], "[2]").await;
        answer(&reply) == (200, json!({ "ok": true, "delivered": 1 }))
    })
    .await;
    let (mut daemon, _) = Raw::hello_with(&node, &bob, here).await;
    assert_eq!(shown(&daemon.hear_where("push", is_post).await), json!([2]));
}

#[tokio::test]
async fn a_call_that_is_none_is_refused_as_older_brokers_did() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("ada").await).await;
    let made = a.ask(json!({ "type": "create_webhook", "name": "ci" })).await;
    let wrong = json!(made["url"].as_str().expect("an address").replace("/hook/", "/hook/x"));
    for (url, body, expected) in [
        (&made["url"], "{", refusal(400, "invalid JSON")),
        (&made["url"], "", refusal(400, "invalid JSON")),
        (&wrong, "{", refusal(400, "invalid JSON")),
        (&wrong, "{}", refusal(401, "unauthorized")),
        (&made["url"], "7", refusal(400, "invalid JSON body")),
        (&made["url"], "null", refusal(400, "invalid JSON body")),
        (&made["url"], "[]", (200, json!({ "ok": true, "delivered": 1 }))),
    ] {
        assert_eq!(answer(&post(&node, url, &[], body).await), expected, "{body}");
    }
    let large = format!("[\"{}\"]", "x".repeat(64 * 1024 - 4));
    let fits = post(&node, &made["url"], &[], &large).await;
    assert_eq!(fits.status, 200);
    let reply = post(&node, &made["url"], &[], &format!("{large} ")).await;
    assert_eq!(answer(&reply), refusal(413, "payload too large"));
    for (ask, code) in [
        (json!({ "type": "create_webhook" }), "invalid_webhook"),
        (json!({ "type": "create_webhook", "name": "n".repeat(257) }), "invalid_argument"),
        (json!({ "type": "create_webhook", "name": "n", "events": ["task"] }), "invalid_argument"),
        (json!({ "type": "create_webhook", "name": "n", "signing": "rot13" }), "invalid_argument"),
    ] {
        assert_eq!(a.ask(ask.clone()).await["code"], code, "{ask}");
    }
}

#[tokio::test]
async fn a_call_of_the_same_key_is_answered_again_and_told_once() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("ada").await).await;
    let made = a.ask(json!({ "type": "create_webhook", "name": "ci" })).await;
    for header in ["idempotency-key", "x-github-delivery"] {
        for _ in 0..2 {
            let reply = post(&node, &made["url"], &[(header, header)], "[1]").await;
            assert_eq!(answer(&reply), (200, json!({ "ok": true, "delivered": 1 })));
        }
    }
    post(&node, &made["url"], &[("idempotency-key", "another")], "[2]").await;
    let told: Vec<Value> =
        a.messages_so_far().await.into_iter().map(|push| push["eventData"].clone()).collect();
    assert_eq!(told, [json!([1]), json!([1]), json!([2])]);
}

#[tokio::test]
async fn whoever_asks_for_signatures_takes_no_call_without() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("ada").await).await;
    let now = claudemesh_broker::clock::Timestamp::now().as_ms() / 1000;
    let (now, old) = (now.to_string(), (now - 301).to_string());
    let github = a.ask(json!({ "type": "create_webhook", "name": "g", "signing": "github" })).await;
    let made = a.ask(json!({ "type": "create_webhook", "name": "s", "signing": "standard" })).await;
    let key = github["signingSecret"].as_str().expect("a secret");
    let good = format!("sha256={}", hex::encode(hmac(key.as_bytes(), &["{}"])));
    let status =
        async |url: &Value, headers: &[(&str, &str)]| post(&node, url, headers, "{}").await.status;
    assert_eq!(status(&github["url"], &[]).await, 401);
    assert_eq!(status(&github["url"], &[("x-hub-signature-256", "sha256=00")]).await, 401);
    assert_eq!(status(&github["url"], &[("x-hub-signature-256", &good)]).await, 200);
    let key = made["signingSecret"].as_str().expect("a secret");
    let headers = |at: &str| {
        [
            ("webhook-id", "i".to_owned()),
            ("webhook-timestamp", at.to_owned()),
            ("webhook-signature", standard(key, "i", at, "{}")),
        ]
    };
    for (headers, expected) in [(headers(&now), 200), (headers(&old), 401)] {
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        assert_eq!(status(&made["url"], &headers).await, expected);
        assert_eq!(status(&made["url"], &headers[..2]).await, 401);
    }
}

#[tokio::test]
async fn what_a_durable_webhook_takes_waits_for_members_that_are_away() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let mut owner = Raw::hello(&node, &node.owner).await;
    let mut a = Raw::hello(&node, &ada).await;
    let ask = json!({ "type": "create_webhook", "name": "ci", "durable": true });
    let made = a.ask(ask).await;
    let probe = owner.sent("*", "low", "cHJvYmU=").await;
    a.goodbye().await;
    until_in_grace(&mut owner, &probe, "ada").await;
    for _ in 0..2 {
        let reply = post(&node, &made["url"], &[("idempotency-key", "k")], "[1]").await;
        assert_eq!(answer(&reply), (200, json!({ "ok": true, "delivered": 1 })));
    }
    post(&node, &made["url"], &[], r#"{"b":2}"#).await;
    let is_post = |frame: &Value| frame["subtype"] == "webhook";
    let live: Vec<Value> = owner.messages_so_far().await.into_iter().filter(is_post).collect();
    assert_eq!(live.len(), 2, "{live:?}");
    for member in [&bob, &ada] {
        let (mut raw, _) = Raw::hello_with(&node, member, in_older_program).await;
        for expected in [json!([1]), json!({ "b": 2 })] {
            let push = raw.hear_where("push", is_post).await;
            let (id, at) = (push["messageId"].clone(), push["createdAt"].clone());
            let whole = json!({ "type": "push", "subtype": "webhook", "event": "ci",
                "eventData": expected, "messageId": id, "meshId": node.mesh,
                "senderPubkey": "webhook:ci", "priority": "next", "nonce": "",
                "ciphertext": "", "createdAt": at });
            assert_eq!(push, whole);
            raw.confirm(&push).await;
        }
        assert!(!raw.messages_so_far().await.iter().any(is_post));
    }
    until("all is confirmed", async || node.store.messages.depth().await.ok() == Some(0)).await;
    let list = owner.ask(json!({ "type": "list_webhooks" })).await;
    assert_eq!(list["webhooks"][0]["durable"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_nothing_posted_is_in_any_log_metric_or_audit_row() {
    let setup = Setup::new(1).set("LOG", "trace").set("WEBHOOK_ALLOW_PRIVATE", true);
    let cluster = setup.start_processes().await;
    let (node, process) = (&cluster.nodes[0], &cluster.processes[0]);
    let receiver = Receiver::start(2).await;
    let mut owner = Raw::hello(node, &node.owner).await;
    let made = owner.ask(json!({ "type": "create_webhook", "name": "ci", "durable": true })).await;
    let signed =
        owner.ask(json!({ "type": "create_webhook", "name": "s", "signing": "github" })).await;
    let told = owner
        .ask(json!({ "type": "create_webhook", "name": "out", "url": receiver.url(),
            "events": ["peer_joined"] }))
        .await;
    owner.ask(json!({ "type": "list_webhooks" })).await;
    let _away = node.member("away").await;
    let _raw = Raw::hello(node, &node.member("ada").await).await;
    let canary = "c4n4ry-value";
    let body = json!({ "x": canary }).to_string();
    assert_eq!(post(node, &made["url"], &[("idempotency-key", canary)], &body).await.status, 200);
    assert_eq!(post(node, &made["url"], &[], &body[1..]).await.status, 400);
    assert_eq!(post(node, &signed["url"], &[], &body).await.status, 401);
    until("it is told", async || !receiver.taken().is_empty()).await;
    until("it has logged", async || process.log().contains("TRACE")).await;
    let metrics = crate::harness::http::get(node, "/metrics").await.body;
    let audit = node.store.audit.page(&node.mesh, None, 0, 100).await.expect("readable").0;
    let seen = format!("{}{metrics}{audit:?}", process.log());
    let secret = |answer: &Value, field: &str| answer[field].as_str().expect("text").to_owned();
    for hidden in [
        canary.to_owned(),
        STANDARD.encode(&body),
        secret(&made, "secret"),
        secret(&signed, "secret"),
        secret(&signed, "signingSecret"),
        secret(&told, "secret"),
        "key=word".to_owned(),
    ] {
        let line = seen.lines().find(|line| line.contains(&hidden));
        assert_eq!(line, None, "{hidden}");
    }
}

#[tokio::test]
async fn a_secret_is_shown_to_its_maker_and_to_admins_and_deleted_by_them() {
    let node = Node::start().await;
    let admin = node.member_as("admin", Role::Admin).await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &ada).await;
    let (mut b, mut c) = (Raw::hello(&node, &bob).await, Raw::hello(&node, &admin).await);
    let made = a.ask(json!({ "type": "create_webhook", "name": "ci" })).await;
    let secret = made["secret"].as_str().expect("a secret");
    let out = json!({ "type": "create_webhook", "name": "out", "events": ["peer_joined"],
        "url": "https://hooks.example.org/T0/secret?x=y" });
    assert_eq!(b.ask(out.clone()).await["code"], "forbidden");
    assert_eq!(c.ask(out).await["type"], "webhook_ack");
    for (raw, sees, sees_out) in
        [(&mut a, true, false), (&mut b, false, false), (&mut c, true, true)]
    {
        let list = raw.ask(json!({ "type": "list_webhooks" })).await;
        assert_eq!(list.to_string().contains(secret), sees);
        assert_eq!(list.to_string().contains("/T0/"), sees_out, "{list}");
        assert!(list.to_string().contains("https://hooks.example.org/"));
    }
    let refused = b.ask(json!({ "type": "delete_webhook", "name": "ci" })).await;
    assert_eq!(refused["code"], "forbidden");
    assert_eq!(post(&node, &made["url"], &[], "{}").await.status, 200);
    let gone = c.ask(json!({ "type": "delete_webhook", "name": "ci" })).await;
    assert_eq!(gone["type"], "webhook_ack");
    assert_eq!(post(&node, &made["url"], &[], "{}").await.status, 401);
}

#[tokio::test]
async fn an_address_is_told_signed_and_in_order_though_it_fails_half_of_the_time() {
    let node = Node::start_with(|config| {
        config.webhooks.allows_private = true;
        config.presence.lease_grace_ms = 0;
    })
    .await;
    let receiver = Receiver::start(2).await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    let made = owner
        .ask(json!({ "type": "create_webhook", "name": "out", "url": receiver.url(),
            "events": ["peer_joined", "mail_waiting"] }))
        .await;
    assert_eq!(made["url"], receiver.url());
    let secret = made["secret"].as_str().expect("a secret");
    let mut names = Vec::new();
    for n in 0..4 {
        let name = format!("peer {n}");
        let _raw = Raw::hello(&node, &node.member(&name).await).await;
        names.push(name);
    }
    let away = node.member("away").await;
    for _ in 0..2 {
        owner.sent(away.pubkey().as_str(), "next", "c2VjcmV0IHRleHQ=").await;
    }
    until("all is told", async || receiver.taken().len() >= 5).await;
    let taken = receiver.taken();
    let joined: Vec<Value> = taken
        .iter()
        .map(Called::json)
        .filter(|told| told["type"] == "peer_joined")
        .map(|told| told["data"]["name"].clone())
        .collect();
    assert_eq!(json!(joined), json!(names));
    let waiting: Vec<Value> =
        taken.iter().map(Called::json).filter(|told| told["type"] == "mail_waiting").collect();
    // One that waits to be told stands for both.
    assert!((1..=2).contains(&waiting.len()), "{waiting:?}");
    assert_eq!(waiting[0]["data"]["pubkey"], json!(away.pubkey()));
    assert_eq!(waiting[0]["data"]["meshId"], json!(node.mesh));
    let calls = receiver.calls();
    assert!(calls.iter().all(|call| is_signed(call, secret)), "{calls:?}");
    assert!(calls.iter().any(|call| !call.is_taken));
    assert!(!format!("{calls:?}").contains("c2VjcmV0"), "nothing of what messages hold");
}

#[tokio::test]
async fn no_address_of_a_private_network_is_called() {
    let node = Node::start().await;
    let receiver = Receiver::start(0).await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    let mut create = async |url: String| {
        owner
            .ask(json!({ "type": "create_webhook", "name": url, "url": url,
                "events": ["peer_joined"] }))
            .await
    };
    let refused = create(receiver.url()).await;
    assert_eq!(refused["code"], "invalid_argument", "{refused}");
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("private")));
    // What a name leads to shows only when it is looked up.
    let named = format!("http://localhost:{}/told", receiver.address.port());
    assert_eq!(create(named).await["type"], "webhook_ack");
    let _raw = Raw::hello(&node, &node.member("ada").await).await;
    let mut row = Value::Null;
    until("it was tried", async || {
        let list = owner.ask(json!({ "type": "list_webhooks" })).await;
        row = list["webhooks"][0].clone();
        row["lastError"].is_string()
    })
    .await;
    assert!(row["lastError"].as_str().is_some_and(|text| text.contains("private")), "{row}");
    assert_eq!((&row["waiting"], &row["deadLetters"]), (&json!(1), &json!(0)));
    assert!(receiver.calls().is_empty());
}

#[tokio::test]
async fn a_session_that_finds_no_place_is_told_of() {
    let node = Node::start_with(|config| {
        config.webhooks.allows_private = true;
        config.presence.connections_per_mesh_max = 1;
    })
    .await;
    let receiver = Receiver::start(0).await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    owner
        .ask(json!({ "type": "create_webhook", "name": "out", "url": receiver.url(),
            "events": ["capacity"] }))
        .await;
    let ada = node.member("ada").await;
    let hello = crate::harness::raw::hello_frame(&node.mesh, &ada);
    assert_eq!(Raw::refused(&node, hello).await.0["code"], "capacity");
    until("it is told", async || !receiver.taken().is_empty()).await;
    let told = receiver.taken()[0].json();
    assert_eq!(told["type"], "capacity");
    assert_eq!(told["data"], json!({ "limit": 1, "current": 1, "meshId": node.mesh }));
}
