//! The HTTP API: what programs see that hold an API key, and who is kept out.

mod mentions;
mod seals;
mod topics;

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::limits;
use claudemesh_broker::store::Role;
use serde_json::{Value, json};

use crate::harness::http::{Reply, request};
use crate::harness::{Cluster, Node, Raw};
use crate::wire::visitors::command;

/// A key that this session makes: its id and its secret.
async fn key(raw: &mut Raw, capabilities: Value, more: Value) -> (String, String) {
    let mut ask = json!({ "type": "apikey_create", "label": "ci", "capabilities": capabilities });
    ask.as_object_mut().expect("a frame").extend(more.as_object().cloned().unwrap_or_default());
    let made = raw.ask(ask).await;
    let text = |field: &str| made[field].as_str().expect("a text").to_owned();
    (text("id"), text("secret"))
}

pub(crate) async fn reading_key(raw: &mut Raw) -> String {
    key(raw, json!(["read"]), json!({})).await.1
}

pub(crate) async fn call(node: &Node, path: &str, secret: &str) -> Reply {
    let shown = format!("Bearer {secret}");
    let headers = [("authorization", shown.as_str()), ("content-type", "application/json")];
    request(node, "GET", path, &headers, "").await
}

/// The status and the code of a refusal, which has the recorded shape.
fn refusal(reply: &Reply, path: &str) -> (u16, Option<String>) {
    let body = reply.json();
    assert_eq!((&body["status"], &body["path"]), (&json!(reply.status), &json!(path)), "{body}");
    assert_eq!(body["timestamp"].as_str().map(str::len), Some(24), "{body}");
    assert!(body["message"].is_string(), "{body}");
    (reply.status, body["code"].as_str().map(str::to_owned))
}

fn coded(status: u16, code: &str) -> (u16, Option<String>) {
    (status, Some(code.to_owned()))
}

#[tokio::test]
async fn without_a_good_key_nothing_is_told() {
    let node = Node::start().await;
    let mut bob = Raw::hello(&node, &node.member("bob").await).await;
    let secret = reading_key(&mut bob).await;
    let path = "/api/v1/members";
    for (header, code) in [
        (None, "error.api_key_missing"),
        (Some(format!("bearer {secret}")), "error.api_key_missing"),
        (Some("Bearer ".to_owned()), "error.api_key_missing"),
        (Some("Bearer sk_something".to_owned()), "error.api_key_invalid"),
        (Some(format!("Bearer {secret}x")), "error.api_key_invalid"),
        (Some(format!("Bearer {}", &secret[..11])), "error.api_key_invalid"),
    ] {
        let headers: Vec<_> =
            header.iter().map(|header| ("authorization", header.as_str())).collect();
        let reply = request(&node, "GET", path, &headers, "").await;
        assert_eq!(refusal(&reply, path), coded(401, code), "{header:?}");
        assert!(!reply.body.contains(&secret[3..]), "{reply:?}");
        assert_eq!(reply.json()["message"], code);
    }
    let reply = call(&node, path, &secret).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some("*")));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let unknown = call(&node, "/api/v1/nonsense", &secret).await;
    assert_eq!((unknown.status, unknown.body.as_str()), (404, "404 Not Found"));
    let unknown = call(&node, "/api/v1/nonsense", "cm_no_such_key_at_all").await;
    assert_eq!(refusal(&unknown, "/api/v1/nonsense"), coded(401, "error.api_key_invalid"));
    let shown = format!("Bearer {secret}");
    let headers = [("authorization", shown.as_str()), ("content-type", "application/json")];
    let posted = request(&node, "POST", path, &headers, "{}").await;
    assert_eq!((posted.status, posted.body.as_str()), (404, "404 Not Found"));
    let head = request(&node, "HEAD", path, &headers, "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn what_a_strangers_page_could_send_is_refused_before_the_key() {
    let node = Node::start().await;
    let path = "/api/v1/members";
    for headers in [
        vec![],
        vec![("content-type", "text/plain")],
        vec![("content-type", "multipart/form-data; boundary=x")],
        vec![("sec-fetch-site", "cross-site")],
    ] {
        let reply = request(&node, "POST", path, &headers, "").await;
        assert_eq!(refusal(&reply, path), (403, None), "{headers:?}");
    }
    for headers in [
        vec![("content-type", "application/json")],
        vec![("sec-fetch-site", "same-origin")],
        vec![("x-client-platform", "mobile-ios")],
    ] {
        let reply = request(&node, "POST", path, &headers, "").await;
        assert_eq!(refusal(&reply, path), coded(401, "error.api_key_missing"), "{headers:?}");
    }
}

