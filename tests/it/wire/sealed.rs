//! Messages to groups and to everyone that the broker cannot read.

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::client::{Client, ClientOptions, Inbox, Outgoing, Secrecy, Sent};
use claudemesh_broker::codec::Codec;
use claudemesh_broker::protocol::Priority;
use serde_json::{Value, json};

use crate::harness::{Cluster, Member, Node, Raw, Setup, until};

/// What no file of the broker may hold in any form.
const CANARY: &str = "canary: the launch codes are 8861";

async fn connect(node: &Node, member: &Member) -> (Client, Inbox) {
    let identity = member.identity(&node.mesh);
    let mut options = ClientOptions::session(identity);
    options.about.groups =
        Some(vec![serde_json::from_value(json!({ "name": "dev" })).expect("a group")]);
    node.connect(options).await
}

async fn sends(client: &Client, target: &str, text: &str) -> Sent {
    let message = Outgoing::new(target, Priority::Next, text);
    client.send_sealed(message).await.expect("taken")
}

async fn next(inbox: &mut Inbox) -> (Value, Option<String>) {
    let (push, text) = inbox.message().await.expect("a message");
    let text = text.map(|text| String::from_utf8(text).expect("text"));
    (serde_json::to_value(&push).expect("a push"), text)
}

/// A frame with every field of a sealed message to many, as a raw client sends it.
fn frame(target: &str, keys: Value, beside: Value) -> Value {
    let mut frame = json!({
        "type": "send", "id": "one", "targetSpec": target, "priority": "next",
        "nonce": "bm9uY2U=", "ciphertext": "c2VhbGVk", "client_message_id": "own",
        "sealedKeys": keys, "signature": "ab".repeat(64),
    });
    for (name, value) in beside.as_object().expect("fields") {
        frame[name] = value.clone();
    }
    frame
}

/// A raw session that can open what is sealed.
async fn opens(node: &Node, member: &Member) -> Raw {
    let ask = |hello: &mut Value| hello["capabilities"] = json!(["sealed_multicast"]);
    Raw::hello_with(node, member, ask).await.0
}

async fn said(raw: &mut Raw, frame: Value) -> Value {
    raw.say(frame).await;
    raw.hear("ack").await
}

#[tokio::test]
async fn every_recipient_opens_what_the_broker_cannot_read_on_one_node_and_on_three() {
    for count in [1, 3] {
        let cluster = Cluster::start(count).await;
        let node = |at: usize| &cluster.nodes[at % count];
        let (ada, bob) = (node(0).member("ada").await, node(0).member("bob").await);
        let carol = node(0).member("carol").await;
        let (a, _a) = connect(node(0), &ada).await;
        let (_b, mut b) = connect(node(1), &bob).await;
        let (_c, mut c) = connect(node(2), &carol).await;
        until("all are seen", async || {
            let members = a.list_members().await.expect("members");
            members.iter().filter(|member| member.online && member.sealed).count() == 3
        })
        .await;
        for target in ["*", "@dev"] {
            let sent = sends(&a, target, CANARY).await;
            assert_eq!(sent.secrecy, Secrecy::Sealed, "{target}");
            assert_eq!(sent.ack.unsealed_for, [], "{target}");
            for inbox in [&mut b, &mut c] {
                let (push, text) = next(inbox).await;
                assert_eq!(text.as_deref(), Some(CANARY), "{push}");
                assert_eq!(push["targetSpec"], target);
                assert!(push["sealedKeys"].is_null(), "each gets its own key alone: {push}");
            }
        }
        assert!(node(0).audit_is_valid().await);
    }
}

#[tokio::test]
async fn who_was_away_opens_it_when_it_is_back_on_any_node() {
    for count in [1, 3] {
        let cluster = Setup::new(count).start().await;
        let node = |at: usize| &cluster.nodes[at % count];
        let (ada, bob) = (node(0).member("ada").await, node(0).member("bob").await);
        let (a, _a) = connect(node(0), &ada).await;
        let mut options = ClientOptions::member(bob.identity(&node(1).mesh));
        options.reconnect = false;
        let (b, _inbox) = node(1).connect(options.clone()).await;
        b.abort();
        sends(&a, "*", "while you were away").await;
        let (_b, mut inbox) = node(2).connect(options).await;
        let (push, text) = next(&mut inbox).await;
        assert_eq!(text.as_deref(), Some("while you were away"), "{push}");
        assert!(push["sealedKey"].is_string() && push["signature"].is_string(), "{push}");
    }
}

