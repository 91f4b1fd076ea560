//! docs/SECURITY.md, somebody who writes Redis: each thing that it says they
//! cannot do, tried from Redis alone, without being a member.

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::cluster::redis::seals::{ClusterKey, Seals};
use claudemesh_broker::id::{MeshId, PresenceId};
use serde_json::{Value, json};

use crate::harness::frames::EVIL;
use crate::harness::{Cluster, Raw, Setup, metric, until};

/// Puts what node "evil" says on the mesh's channel, unsigned or signed by a guess.
fn say(cluster: &Cluster, seq: u64, body: &Value, key: Option<&ClusterKey>) {
    let channel = format!("{}:{{{}}}:bus", cluster.prefix, cluster.nodes[0].mesh);
    let heard = EVIL.says(&cluster.redis, &channel, seq, (Some(body), None), key);
    assert_eq!(heard, 2, "both nodes listen");
}

fn push(mesh: &MeshId, from: &str) -> Value {
    json!({
        "messageId": "forged", "meshId": mesh.as_str(), "senderPubkey": from,
        "senderMemberPubkey": from, "senderName": "owner", "priority": "now",
        "nonce": "bm9uY2U=", "ciphertext": "Zm9yZ2Vk", "createdAt": "2026-01-01T00:00:00.000Z",
    })
}

/// Everything that a node can be told of a presence and its mesh.
fn all_that_is_said(mesh: &MeshId, bob: &PresenceId, owner: &str) -> Vec<Value> {
    let delivery = json!({"seq": i64::MAX - 1, "push": push(mesh, owner)});
    let sender = json!({"member": "m", "member_key": owner});
    vec![
        json!({"kind": "direct", "presence": bob, "delivery": delivery}),
        json!({"kind": "multicast", "sender": sender, "previous": 0, "delivery": delivery}),
        json!({"kind": "hook_status", "presence": bob, "status": "dnd",
            "at": "2030-01-01T00:00:00.000Z"}),
        json!({"kind": "close", "presence": bob, "close": "kicked"}),
        json!({"kind": "ended", "presence": bob, "close": "banned"}),
        json!({"kind": "members_changed"}),
    ]
}

async fn bobs_row(raw: &mut Raw) -> Value {
    let listed = raw.ask(json!({ "type": "list_peers" })).await;
    let rows = listed["peers"].as_array().expect("rows").clone();
    rows.into_iter().find(|row| row["displayName"] == "bob").unwrap_or_default()
}

#[tokio::test]
async fn who_writes_redis_puts_no_word_into_a_nodes_mouth() {
    let cluster = Setup::new(2).start().await;
    let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
    let bob = one.member("bob").await;
    let mut owner = Raw::hello(one, &one.owner).await;
    let mut bobs = Raw::hello(two, &bob).await;
    until("both are seen", async || !bobs_row(&mut owner).await.is_null()).await;
    owner.so_far().await;
    bobs.so_far().await;
    let mut keys = redis::cmd("HKEYS");
    keys.arg(format!("{}:{{{}}}:records", cluster.prefix, one.mesh));
    let presences: Vec<String> = cluster.redis.query(&keys);
    let guess = ClusterKey { secret: b"guessed".to_vec(), ..cluster.key().await };
    let owner_key = one.owner.pubkey();
    let audited = one.audit_count("message_sent").await;
    for key in [None, Some(&guess)] {
        let mut seq = 0;
        for presence in &presences {
            let presence = PresenceId::from(presence.as_str());
            for said in all_that_is_said(&one.mesh, &presence, owner_key.as_str()) {
                seq += 1;
                say(&cluster, seq, &said, key);
            }
        }
    }
    // What is sent after all that is the next that arrives, both ways.
    let id = owner.sent(bob.pubkey().as_str(), "next", "bXNnMQ==").await;
    let first = bobs.message().await;
    assert_eq!(first["messageId"], id);
    bobs.confirm(&first).await;
    let id = owner.sent("*", "next", "bXNnMg==").await;
    let second = bobs.message().await;
    assert_eq!(second["messageId"], id, "the order of multicasts is not upset");
    bobs.confirm(&second).await;
    for raw in [&mut owner, &mut bobs] {
        let heard = raw.so_far().await;
        assert!(heard.iter().all(|frame| frame["type"] != "push"), "{heard:?}");
    }
    assert_eq!(bobs_row(&mut owner).await["status"], "idle");
    assert_eq!(one.audit_count("message_sent").await, audited + 2);
    assert!(one.audit_is_valid().await);
    until("it is counted", async || metric(two, "broker_cluster_refused_total").await == 24).await;
}

/// A record that names another member makes nobody that member.
#[tokio::test]
async fn who_writes_redis_enters_no_mesh_and_becomes_no_other() {
    let cluster = Setup::new(2).start().await;
    let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
    let mallory = one.member("mallory").await;
    let key = SecretKey::generate();
    let (session, _) = Raw::session(one, &mallory, &key).await;
    let records = format!("{}:{{{}}}:records", cluster.prefix, one.mesh);
    let mut all = redis::cmd("HGETALL");
    all.arg(&records);
    let kept: Vec<(String, Vec<u8>)> = cluster.redis.query(&all);
    let (presence, sealed) = kept.into_iter().next().expect("mallory's");
    let seals = Seals::new(&cluster.key().await);
    let place = [one.mesh.as_str(), &presence];
    let record = seals.open("record", &place, &sealed).expect("a node wrote it");
    let mut record: Value = rmp_serde::from_slice(record).expect("a record");
    record["member"] = json!(one.owner.id);
    record["member_key"] = json!(one.owner.pubkey());
    let forged = rmp_serde::to_vec_named(&record).expect("plain");
    let guess = ClusterKey { secret: b"guessed".to_vec(), ..cluster.key().await };
    drop(session);
    until("it is in grace", async || cluster.leases() == (0, 1)).await;
    for forged in [forged.clone(), Seals::new(&guess).seal("record", &place, &forged)] {
        let mut set = redis::cmd("HSET");
        set.arg(&records).arg(&presence).arg(forged);
        cluster.redis.query::<u32>(&set);
        let (mut back, _) = Raw::session(two, &mallory, &key).await;
        let refused = back.ask(json!({ "type": "audit_query" })).await;
        assert_eq!(refused["type"], "error", "not the owner: {refused}");
        back.goodbye().await;
    }
}