#[tokio::test]
async fn a_key_may_what_it_was_made_for() {
    let node = Node::start().await;
    let admin = node.member_as("ada", Role::Admin).await;
    let mut ada = Raw::hello(&node, &admin).await;
    let (_, sends) = key(&mut ada, json!(["send", "state_write"]), json!({})).await;
    let (_, admins) = key(&mut ada, json!(["admin"]), json!({})).await;
    let scope = json!({ "topicScopes": ["deploys"] });
    let (_, scoped) = key(&mut ada, json!(["read"]), scope).await;
    const ABOUT_ALL: [&str; 8] = [
        "/api/v1/me/workspace",
        "/api/v1/me/state",
        "/api/v1/me/tasks",
        "/api/v1/me/memory",
        "/api/v1/me/topics",
        "/api/v1/me/notifications",
        "/api/v1/me/activity",
        "/api/v1/me/search",
    ];
    for path in ABOUT_ALL.into_iter().chain(["/api/v1/members", "/api/v1/peers"]) {
        let reply = call(&node, path, &sends).await;
        assert_eq!(refusal(&reply, path), coded(403, "error.api_key_missing_capability"));
        assert_eq!(call(&node, path, &admins).await.status, 200, "{path}");
    }
    assert_eq!(call(&node, "/api/v1/members", &scoped).await.status, 200);
    for path in ABOUT_ALL {
        let reply = call(&node, path, &scoped).await;
        assert_eq!(refusal(&reply, path), coded(403, "error.api_key_topic_out_of_scope"));
    }
    // Who moderates no longer has no key that does.
    node.store.members.set_role(Timestamp::now(), &admin.id, Role::Member).await.expect("a member");
    let reply = call(&node, "/api/v1/members", &admins).await;
    let expected = coded(403, "error.api_key_missing_capability");
    assert_eq!(refusal(&reply, "/api/v1/members"), expected);
}

#[tokio::test]
async fn members_and_peers_are_told_by_their_enrolled_names() {
    let node = Node::start().await;
    let (bob, eve) = (node.member("bob").await, node.member("eve").await);
    let (mut raw, _) =
        Raw::hello_with(&node, &bob, |hello| hello["displayName"] = json!("x")).await;
    raw.ask(json!({ "type": "set_summary", "summary": "builds" })).await;
    raw.ask(json!({ "type": "set_status", "status": "working" })).await;
    raw.ask(json!({ "type": "join_group", "name": "dev", "role": "lead" })).await;
    // A command's visit is nobody's being there.
    let (mut visit, _) = command(&node, &eve, "cli").await;
    let secret = reading_key(&mut visit).await;
    let members = call(&node, "/api/v1/members", &secret).await.json();
    let members = members["members"].as_array().expect("members");
    let of = |name: &str| members.iter().find(|one| one["displayName"] == name).expect(name);
    let joined = &of("bob")["joinedAt"];
    assert_eq!(joined.as_str().map(str::len), Some(24));
    let expected = json!({ "memberId": bob.id, "pubkey": bob.pubkey(), "displayName": "bob",
        "role": "member", "isHuman": false, "joinedAt": joined, "online": true,
        "status": "working", "summary": "builds" });
    assert_eq!(of("bob"), &expected);
    assert_eq!((&of("eve")["online"], &of("eve")["status"]), (&json!(false), &json!("offline")));
    assert_eq!((members.len(), &of("eve")["summary"]), (3, &Value::Null));
    let peers = call(&node, "/api/v1/peers", &secret).await.json();
    let expected = json!({ "peers": [
        { "pubkey": bob.pubkey(), "displayName": "bob", "status": "working",
            "summary": "builds", "groups": [{ "name": "dev", "role": "lead" }], "via": "ws" },
        { "pubkey": eve.pubkey(), "displayName": "eve", "status": "idle", "summary": null,
            "groups": [], "via": "rest" },
    ] });
    assert_eq!(peers, expected);
    raw.ask(json!({ "type": "set_visible", "visible": false })).await;
    let peers = call(&node, "/api/v1/peers", &secret).await.json();
    assert_eq!(peers["peers"].as_array().map(Vec::len), Some(1), "{peers}");
}

