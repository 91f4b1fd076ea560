//! Peers that mean harm or are broken: a clear answer or a close, a bounded
//! cost, and everybody else unaffected.

mod floods;
mod half_open;

use std::time::{Duration, Instant};

use claudemesh_broker::auth::SecretKey;
use futures_util::SinkExt as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Message, protocol::Role as SocketRole};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async};

use crate::harness::raw::hello_frame;
use crate::harness::{Member, Node, PATIENCE, Raw};

const MEBIBYTE: u64 = 1024 * 1024;

/// Two ordinary peers who write to each other while others misbehave.
struct Pair {
    one: Raw,
    two: Raw,
    keys: [String; 2],
}

impl Pair {
    async fn meet(node: &Node) -> Self {
        let (ann, ben) = (node.member("ann").await, node.member("ben").await);
        let keys = [ann.pubkey().to_string(), ben.pubkey().to_string()];
        Self { one: Raw::hello(node, &ann).await, two: Raw::hello(node, &ben).await, keys }
    }

    /// There and back; how long that took.
    async fn exchange(&mut self) -> Duration {
        let begun = Instant::now();
        let id = self.one.sent(&self.keys[1], "now", "cGluZw==").await;
        let push = self.two.hear_where("push", |push| push["messageId"] == id.as_str()).await;
        self.two.confirm(&push).await;
        let id = self.two.sent(&self.keys[0], "now", "cG9uZw==").await;
        let push = self.one.hear_where("push", |push| push["messageId"] == id.as_str()).await;
        self.one.confirm(&push).await;
        begun.elapsed()
    }
}

/// An upgraded socket whose owner takes little from the network at once.
async fn narrow(node: &Node) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a small buffer");
    socket.connect(&node.address.into()).expect("a connection");
    socket.set_nonblocking(true).expect("non-blocking");
    let stream = TcpStream::from_std(socket.into()).expect("a stream");
    client_async(node.url(), MaybeTlsStream::Plain(stream)).await.expect("an upgrade").0
}

async fn narrow_hello(node: &Node, member: &Member, channel: &str) -> Raw {
    let mut raw = Raw::of(narrow(node).await);
    let mut hello = hello_frame(&node.mesh, member);
    hello["channel"] = json!(channel);
    raw.say(hello).await;
    raw.hear("hello_ack").await;
    raw
}

// --- frames ----------------------------------------------------------------------------

#[tokio::test]
async fn random_bytes_are_answered_or_closed_and_cost_nobody_else() {
    let node = Node::start().await;
    let mallory = node.member("mallory").await;
    let mut pair = Pair::meet(&node).await;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..30 {
        // Before a hello, after one, and before there is even a WebSocket.
        let mut bytes = vec![0; random.random_range(1..3000)];
        random.fill(bytes.as_mut_slice());
        if round % 3 == 0 {
            let mut stream = TcpStream::connect(node.address).await.expect("a connection");
            stream.write_all(&bytes).await.expect("writable");
            stream.shutdown().await.expect("open");
            let mut answer = Vec::new();
            let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is closed");
            continue;
        }
        let mut raw = match round % 3 {
            1 => Raw::connect(&node).await,
            _ => Raw::hello(&node, &mallory).await,
        };
        raw.socket.send(Message::Binary(bytes.clone().into())).await.expect("open");
        assert_eq!(raw.hear("error").await["code"], "malformed", "seed {seed}");
        // The same as bytes on the wire, where they are frames or are none.
        let MaybeTlsStream::Plain(stream) = raw.socket.get_mut() else { panic!("plain TCP") };
        stream.write_all(&bytes).await.expect("open");
        stream.shutdown().await.expect("open");
        raw.closed().await;
    }
    pair.exchange().await;
}

#[tokio::test]
async fn deep_json_and_long_numbers_are_malformed_and_no_more() {
    let node = Node::start().await;
    let mut raw = Raw::hello(&node, &node.member("mallory").await).await;
    let depth = 5_000;
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(depth), close.repeat(depth));
    for text in [
        deep("[", "]"),
        deep("{\"a\":", "}"),
        format!("{{\"type\":\"set_profile\",\"x\":{}}}", "[".repeat(30_000)),
    ] {
        raw.say_text(text).await;
        assert_eq!(raw.hear("error").await["code"], "malformed");
    }
    // Well formed, only deep: such an id is none.
    raw.say_text(format!("{{\"type\":\"list_bans\",\"_reqId\":{}}}", deep("[", "]"))).await;
    assert!(raw.hear("list_bans_result").await.get("_reqId").is_none());
    raw.say_text(format!("{{\"type\":\"set_profile\",\"bio\":{}}}", deep("[", "]"))).await;
    let digits = "9".repeat(20_000);
    raw.say_text(format!("{{\"type\":\"list_peers\",\"pad\":{digits}}}")).await;
    raw.say_text(format!("{{\"type\":\"kick\",\"stale\":1e{digits}}}")).await;
    raw.so_far().await;
}

