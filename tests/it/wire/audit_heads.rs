//! What members are shown of the audit chain.

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::config::{AuditKeySource, Secret};
use serde_json::{Value, json};

use crate::harness::{Node, Raw, until};

#[tokio::test]
async fn a_hello_shows_the_newest_signed_head_and_its_row_can_be_asked_for() {
    let seed = "5a".repeat(32);
    let public = SecretKey::from_seed_hex(&seed).expect("a seed").public_key();
    let node = Node::start_with(|config| {
        config.audit.key = Some(AuditKeySource::Seed(Secret::new(seed)));
        config.audit.head_ms = 100;
    })
    .await;
    let bob = node.member("bob").await;
    let mut head = Value::Null;
    until("a head is shown", async || {
        let (_bob, ack) = Raw::hello_with(&node, &bob, |_| {}).await;
        head = ack["auditHead"].clone();
        !head.is_null()
    })
    .await;
    assert_eq!(head["publicKey"], public.as_str());
    let mut socket = Raw::hello(&node, &bob).await;
    let row = socket.ask(json!({"type": "audit_row", "rowId": head["rowId"]})).await;
    assert_eq!(row["type"], "audit_row_result", "for an ordinary member: {row}");
    assert_eq!((&row["hash"], &row["nameHash"]), (&head["hash"], &head["nameHash"]));
    let fields = row.as_object().expect("an object").keys().collect::<Vec<_>>();
    assert!(!fields.iter().any(|field| *field == "payload" || *field == "actor"), "{fields:?}");
    for nowhere in [-1, 0, i64::MAX] {
        let row = socket.ask(json!({"type": "audit_row", "rowId": nowhere})).await;
        assert_eq!((&row["rowId"], row.get("hash")), (&json!(nowhere), None), "{row}");
    }
}

#[tokio::test]
async fn a_hello_shows_nothing_where_nobody_signs() {
    let node = Node::start().await;
    let bob = node.member("bob").await;
    let (_bob, ack) = Raw::hello_with(&node, &bob, |_| {}).await;
    assert_eq!(ack.get("auditHead"), None, "{ack}");
}
