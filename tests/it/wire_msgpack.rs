//! The MessagePack subprotocol.

use serde::Serialize;
use serde_bytes::Bytes;
use serde_json::json;

use crate::harness::msgpack::Packed;
use crate::harness::{Node, Raw};

#[derive(Serialize)]
struct Send<'a> {
    r#type: &'static str,
    id: &'static str,
    #[serde(rename = "targetSpec")]
    target_spec: &'a str,
    priority: &'static str,
    nonce: &'a Bytes,
    ciphertext: &'a Bytes,
}

#[tokio::test]
async fn nonce_and_ciphertext_are_bytes_there_and_text_elsewhere() {
    let node = Node::start().await;
    let members = [node.member("alice").await, node.member("bob").await, node.member("eve").await];
    let [alice, bob, eve] = &members;
    let mut a = Packed::hello(&node, alice).await;
    let mut b = Packed::hello(&node, bob).await;
    let mut e = Raw::hello(&node, eve).await;
    let send = Send {
        r#type: "send",
        id: "1",
        target_spec: "*",
        priority: "now",
        nonce: Bytes::new(&[0, 1, 254, 255]),
        ciphertext: Bytes::new(b"ciphertext"),
    };
    a.say(&send).await;
    let ack = a.hear("ack").await;
    assert_eq!((&ack["id"], &ack["queued"]), (&json!("1"), &json!(true)), "{ack}");
    let push = loop {
        let push = b.hear("push").await;
        if push["messageId"] == ack["messageId"] {
            break push;
        }
    };
    assert_eq!(push["nonce"], json!({ "$bytes": "0001feff" }));
    assert_eq!(push["ciphertext"], json!({ "$bytes": hex::encode("ciphertext") }));
    let push = e.message().await;
    assert_eq!(push["messageId"], ack["messageId"]);
    assert_eq!(
        (&push["nonce"], &push["ciphertext"]),
        (&json!("AAH+/w=="), &json!("Y2lwaGVydGV4dA=="))
    );

    let target = bob.pubkey();
    let id = e.sent(target.as_str(), "now", "dGV4dA==").await;
    let push = loop {
        let push = b.hear("push").await;
        if push["messageId"] == id.as_str() {
            break push;
        }
    };
    assert_eq!(push["ciphertext"], json!({ "$bytes": hex::encode("text") }));
}
