//! What somebody puts into Redis who is no node: it is not heard, not listed and
//! not believed.

use claudemesh_broker::cluster::redis::seals::{ClusterKey, Seals};
use claudemesh_broker::cluster::{Cluster, NodeRecord};
use serde_json::json;

use super::bus::pair;
use super::*;
use crate::harness::frames::EVIL;

fn other_key() -> ClusterKey {
    ClusterKey { secret: b"guessed".to_vec(), ..test_key() }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_no_node_signed_are_not_heard() {
    let server = PrivateRedis::start();
    let (mut first, mut second, mesh) = pair(&server, false).await;
    let channel = format!("{PREFIX}:{{{mesh}}}:bus");
    let bodies = [
        json!({"kind": "mail_for", "keys": ["666"]}),
        json!({"kind": "members_changed"}),
        json!({"kind": "close", "presence": "p", "close": "kicked"}),
        json!({"kind": "ended", "presence": "p"}),
    ];
    let controls =
        [json!({"kind": "joined"}), json!({"kind": "here", "lost": true}), json!({"kind": "left"})];
    let beats = json!({"kind": "beats", "last": [[mesh.as_str(), 99]]});
    for key in [None, Some(&other_key())] {
        let mut seq = 0;
        let mut next = || {
            seq += 1;
            seq
        };
        for body in &bodies {
            EVIL.says(&server, &channel, next(), (Some(body), None), key);
        }
        for control in &controls {
            EVIL.says(&server, &channel, next(), (None, Some(control)), key);
        }
        EVIL.says(&server, &format!("{PREFIX}:beats"), next(), (None, Some(&beats)), key);
    }
    // What nodes say after it is all that is heard, without a gap.
    first.cluster.publish(&mesh, &numbered(1));
    assert_eq!(second.numbers(1).await, [1]);
    second.cluster.publish(&mesh, &numbered(2));
    assert_eq!(first.numbers(1).await, [2]);
    assert_eq!(second.cluster.refused(), 16);

    // The right key is of no use on another channel, and a node hears it there.
    let other = format!("{PREFIX}:{{{}}}:bus", MeshId::generate());
    let body = Some(&bodies[0]);
    let key = test_key();
    EVIL.says(&server, &other, 1, (body, None), Some(&key));
    EVIL.says(&server, &channel, 1, (body, None), Some(&key));
    assert_eq!(second.numbers(1).await, [666]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_put_on_the_bus_again_is_not_heard_again() {
    let server = PrivateRedis::start();
    let (first, mut second, mesh) = pair(&server, false).await;
    let channel = format!("{PREFIX}:{{{mesh}}}:bus");
    let client = redis::Client::open(server.url().expose()).unwrap();
    let mut listener = client.get_async_pubsub().await.unwrap();
    listener.subscribe(&channel).await.unwrap();
    let mut frames = listener.on_message();
    first.cluster.publish(&mesh, &numbered(1));
    assert_eq!(second.numbers(1).await, [1]);
    let frame = futures_util::StreamExt::next(&mut frames).await.unwrap();
    let mut again = redis::cmd("PUBLISH");
    again.arg(&channel).arg(frame.get_payload_bytes());
    server.query::<u32>(&again);
    first.cluster.publish(&mesh, &numbered(2));
    assert_eq!(second.numbers(1).await, [2]);
    assert_eq!(second.cluster.refused(), 0, "a node signed it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_no_node_signed_is_not_listed() {
    let server = PrivateRedis::start();
    let first = node(&server, "first").await;
    let mesh = MeshId::generate();
    let [ada, bob] = [session(&mesh, "ada", "first"), session(&mesh, "bob", "first")];
    enter(&first, &ada, 10).await.unwrap();
    enter(&first, &bob, 10).await.unwrap();
    let records = format!("{PREFIX}:{{{mesh}}}:records");
    let mut get = redis::cmd("HGET");
    get.arg(&records).arg(ada.id.as_str());
    let sealed: Vec<u8> = server.query(&get);
    let forged = PresenceRecord { display_name: "owner".to_owned(), ..bob.clone() };
    let forged = rmp_serde::to_vec_named(&forged).unwrap();
    let guessed = Seals::new(&other_key());
    let place = [mesh.as_str(), bob.id.as_str()];
    // As it once was, signed by a guess, and another's, whole.
    for record in [forged.clone(), guessed.seal("record", &place, &forged), sealed] {
        let mut set = redis::cmd("HSET");
        set.arg(&records).arg(bob.id.as_str()).arg(record);
        server.query::<u32>(&set);
        let listed = first.cluster.directory(&mesh).await.unwrap();
        let names: Vec<_> = listed.iter().map(|row| row.display_name.as_str()).collect();
        assert_eq!(names, ["ada"]);
        assert_eq!(first.cluster.leases(&mesh).await.unwrap().len(), 1);
    }
    assert!(first.cluster.refused() >= 6);
    // Its session does not get it back: it begins anew.
    let again = enter(&first, &session(&mesh, "bob", "first"), 10).await.unwrap();
    assert_ne!(again.lease.presence, bob.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_not_led_to_the_presence_of_another() {
    let server = PrivateRedis::start();
    let first = node(&server, "first").await;
    let mesh = MeshId::generate();
    let [owner, mallory] = ["owner", "mallory"].map(|name| session(&mesh, name, "first"));
    enter(&first, &owner, 10).await.unwrap();
    let mut lead = redis::cmd("HSET");
    lead.arg(format!("{PREFIX}:{{{mesh}}}:sessions"));
    lead.arg(mallory.identity().as_str()).arg(owner.id.as_str());
    server.query::<u32>(&lead);
    let entered = enter(&first, &mallory, 10).await.unwrap();
    assert_eq!(entered.lease.presence, mallory.id);
    assert_eq!(entered.record.display_name, "mallory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_none_is_not_shown_takes_no_share_and_is_told_of() {
    let server = PrivateRedis::start();
    let first = node(&server, "first").await;
    let record = |id: &str| -> NodeRecord { serde_json::from_value(json!({ "id": id })).unwrap() };
    first.cluster.announce_node(&record("first"), 60_000).await.unwrap();
    let origin = "0000000000000001:evil";
    let entries = [origin.to_owned(), format!("{}:{origin}", "0".repeat(64))];
    for entry in &entries {
        let mut add = redis::cmd("ZADD");
        add.arg(format!("{PREFIX}:nodes")).arg(i64::MAX).arg(entry);
        server.query::<u32>(&add);
    }
    let packed = rmp_serde::to_vec_named(&record("evil")).unwrap();
    let mut set = redis::cmd("SET");
    set.arg(format!("{PREFIX}:node:{origin}")).arg(packed);
    server.query::<()>(&set);
    until_health(&first, ClusterHealth::Degraded).await;
    assert!(first.cluster.trouble().unwrap().contains("CLUSTER_SECRET"));
    let shown = first.cluster.nodes().await.unwrap();
    assert_eq!(shown.iter().map(|node| node.id.as_str()).collect::<Vec<_>>(), ["first"]);
    // A record that is not the node's own word.
    let mut own = redis::cmd("KEYS");
    own.arg(format!("{PREFIX}:node:*:first"));
    let own: Vec<String> = server.query(&own);
    let mut set = redis::cmd("SET");
    set.arg(&own[0]).arg(rmp_serde::to_vec_named(&record("other")).unwrap());
    server.query::<()>(&set);
    assert!(first.cluster.nodes().await.unwrap().is_empty());
    for entry in &entries {
        let mut remove = redis::cmd("ZREM");
        remove.arg(format!("{PREFIX}:nodes")).arg(entry);
        server.query::<u32>(&remove);
    }
    until_health(&first, ClusterHealth::Up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hooks_word_that_no_node_signed_is_not_taken() {
    let server = PrivateRedis::start();
    let first = node(&server, "first").await;
    first.cluster.put_pending_status(7, "/work", Status::Dnd).await.unwrap();
    let mut keys = redis::cmd("KEYS");
    keys.arg(format!("{PREFIX}:pending:*"));
    let keys: Vec<String> = server.query(&keys);
    let mut set = redis::cmd("SET");
    set.arg(&keys[0]).arg("working");
    server.query::<()>(&set);
    assert_eq!(first.cluster.take_pending_status(7, "/work").await.unwrap(), None);
}
