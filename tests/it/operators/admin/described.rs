//! The description of the API is held against what the API does, both ways.

use serde_json::json;

use super::stream::Events;
use super::{call, presence_of, start};
use crate::harness::description::Description;
use crate::harness::http::{Reply, request};
use crate::harness::{Node, Raw};

const PREFIX: &str = "/admin/v1";

fn assert_fits(description: &Description, method: &str, path: &str, reply: &Reply) {
    if let Err(why) = description.check(method, path, reply) {
        panic!("{method} {path}: {why}: {reply:?}");
    }
}

/// The path below the prefix, with its parameters filled in.
fn filled(path: &str, node: &Node, presence: &str) -> String {
    let path = path.strip_prefix(PREFIX).expect("a path of the admin API");
    path.replace("{id}", node.mesh.as_str()).replace("{presence}", presence)
}

#[tokio::test]
async fn every_answer_has_the_described_shape() {
    let node = start().await;
    let description = Description::read();
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let _b = Raw::hello(&node, &bob).await;
    a.ask(json!({ "type": "join_group", "name": "dev" })).await;
    a.sent(node.owner.pubkey().as_str(), "next", "eA==").await;
    a.sent("@dev", "low", "eA==").await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    super::shared::share(&node, &mut owner).await;
    let presence = presence_of(&node, "bob").await;
    // Points come every ten seconds.
    let deadline = tokio::time::Instant::now() + 3 * crate::harness::PATIENCE;
    while call(&node, "GET", "/series").await.json()["points"] == json!([]) {
        assert!(tokio::time::Instant::now() < deadline, "no point came");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    for ((method, path), _) in description.operations() {
        if !path.starts_with(PREFIX) || path.ends_with("/events") {
            continue;
        }
        let verb = method.to_uppercase();
        let reply = call(&node, &verb, &filled(&path, &node, &presence)).await;
        assert_eq!(reply.status, 200, "{method} {path}: {reply:?}");
        assert_fits(&description, &method, &path, &reply);
        // Without a token, and about a mesh that is not there.
        let address = format!("{PREFIX}{}", filled(&path, &node, &presence));
        let bare = request(&node, &verb, &address, &[], "").await;
        assert_fits(&description, &method, &path, &bare);
        if path.contains("{id}") {
            let nowhere = path.replace("{id}", "nothing");
            let reply = call(&node, &verb, &filled(&nowhere, &node, &presence)).await;
            assert_fits(&description, &method, &path, &reply);
        }
    }
    let schemas = &description.root["components"]["schemas"];
    let [snapshots, changes] =
        ["Snapshot", "Change"].map(|name| description.validator(&schemas[name]));
    let mut events = Events::open(&node, &format!("?mesh={}", node.mesh)).await;
    let snapshot = events.next("snapshot").await.expect("a snapshot");
    assert!(snapshots.is_valid(&snapshot), "{snapshot}");
    a.sent(node.owner.pubkey().as_str(), "next", "eA==").await;
    loop {
        let change = events.next("change").await.expect("a change");
        assert!(changes.is_valid(&change), "{change}");
        if change.get("audit").is_some() {
            break;
        }
    }
}

#[test]
fn a_wrong_answer_would_be_noticed() {
    let description = Description::read();
    let nodes = description.validator(&description.root["components"]["schemas"]["Nodes"]);
    assert!(!nodes.is_valid(&json!({ "at": "x", "node": "n", "nodes": [{}] })));
    assert!(!nodes.is_valid(&json!({ "at": "x", "node": "n", "nodes": [], "more": 1 })));
}
