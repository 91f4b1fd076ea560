//! What must be seen by nobody but those it is for: not in a log at any level, not in a
//! metric, an audit row, or an event to others.

use claudemesh_broker::store::Stores;
use serde_json::{Value, json};

use crate::harness::{Member, Node, Raw, Setup, http, until};
use crate::wire::accounts::{SERVICE, token_of};
use crate::wire::api;

/// Something that is kept or handed on, and how it is asked for.
struct Kind {
    name: &'static str,
    /// `$c` stands for what is looked for, `$id` for the id that the last answer gave, `$to`
    /// for the key of somebody else.
    asks: Vec<Value>,
    /// Whether it is for all others.
    is_for_all: bool,
}

fn kinds() -> Vec<Kind> {
    let kind = |name, is_for_all, asks: Value| Kind {
        name,
        asks: asks.as_array().expect("requests").clone(),
        is_for_all,
    };
    vec![
        kind(
            "state",
            true,
            json!([
                { "type": "set_state", "key": "k", "value": { "x": "$c" } },
                { "type": "set_state", "key": "k", "value": "$c", "ifVersion": 9 },
                { "type": "get_state", "key": "k" },
                { "type": "list_state" },
                { "type": "delete_state", "key": "k" },
            ]),
        ),
        kind(
            "memory",
            false,
            json!([
                { "type": "remember", "content": "$c", "tags": ["$c"] },
                { "type": "recall", "query": "$c" },
                { "type": "forget", "memoryId": "$id" },
            ]),
        ),
        kind(
            "task",
            false,
            json!([
                { "type": "create_task", "title": "$c", "assignee": "$c", "tags": ["$c"] },
                { "type": "update_task", "taskId": "$id", "title": "$c", "tags": ["$c"] },
                { "type": "claim_task", "taskId": "$id", "leaseMs": 60_000 },
                { "type": "complete_task", "taskId": "$id", "result": "$c" },
                { "type": "list_tasks", "assignee": "$c" },
            ]),
        ),
        kind("context", true, json!([{ "type": "share_context", "summary": "$c" }])),
        kind(
            "what was read",
            false,
            json!([
                { "type": "share_context", "summary": "s", "filesRead": ["$c"],
                    "keyFindings": ["$c"], "tags": ["$c"] },
                { "type": "get_context", "query": "s" },
                { "type": "list_contexts" },
            ]),
        ),
        kind(
            "schedule",
            false,
            json!([
                { "type": "schedule", "to": "$to", "message": "$c",
                    "deliverAt": 1_800_000_000_000_i64 },
                { "type": "schedule", "to": "*", "message": "$c", "cron": "0 0 1 1 *" },
                { "type": "list_scheduled" },
                { "type": "schedule", "to": "#$c", "message": "$c", "deliverAt": 1 },
            ]),
        ),
        kind(
            "vault",
            false,
            json!([
                { "type": "vault_set", "key": "k", "ciphertext": "$c", "nonce": "$c",
                    "sealed_key": "$c", "entry_type": "file", "mount_path": "$c",
                    "description": "$c" },
                { "type": "vault_get", "keys": ["k"] },
                { "type": "vault_list" },
                { "type": "vault_delete", "key": "k" },
            ]),
        ),
        kind(
            "skill",
            false,
            json!([
                { "type": "share_skill", "name": "s", "description": "$c", "instructions": "$c",
                    "tags": ["$c"], "manifest": { "x": "$c" } },
                { "type": "get_skill", "name": "s" },
                { "type": "list_skills", "query": "$c" },
            ]),
        ),
        kind(
            "topic",
            false,
            json!([
                { "type": "topic_create", "name": "t", "description": "$c",
                    "visibility": "private", "nonce": "$c", "encryptedKey": "$c",
                    "encryptedKeyPubkey": "ab".repeat(32) },
                { "type": "topic_create", "name": "$c", "visibility": "dm" },
                { "type": "send", "targetSpec": "#t", "priority": "next", "nonce": "$c",
                    "ciphertext": "$c", "mentions": ["$c"], "bodyVersion": 2 },
                { "type": "send", "targetSpec": "#$c", "priority": "next", "nonce": "$c",
                    "ciphertext": "$c" },
                { "type": "topic_history", "topic": "t" },
                { "type": "topic_list" },
            ]),
        ),
        kind(
            "stream",
            false,
            json!([
                { "type": "publish", "stream": "s", "data": "$c" },
                { "type": "publish", "stream": "", "data": "$c" },
            ]),
        ),
    ]
}

/// Members of a mesh on some nodes, and what its nodes have logged.
struct Scene<'a> {
    nodes: Vec<&'a Node>,
    logs: &'a dyn Fn() -> Vec<String>,
}