#[tokio::test]
async fn a_frame_over_the_limit_closes_the_connection_and_says_so() {
    let node = Node::start().await;
    let mallory = node.member("mallory").await;
    let mut pair = Pair::meet(&node).await;
    let max = node.config.message.message_bytes_max;
    let mut raw = Raw::hello(&node, &mallory).await;
    let fits = json!({ "type": "list_peers", "pad": "" }).to_string().len();
    raw.say(json!({ "type": "list_peers", "pad": "x".repeat(max - fits) })).await;
    raw.hear("peers_list").await;
    for bytes in [max + 1, 4 * max] {
        let mut raw = Raw::hello(&node, &mallory).await;
        raw.socket.send(Message::Text("x".repeat(bytes).into())).await.expect("open");
        assert_eq!(raw.closed().await, (1009, "frame too large".to_owned()), "{bytes}");
        let mut raw = Raw::connect(&node).await;
        raw.socket.send(Message::Text("x".repeat(bytes).into())).await.expect("open");
        assert_eq!(raw.closed().await, (1009, "frame too large".to_owned()), "before a hello");
    }
    // Announced and never sent: nothing is set aside for it.
    let mut raw = Raw::hello(&node, &mallory).await;
    let MaybeTlsStream::Plain(stream) = raw.socket.get_mut() else { panic!("plain TCP") };
    stream
        .write_all(&[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0])
        .await
        .expect("open");
    assert_eq!(raw.closed().await, (1009, "frame too large".to_owned()));
    pair.exchange().await;
}

fn part(text: &str, kind: Data, last: bool) -> Message {
    Message::Frame(Frame::message(text.to_owned().into_bytes(), OpCode::Data(kind), last))
}

#[tokio::test]
async fn a_message_may_come_in_fragments_and_is_limited_as_a_whole() {
    let node = Node::start().await;
    let mallory = node.member("mallory").await;
    let mut raw = Raw::hello(&node, &mallory).await;
    let pieces = ["{\"type\":\"list_", "peers\",\"_reqId\":", "\"in-pieces\"}"];
    raw.socket.send(part(pieces[0], Data::Text, false)).await.expect("open");
    raw.socket.send(Message::Ping(bytes::Bytes::from_static(b"between"))).await.expect("open");
    raw.socket.send(part(pieces[1], Data::Continue, false)).await.expect("open");
    raw.socket.send(part(pieces[2], Data::Continue, true)).await.expect("open");
    assert_eq!(raw.hear("peers_list").await["_reqId"], "in-pieces");

    let stranger = Raw::connect(&node).await;
    for mut raw in [raw, stranger] {
        raw.socket.send(part("{\"type\":\"", Data::Text, false)).await.expect("open");
        let piece = "x".repeat(1000);
        for _ in 0..100 {
            // It may be closed before the last of them.
            if raw.socket.send(part(&piece, Data::Continue, false)).await.is_err() {
                break;
            }
        }
        assert_eq!(raw.closed().await, (1009, "frame too large".to_owned()));
    }
}

/// The close frame for what is too large, as it stands on the wire.
fn close_1009() -> Vec<u8> {
    [&[0x88, 17], &1009_u16.to_be_bytes()[..], b"frame too large"].concat()
}

