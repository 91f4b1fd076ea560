//! What a mesh shares, as operators see it: names and times, never a value.

use claudemesh_broker::clock::Timestamp;
use serde_json::{Value, json};

use super::{call, get, start};
use crate::harness::{Node, Raw};

/// Stands wherever something has a value.
const VALUE: &str = "confidential-7141";

/// Something of each kind, with [`VALUE`] in all that is a value.
pub(crate) async fn share(node: &Node, raw: &mut Raw) {
    let later = Timestamp::now().plus_ms(3_600_000).as_ms();
    let bob = node.member("bob").await;
    let asked = [
        json!({ "type": "set_state", "key": "build", "value": { "log": VALUE } }),
        json!({ "type": "remember", "content": VALUE, "tags": [VALUE] }),
        json!({ "type": "share_context", "summary": VALUE, "keyFindings": [VALUE] }),
        json!({ "type": "share_skill", "name": "deploy", "description": VALUE,
            "instructions": VALUE }),
        json!({ "type": "create_task", "title": "fix the login", "tags": [VALUE] }),
        json!({ "type": "create_stream", "name": "builds" }),
        json!({ "type": "schedule", "to": "*", "message": VALUE, "cron": "0 9 * * 1" }),
        json!({ "type": "schedule", "to": bob.pubkey(), "ciphertext": VALUE, "nonce": VALUE,
            "deliverAt": later }),
        json!({ "type": "vault_set", "key": "TOKEN", "ciphertext": VALUE, "nonce": VALUE,
            "sealed_key": VALUE, "description": VALUE }),
        json!({ "type": "topic_create", "name": "deploys", "description": VALUE }),
        json!({ "type": "create_webhook", "name": "out", "events": ["task"],
            "url": format!("https://hooks.example.org/{VALUE}") }),
    ];
    for ask in asked {
        let answer = raw.ask(ask.clone()).await;
        assert_ne!(answer["type"], "error", "{ask}: {answer}");
    }
    let tasks = raw.ask(json!({ "type": "list_tasks" })).await;
    let id = tasks["tasks"][0]["id"].clone();
    raw.ask(json!({ "type": "complete_task", "taskId": id, "result": VALUE })).await;
    raw.sent("#deploys", "next", VALUE).await;
}

fn names<'a>(shared: &'a Value, list: &str, field: &str) -> Vec<&'a Value> {
    assert_eq!(shared[list]["more"], false, "{list}");
    shared[list]["rows"].as_array().expect("rows").iter().map(|row| &row[field]).collect()
}

#[tokio::test]
async fn what_a_mesh_shares_is_shown_by_name_and_time_and_no_value() {
    let node = start().await;
    let mut a = Raw::hello(&node, &node.owner).await;
    share(&node, &mut a).await;
    let hook = a.ask(json!({ "type": "create_webhook", "name": "in" })).await;
    let secret = hook["secret"].as_str().expect("a secret");

    let shared = get(&node, &format!("/meshes/{}/shared", node.mesh)).await;
    assert_eq!(names(&shared, "tasks", "title"), ["fix the login"]);
    assert_eq!(names(&shared, "tasks", "status"), ["done"]);
    assert_eq!(shared["taskCounts"], json!({ "open": 0, "claimed": 0, "done": 1 }));
    assert_eq!(names(&shared, "state", "key"), ["build"]);
    assert_eq!(names(&shared, "topics", "name"), ["deploys"]);
    assert_eq!(names(&shared, "topics", "members"), [1]);
    assert_eq!(names(&shared, "webhooks", "name"), ["in", "out"]);
    assert_eq!(names(&shared, "webhooks", "direction"), ["in", "out"]);
    assert_eq!(names(&shared, "schedules", "sealed"), [true, false], "the next first");
    assert_eq!(names(&shared, "schedules", "by"), ["owner", "owner"]);
    let target = shared["schedules"]["rows"][0]["target"].as_str().expect("a key");
    assert_eq!(target.len(), 12, "{target}");
    let kept = |kind: &str| {
        let all = shared["kept"].as_array().expect("kinds");
        let one = all.iter().find(|one| one["kind"] == kind);
        one.unwrap_or_else(|| panic!("no {kind}"))["rows"].clone()
    };
    for kind in ["state", "memory", "context", "skill", "task", "stream", "vault", "topics"] {
        assert_eq!(kept(kind), 1, "{kind}");
    }
    assert_eq!((kept("webhook"), kept("api_key")), (json!(2), json!(0)));

    let mesh = format!("/meshes/{}", node.mesh);
    for path in [format!("{mesh}/shared"), format!("{mesh}/audit"), mesh, "/meshes".to_owned()] {
        let reply = call(&node, "GET", &path).await;
        assert_eq!(reply.status, 200, "{path}");
        for held in [VALUE, secret] {
            assert!(!reply.body.contains(held), "{path}: {}", reply.body);
        }
    }
}

#[tokio::test]
async fn a_list_that_is_longer_says_so() {
    let node = start().await;
    let mut a = Raw::hello(&node, &node.owner).await;
    for number in 0..201 {
        let ask = json!({ "type": "set_state", "key": format!("k{number:03}"), "value": 1 });
        assert_eq!(a.ask(ask).await["type"], "ack");
    }
    let shared = get(&node, &format!("/meshes/{}/shared", node.mesh)).await;
    assert_eq!(shared["state"]["more"], true);
    let rows = shared["state"]["rows"].as_array().expect("rows");
    assert_eq!((rows.len(), &rows[199]["key"]), (200, &json!("k199")));
    assert_eq!(shared["tasks"], json!({ "rows": [], "more": false }));
}
