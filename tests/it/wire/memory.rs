//! Remembering and finding it again.

use serde_json::{Value, json};

use crate::harness::{Cluster, Node, Raw};
use crate::wire::visitors::command;

fn ids(answer: &Value, field: &str) -> Vec<String> {
    let rows = answer[field].as_array().unwrap_or_else(|| panic!("{answer}"));
    rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn what_one_remembers_another_recalls() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let (mut cold, _) = command(&node, &alice, "cold").await;
    let stored = cold
        .ask(json!({ "type": "remember", "content": "the build uses bun", "tags": ["x"] }))
        .await;
    let id = stored["id"].clone();
    let expected = json!({
        "type": "memory_stored", "id": id, "memoryId": id, "_reqId": stored["_reqId"],
    });
    assert_eq!(stored, expected);
    assert_eq!(id.as_str().map(str::len), Some(32));
    let (mut other, _) = command(&node, &bob, "cold").await;
    let found = other.ask(json!({ "type": "recall", "query": "builds" })).await;
    let at = found["memories"][0]["rememberedAt"].clone();
    assert_eq!(at.as_str().map(str::len), Some(24), "{found}");
    let memory = json!({
        "id": id, "content": "the build uses bun", "tags": ["x"], "rememberedBy": "alice",
        "rememberedAt": at,
    });
    let expected =
        json!({ "type": "memory_results", "memories": [memory], "_reqId": found["_reqId"] });
    assert_eq!(found, expected);
    // Without an id, as older brokers did.
    other.say(json!({ "type": "recall", "query": "x" })).await;
    assert_eq!(ids(&other.hear("memory_results").await, "memories"), [id.as_str().expect("text")]);
    let ack = other.ask(json!({ "type": "forget", "memoryId": id })).await;
    let expected = json!({
        "type": "ack", "id": id, "messageId": id, "queued": false, "_reqId": ack["_reqId"],
    });
    assert_eq!(ack, expected);
    let again = other.ask(json!({ "type": "forget", "memoryId": id })).await;
    assert_eq!(again["type"], "ack", "it is gone either way");
    let found = cold.ask(json!({ "type": "recall", "query": "bun" })).await;
    assert_eq!(found["memories"], json!([]));
    assert_eq!(node.audit_count("memory_stored").await, 1);
    assert_eq!(node.audit_count("memory_forgotten").await, 1);
    assert!(node.audit_is_valid().await);
}

#[tokio::test]
async fn a_memory_is_forgotten_by_the_beginning_of_its_id_that_clients_show() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.owner).await;
    let mut made = Vec::new();
    for content in ["zebras are striped", "zebras are horses"] {
        let stored = a.ask(json!({ "type": "remember", "content": content })).await;
        made.push(stored["id"].as_str().expect("an id").to_owned());
    }
    assert_ne!(made[0][..8], made[1][..8], "those of one minute can be told apart");
    a.ask(json!({ "type": "forget", "memoryId": &made[0][..7] })).await;
    let query = json!({ "type": "recall", "query": "zebra" });
    assert_eq!(ids(&a.ask(query.clone()).await, "matches").len(), 2, "too short to mean one");
    let ack = a.ask(json!({ "type": "forget", "memoryId": &made[0][..8] })).await;
    assert_eq!((&ack["type"], &ack["id"]), (&json!("ack"), &json!(made[0][..8])));
    assert_eq!(ids(&a.ask(query).await, "matches"), [made[1].as_str()]);
    assert_eq!(node.audit_count("memory_forgotten").await, 1);
}

#[tokio::test]
async fn daemons_find_what_they_look_for() {
    let node = Node::start().await;
    let mut daemon = Raw::hello(&node, &node.member("bob").await).await;
    let stored = daemon.ask(json!({ "type": "remember", "content": "deploys on friday" })).await;
    let found = daemon.ask(json!({ "type": "recall", "query": "deploy" })).await;
    assert_eq!(found["type"], "memory_recall_result");
    assert_eq!(ids(&found, "matches"), [stored["memoryId"].as_str().expect("an id")]);
    assert_eq!(found["matches"][0]["tags"], json!([]));
}

#[tokio::test]
async fn odd_memories_are_refused_and_odd_queries_find_nothing() {
    let node = Node::start().await;
    let (mut cold, _) = command(&node, &node.member("bob").await, "cold").await;
    for odd in [
        json!({ "type": "remember" }),
        json!({ "type": "remember", "content": "" }),
        json!({ "type": "remember", "content": "x".repeat(32 * 1024 + 1) }),
        json!({ "type": "remember", "content": "x", "tags": vec!["t"; 65] }),
        json!({ "type": "remember", "content": "x", "tags": ["t".repeat(257)] }),
        json!({ "type": "remember", "content": "x", "tags": [""] }),
        json!({ "type": "recall" }),
        json!({ "type": "recall", "query": "x".repeat(1025) }),
        json!({ "type": "recall", "query": "x", "cursor": "odd" }),
        json!({ "type": "forget" }),
    ] {
        let answer = cold.ask(odd.clone()).await;
        assert_eq!(answer["code"], "invalid_argument", "{odd}: {answer}");
        cold.say(odd).await;
    }
    assert_eq!(cold.so_far().await, Vec::<Value>::new(), "without an id no error strays");
    for odd in ["", "the", "\" OR *", "x AND (", "NEAR("] {
        let found = cold.ask(json!({ "type": "recall", "query": odd })).await;
        assert_eq!(found["memories"], json!([]), "{odd:?}");
    }
}

#[tokio::test]
async fn long_memories_come_in_parts_that_lose_none() {
    let node = Node::start().await;
    let (mut cold, _) = command(&node, &node.member("bob").await, "cold").await;
    let mut stored = Vec::new();
    for number in 0..30 {
        let content = format!("note {number} {}", "y".repeat(30_000));
        let answer = cold.ask(json!({ "type": "remember", "content": content })).await;
        stored.push(answer["id"].as_str().expect("an id").to_owned());
    }
    let mut ask = json!({ "type": "recall", "query": "note", "limit": 100 });
    let (mut found, mut parts) = (Vec::new(), 0);
    loop {
        let answer = cold.ask(ask.clone()).await;
        assert!(answer.to_string().len() <= 512 * 1024);
        found.extend(ids(&answer, "memories"));
        parts += 1;
        assert_eq!(answer.get("more"), answer.get("cursor").map(|_| &json!(true)));
        let Some(cursor) = answer.get("cursor") else { break };
        ask["cursor"] = cursor.clone();
    }
    assert!(parts > 1);
    found.sort();
    stored.sort();
    assert_eq!(found, stored);
    let few = cold.ask(json!({ "type": "recall", "query": "note", "limit": 3 })).await;
    assert_eq!((ids(&few, "memories").len(), few.get("more")), (3, None));
}

#[tokio::test]
async fn a_memory_is_found_on_every_node_at_once() {
    let cluster = Cluster::start(3).await;
    let member = cluster.nodes[0].member("ada").await;
    let (mut a, _) = command(&cluster.nodes[0], &member, "one").await;
    let stored =
        a.ask(json!({ "type": "remember", "content": "nodes share", "tags": ["c"] })).await;
    for node in &cluster.nodes {
        let (mut other, _) = command(node, &member, "other").await;
        let found = other.ask(json!({ "type": "recall", "query": "shared" })).await;
        assert_eq!(ids(&found, "memories"), [stored["id"].as_str().expect("an id")]);
        other.goodbye().await;
    }
}
