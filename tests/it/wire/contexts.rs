//! What members work on, and who hears of it.

use claudemesh_broker::auth::SecretKey;
use serde_json::{Value, json};

use crate::harness::proxy::Fault;
use crate::harness::{Cluster, Node, Raw, Setup, until};
use crate::wire::visitors::command;

#[tokio::test]
async fn a_context_is_shared_told_and_found_as_recorded() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &ada).await;
    let (mut own, _) = Raw::session(&node, &ada, &SecretKey::generate()).await;
    let mut b = Raw::hello(&node, &bob).await;
    let share = json!({
        "type": "share_context", "summary": "on auth", "filesRead": ["a"], "tags": ["auth"],
    });
    let shared = a.ask(share).await;
    let id = shared["id"].clone();
    assert_eq!(shared, json!({ "type": "context_shared", "id": id, "_reqId": shared["_reqId"] }));
    let change = json!({
        "type": "state_change", "key": "_context:ada", "value": "on auth", "updatedBy": "ada",
    });
    assert_eq!(b.hear("state_change").await, change);
    assert_eq!(own.hear("state_change").await, change, "the member's other sessions too");
    let found = b.ask(json!({ "type": "get_context", "query": "auth" })).await;
    let at = found["contexts"][0]["updatedAt"].clone();
    assert_eq!(at.as_str().map(str::len), Some(24), "{found}");
    let context = json!({
        "peerName": "ada", "summary": "on auth", "filesRead": ["a"], "keyFindings": [],
        "tags": ["auth"], "updatedAt": at,
    });
    let expected =
        json!({ "type": "context_results", "contexts": [context], "_reqId": found["_reqId"] });
    assert_eq!(found, expected);
    let list = b.ask(json!({ "type": "list_contexts" })).await;
    let entry =
        json!({ "peerName": "ada", "summary": "on auth", "tags": ["auth"], "updatedAt": at });
    let expected = json!({ "type": "context_list", "contexts": [entry], "_reqId": list["_reqId"] });
    assert_eq!(list, expected);
    let state = b.ask(json!({ "type": "list_state" })).await;
    assert_eq!(state["entries"], json!([]), "nothing is kept under that key");
    // Without an id, as older brokers did; of one member the newest counts.
    own.say(json!({ "type": "share_context", "summary": "on billing" })).await;
    assert_eq!(own.hear("context_shared").await, json!({ "type": "context_shared", "id": id }));
    assert_eq!(a.hear("state_change").await["value"], "on billing");
    assert!(a.so_far().await.iter().all(|frame| frame["type"] != "state_change"));
    assert!(node.audit_is_valid().await);
}

#[tokio::test]
async fn a_passing_command_shares_and_finds() {
    let node = Node::start().await;
    let ada = node.member("ada").await;
    let mut b = Raw::hello(&node, &node.member("bob").await).await;
    let (mut cold, _) = command(&node, &ada, "cold").await;
    let shared = cold.ask(json!({ "type": "share_context", "summary": "on docs" })).await;
    assert_eq!(shared["type"], "context_shared");
    assert_eq!(b.hear("state_change").await["key"], "_context:ada");
    for odd in [
        json!({ "type": "share_context" }),
        json!({ "type": "share_context", "summary": "s".repeat(32 * 1024 + 1) }),
        json!({ "type": "share_context", "summary": "s", "filesRead": ["f".repeat(32 * 1024)] }),
        json!({ "type": "share_context", "summary": "s", "tags": [""] }),
        json!({ "type": "get_context" }),
        json!({ "type": "list_contexts", "cursor": "odd" }),
    ] {
        assert_eq!(cold.ask(odd).await["code"], "invalid_argument");
    }
}

#[tokio::test]
async fn a_context_is_told_on_every_node() {
    let cluster = Cluster::start(3).await;
    let ada = cluster.nodes[0].member("ada").await;
    let mut watching = Vec::new();
    for (n, node) in cluster.nodes.iter().enumerate() {
        watching.push(Raw::hello(node, &node.member(&format!("w{n}")).await).await);
    }
    let (mut cold, _) = command(&cluster.nodes[1], &ada, "cold").await;
    cold.ask(json!({ "type": "share_context", "summary": "everywhere" })).await;
    for raw in &mut watching {
        let change = raw.hear("state_change").await;
        assert_eq!(
            (&change["key"], &change["value"]),
            (&json!("_context:ada"), &json!("everywhere"))
        );
        let found = raw.ask(json!({ "type": "get_context", "query": "EVERY" })).await;
        assert_eq!(found["contexts"][0]["peerName"], "ada");
    }
}

/// What its node was not told, between values of the shared state, it reads.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_on_a_deaf_node_is_told_the_last_context_of_each() {
    let cluster = Setup::new(2).behind_proxies().set("LEASE_GRACE_SECONDS", 30).start().await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let mut a = Raw::hello(one, &one.member("ada").await).await;
    let mut watching = Raw::hello(two, &one.member("carol").await).await;
    cluster.proxies[1].set_each(Fault::Pass, Fault::Swallow);
    for round in 0..5 {
        let share = json!({ "type": "share_context", "summary": format!("round {round}") });
        assert_eq!(a.ask(share).await["type"], "context_shared");
        let set = json!({ "type": "set_state", "key": "k", "value": round });
        assert_eq!(a.ask(set).await["type"], "ack");
    }
    cluster.proxies[1].set(Fault::Pass);
    let (mut context, mut state) = (Value::Null, Value::Null);
    until("both are told", async || {
        for change in watching.so_far().await {
            match change["key"].as_str() {
                Some("_context:ada") => context = change["value"].clone(),
                Some("k") => state = change["value"].clone(),
                _ => {}
            }
        }
        context == "round 4" && state == 4
    })
    .await;
}
