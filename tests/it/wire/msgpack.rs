//! The MessagePack subprotocol: the same messages, sealed bytes as bytes.

use claudemesh_broker::codec::{JSON_SUBPROTOCOL, MSGPACK_SUBPROTOCOL};
use futures_util::SinkExt as _;
use serde::Serialize;
use serde_bytes::Bytes;
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::harness::msgpack::Packed;
use crate::harness::raw::hello_frame;
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
    client_message_id: &'static str,
}

fn send<'a>(target_spec: &'a str, nonce: &'a [u8], ciphertext: &'a [u8]) -> Send<'a> {
    Send {
        r#type: "send",
        id: "packed",
        target_spec,
        priority: "next",
        nonce: Bytes::new(nonce),
        ciphertext: Bytes::new(ciphertext),
        client_message_id: "packed-1",
    }
}

/// How the harness shows bytes.
fn bytes(bytes: &[u8]) -> Value {
    json!({ "$bytes": hex::encode(bytes) })
}

/// The next message; system events are passed over.
async fn message(packed: &mut Packed) -> Value {
    loop {
        let push = packed.hear("push").await;
        if push["subtype"] != "system" {
            return push;
        }
    }
}

#[tokio::test]
async fn the_subprotocol_is_agreed_or_it_is_json() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let both = format!("{JSON_SUBPROTOCOL}, {MSGPACK_SUBPROTOCOL}");
    for (wanted, agreed) in [(JSON_SUBPROTOCOL, JSON_SUBPROTOCOL), (&both, MSGPACK_SUBPROTOCOL)] {
        let mut request = node.url().into_client_request().expect("a URL");
        let header = wanted.parse().expect("a header");
        request.headers_mut().insert("sec-websocket-protocol", header);
        let (socket, response) = connect_async(request).await.expect("an upgrade");
        assert_eq!(response.headers()["sec-websocket-protocol"], agreed, "{wanted}");
        if agreed == JSON_SUBPROTOCOL {
            let mut raw = Raw::of(socket);
            raw.say(hello_frame(&node.mesh, &alice)).await;
            raw.hear("hello_ack").await;
        }
    }
}

#[tokio::test]
async fn nonce_and_ciphertext_are_bytes_there_and_text_elsewhere() {
    let node = Node::start().await;
    let (alice, bob, carol) =
        (node.member("alice").await, node.member("bob").await, node.member("carol").await);
    let mut packed = Packed::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    let mut other = Packed::hello(&node, &carol).await;
    let (nonce, sealed): (Vec<u8>, Vec<u8>) = ((0..24).collect(), (0..=255).collect());

    packed.say(&send(bob.pubkey().as_str(), &nonce, &sealed)).await;
    let ack = packed.hear("ack").await;
    assert_eq!((&ack["id"], &ack["queued"]), (&json!("packed"), &json!(true)));
    let push = b.message().await;
    assert_eq!(push["messageId"], ack["messageId"]);
    assert_eq!(push["nonce"], "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX");
    assert!(push["ciphertext"].as_str().expect("text").starts_with("AAECAwQF"));
    assert_eq!(push["client_message_id"], "packed-1");

    for target in [alice.pubkey().as_str(), "*"] {
        let id = b.sent(target, "now", "/+7dzLuqmYh3ZlVEMyIRAA==").await;
        let mut hears = vec![&mut packed];
        if target == "*" {
            hears.push(&mut other);
        }
        for raw in hears {
            let push = message(raw).await;
            assert_eq!(push["messageId"], id.as_str());
            assert_eq!(push["nonce"], bytes(b"nonce"));
            let sealed: Vec<u8> = (0..16).rev().map(|digit| digit * 0x11).collect();
            assert_eq!(push["ciphertext"], bytes(&sealed));
            assert_eq!(push["senderPubkey"], json!(bob.pubkey()));
            raw.say(&json!({ "type": "client_ack", "brokerMessageId": id })).await;
        }
    }
    let id = b.sent(alice.pubkey().as_str(), "next", "no base64, carried as it is").await;
    let push = message(&mut packed).await;
    assert_eq!(push["messageId"], id.as_str());
    assert_eq!(push["ciphertext"], "no base64, carried as it is");
}

#[tokio::test]
async fn what_was_kept_comes_in_the_coding_of_who_comes() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut packed = Packed::hello(&node, &alice).await;
    packed.say(&send(bob.pubkey().as_str(), b"nonce", b"\xff\x00sealed")).await;
    packed.hear("ack").await;
    let mut b = Packed::hello(&node, &bob).await;
    assert_eq!(message(&mut b).await["ciphertext"], bytes(b"\xff\x00sealed"));
}

#[tokio::test]
async fn requests_answers_and_events_are_the_same_in_both() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut packed = Packed::hello(&node, &alice).await;
    packed.say(&json!({ "type": "list_peers", "_reqId": "r1" })).await;
    let peers = packed.hear("peers_list").await;
    assert_eq!(
        (&peers["_reqId"], &peers["peers"][0]["displayName"]),
        (&json!("r1"), &json!("alice"))
    );
    packed.say(&json!({ "type": "nonsense", "_reqId": 7 })).await;
    let error = packed.hear("error").await;
    assert_eq!((&error["_reqId"], &error["code"]), (&json!(7), &json!("unknown_type")));
    let _b = Raw::hello(&node, &bob).await;
    let event = packed.hear("push").await;
    assert_eq!(
        (&event["event"], &event["eventData"]["name"]),
        (&json!("peer_joined"), &json!("bob"))
    );
}

#[tokio::test]
async fn text_over_it_is_json_and_noise_is_malformed() {
    let node = Node::start().await;
    let mut packed = Packed::hello(&node, &node.member("alice").await).await;
    let text = json!({ "type": "list_peers", "_reqId": "text" }).to_string();
    packed.socket.send(Message::text(text)).await.expect("open");
    assert_eq!(packed.hear("peers_list").await["_reqId"], "text", "answered as agreed");
    let deep = [vec![0x81, 0xa1, b'x'], vec![0x91; 60_000], vec![0xc0]].concat();
    let announces_much = vec![0xdf, 0xff, 0xff, 0xff, 0xff];
    let long_text = vec![0x81, 0xdb, 0xff, 0xff, 0xff, 0xf0];
    let json = b"{\"type\":\"list_peers\"}".to_vec();
    for noise in [vec![], vec![0xc1], vec![0x90], vec![0xc0], deep, announces_much, long_text, json]
    {
        let shown = format!("{:x?}", &noise[..noise.len().min(8)]);
        packed.socket.send(Message::binary(noise)).await.expect("open");
        assert_eq!(packed.hear("error").await["code"], "malformed", "{shown}");
    }
    packed.say(&json!({ "type": "list_peers" })).await;
    packed.hear("peers_list").await;
}

#[tokio::test]
async fn what_fits_as_bytes_is_taken_though_it_is_longer_as_text() {
    let node = Node::start_with(|config| config.message.message_bytes_max = 2048).await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut packed = Packed::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    packed.say(&send(bob.pubkey().as_str(), b"", &[0; 1800])).await;
    assert_eq!(packed.hear("ack").await["queued"], true);
    assert_eq!(b.message().await["ciphertext"], "A".repeat(2400));
}
