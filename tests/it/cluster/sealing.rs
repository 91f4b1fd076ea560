//! What a mesh asks of messages to many holds on every node, for every client.

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::protocol::SealingPolicy;
use claudemesh_broker::store::{Author, NewSchedule};
use serde_json::{Value, json};

use crate::harness::{Cluster, Node, Raw, postgres, until};

async fn code_of(raw: &mut Raw, frame: Value) -> Value {
    raw.say(frame).await;
    let ack = raw.hear("ack").await;
    if ack["queued"] == true { json!("taken") } else { ack["code"].clone() }
}

fn frame(target: &str, beside: Value) -> Value {
    let mut frame = json!({
        "type": "send", "id": "one", "targetSpec": target, "priority": "next",
        "nonce": "bm9uY2U=", "ciphertext": "aGk=",
    });
    for (name, value) in beside.as_object().expect("fields") {
        frame[name] = value.clone();
    }
    frame
}

fn scheduled(target: &str, in_ms: i64) -> Value {
    let at = Timestamp::now().plus_ms(in_ms).as_ms();
    json!({ "type": "schedule", "to": target, "message": "hi", "deliverAt": at })
}

/// As an operator's command line does.
async fn set(cluster: &Cluster, policy: SealingPolicy) {
    let store = postgres::store(cluster.database());
    let mesh = &cluster.nodes[0].mesh;
    let changed = store.meshes.set_sealing(Timestamp::now(), mesh, policy, None).await;
    assert!(changed.expect("the store answers"), "it asked for something else before");
    store.database.close().await;
}

fn author(node: &Node) -> Author {
    let owner = &node.owner;
    Author {
        mesh: node.mesh.clone(),
        member: owner.id.clone(),
        member_name: owner.name.clone(),
        session_name: owner.name.clone(),
        presence: "p".into(),
    }
}

async fn asks_for(nodes: &[Node], raws: &mut [Raw], policy: &str) {
    for (node, raw) in nodes.iter().zip(raws) {
        until("the node has heard of it", async || {
            raw.ask(json!({ "type": "list_members" })).await["sealing"] == policy
        })
        .await;
        assert!(node.audit_is_valid().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_must_be_sealed_no_node_takes_anything_in_clear_from_any_client() {
    let cluster = Cluster::start(3).await;
    let nodes = &cluster.nodes;
    let bob = nodes[0].member("bob").await;
    let key = bob.pubkey().to_string();
    let mut raws = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        let named = |hello: &mut Value| hello["sessionId"] = json!(format!("owner {n}"));
        raws.push(Raw::hello_with(node, &node.owner, named).await.0);
    }
    raws[0].ask(json!({ "type": "topic_create", "name": "t" })).await;
    raws[0].ask(scheduled("*", 3_600_000)).await;
    asks_for(nodes, &mut raws, "preferred").await;
    set(&cluster, SealingPolicy::Required).await;
    asks_for(nodes, &mut raws, "required").await;
    for raw in &mut raws {
        for target in ["*", "@all", "@dev", "#t"] {
            assert_eq!(code_of(raw, frame(target, json!({}))).await, "must_be_sealed", "{target}");
        }
        for target in ["*", "@dev", "#t"] {
            assert_eq!(raw.ask(scheduled(target, 1_000)).await["code"], "must_be_sealed");
        }
        let sealed = json!({
            "sealedKeys": { &key: "a2V5" }, "signature": "ab".repeat(64),
            "client_message_id": cluster_wide_id(),
        });
        assert_eq!(code_of(raw, frame("*", sealed)).await, "taken");
        assert_eq!(code_of(raw, frame("#t", json!({ "bodyVersion": 2 }))).await, "taken");
        assert_eq!(code_of(raw, frame(&key, json!({}))).await, "taken", "to one as ever");
    }
    assert_eq!(nodes[0].audit_count("mesh_sealing_changed").await, 1);
    set(&cluster, SealingPolicy::Off).await;
    asks_for(nodes, &mut raws, "off").await;
    for raw in &mut raws {
        assert_eq!(code_of(raw, frame("*", json!({}))).await, "taken");
    }
}

fn cluster_wide_id() -> String {
    claudemesh_broker::id::MessageId::generate().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_scheduled_in_clear_is_not_sent_once_all_must_be_sealed() {
    let cluster = Cluster::start(3).await;
    let nodes = &cluster.nodes;
    let mut owner = Raw::hello(&nodes[0], &nodes[0].owner).await;
    let bob = nodes[0].member("bob").await;
    let mut b = Raw::hello(&nodes[1], &bob).await;
    set(&cluster, SealingPolicy::Required).await;
    asks_for(nodes, std::slice::from_mut(&mut owner), "required").await;
    let then = Timestamp::now().plus_ms(-60_000);
    for (id, to) in [("to many", "*".to_owned()), ("to one", bob.pubkey().to_string())] {
        let new = NewSchedule {
            id: id.to_owned(),
            to,
            message: id.to_owned(),
            nonce: None,
            deliver_at: then,
            cron: None,
            timezone: None,
            subtype: None,
            reply_to_id: None,
            hop: 0,
        };
        nodes[0].store.schedules.schedule(then, &author(&nodes[0]), &new).await.expect("room");
    }
    let push = b.message().await;
    assert_eq!(push["ciphertext"], "dG8gb25l", "the one for him alone: {push}");
    assert_eq!(nodes[0].audit_count("message_sent").await, 1);
    assert!(nodes[0].audit_is_valid().await);
}
