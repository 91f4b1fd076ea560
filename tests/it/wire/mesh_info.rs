//! A mesh as a whole: who is there, and what is kept.

use claudemesh_broker::limits;
use serde_json::{Value, json};

use crate::harness::{Cluster, Node, Raw, until};
use crate::wire::visitors::command;

async fn info(raw: &mut Raw) -> Value {
    raw.ask(json!({ "type": "mesh_info" })).await
}

/// Something of each kind.
async fn keep(raw: &mut Raw) {
    for ask in [
        json!({ "type": "set_state", "key": "k2", "value": "confidential" }),
        json!({ "type": "set_state", "key": "k1", "value": 1 }),
        json!({ "type": "remember", "content": "c" }),
        json!({ "type": "create_task", "title": "one" }),
        json!({ "type": "create_task", "title": "two" }),
        json!({ "type": "create_stream", "name": "zebra" }),
        json!({ "type": "create_stream", "name": "builds" }),
        json!({ "type": "share_context", "summary": "s" }),
        json!({ "type": "share_skill", "name": "n", "description": "d", "instructions": "i" }),
        json!({ "type": "join_group", "name": "eng", "role": "lead" }),
    ] {
        let answer = raw.ask(ask.clone()).await;
        assert_ne!(answer["type"], "error", "{ask}: {answer}");
    }
    let tasks = raw.ask(json!({ "type": "list_tasks" })).await;
    let id = tasks["tasks"][0]["id"].clone();
    raw.ask(json!({ "type": "complete_task", "taskId": id })).await;
}

/// What an older broker answered, and what this one says besides.
fn expected(node: &Node, name: &str, peers: u32, groups: Value) -> Value {
    json!({
        "type": "mesh_info_result", "mesh": node.mesh, "peers": peers, "groups": ["@eng"],
        "stateKeys": ["k1", "k2"], "memoryCount": 1, "fileCount": 0,
        "tasks": { "open": 1, "claimed": 0, "done": 1 }, "streams": ["zebra", "builds"],
        "tables": [], "collections": [], "yourName": name, "yourGroups": groups,
        "stateCount": 2, "streamCount": 2, "contextCount": 1, "skillCount": 1,
    })
}

#[tokio::test]
async fn a_mesh_is_told_as_it_always_was() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &ada).await;
    keep(&mut a).await;
    let own = json!([{ "name": "eng", "role": "lead" }]);
    let mut answer = info(&mut a).await;
    answer["_reqId"].take();
    let mut whole = expected(&node, "ada", 1, own.clone());
    whole["_reqId"] = json!(null);
    assert_eq!(answer, whole);
    // Without an id, as older brokers did.
    a.say(json!({ "type": "mesh_info" })).await;
    assert_eq!(a.hear("mesh_info_result").await, expected(&node, "ada", 1, own));
    // Who passes by is no peer, to itself either.
    let (mut cold, _) = command(&node, &bob, "cold").await;
    let seen = info(&mut cold).await;
    assert_eq!((&seen["peers"], &seen["yourGroups"]), (&json!(1), &json!([])));
    let mut b = Raw::hello(&node, &bob).await;
    assert_eq!(info(&mut b).await["peers"], 2);
    a.ask(json!({ "type": "set_visible", "visible": false })).await;
    let seen = info(&mut b).await;
    assert_eq!((&seen["peers"], &seen["groups"]), (&json!(1), &json!([])), "hidden is hidden");
    assert_eq!(info(&mut a).await["peers"], 2);
}

#[tokio::test]
async fn names_that_do_not_fit_are_cut_and_said_to_be() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("ada").await).await;
    for number in 0..1_000 {
        let key = format!("{number:0>250}");
        let answer = a.ask(json!({ "type": "set_state", "key": key, "value": 1 })).await;
        assert_eq!(answer["type"], "ack");
    }
    a.ask(json!({ "type": "create_stream", "name": "builds" })).await;
    let told = info(&mut a).await;
    assert!(told.to_string().len() <= limits::ANSWER_BYTES_MAX);
    let keys = told["stateKeys"].as_array().expect("keys");
    assert!(keys.len() < 1_000 && keys.len() > 300, "{}", keys.len());
    assert_eq!((&told["more"], &told["stateCount"]), (&json!(true), &json!(1_000)));
    assert_eq!(told["streams"], json!(["builds"]), "each list has a room of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_tells_the_same() {
    let cluster = Cluster::start(3).await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let mut a = Raw::hello(one, &one.member("ada").await).await;
    let mut b = Raw::hello(two, &one.member("bob").await).await;
    let mut c = Raw::hello(three, &one.member("carol").await).await;
    keep(&mut a).await;
    for (raw, name) in [(&mut b, "bob"), (&mut c, "carol")] {
        until("all are known", async || {
            let told = info(raw).await;
            told["peers"] == 3 && told["groups"] == json!(["@eng"])
        })
        .await;
        let mut told = info(raw).await;
        told.as_object_mut().expect("a frame").remove("_reqId");
        assert_eq!(told, expected(one, name, 3, json!([])));
    }
}