#[tokio::test]
async fn a_workspace_has_the_members_meshes_and_their_state() {
    let node = Node::start().await;
    let bob = node.member("bob").await;
    let mut raw = Raw::hello(&node, &bob).await;
    let secret = reading_key(&mut raw).await;
    let workspace = call(&node, "/api/v1/me/workspace", &secret).await.json();
    let mesh = &workspace["meshes"][0];
    let expected = json!({ "userId": bob.id, "meshes": [{ "meshId": node.mesh, "slug": "test",
        "name": mesh["name"], "memberId": bob.id, "myRole": "member",
        "joinedAt": mesh["joinedAt"], "peers": 2, "online": 1, "topics": 0,
        "unreadMentions": 0 }], "totals": { "meshes": 1, "peers": 2, "online": 1, "topics": 0,
        "unreadMentions": 0 } });
    assert_eq!(workspace, expected);
    for (name, value) in [("a", json!({ "deep": [1] })), ("we ird/x", json!(null))] {
        raw.ask(json!({ "type": "set_state", "key": name, "value": value })).await;
    }
    let state = call(&node, "/api/v1/me/state?key=we%20ird%2Fx", &secret).await.json();
    let at = &state["entries"][0]["updatedAt"];
    let entry = json!({ "meshId": node.mesh, "meshSlug": "test", "key": "we ird/x",
        "value": null, "updatedByName": "bob", "updatedAt": at });
    let expected = json!({ "entries": [entry], "totals": { "entries": 1, "meshes": 1 } });
    assert_eq!(state, expected);
    let all = call(&node, "/api/v1/me/state?key=", &secret).await.json();
    assert_eq!(all["totals"], json!({ "entries": 2, "meshes": 1 }));
    for n in 0..20 {
        let value = "x".repeat(limits::VALUE_BYTES_MAX - 2);
        raw.ask(json!({ "type": "set_state", "key": format!("{n}"), "value": value })).await;
    }
    let cut = call(&node, "/api/v1/me/state", &secret).await.json();
    assert_eq!((&cut["more"], &cut["totals"]["entries"]), (&json!(true), &json!(15)));
    assert!(cut.to_string().len() <= limits::ANSWER_BYTES_MAX);
}

#[tokio::test]
async fn a_workspace_has_the_tasks_and_what_is_remembered_of_all_meshes() {
    let node = Node::start().await;
    let mut raw = Raw::hello(&node, &node.member("bob").await).await;
    let secret = reading_key(&mut raw).await;
    let task = json!({ "type": "create_task", "title": "ship", "tags": ["v2"] });
    let made = raw.ask(task).await;
    let id = made["id"].clone();
    let tasks = call(&node, "/api/v1/me/tasks", &secret).await.json();
    let expected = json!({ "tasks": [{ "id": id, "meshId": node.mesh, "meshSlug": "test",
        "title": "ship", "assignee": null, "claimedByName": null, "priority": "normal",
        "status": "open", "tags": ["v2"], "result": null, "createdByName": "bob",
        "createdAt": tasks["tasks"][0]["createdAt"], "claimedAt": null, "completedAt": null }],
        "totals": { "open": 1, "claimed": 0, "completed": 0 } });
    assert_eq!(tasks, expected);
    raw.ask(json!({ "type": "claim_task", "taskId": id })).await;
    raw.ask(json!({ "type": "complete_task", "taskId": id, "result": "shipped" })).await;
    for (path, completed) in [
        ("/api/v1/me/tasks?status=active", 0),
        ("/api/v1/me/tasks?status=open,completed", 1),
        ("/api/v1/me/tasks?status=done", 1),
        ("/api/v1/me/tasks?status=all", 1),
    ] {
        let tasks = call(&node, path, &secret).await.json();
        assert_eq!(tasks["totals"], json!({ "open": 0, "claimed": 0, "completed": completed }));
    }
    raw.ask(json!({ "type": "remember", "content": "100% green", "tags": ["CI"] })).await;
    raw.ask(json!({ "type": "remember", "content": "other" })).await;
    let all = call(&node, "/api/v1/me/memory", &secret).await.json();
    assert_eq!((&all["query"], &all["totals"]), (&json!(""), &json!({ "entries": 2 })));
    let found = call(&node, "/api/v1/me/memory?q=%20100%25%20", &secret).await.json();
    let memory = &found["memories"][0];
    let expected = json!({ "query": "100%", "memories": [{ "id": memory["id"],
        "meshId": node.mesh, "meshSlug": "test", "content": "100% green", "tags": ["CI"],
        "rememberedByName": "bob", "rememberedAt": memory["rememberedAt"] }],
        "totals": { "entries": 1 } });
    assert_eq!(found, expected);
    let by_tag = call(&node, "/api/v1/me/memory?q=ci", &secret).await.json();
    assert_eq!(by_tag["memories"], found["memories"]);
}

