//! What a ban ends: everything by which a member could still speak, on every node.

use claudemesh_broker::store::Role;
use serde_json::{Value, json};

use crate::harness::{Node, Raw, Setup};
use crate::wire::accounts::{SERVICE, call, token_of};
use crate::wire::api;

/// What the account's token still reaches of the mesh: its place in the list of meshes,
/// and what only members may read, change and hand on.
async fn reached(node: &Node, token: &str) -> (bool, [u16; 3]) {
    let mine = call(node, "GET", "/api/my/meshes", token, Value::Null).await;
    assert_eq!(mine.status, 200, "the account itself is not banned: {mine:?}");
    let is_listed = mine.body.contains(node.mesh.as_str());
    let read = call(node, "GET", "/cli/mesh/test/permissions", token, Value::Null).await;
    let grants = json!({ "grants": {} });
    let change = call(node, "POST", "/cli/mesh/test/grants", token, grants).await;
    let invite = call(node, "POST", "/cli/mesh/test/invite", token, json!({})).await;
    (is_listed, [read, change, invite].map(|reply| reply.status))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_members_keys_and_tokens_end_on_every_node_with_its_sockets() {
    let cluster = Setup::new(3).set("ACCOUNTS", "on").set("SERVICE_TOKEN", SERVICE).start().await;
    let nodes = &cluster.nodes;
    let bob = nodes[0].member_as("bob", Role::Admin).await;
    let token = token_of(&nodes[0], "bob").await;
    cluster.sql("update mesh.member set user_id = 'bob' where display_name = 'bob'").await;
    let mut owner = Raw::hello(&nodes[1], &nodes[1].owner).await;
    let (mut sockets, mut keys) = (Vec::new(), Vec::new());
    for (n, node) in nodes.iter().enumerate() {
        let named = |hello: &mut Value| hello["sessionId"] = json!(format!("bob {n}"));
        let mut raw = Raw::hello_with(node, &bob, named).await.0;
        keys.push(api::reading_key(&mut raw).await);
        sockets.push(raw);
    }
    let by_keys = async || {
        let mut statuses = Vec::new();
        for node in nodes {
            for key in &keys {
                statuses.push(api::call(node, "/api/v1/members", key).await.status);
            }
        }
        statuses
    };
    assert_eq!(by_keys().await, [200; 9]);
    for node in nodes {
        let (is_listed, statuses) = reached(node, &token).await;
        assert!(is_listed && statuses[..2] == [200, 200], "{statuses:?}");
    }
    let banned = owner.ask(json!({ "type": "ban", "target": "bob" })).await;
    assert_eq!(banned["type"], "ban_ack");
    // Not after a while: from the answer on.
    assert_eq!(by_keys().await, [401; 9]);
    for node in nodes {
        assert_eq!(reached(node, &token).await, (false, [403, 403, 403]));
    }
    for (node, mut raw) in nodes.iter().zip(sockets) {
        assert_eq!(raw.closed().await, (4002, "banned".to_owned()));
        let hello = crate::harness::raw::hello_frame(&node.mesh, &bob);
        assert_eq!(Raw::refused(node, hello).await.0["code"], "revoked");
    }
}
