//! What a mesh asks of messages to many holds on every node, for every client.

use claudemesh_broker::client::{Client, ClientError, CommonKeyError, Outgoing, Secrecy};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::protocol::{
    GetState, ListMembers, Priority, SealingPolicy, SetState, StateResult,
};
use claudemesh_broker::store::{Author, NewSchedule};
use serde_json::{Value, json};

use super::costs::Monitor;
use crate::harness::{Cluster, Node, Raw, postgres, until};
use crate::wire::kept;

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

/// All rows of all tables, as text.
async fn dump(cluster: &Cluster) -> String {
    let mut own = postgres::connection(cluster.database()).await;
    sqlx::query_scalar(
        "select string_agg(query_to_xml(format('select * from mesh.%I', table_name), true, false,
            '')::text, '')
         from information_schema.tables where table_schema = 'mesh'",
    )
    .fetch_one(&mut own)
    .await
    .expect("readable")
}

/// Whether something holds a text, also within base64.
fn holds(seen: &str, text: &str) -> bool {
    use base64::Engine as _;
    let coded = |shift: usize| {
        let shifted = [&b"???"[..shift], text.as_bytes()].concat();
        let coded = base64::engine::general_purpose::STANDARD.encode(shifted);
        // Without what the letters before and after have a part in.
        coded[4..coded.len() - 4].to_owned()
    };
    seen.contains(text) || (0..3).any(|shift| seen.contains(&coded(shift)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_the_database_nor_redis_nor_the_bus_holds_what_our_clients_say_and_keep() {
    let cluster = Cluster::start(3).await;
    let nodes = &cluster.nodes;
    set(&cluster, SealingPolicy::Required).await;
    let (ada, bob) = (nodes[0].member("ada").await, nodes[0].member("bob").await);
    let a = kept::peer(&nodes[0], &ada).await;
    let mut b = kept::peer(&nodes[1], &bob).await;
    until("both nodes have heard of it", async || {
        let ask = ListMembers::default();
        let asked = async |client: &Client| client.ask(&ask).await.expect("members").sealing;
        asked(&a.client).await == SealingPolicy::Required
            && asked(&b.client).await == SealingPolicy::Required
    })
    .await;
    let mut monitor = Monitor::of(&cluster);
    kept::in_both_topics(&a, &b, &bob).await;
    kept::says_it_all(&a.client, kept::CANARY).await;
    kept::reads_it_all(&mut b, kept::CANARY).await;
    let control = "kept in clear by an old client";
    let mut old = Raw::hello(&nodes[2], &nodes[2].owner).await;
    old.ask(json!({ "type": "set_state", "key": "k", "value": control })).await;
    let passed = monitor.commands(&cluster).join("\n");
    assert!(passed.contains("bus"), "what passes between nodes is seen");
    let rows = dump(&cluster).await;
    assert!(holds(&rows, control) && holds(&passed, control), "the search finds what is in clear");
    assert!(!holds(&rows, kept::CANARY), "in the database");
    assert!(!holds(&passed, kept::CANARY), "on its way through Redis");
}

async fn read(client: &Client, key: &str) -> Value {
    let StateResult(entry) =
        client.ask_opened(&GetState { key: key.to_owned() }).await.expect("answered");
    assert!(entry.sealed);
    entry.value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_changes_in_the_database_is_not_taken_for_what_a_member_kept() {
    let cluster = Cluster::start(3).await;
    let (node, other) = (&cluster.nodes[0], &cluster.nodes[1]);
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let a = kept::peer(node, &ada).await;
    let keeps = async |client: &Client, key: &str, value: &str| {
        let ask = SetState { key: key.to_owned(), value: json!(value), if_version: None };
        client.keep(ask).await.map(|(_, secrecy)| assert_eq!(secrecy, Secrecy::Sealed))
    };
    for (key, value) in [("deploy", "no"), ("lunch", "yes")] {
        keeps(&a.client, key, value).await.expect("kept");
    }
    cluster
        .sql(
            "update mesh.state set value = (select value from mesh.state where key = 'lunch')
              where key = 'deploy'",
        )
        .await;
    let shown = read(&a.client, "deploy").await;
    assert!(shown.as_str().is_some_and(|text| text.contains("cannot open")), "{shown}");
    assert_eq!(read(&a.client, "lunch").await, "yes");
    // A key of which the maker knows nothing, to whoever has none yet.
    let b = kept::peer(other, &bob).await;
    for change in [
        "update mesh.common_key set key_hash = repeat('0', 64)",
        "update mesh.common_key set maker_key = (
            select peer_pubkey from mesh.member where display_name = 'bob')",
        "update mesh.common_key set epoch = 7",
    ] {
        cluster.sql("create table mesh.as_it_was as select * from mesh.common_key").await;
        cluster.sql(change).await;
        let error = keeps(&b.client, "mine", "x").await.expect_err("it is not her key");
        let is_found = matches!(error, ClientError::CommonKey(CommonKeyError::Forged));
        assert!(is_found, "{change}: {error}");
        cluster
            .sql(
                "update mesh.common_key k set key_hash = w.key_hash, maker_key = w.maker_key,
                    epoch = w.epoch
                  from mesh.as_it_was w where w.mesh_id = k.mesh_id",
            )
            .await;
        cluster.sql("drop table mesh.as_it_was").await;
    }
    keeps(&b.client, "mine", "x").await.expect("as it was");
    // An earlier key, which somebody has who left.
    cluster.sql("create table mesh.as_it_was as select * from mesh.common_key").await;
    cluster.sql("update mesh.member set revoked_at = now() where display_name = 'owner'").await;
    keeps(&a.client, "next", "y").await.expect("under the next");
    cluster
        .sql(
            "update mesh.common_key k set key_hash = w.key_hash, maker_key = w.maker_key,
                epoch = w.epoch, signature = w.signature
              from mesh.as_it_was w where w.mesh_id = k.mesh_id",
        )
        .await;
    let error = keeps(&a.client, "next", "z").await.expect_err("it has seen a later one");
    assert!(matches!(error, ClientError::CommonKey(CommonKeyError::Earlier)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_post_reaches_whom_it_mentions_though_the_broker_cannot_read_it() {
    let cluster = Cluster::start(3).await;
    let (ada, bob) = (cluster.nodes[0].member("ada").await, cluster.nodes[0].member("bob").await);
    let a = kept::peer(&cluster.nodes[0], &ada).await;
    let mut b = kept::peer(&cluster.nodes[1], &bob).await;
    kept::in_both_topics(&a, &b, &bob).await;
    let post = Outgoing::new("#open", Priority::Next, "@Bob, and @nobody: look");
    assert_eq!(a.client.send_sealed(post).await.expect("taken").secrecy, Secrecy::Sealed);
    let (text, is_sealed) = b.texts.recv().await.expect("a message");
    assert_eq!((text.as_deref(), is_sealed), (Some("@Bob, and @nobody: look"), true));
    let mentioned = "select m.display_name from mesh.notification n
        join mesh.member m on m.id = n.recipient_member_id";
    let mut own = postgres::connection(cluster.database()).await;
    let names: Vec<String> =
        sqlx::query_scalar(mentioned).fetch_all(&mut own).await.expect("readable");
    assert_eq!(names, ["bob"]);
}