#[tokio::test]
async fn a_body_is_checked_before_what_the_key_may_do() {
    let node = Node::start().await;
    let mut raw = Raw::hello(&node, &node.member("bob").await).await;
    let (_, reads) = key(&mut raw, json!(["read"]), json!({})).await;
    let (_, sends) = key(&mut raw, json!(["send"]), json!({})).await;
    let path = "/api/v1/me/peer-pubkey";
    let post = async |secret: &str, content: &str, body: &str| {
        let shown = format!("Bearer {secret}");
        let headers = [("authorization", shown.as_str()), ("content-type", content)];
        request(&node, "POST", path, &headers, body).await
    };
    let undefined = coded(422, "validation:error.undefined");
    let reply = post(&reads, "application/json", "{").await;
    assert_eq!(refusal(&reply, path), (400, None));
    assert_eq!(reply.json()["message"], "Malformed JSON in request body");
    for (content, body, message) in [
        ("application/json", "[]", " is required"),
        ("application/json; charset=utf-8", r#"{"pubkey":null}"#, "pubkey is required"),
        ("application/xml", r#"{"pubkey":"ab"}"#, "pubkey is required"),
    ] {
        let reply = post(&reads, content, body).await;
        assert_eq!(refusal(&reply, path), undefined, "{body}");
        assert_eq!(reply.json()["message"], message);
    }
    let key = json!({ "pubkey": "ab".repeat(32) }).to_string();
    let reply = post(&reads, "application/json", &key).await;
    assert_eq!(refusal(&reply, path), coded(403, "error.api_key_missing_capability"));
    let reply = post(&sends, "application/json", &key).await;
    assert_eq!((reply.status, &reply.json()["error"]), (409, &json!("not_web_member")));
}

#[tokio::test]
async fn a_key_that_asks_too_fast_is_told_when_to_come_back() {
    let node = Node::start_with(|config| {
        config.message.request_rate_per_minute = 60;
        config.message.request_burst = 100;
    })
    .await;
    let mut bob = Raw::hello(&node, &node.member("bob").await).await;
    let secret = reading_key(&mut bob).await;
    let refused = async {
        loop {
            let reply = call(&node, "/api/v1/members", &secret).await;
            if reply.status != 200 {
                return reply;
            }
        }
    };
    let reply = refused.await;
    assert_eq!(refusal(&reply, "/api/v1/members"), coded(429, "error.rate_limit"));
    let wait: u64 = reply.header("retry-after").and_then(|s| s.parse().ok()).expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_key_of_one_node_is_good_on_all_at_once_and_a_ban_ends_it_on_all() {
    let cluster = Cluster::start(3).await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let mut owner = Raw::hello(two, &two.owner).await;
    let bob = one.member("bob").await;
    let mut raw = Raw::hello(one, &bob).await;
    let everywhere = async |secret: &str| {
        let mut statuses = Vec::new();
        for node in [one, two, three] {
            statuses.push(call(node, "/api/v1/members", secret).await.status);
        }
        statuses
    };
    let (id, secret) = key(&mut raw, json!(["read"]), json!({})).await;
    assert_eq!(everywhere(&secret).await, [200, 200, 200]);
    // The third node serves nobody of the mesh, and knows who is there all the same.
    let peers = call(three, "/api/v1/peers", &secret).await.json();
    let names: Vec<_> = peers["peers"].as_array().expect("peers").iter().collect();
    assert!(
        names.iter().any(|peer| peer["displayName"] == "bob" && peer["via"] == "ws"),
        "{peers}"
    );
    let revoked = owner.ask(json!({ "type": "apikey_revoke", "id": id })).await;
    assert_eq!(revoked["status"], "revoked");
    assert_eq!(everywhere(&secret).await, [401, 401, 401]);
    let secret = reading_key(&mut raw).await;
    assert_eq!(everywhere(&secret).await, [200, 200, 200]);
    assert_eq!(owner.ask(json!({ "type": "ban", "target": "bob" })).await["type"], "ban_ack");
    assert_eq!(everywhere(&secret).await, [401, 401, 401]);
    assert_eq!(owner.ask(json!({ "type": "unban", "target": "bob" })).await["type"], "unban_ack");
    assert_eq!(everywhere(&secret).await, [401, 401, 401], "he makes new ones");
    let mut raw = Raw::hello(three, &bob).await;
    let new = reading_key(&mut raw).await;
    assert_eq!(everywhere(&new).await, [200, 200, 200]);
    let mesh = &cluster.nodes[0].mesh;
    one.store.meshes.archive(Timestamp::now(), mesh, None).await.expect("writable");
    assert_eq!(everywhere(&new).await, [401, 401, 401], "its mesh is archived");
}
