//! Who did it, and who is meant: by key and enrolled name. What a session calls itself
//! is its own choice, and nobody else's name.

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::config::Secret;
use claudemesh_broker::store::Role;
use serde_json::json;

use crate::harness::raw::session_hello_frame;
use crate::harness::{Member, Node, Raw, http};

const TOKEN: &str = "an-admin-token-of-more-than-32-characters";

/// A session of that member under a name that it chose.
async fn session_named(node: &Node, member: &Member, name: &str) -> Raw {
    let mut hello = session_hello_frame(&node.mesh, member, &SecretKey::generate());
    hello["displayName"] = json!(name);
    let (raw, ack) = Raw::greet(node, hello).await;
    assert_eq!(ack["type"], "hello_ack", "{ack}");
    raw
}

#[tokio::test]
async fn the_audit_trail_names_members_as_they_are_enrolled() {
    let node = Node::start().await;
    node.member("alice").await;
    let mallory = node.member("mallory").await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    let mut m = session_named(&node, &mallory, "alice").await;
    m.sent("*", "now", "x").await;
    let ask = json!({ "type": "audit_query", "limit": 1, "eventType": "message_sent" });
    let row = owner.ask(ask).await["entries"][0].clone();
    assert_eq!(row["actor"], "mallory", "{row}");
    assert_eq!(row["actorId"], json!(mallory.id), "{row}");
    assert_eq!(row["actorPubkey"], json!(mallory.pubkey()), "{row}");
    assert_eq!(row["sessionName"], "alice", "{row}");
    let listed = owner.ask(json!({ "type": "list_peers" })).await;
    let rows = listed["peers"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["displayName"] == "alice").expect("a row");
    assert_eq!(row["memberName"], "mallory", "{row}");
}

#[tokio::test]
async fn the_admin_api_names_members_as_they_are_enrolled() {
    let node = Node::start_with(|config| {
        config.http.admin_tokens = vec![Secret::new(TOKEN)];
    })
    .await;
    let mallory = node.member("mallory").await;
    session_named(&node, &mallory, "alice").await.sent("*", "now", "x").await;
    let path = format!("/admin/v1/meshes/{}/audit", node.mesh);
    let token = format!("Bearer {TOKEN}");
    let answer = http::request(&node, "GET", &path, &[("authorization", &token)], "").await;
    let body = answer.json();
    let rows = body["rows"].as_array().expect("rows");
    let sent = rows.iter().find(|row| row["event"] == "message_sent").expect("a row");
    assert_eq!((&sent["actorName"], &sent["sessionName"]), (&json!("mallory"), &json!("alice")));
    assert_eq!(sent["actorKey"], json!(&mallory.pubkey().as_str()[..12]));
}

#[tokio::test]
async fn a_ban_by_a_name_that_two_use_bans_nobody() {
    let node = Node::start().await;
    let (alice, mallory) = (node.member("alice").await, node.member("mallory").await);
    let mut owner = Raw::hello(&node, &node.owner).await;
    let mut a = Raw::hello(&node, &alice).await;
    let mut m = session_named(&node, &mallory, "alice").await;
    for verb in ["ban", "kick", "disconnect"] {
        let error = owner.ask(json!({ "type": verb, "target": "alice" })).await;
        assert_eq!(error["code"], "ambiguous", "{verb}: {error}");
        let text = error["message"].as_str().expect("a sentence");
        for member in [&alice, &mallory] {
            assert!(text.contains(&member.pubkey().as_str()[..12]), "{verb}: {text}");
        }
    }
    a.so_far().await;
    m.so_far().await;
    assert_eq!(node.audit_count("member_banned").await, 0);
    assert_eq!(node.audit_count("peer_kicked").await, 0);
    let banned = owner.ask(json!({ "type": "ban", "target": mallory.pubkey() })).await;
    assert_eq!(banned["banned"], "mallory");
    assert_eq!(m.closed().await.0, 4002);
    let kicked = owner.ask(json!({ "type": "disconnect", "target": "alice" })).await;
    assert_eq!(kicked["kicked"], json!(["alice"]), "now only one is called so");
}

#[tokio::test]
async fn a_ban_by_the_name_of_a_session_bans_its_member() {
    let node = Node::start().await;
    let mallory = node.member("mallory").await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    let mut m = session_named(&node, &mallory, "nice").await;
    assert_eq!(owner.ask(json!({ "type": "ban", "target": "nice" })).await["banned"], "mallory");
    assert_eq!(m.closed().await.0, 4002);
}

#[tokio::test]
async fn a_name_is_never_the_beginning_of_anothers_key() {
    let node = Node::start().await;
    let bob = node.member("bob").await;
    // Named as bob's key begins.
    let name = bob.pubkey().as_str()[..4].to_owned();
    let other = node.member_as(&name, Role::Member).await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    let mut b = session_named(&node, &bob, "bob").await;
    let mut o = session_named(&node, &other, &name).await;
    let answer = owner.ask(json!({ "type": "kick", "target": name })).await;
    assert_eq!(answer["kicked"], json!([name]));
    assert_eq!(o.closed().await.0, 4001);
    let digits = bob.pubkey().as_str()[..7].to_owned();
    for verb in ["kick", "ban"] {
        let answer = owner.ask(json!({ "type": verb, "target": digits })).await;
        let nobody = answer["code"] == "not_found" || answer["kicked"] == json!([]);
        assert!(nobody, "seven digits name nobody: {answer}");
    }
    b.so_far().await;
}

#[tokio::test]
async fn an_unban_of_a_name_that_two_had_restores_neither() {
    let node = Node::start().await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    let mut keys = Vec::new();
    for _ in 0..2 {
        let twin = node.member("twin").await;
        owner.ask(json!({ "type": "ban", "target": twin.pubkey() })).await;
        keys.push(twin.pubkey());
    }
    let error = owner.ask(json!({ "type": "unban", "target": "twin" })).await;
    assert_eq!(error["code"], "ambiguous", "{error}");
    let answer = owner.ask(json!({ "type": "unban", "target": keys[1] })).await;
    assert_eq!(answer["unbanned"], "twin");
    let bans = owner.ask(json!({ "type": "list_bans" })).await;
    assert_eq!(bans["bans"][0]["pubkey"], json!(keys[0]));
}
