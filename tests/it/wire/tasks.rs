//! Tasks, as members find them on one node.

use serde_json::{Value, json};

use crate::harness::{Node, Raw, until};

async fn created(raw: &mut Raw, title: &str) -> String {
    let answer = raw.ask(json!({ "type": "create_task", "title": title })).await;
    assert_eq!(answer["type"], "task_created");
    answer["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_task_is_created_claimed_and_completed_as_it_always_was() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.owner).await;
    let mut b = Raw::hello(&node, &node.member("bob").await).await;
    let ask = json!({ "type": "create_task", "title": "t", "priority": "high", "tags": ["x"] });
    let id = a.ask(ask).await["id"].as_str().expect("an id").to_owned();
    assert_eq!(id.len(), 32);
    let list = b.ask(json!({ "type": "claim_task", "taskId": id })).await;
    assert_eq!(list["type"], "task_list");
    let row = list["tasks"][0].clone();
    let recorded = json!({
        "id": id, "title": "t", "assignee": null, "claimedBy": "bob", "status": "claimed",
        "priority": "high", "createdBy": "owner", "tags": ["x"], "createdAt": row["createdAt"],
    });
    assert_eq!(row, recorded);
    let error = a.ask(json!({ "type": "claim_task", "taskId": id })).await;
    assert_eq!(error["code"], "task_not_claimable");
    assert_eq!(error["message"], "task is not open or does not exist");
    let ask = json!({ "type": "complete_task", "taskId": id, "result": "ok" });
    let list = a.ask(ask).await;
    assert_eq!(
        (&list["tasks"][0]["status"], &list["tasks"][0]["result"]),
        (&json!("done"), &json!("ok"))
    );
    let error = a.ask(json!({ "type": "complete_task", "taskId": "nope" })).await;
    assert_eq!(error["code"], "task_not_found");
    assert_eq!(error["message"], "task not found in this mesh");
    let open = a.ask(json!({ "type": "list_tasks", "status": "open" })).await;
    assert_eq!(open["tasks"], json!([]));
    assert_eq!(a.ask(json!({ "type": "list_tasks", "status": "" })).await["tasks"][0]["id"], id);
    for event in ["task_created", "task_claimed", "task_completed"] {
        assert_eq!(node.audit_count(event).await, 1, "{event}");
    }
    assert!(node.audit_is_valid().await);
}

#[tokio::test]
async fn a_task_may_be_named_by_the_beginning_of_its_id_that_clients_show() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.owner).await;
    let id = created(&mut a, "one").await;
    created(&mut a, "another").await;
    for beginning in [&id[..7], "ffffffffffffffff", "%%%%%%%%", ""] {
        let answer = a.ask(json!({ "type": "claim_task", "taskId": beginning })).await;
        assert_eq!(answer["type"], "error", "{beginning}: {answer}");
    }
    let list = a.ask(json!({ "type": "claim_task", "taskId": &id[..8] })).await;
    let claimed = |row: &&Value| row["status"] == "claimed";
    let rows = list["tasks"].as_array().expect("rows").clone();
    let [row] = &rows.iter().filter(claimed).collect::<Vec<_>>()[..] else { panic!("{list}") };
    assert_eq!(row["id"], id.as_str());
    // As clients say it that do not wait for the answer.
    a.say(json!({ "type": "complete_task", "taskId": &id[..8] })).await;
    let list = a.hear("task_list").await;
    let rows = list["tasks"].as_array().expect("rows");
    assert!(rows.iter().any(|row| row["id"] == id.as_str() && row["status"] == "done"), "{list}");
}

#[tokio::test]
async fn without_a_request_id_a_claim_is_answered_with_the_list_and_never_with_an_error() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.owner).await;
    let id = created(&mut a, "t").await;
    for kind in ["claim_task", "complete_task"] {
        a.say(json!({ "type": kind, "taskId": id })).await;
        let list = a.hear("task_list").await;
        assert_eq!((list["tasks"].as_array().map(Vec::len), list.get("_reqId")), (Some(1), None));
        a.say(json!({ "type": kind, "taskId": "nope" })).await;
        a.say(json!({ "type": kind })).await;
    }
    for kind in ["renew_task", "release_task", "update_task"] {
        a.say(json!({ "type": kind, "taskId": "nope" })).await;
    }
    assert_eq!(a.so_far().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_claim_with_a_lease_is_renewed_released_or_runs_out() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.owner).await;
    let mut b = Raw::hello(&node, &node.member("bob").await).await;
    let id = created(&mut a, "t").await;
    let claim = json!({ "type": "claim_task", "taskId": id, "leaseMs": 60_000 });
    let list = b.ask(claim.clone()).await;
    assert!(list["tasks"][0]["claimExpiresAt"].is_string(), "{list}");
    let mut e = Raw::hello(&node, &node.member("eve").await).await;
    for kind in ["renew_task", "release_task"] {
        let error = e.ask(json!({ "type": kind, "taskId": id })).await;
        assert_eq!(error["code"], "task_not_claimed", "{kind}");
    }
    let renewed = b.ask(json!({ "type": "renew_task", "taskId": id, "leaseMs": 90_000 })).await;
    assert_eq!(renewed["type"], "ack");
    assert_eq!(b.ask(json!({ "type": "release_task", "taskId": id })).await["type"], "ack");
    // A moderator frees what somebody else keeps.
    b.ask(claim).await;
    assert_eq!(a.ask(json!({ "type": "release_task", "taskId": id })).await["type"], "ack");
    let short = json!({ "type": "claim_task", "taskId": id, "leaseMs": 1_000 });
    assert_eq!(b.ask(short).await["type"], "task_list");
    until("it is open again", async || {
        let open = a.ask(json!({ "type": "list_tasks", "status": "open" })).await;
        open["tasks"][0]["claimedBy"].is_null() && open["tasks"][0]["id"] == json!(id)
    })
    .await;
    assert_eq!(e.ask(json!({ "type": "claim_task", "taskId": id })).await["type"], "task_list");
    for lease_ms in [0, 999, i64::MAX] {
        let ask = json!({ "type": "claim_task", "taskId": id, "leaseMs": lease_ms });
        assert_eq!(b.ask(ask).await["code"], "invalid_argument");
    }
}

