//! Tasks of one mesh on several nodes.

use claudemesh_broker::auth::SecretKey;
use serde_json::json;

use crate::harness::proxy::Fault;
use crate::harness::{Cluster, Raw, Setup, until};

/// Peers that claim a task at the same time.
const CLAIMERS: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_claimers_on_three_nodes_one_wins_and_all_who_watch_are_told() {
    let cluster = Cluster::start(3).await;
    let nodes = &cluster.nodes;
    let mut peers = Vec::new();
    for at in 0..CLAIMERS {
        let node = &nodes[at % 3];
        let mut peer = Raw::hello(node, &node.member(&format!("peer-{at}")).await).await;
        assert_eq!(peer.ask(json!({ "type": "watch_tasks" })).await["type"], "ack");
        peers.push(peer);
    }
    let mut owner = Raw::hello(&nodes[0], &nodes[0].owner).await;
    for round in 0..5 {
        let ask = json!({ "type": "create_task", "title": round.to_string() });
        let id = owner.ask(ask).await["id"].as_str().expect("an id").to_owned();
        let mut claims = Vec::new();
        for (at, mut peer) in peers.drain(..).enumerate() {
            let claim = json!({ "type": "claim_task", "taskId": id });
            claims.push(tokio::spawn(async move {
                let answer = peer.ask(claim).await;
                (at, peer, answer)
            }));
        }
        let mut winners = Vec::new();
        for claim in claims {
            let (at, peer, answer) = claim.await.expect("no panic");
            match answer["type"].as_str() {
                Some("task_list") => winners.push(at),
                _ => assert_eq!(answer["code"], "task_not_claimable"),
            }
            peers.push(peer);
        }
        let [winner] = winners[..] else { panic!("{winners:?}") };
        let by = format!("peer-{winner}");
        // Who wins is not told what it did, nor, where it was quick, that there was a task.
        for (_, peer) in peers.iter_mut().enumerate().filter(|(at, _)| *at != winner) {
            let told = |frame: &serde_json::Value| {
                frame["event"] == "task"
                    && frame["eventData"]["taskId"] == json!(id)
                    && frame["eventData"]["status"] == "claimed"
            };
            let frame = peer.hear_where("push", told).await;
            assert_eq!(frame["eventData"]["by"], json!(by));
        }
    }
    assert_eq!(nodes[0].audit_count("task_claimed").await, 5);
    assert!(nodes[0].audit_is_valid().await);
}

#[tokio::test]
async fn who_watches_watches_also_on_the_node_that_it_moves_to() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (bob, key) = (one.member("bob").await, SecretKey::generate());
    let mut owner = Raw::hello(one, &one.owner).await;
    let mut bobs = Raw::session(one, &bob, &key).await.0;
    assert_eq!(bobs.ask(json!({ "type": "watch_tasks" })).await["type"], "ack");
    let (mut moved, _) = Raw::session(two, &bob, &key).await;
    let ask = json!({ "type": "create_task", "title": "t" });
    let id = owner.ask(ask).await["id"].clone();
    assert_eq!(moved.event("task").await["eventData"]["taskId"], id);
}

/// Of each task the last that became of it is told, also where the node of whoever
/// watches heard nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_on_a_deaf_node_is_told_how_far_each_task_is() {
    let cluster = Setup::new(3).behind_proxies().set("LEASE_GRACE_SECONDS", 30).start().await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let mut owner = Raw::hello(one, &one.owner).await;
    let mut bob = Raw::hello(two, &one.member("bob").await).await;
    let mut watching = Raw::hello(three, &one.member("carol").await).await;
    assert_eq!(watching.ask(json!({ "type": "watch_tasks" })).await["type"], "ack");
    cluster.proxies[2].set_each(Fault::Pass, Fault::Swallow);
    let mut expected = std::collections::BTreeMap::new();
    for round in 0..9 {
        let ask = json!({ "type": "create_task", "title": "t" });
        let id = owner.ask(ask).await["id"].as_str().expect("an id").to_owned();
        let mut status = "open";
        if round % 3 > 0 {
            bob.ask(json!({ "type": "claim_task", "taskId": id })).await;
            status = "claimed";
        }
        if round % 3 > 1 {
            owner.ask(json!({ "type": "complete_task", "taskId": id })).await;
            status = "done";
        }
        expected.insert(id, status.to_owned());
    }
    cluster.proxies[2].set(Fault::Pass);
    let mut told = std::collections::BTreeMap::new();
    until("all is told", async || {
        for frame in watching.so_far().await {
            if frame["event"] == "task" {
                let text = |field: &str| frame["eventData"][field].as_str().expect("a text");
                told.insert(text("taskId").to_owned(), text("status").to_owned());
            }
        }
        told == expected
    })
    .await;
}
