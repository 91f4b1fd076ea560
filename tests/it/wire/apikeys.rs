//! API keys, as sessions make, list and revoke them.

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::limits;
use claudemesh_broker::store::Role;
use serde_json::{Value, json};

use crate::harness::{Node, Raw};

/// An answer without what differs from run to run.
fn plain(mut answer: Value) -> Value {
    answer.as_object_mut().expect("a frame").remove("_reqId");
    answer
}

fn create(capabilities: &Value) -> Value {
    json!({ "type": "apikey_create", "label": "ci", "capabilities": capabilities })
}

#[tokio::test]
async fn a_key_is_made_listed_and_revoked_in_the_shapes_of_older_brokers() {
    let node = Node::start().await;
    let mut bob = Raw::hello(&node, &node.member("bob").await).await;
    let mut made = plain(bob.ask(create(&json!(["send", "read"]))).await);
    let [id, secret, at] = ["id", "secret", "createdAt"].map(|field| made[field].take());
    let (id, secret) = (id.as_str().expect("an id"), secret.as_str().expect("a secret"));
    assert!(id.len() == 32 && secret.len() == 46 && secret.starts_with("cm_"), "{id} {secret}");
    let expected = json!({ "type": "apikey_created", "id": null, "secret": null, "label": "ci",
        "prefix": secret[..11], "capabilities": ["read", "send"], "topicScopes": null,
        "createdAt": null });
    assert_eq!(made, expected);
    let listed = plain(bob.ask(json!({ "type": "apikey_list" })).await);
    let line = json!({ "id": id, "label": "ci", "prefix": secret[..11],
        "capabilities": ["read", "send"], "topicScopes": null, "createdAt": at,
        "lastUsedAt": null, "revokedAt": null, "expiresAt": null, "issuedBy": "bob" });
    assert_eq!(listed, json!({ "type": "apikey_list_response", "keys": [line] }));
    assert!(!listed.to_string().contains(secret));
    for _ in 0..2 {
        let revoked = bob.ask(json!({ "type": "apikey_revoke", "id": id[..8] })).await;
        let expected = json!({ "type": "apikey_revoke_response", "status": "revoked", "id": id });
        assert_eq!(plain(revoked), expected);
    }
    for unknown in ["zzz", "%", "_"] {
        let gone = bob.ask(json!({ "type": "apikey_revoke", "id": unknown })).await;
        let expected = json!({ "type": "apikey_revoke_response", "status": "not_found" });
        assert_eq!(plain(gone), expected);
    }
    let listed = bob.ask(json!({ "type": "apikey_list" })).await;
    assert!(listed["keys"][0]["revokedAt"].is_string(), "{listed}");
}

#[tokio::test]
async fn what_begins_more_than_one_id_is_not_unique() {
    let node = Node::start().await;
    let mut bob = Raw::hello(&node, &node.member("bob").await).await;
    // Of seventeen ids two begin alike.
    let mut first = std::collections::HashSet::new();
    let alike = loop {
        let made = bob.ask(create(&json!(["read"]))).await;
        let digit = made["id"].as_str().expect("an id")[..1].to_owned();
        if !first.insert(digit.clone()) {
            break digit;
        }
    };
    let answer = bob.ask(json!({ "type": "apikey_revoke", "id": alike })).await;
    let expected =
        json!({ "type": "apikey_revoke_response", "status": "not_unique", "matches": 2 });
    assert_eq!(plain(answer), expected);
}

#[tokio::test]
async fn a_key_of_the_wrong_shape_is_not_made() {
    let node = Node::start().await;
    let mut bob = Raw::hello(&node, &node.member("bob").await).await;
    for (field, value, code) in [
        ("label", json!(""), "invalid_args"),
        ("label", json!("x".repeat(limits::SHARED_NAME_BYTES_MAX + 1)), "invalid_argument"),
        ("capabilities", json!([]), "invalid_args"),
        ("capabilities", json!(["everything"]), "invalid_argument"),
        ("capabilities", json!(["admin"]), "forbidden"),
        ("topicScopes", json!(vec!["t"; limits::SHARED_NAMES_MAX + 1]), "invalid_argument"),
        ("topicScopes", json!([""]), "invalid_argument"),
        ("expiresAt", json!("some day"), "invalid_args"),
        ("expiresAt", json!("2020-01-01"), "invalid_args"),
    ] {
        let mut ask = create(&json!(["read"]));
        ask[field] = value;
        let refused = bob.ask(ask.clone()).await;
        assert_eq!(refused["code"], code, "{ask}");
        assert!(!refused.to_string().contains("cm_"), "{refused}");
    }
    let text = "label and at least one capability required";
    assert_eq!(bob.ask(json!({ "type": "apikey_create" })).await["message"], text);
    assert_eq!(bob.ask(json!({ "type": "apikey_revoke" })).await["message"], "id required");
    assert_eq!(bob.ask(json!({ "type": "apikey_list" })).await["keys"], json!([]));
    let at = Timestamp::now().plus_ms(60_000);
    let mut ask = create(&json!(["read", "read"]));
    ask["expiresAt"] = json!(at);
    ask["topicScopes"] = json!(["deploys"]);
    let made = bob.ask(ask).await;
    assert_eq!(made["expiresAt"], json!(at));
    assert_eq!(
        (&made["capabilities"], &made["topicScopes"]),
        (&json!(["read"]), &json!(["deploys"]))
    );
}

#[tokio::test]
async fn members_see_and_revoke_their_own_keys_and_admins_all() {
    let node = Node::start().await;
    let admin = node.member_as("ada", Role::Admin).await;
    let mut ada = Raw::hello(&node, &admin).await;
    let mut bob = Raw::hello(&node, &node.member("bob").await).await;
    let mut eve = Raw::hello(&node, &node.member("eve").await).await;
    let made = bob.ask(create(&json!(["read"]))).await;
    let id = made["id"].as_str().expect("an id");
    assert_eq!(ada.ask(create(&json!(["admin"]))).await["type"], "apikey_created");
    assert_eq!(eve.ask(json!({ "type": "apikey_list" })).await["keys"], json!([]));
    let revoke = json!({ "type": "apikey_revoke", "id": id });
    assert_eq!(eve.ask(revoke.clone()).await["status"], "not_found");
    let listed = ada.ask(json!({ "type": "apikey_list" })).await;
    assert_eq!(listed["keys"].as_array().map(Vec::len), Some(2));
    assert!(!listed.to_string().contains(made["secret"].as_str().expect("a secret")));
    assert_eq!(
        bob.ask(json!({ "type": "apikey_list" })).await["keys"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(ada.ask(revoke).await["status"], "revoked");
    let rows = ada.ask(json!({ "type": "audit_query", "eventType": "apikey_revoked" })).await;
    assert_eq!(rows["entries"][0]["payload"], json!({ "keyId": id }), "{rows}");
}