#[tokio::test]
async fn an_update_changes_what_it_names() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.owner).await;
    let id = created(&mut a, "t").await;
    let update = json!({
        "type": "update_task", "taskId": id, "priority": "low", "tags": ["a", "b"],
        "assignee": "bob",
    });
    assert_eq!(a.ask(update).await["type"], "ack");
    let list = a.ask(json!({ "type": "list_tasks", "assignee": "bob" })).await;
    let row = &list["tasks"][0];
    assert_eq!((&row["title"], &row["priority"]), (&json!("t"), &json!("low")));
    assert_eq!((&row["tags"], &row["assignee"]), (&json!(["a", "b"]), &json!("bob")));
    let nobody = json!({ "type": "update_task", "taskId": id, "title": "new", "assignee": "" });
    assert_eq!(a.ask(nobody).await["type"], "ack");
    let list = a.ask(json!({ "type": "list_tasks" })).await;
    let row = &list["tasks"][0];
    assert_eq!((&row["title"], &row["assignee"]), (&json!("new"), &Value::Null));
    let error = a.ask(json!({ "type": "update_task", "taskId": "nope", "title": "x" })).await;
    assert_eq!(error["code"], "task_not_found");
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_list_comes_in_pages() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.owner).await;
    let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
    for wrong in [
        json!({ "title": "" }),
        json!({ "title": "x".repeat(32 * 1024 + 1) }),
        json!({ "title": "t", "priority": "x".repeat(257) }),
        json!({ "title": "t", "assignee": "x".repeat(257) }),
        json!({ "title": "t", "tags": many }),
        json!({ "title": "t", "tags": ["x".repeat(257)] }),
        json!({ "title": "t", "tags": [""] }),
        json!({}),
    ] {
        let mut ask = wrong.clone();
        ask["type"] = json!("create_task");
        assert_eq!(a.ask(ask).await["code"], "invalid_argument", "{wrong}");
    }
    let mut ids = Vec::new();
    for n in 0..125 {
        let title = if n < 20 { "x".repeat(32 * 1024) } else { n.to_string() };
        ids.push(created(&mut a, &title).await);
    }
    let (mut seen, mut cursor, mut pages) = (Vec::new(), Value::Null, 0);
    loop {
        let mut ask = json!({ "type": "list_tasks" });
        if !cursor.is_null() {
            ask["cursor"] = cursor;
        }
        let list = a.ask(ask).await;
        let rows = list["tasks"].as_array().expect("rows");
        seen.extend(rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()));
        pages += 1;
        cursor = list["cursor"].clone();
        assert_eq!(list["more"] == json!(true), !cursor.is_null());
        if cursor.is_null() {
            break;
        }
    }
    let same_instant = |ids: &[String]| {
        let mut ids = ids.to_vec();
        ids.sort();
        ids
    };
    assert_eq!(same_instant(&seen), same_instant(&ids), "each once");
    assert_eq!(pages, 3, "a hundred rows, then as many as an answer holds");
}

#[tokio::test]
async fn who_watches_is_told_and_nobody_else() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let mut a = Raw::hello(&node, &node.owner).await;
    let bob = node.member("bob").await;
    let key = claudemesh_broker::auth::SecretKey::generate();
    let mut b = Raw::session(&node, &bob, &key).await.0;
    let mut e = Raw::hello(&node, &node.member("eve").await).await;
    assert_eq!(b.ask(json!({ "type": "watch_tasks" })).await["type"], "ack");
    let id = created(&mut a, "t").await;
    let told = b.event("task").await;
    assert_eq!(told["eventData"], json!({ "taskId": id, "status": "open", "by": "owner" }));
    assert_eq!(told["subtype"], "system");
    a.ask(json!({ "type": "claim_task", "taskId": id, "leaseMs": 1_000 })).await;
    let claimed = json!({ "taskId": id, "status": "claimed", "by": "owner" });
    assert_eq!(b.event("task").await["eventData"], claimed);
    let run_out = json!({ "taskId": id, "status": "open", "by": null });
    assert_eq!(b.event("task").await["eventData"], run_out);
    // A session that comes back watches still.
    b.goodbye().await;
    let mut b = Raw::session(&node, &bob, &key).await.0;
    a.ask(json!({ "type": "complete_task", "taskId": id })).await;
    let done = json!({ "taskId": id, "status": "done", "by": "owner" });
    assert_eq!(b.event("task").await["eventData"], done);
    assert_eq!(b.ask(json!({ "type": "unwatch_tasks" })).await["type"], "ack");
    created(&mut a, "unseen").await;
    for raw in [&mut a, &mut b, &mut e] {
        let heard = raw.so_far().await;
        assert!(!heard.iter().any(|frame| frame["event"] == "task"), "{heard:?}");
    }
}
