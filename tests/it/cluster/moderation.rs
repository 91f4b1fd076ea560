//! Who ends a session of another node, and in which words.

use claudemesh_broker::auth::SecretKey;
use serde_json::json;

use crate::harness::{Cluster, Raw, until};

#[tokio::test]
async fn a_live_session_of_another_node_is_never_stale() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let owner = one.owner.clone();
    let (bob, carol) = (one.member("bob").await, one.member("carol").await);
    let mut admin = Raw::hello(one, &owner).await;
    let mut b = Raw::hello(two, &bob).await;
    let c = Raw::hello(two, &carol).await;
    let peers = async |admin: &mut Raw| {
        let listed = admin.ask(json!({ "type": "list_peers" })).await;
        listed["peers"].as_array().expect("rows").len()
    };
    until("all are seen", async || peers(&mut admin).await == 3).await;
    // Whoever is in grace is not heard of: that one goes, the other stays.
    c.goodbye().await;
    let mut gone = Vec::new();
    until("the one in grace is stale", async || {
        let answer = admin.ask(json!({ "type": "disconnect", "stale": 1 })).await;
        gone.extend(answer["affected"].as_array().expect("names").clone());
        gone.contains(&json!("carol"))
    })
    .await;
    assert_eq!(gone, [json!("carol")]);
    assert_eq!(b.ask(json!({ "type": "list_peers" })).await["type"], "peers_list");
    assert_eq!(peers(&mut admin).await, 2);
}

#[tokio::test]
async fn a_claim_of_a_session_key_ends_in_the_same_words_on_every_node() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (alice, bob) = (one.member("alice").await, one.member("bob").await);
    let mut a = Raw::hello(one, &alice).await;
    for node in [one, two] {
        let key = SecretKey::generate();
        let (mut claims, _) = Raw::hello_with(node, &alice, |hello| {
            hello["sessionPubkey"] = json!(key.public_key());
            hello["sessionId"] = json!("claims");
        })
        .await;
        until("the first node knows", async || {
            let listed = a.ask(json!({ "type": "list_peers" })).await;
            let rows = listed["peers"].as_array().expect("rows");
            rows.iter().any(|row| row["pubkey"] == json!(key.public_key()))
        })
        .await;
        let (_proven, _) = Raw::session(one, &bob, &key).await;
        assert_eq!(claims.closed().await, (1008, "bad_session_pubkey".to_owned()));
    }
}
