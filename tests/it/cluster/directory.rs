//! A node's picture of who is in a mesh, while the mesh changes.

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::store::Role;
use serde_json::json;
use sqlx::PgConnection;

use crate::harness::node::new_member;
use crate::harness::postgres::connection;
use crate::harness::raw::session_hello_frame;
use crate::harness::{Cluster, Raw, until};

/// A node that has read the directory and waits for the store hears what changes
/// meanwhile, though nobody of the mesh is there yet.
#[tokio::test]
async fn what_changes_while_a_node_enters_a_mesh_is_seen_there() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { panic!("two nodes") };
    let (changing, hiding) = (one.member("changing").await, one.member("hiding").await);
    let mut changing = Raw::session(one, &changing, &SecretKey::generate()).await.0;
    let mut hiding = Raw::session(one, &hiding, &SecretKey::generate()).await.0;
    let newcomer = two.member("newcomer").await;
    // Frames of all meshes come one after the other: in this one it is seen how
    // far the other node has read.
    let (elsewhere, owner) = one.another_mesh("elsewhere").await;
    let mut marks = Vec::new();
    for node in [one, two] {
        let member = new_member(&one.store, &elsewhere, &owner, "mark", Role::Member).await;
        let hello = session_hello_frame(&elsewhere, &member, &SecretKey::generate());
        marks.push(Raw::greet(node, hello).await.0);
    }
    let [tells, hears] = &mut marks[..] else { panic!("two of them") };

    // The last thing that it reads.
    let mut holder = connection(cluster.database()).await;
    sqlx::raw_sql("begin; lock table mesh.audit_log in access exclusive mode")
        .execute(&mut holder)
        .await
        .expect("locked");
    let entering = async {
        let mut newcomer = Raw::session(two, &newcomer, &SecretKey::generate()).await.0;
        newcomer.ask(json!({ "type": "list_peers" })).await
    };
    let meanwhile = async {
        until("the node has read the directory", async || {
            waits_for_the_audit_log(&mut holder).await
        })
        .await;
        changing.ask(json!({ "type": "set_summary", "summary": "changed" })).await;
        hiding.ask(json!({ "type": "set_visible", "visible": false })).await;
        tells.ask(json!({ "type": "set_visible", "visible": false })).await;
        hears.event("peer_hidden").await;
        sqlx::raw_sql("rollback").execute(&mut holder).await.expect("unlocked");
    };
    let (listed, ()) = tokio::join!(entering, meanwhile);
    let peers = listed["peers"].as_array().expect("a list");
    assert!(peers.iter().any(|peer| peer["summary"] == "changed"), "{listed}");
    assert!(peers.iter().all(|peer| peer["displayName"] != "hiding"), "{listed}");
}

async fn waits_for_the_audit_log(connection: &mut PgConnection) -> bool {
    let waiting =
        "select from pg_locks where not granted and relation = 'mesh.audit_log'::regclass";
    sqlx::query(waiting).fetch_optional(connection).await.expect("an answer").is_some()
}
