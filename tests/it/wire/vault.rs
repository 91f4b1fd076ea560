//! The vault: what a member keeps for itself, as its sessions see it.

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::limits;
use claudemesh_broker::store::Role;
use serde_json::{Value, json};

use crate::harness::{Cluster, Node, Raw};

fn entry(key: &str, ciphertext: &str) -> Value {
    json!({ "type": "vault_set", "key": key, "ciphertext": ciphertext, "nonce": "bg==",
        "sealed_key": "c2s=", "entry_type": "env" })
}

/// An answer without what differs from run to run.
fn plain(mut answer: Value) -> Value {
    answer.as_object_mut().expect("a frame").remove("_reqId");
    answer
}

#[tokio::test]
async fn an_entry_is_kept_listed_and_given_back_in_the_shapes_of_older_brokers() {
    let node = Node::start().await;
    let mut bob = Raw::hello(&node, &node.member("bob").await).await;
    let stored = bob.ask(entry("K", "Yw==")).await;
    assert_eq!(plain(stored), json!({ "type": "vault_ack", "key": "K", "action": "stored" }));
    let mut listed = plain(bob.ask(json!({ "type": "vault_list" })).await);
    let updated = listed["entries"][0]["updated_at"].take();
    assert_eq!(updated.as_str().map(str::len), Some(24), "{updated}");
    let line = json!({ "key": "K", "entry_type": "env", "mount_path": null, "description": null,
        "updated_at": null });
    assert_eq!(listed, json!({ "type": "vault_list_result", "entries": [line] }));
    let got = bob.ask(json!({ "type": "vault_get", "keys": ["K", "none"] })).await;
    let sealed = json!({ "key": "K", "ciphertext": "Yw==", "nonce": "bg==", "sealed_key": "c2s=",
        "entry_type": "env", "mount_path": null });
    assert_eq!(plain(got), json!({ "type": "vault_get_result", "entries": [sealed] }));
    let none = bob.ask(json!({ "type": "vault_get", "keys": [] })).await;
    assert_eq!(plain(none), json!({ "type": "vault_get_result", "entries": [] }));
    for action in ["deleted", "not_found"] {
        let gone = bob.ask(json!({ "type": "vault_delete", "key": "K" })).await;
        assert_eq!(plain(gone), json!({ "type": "vault_ack", "key": "K", "action": action }));
    }
}

#[tokio::test]
async fn nobody_else_sees_it_or_is_told_of_it() {
    let node = Node::start().await;
    let admin = node.member_as("ada", Role::Admin).await;
    let mut bob = Raw::hello(&node, &node.member("bob").await).await;
    let mut ada = Raw::hello(&node, &admin).await;
    ada.so_far().await;
    bob.ask(entry("K", "Yw==")).await;
    assert_eq!(ada.ask(json!({ "type": "vault_list" })).await["entries"], json!([]));
    let got = ada.ask(json!({ "type": "vault_get", "keys": ["K"] })).await;
    assert_eq!(got["entries"], json!([]));
    let gone = ada.ask(json!({ "type": "vault_delete", "key": "K" })).await;
    assert_eq!(gone["action"], "not_found");
    assert_eq!(ada.so_far().await, Vec::<Value>::new());
    let rows = ada.ask(json!({ "type": "audit_query", "eventType": "vault_set" })).await;
    assert_eq!(rows["total"], 1, "{rows}");
    assert!(!rows.to_string().contains("Yw=="), "{rows}");
}

#[tokio::test]
async fn what_is_too_long_is_refused_and_what_fits_comes_in_pages() {
    let node = Node::start_with(|config| {
        config.message.message_bytes_max = limits::MESSAGE_BYTES_MAX_CEILING;
    })
    .await;
    let mut bob = Raw::hello(&node, &node.member("bob").await).await;
    let max = limits::VALUE_BYTES_MAX;
    for (field, value) in [
        ("ciphertext", json!("x".repeat(max + 1))),
        ("nonce", json!("x".repeat(limits::VAULT_TEXT_BYTES_MAX + 1))),
        ("key", json!("x".repeat(limits::SHARED_NAME_BYTES_MAX + 1))),
        ("key", json!("")),
        ("sealed_key", json!("")),
        ("entry_type", json!("planet")),
    ] {
        let mut frame = entry("K", "Yw==");
        frame[field] = value;
        let refused = bob.ask(frame).await;
        assert_eq!(refused["code"], "invalid_argument", "{field}");
    }
    let keys: Vec<String> = (0..40).map(|n| format!("{n:02}")).collect();
    for key in &keys {
        bob.ask(entry(key, &"x".repeat(max))).await;
    }
    let (mut seen, mut pages) = (Vec::new(), 0);
    let mut ask = json!({ "type": "vault_get", "keys": keys });
    loop {
        let page = bob.ask(ask.clone()).await;
        assert!(page.to_string().len() <= limits::ANSWER_BYTES_MAX);
        pages += 1;
        let entries = page["entries"].as_array().expect("entries");
        seen.extend(entries.iter().map(|entry| entry["key"].as_str().expect("a key").to_owned()));
        if page["more"] != true {
            break;
        }
        ask["cursor"] = page["cursor"].clone();
    }
    assert!(pages > 1 && seen == keys, "{pages} {seen:?}");
    let many = vec!["k"; limits::SHARED_NAMES_MAX + 1];
    let refused = bob.ask(json!({ "type": "vault_get", "keys": many })).await;
    assert_eq!(refused["code"], "invalid_argument");
}

#[tokio::test]
async fn on_every_node_it_is_the_same() {
    let cluster = Cluster::start(3).await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let bob = one.member("bob").await;
    let session = async |node: &Node| Raw::session(node, &bob, &SecretKey::generate()).await.0;
    let mut first = session(one).await;
    let (mut second, mut third) = (session(two).await, session(three).await);
    first.ask(entry("K", "Yw==")).await;
    let got = second.ask(json!({ "type": "vault_get", "keys": ["K"] })).await;
    assert_eq!(got["entries"][0]["ciphertext"], "Yw==");
    let gone = third.ask(json!({ "type": "vault_delete", "key": "K" })).await;
    assert_eq!(gone["action"], "deleted");
    assert_eq!(first.ask(json!({ "type": "vault_list" })).await["entries"], json!([]));
}