/// Says too large a frame, reads to the end without saying anything of its own,
/// then goes on with the frame: nothing is reset.
async fn says_too_much(raw: &mut Raw) {
    let MaybeTlsStream::Plain(stream) = raw.socket.get_mut() else { panic!("plain TCP") };
    let mut head = vec![0x81, 0xff];
    head.extend(1_000_000_u64.to_be_bytes());
    head.extend([0; 4]);
    stream.write_all(&head).await.expect("open");
    stream.write_all(&[b'x'; 200_000]).await.expect("what is on its way is taken");
    let mut heard = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("an end").expect("no reset");
    assert!(heard.ends_with(&close_1009()), "{:?}", String::from_utf8_lossy(&heard));
    for _ in 0..10 {
        stream.write_all(&[b'x'; 10_000]).await.expect("our side is open still");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn too_large_a_frame_ends_the_connection_at_once_whatever_still_comes() {
    let node = Node::start().await;
    let mallory = node.member("mallory").await;
    says_too_much(&mut Raw::connect(&node).await).await;
    says_too_much(&mut Raw::hello(&node, &mallory).await).await;
}

#[tokio::test]
async fn what_is_no_websocket_is_closed_with_its_own_code() {
    let node = Node::start().await;
    let mallory = node.member("mallory").await;
    let invalid_text =
        || Message::Frame(Frame::message(vec![b'"', 0xff, 0xfe], OpCode::Data(Data::Text), true));
    let reserved =
        || Message::Frame(Frame::message(vec![1], OpCode::Data(Data::Reserved(5)), true));
    let headless = || part("a continuation of nothing", Data::Continue, true);
    let cases: [(&dyn Fn() -> Message, u16); 3] =
        [(&invalid_text, 1007), (&reserved, 1002), (&headless, 1002)];
    for (frame, code) in cases {
        let mut raw = Raw::hello(&node, &mallory).await;
        raw.socket.send(frame()).await.expect("open");
        assert_eq!(raw.closed().await.0, code);
        let mut raw = Raw::connect(&node).await;
        raw.socket.send(frame()).await.expect("open");
        assert_eq!(raw.closed().await.0, code, "before a hello");
    }
    // A client's frames are masked.
    let mut raw = Raw::hello(&node, &mallory).await;
    let MaybeTlsStream::Plain(stream) = raw.socket.get_mut() else { panic!("plain TCP") };
    let mut unmasked =
        WebSocketStream::from_raw_socket(&mut *stream, SocketRole::Server, None).await;
    unmasked.send(Message::Text("{}".into())).await.expect("open");
    drop(unmasked);
    assert_eq!(raw.closed().await.0, 1002);
}

#[tokio::test]
async fn hostile_texts_are_cut_or_refused_and_stay_texts() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let long = "ü\u{202e}'\"; drop table member; --".repeat(150);
    let (mut b, _) = Raw::hello_with(&node, &bob, |hello| {
        for field in ["displayName", "sessionId", "cwd", "hostname", "channel", "model"] {
            hello[field] = json!(long);
        }
        hello["groups"] =
            json!((0..200).map(|n| json!({ "name": format!("g'{n}") })).collect::<Vec<Value>>());
    })
    .await;
    let peers = b.ask(json!({ "type": "list_peers" })).await;
    let own = peers["peers"]
        .as_array()
        .expect("peers")
        .iter()
        .find(|peer| peer["memberPubkey"] == json!(bob.pubkey()));
    let own = own.expect("it is listed");
    assert!(own["displayName"].as_str().is_some_and(|name| name.len() <= 256), "{own}");
    assert!(own["cwd"].as_str().is_some_and(|cwd| cwd.len() <= 1024 && cwd.starts_with('ü')));
    assert_eq!(own["groups"].as_array().map(Vec::len), Some(64));
    let id = a.sent("@g'7", "next", "eA==").await;
    assert_eq!(b.message().await["messageId"], id.as_str());
    for request in [
        json!({ "type": "join_group", "name": long }),
        json!({ "type": "set_profile", "bio": long }),
    ] {
        assert_eq!(b.ask(request).await["code"], "invalid_argument");
    }
    assert_eq!(b.ask(json!({ "type": "set_summary", "summary": long })).await["type"], "ack");
    let peers = a.ask(json!({ "type": "list_peers" })).await;
    let summaries = peers["peers"].as_array().expect("peers").iter();
    let summary = summaries.filter_map(|peer| peer["summary"].as_str()).next().expect("a summary");
    let encoded = json!(summary).to_string().len() - 2;
    assert!((2041..=2048).contains(&encoded) && long.starts_with(summary), "cut at an edge");
    let key = SecretKey::generate().public_key();
    let error = b.ask(json!({ "type": "message_status", "messageId": "' or 1=1 --" })).await;
    assert_eq!(error["code"], "invalid_argument");
    assert_eq!(b.send(&format!("{key}' or '1'='1"), "next", "eA==").await["queued"], false);
}