#[tokio::test]
async fn no_file_of_the_broker_holds_what_was_said_to_many() {
    let mut node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let (a, _a) = connect(&node, &ada).await;
    let (_b, mut b) = connect(&node, &bob).await;
    let control = "said in clear to everyone";
    let ack = a.send("*", Priority::Next, control).await.expect("taken");
    assert!(ack.queued);
    sends(&a, "*", CANARY).await;
    for expected in [control, CANARY] {
        assert_eq!(next(&mut b).await.1.as_deref(), Some(expected));
    }
    node.stop().await;
    let held = |text: &str| {
        use base64::Engine as _;
        let coded = base64::engine::general_purpose::STANDARD.encode(text);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(node.data_dir()).expect("a folder") {
            let path = entry.expect("readable").path();
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let holds = |needle: &str| {
                bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
            };
            if holds(text) || holds(&coded) {
                files.push(path);
            }
        }
        files
    };
    assert!(!held(control).is_empty(), "the search finds what lies in clear");
    assert_eq!(held(CANARY), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn an_old_client_among_new_ones_is_named_and_gets_what_is_sent_in_clear() {
    let node = Node::start().await;
    let (ada, old) = (node.member("ada").await, node.member("old").await);
    let (a, _a) = connect(&node, &ada).await;
    let mut o = Raw::hello(&node, &old).await;
    let sent = sends(&a, "*", "hi all").await;
    assert_eq!(sent.secrecy, Secrecy::InClear { because_of: vec!["old".to_owned()] });
    assert_eq!(o.message().await["ciphertext"], "aGkgYWxs");
}

#[tokio::test]
async fn who_cannot_open_it_gets_nothing_and_the_sender_is_told_whom() {
    let node = Node::start().await;
    let mut members = Vec::new();
    for name in ["ada", "bob", "old", "new"] {
        members.push(node.member(name).await);
    }
    let [ada, bob, old, new] = &members[..] else { unreachable!() };
    let mut a = opens(&node, ada).await;
    let mut b = opens(&node, bob).await;
    let mut o = Raw::hello(&node, old).await;
    let mut n = opens(&node, new).await;
    let keys = json!({ bob.pubkey().as_str(): "a2V5", old.pubkey().as_str(): "b2xk" });
    let ack = said(&mut a, frame("*", keys, json!({}))).await;
    let mut expected = [old.pubkey().to_string(), new.pubkey().to_string()];
    expected.sort();
    assert_eq!((&ack["queued"], &ack["unsealedCount"]), (&json!(true), &json!(2)), "{ack}");
    assert_eq!(ack["unsealedFor"], json!(expected), "{ack}");
    let push = b.message().await;
    assert_eq!((&push["sealedKey"], &push["client_message_id"]), (&json!("a2V5"), &json!("own")));
    assert_eq!(push["signature"], "ab".repeat(64));
    b.confirm(&push).await;
    let status = json!({ "type": "message_status", "messageId": ack["messageId"] });
    let mut recipients = Value::Null;
    until("it is confirmed", async || {
        let told = a.ask(status.clone()).await;
        recipients = told["recipients"].clone();
        told["delivered"] == true
    })
    .await;
    let names: Vec<_> = recipients.as_array().expect("a list").iter().collect();
    assert_eq!((names.len(), &names[0]["name"]), (1, &json!("bob")), "{recipients}");
    let marker = a.sent("*", "next", "bWFyaw==").await;
    for raw in [&mut o, &mut n] {
        assert_eq!(raw.message().await["messageId"], marker, "nothing before it");
    }
}

#[tokio::test]
async fn a_seal_that_is_not_whole_is_refused() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let mut a = opens(&node, &ada).await;
    let key = bob.pubkey().to_string();
    let keys = || json!({ &key: "a2V5" });
    a.ask(json!({ "type": "topic_create", "name": "t" })).await;
    let cases = [
        ("*", keys(), json!({ "signature": null }), "invalid"),
        ("*", Value::Null, json!({}), "invalid"),
        ("*", keys(), json!({ "client_message_id": "" }), "invalid"),
        ("*", keys(), json!({ "signature": "ab" }), "invalid"),
        ("*", keys(), json!({ "signature": "zz".repeat(64) }), "invalid"),
        (&*key, keys(), json!({}), "invalid"),
        ("#t", keys(), json!({}), "invalid"),
        ("*", json!({ "bob": "a2V5" }), json!({}), "invalid"),
        ("*", json!({ &key: "" }), json!({}), "invalid"),
        ("*", json!({ &key: "no base64!" }), json!({}), "invalid"),
        ("*", json!({ &key: "a".repeat(97) }), json!({}), "invalid"),
    ];
    for (target, keys, beside, code) in cases {
        let ack = said(&mut a, frame(target, keys.clone(), beside.clone())).await;
        let refused = (&ack["queued"], &ack["code"]);
        assert_eq!(refused, (&json!(false), &json!(code)), "{target} {keys} {beside}: {ack}");
    }
    let many: serde_json::Map<String, Value> =
        (0..1_640).map(|number| (format!("{number:064x}"), json!("a".repeat(96)))).collect();
    let ack = said(&mut a, frame("*", Value::Object(many), json!({}))).await;
    assert_eq!(ack["code"], "too_large", "{ack}");
}

#[tokio::test]
async fn a_thousand_keys_fit_into_a_send_of_whoever_can_open_such_and_of_nobody_else() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let mut keys: serde_json::Map<String, Value> =
        (1..1_000).map(|number| (format!("{number:064x}"), json!("a".repeat(64)))).collect();
    keys.insert(bob.pubkey().to_string(), json!("a2V5"));
    let mut b = opens(&node, &bob).await;
    let mut a = opens(&node, &ada).await;
    let frame = frame("*", Value::Object(keys), json!({}));
    assert_eq!(said(&mut a, frame.clone()).await["queued"], true);
    let push = b.message().await;
    assert_eq!(push["sealedKey"], "a2V5");
    let plain = push.to_string().len() - push["signature"].to_string().len();
    assert!(plain < 1_000, "each gets its own key alone: {plain} bytes");
    let (mut old, _) = Raw::session(&node, &ada, &SecretKey::generate()).await;
    old.say(frame).await;
    assert_eq!(old.closed().await.0, 1009);
}

#[tokio::test]
async fn a_client_of_either_coding_opens_what_one_of_the_other_has_sealed() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let with = |member: &Member, codec| {
        let mut options = ClientOptions::session(member.identity(&node.mesh));
        options.codec = codec;
        options
    };
    for (from, to) in [(Codec::Json, Codec::MsgPack), (Codec::MsgPack, Codec::Json)] {
        let (a, _a) = node.connect(with(&ada, from)).await;
        let (_b, mut b) = node.connect(with(&bob, to)).await;
        let sent = sends(&a, "*", "hi").await;
        assert_eq!(sent.secrecy, Secrecy::Sealed);
        assert_eq!(next(&mut b).await.1.as_deref(), Some("hi"));
    }
}