impl Scene<'_> {
    /// Everything that operators see: logs, metrics, audit rows.
    async fn seen(&self) -> String {
        let logs = (self.logs)();
        assert!(logs.iter().all(|log| log.contains("TRACE")), "logs at trace level");
        let mut seen = logs.concat();
        for node in &self.nodes {
            seen += &http::get(node, "/metrics").await.body;
        }
        let (store, mesh): (&Stores, _) = (&self.nodes[0].store, &self.nodes[0].mesh);
        let rows = store.audit.page(mesh, None, 0, 1000).await.expect("readable").0;
        assert!(rows.len() > 20, "audit rows of each kind");
        seen + &format!("{rows:?}")
    }

    /// Asks all that is asked of a kind, and the same in shapes that are refused.
    async fn ask(&self, raw: &mut Raw, kind: &Kind, canary: &str, to: &Member) {
        let mut id = String::new();
        for ask in &kind.asks {
            let text = ask.to_string();
            let text = text.replace("$c", canary).replace("$id", &id);
            let text = text.replace("$to", to.pubkey().as_str());
            let ask: Value = serde_json::from_str(&text).expect("JSON");
            let answer = raw.ask(ask.clone()).await;
            if let Some(given) = answer["id"].as_str() {
                given.clone_into(&mut id);
            }
            let mut odd = ask;
            for field in ["ifVersion", "tags", "deliverAt", "limit", "leaseMs", "keys"] {
                odd[field] = json!({ canary: canary });
            }
            raw.ask(odd.clone()).await;
            raw.say(odd).await;
        }
        // Cut off in the middle.
        raw.say_text(format!(r#"{{"type":"set_state","key":"k","value":"{canary}"#)).await;
        raw.so_far().await;
    }
}

async fn nothing_is_seen_by_others(scene: &Scene<'_>) {
    let (first, last) = (scene.nodes[0], scene.nodes[scene.nodes.len() - 1]);
    let (ada, eve) = (first.member("ada").await, first.member("eve").await);
    let mut raw = Raw::hello(first, &ada).await;
    let mut others = Vec::new();
    for node in [first, last] {
        let mut other = Raw::hello(node, &node.member("bob").await).await;
        // Who watches is told which, not what.
        assert_eq!(other.ask(json!({ "type": "watch_tasks" })).await["type"], "ack");
        others.push(other);
    }
    until("all are known", async || {
        let listed = raw.ask(json!({ "type": "list_peers" })).await;
        listed["peers"].as_array().is_some_and(|peers| peers.len() == 3)
    })
    .await;
    let canary = |kind: &Kind| format!("c4n4ry-{}", hex::encode(kind.name));
    for kind in kinds() {
        // A connection says nonsense only so many times.
        scene.ask(&mut raw, &kind, &canary(&kind), &eve).await;
    }
    let mut heard = Vec::new();
    for other in &mut others {
        // What is told last comes last.
        let said = json!({ "type": "share_context", "summary": "the end" });
        raw.ask(said).await;
        let mut frames = Vec::new();
        until("all is heard", async || {
            frames.extend(other.so_far().await);
            frames.iter().any(|frame| frame["value"] == "the end")
        })
        .await;
        heard.push(json!(frames).to_string());
    }
    let mut hidden: Vec<(String, String)> = Vec::new();
    for kind in kinds() {
        for heard in &heard {
            assert_eq!(heard.contains(&canary(&kind)), kind.is_for_all, "{}", kind.name);
        }
        hidden.push((kind.name.to_owned(), canary(&kind)));
    }
    hidden.extend(secrets(first, last, &mut raw).await);
    let seen = scene.seen().await;
    for (name, hidden) in hidden {
        let line = seen.lines().find(|line| line.contains(&hidden));
        assert_eq!(line, None, "{name}");
    }
}

/// What the broker itself makes and tells once: used, and shown wrongly, on both nodes.
async fn secrets(first: &Node, last: &Node, raw: &mut Raw) -> Vec<(String, String)> {
    let key = api::reading_key(raw).await;
    let token = token_of(first, "ada").await;
    let made = raw.ask(json!({ "type": "create_webhook", "name": "h", "signing": "github" })).await;
    let text = |field: &str| made[field].as_str().expect("a secret").to_owned();
    let (secret, signing) = (text("secret"), text("signingSecret"));
    let path = format!("/hook/{}/{secret}", first.mesh);
    for node in [first, last] {
        assert_eq!(api::call(node, "/api/v1/members", &key).await.status, 200);
        let wrong = format!("{key}wrong");
        assert_eq!(api::call(node, "/api/v1/members", &wrong).await.status, 401);
        assert_eq!(api::call(node, "/api/my/profile", &token).await.status, 200);
        let wrong = format!("{token}wrong");
        assert_eq!(api::call(node, "/api/my/profile", &wrong).await.status, 401);
        assert_eq!(http::post(node, &path, "{}").await.status, 401, "it is not signed");
        let wrong = format!("{path}wrong?key={secret}");
        assert_eq!(http::post(node, &wrong, "{}").await.status, 401);
    }
    let shown = [json!({ "type": "apikey_list" }), json!({ "type": "list_webhooks" })];
    for ask in shown {
        raw.ask(ask).await;
    }
    let signature = token.rsplit('.').next().expect("three parts").to_owned();
    [
        ("the API key", key[11..].to_owned()),
        ("the account's token", signature),
        ("the web application's token", SERVICE.to_owned()),
        ("the webhook's secret", secret),
        ("the webhook's signing secret", signing),
    ]
    .map(|(name, hidden)| (name.to_owned(), hidden))
    .to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_seen_by_others_where_nodes_share_postgres_and_redis() {
    let setup = Setup::new(2).set("LOG", "trace").set("ACCOUNTS", "on");
    let cluster = setup.set("SERVICE_TOKEN", SERVICE).start_processes().await;
    let logs = || cluster.processes.iter().map(|process| process.log()).collect();
    let scene = Scene { nodes: cluster.nodes.iter().collect(), logs: &logs };
    nothing_is_seen_by_others(&scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_seen_by_others_where_one_node_has_sqlite() {
    let env = [("LOG", "trace"), ("ACCOUNTS", "on"), ("SERVICE_TOKEN", SERVICE)];
    let node = Node::program(&env).await;
    let logs = || vec![node.log()];
    nothing_is_seen_by_others(&Scene { nodes: vec![&node], logs: &logs }).await;
}
