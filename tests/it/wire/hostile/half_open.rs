//! Sockets that never say who they are.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;

use super::{MEBIBYTE, Pair, part};
use crate::harness::raw::hello_frame;
use crate::harness::{Node, PATIENCE, Raw, http};

/// How many sockets this process may have open, with some to spare.
fn affordable(wanted: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("the soft limit");
    wanted.min(usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(3_000))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_half_open_sockets_keep_nobody_out() {
    let node = Node::program(&[]).await;
    let count = affordable(10_000);
    let shown =
        format!("{count} half-open sockets (10000, or what the hard limit of files allows)");
    let before = node.resident_bytes();
    let mut silent = Vec::with_capacity(count / 2);
    let mut upgraded = Vec::with_capacity(count / 2);
    let begun = Instant::now();
    for number in 0..count {
        let mut stream = TcpStream::connect(node.address).await.expect(&shown);
        if number % 2 == 0 {
            silent.push(stream);
            continue;
        }
        let head = format!(
            "GET /ws HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            node.address
        );
        stream.write_all(head.as_bytes()).await.expect(&shown);
        upgraded.push(stream);
    }
    println!("{shown} opened in {:?}", begun.elapsed());
    let arrived = Instant::now();
    let mut pair = Pair::meet(&node).await;
    let exchanged = pair.exchange().await;
    let elapsed = arrived.elapsed();
    assert!(elapsed < Duration::from_secs(4), "{shown}: a peer waited {elapsed:?} ({exchanged:?})");
    assert_eq!(http::get(&node, "/health").await.status, 200, "{shown}");
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 512 * MEBIBYTE, "{shown}: {} MiB", grown / MEBIBYTE);

    // None of them stays: the oldest made room, the others are told to go.
    let mut last = upgraded.pop().expect("some");
    let mut said = Vec::new();
    timeout(2 * PATIENCE, last.read_to_end(&mut said)).await.expect(&shown).expect(&shown);
    let close = [&[0x88, 15], &1008_u16.to_be_bytes()[..], b"hello_timeout"].concat();
    assert!(said.ends_with(&close), "{shown}: {:?}", String::from_utf8_lossy(&said));
    let mut last = silent.pop().expect("some");
    timeout(2 * PATIENCE, last.read_to_end(&mut Vec::new())).await.expect(&shown).expect(&shown);
    pair.exchange().await;
}

#[tokio::test]
async fn who_says_half_a_hello_is_sent_away() {
    let node = Node::start().await;
    let mut raw = Raw::connect(&node).await;
    let hello = hello_frame(&node.mesh, &node.member("alice").await).to_string();
    raw.socket.send(part(&hello[..40], Data::Text, false)).await.expect("open");
    let closed = timeout(2 * PATIENCE, raw.socket.next());
    match closed.await.expect("a close in time") {
        Some(Ok(Message::Close(Some(close)))) => {
            assert_eq!((u16::from(close.code), close.reason.as_str()), (1008, "hello_timeout"));
        }
        other => panic!("no close: {other:?}"),
    }
}

/// A request whose body never ends.
async fn begin_request(node: &Node, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.address).await.expect("a connection");
    let head = format!("{head} HTTP/1.1\r\nhost: {}\r\n", node.address);
    stream.write_all(head.as_bytes()).await.expect("writable");
    stream
}

#[tokio::test]
async fn a_body_that_drips_is_cut() {
    let node = Node::start().await;
    let dripping = async |head: &str, framing: &str, drop: &str| {
        let mut stream = begin_request(&node, head).await;
        stream.write_all(format!("{framing}\r\n\r\n").as_bytes()).await.expect("writable");
        let (mut reader, mut writer) = stream.into_split();
        let drip = async {
            // Until the broker has had enough.
            while writer.write_all(drop.as_bytes()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut answer = String::new();
        tokio::select! {
            read = timeout(2 * PATIENCE, reader.read_to_string(&mut answer)) => {
                read.expect("it is cut").expect("an answer");
            }
            () = drip => {}
        }
        answer
    };
    let answers = tokio::join!(
        dripping("POST /join", "content-length: 5000", "x"),
        dripping("POST /hook/set-status", "transfer-encoding: chunked", "1\r\nx\r\n"),
    );
    for answer in [answers.0, answers.1] {
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("the body did not arrive in time"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_hold_sockets_leave_room_where_files_are_few() {
    let node = Node::program_with_files(&[], 256).await;
    let mut held = Vec::new();
    for number in 0..500 {
        let mut stream = begin_request(&node, "POST /join").await;
        if number % 2 == 0 {
            let body = "content-length: 5000\r\n\r\n{";
            stream.write_all(body.as_bytes()).await.expect("writable");
        }
        held.push(stream);
    }
    let mut pair = Pair::meet(&node).await;
    pair.exchange().await;
    assert_eq!(http::get(&node, "/health").await.status, 200);
    // The oldest made room.
    let mut oldest = held.swap_remove(0);
    let ended = timeout(PATIENCE, oldest.read_to_end(&mut Vec::new())).await;
    let _ = ended.expect("told to go");
}

#[tokio::test]
async fn a_connection_that_is_used_no_more_ends() {
    let node = Node::start().await;
    let mut stream = begin_request(&node, "GET /health").await;
    stream.write_all(b"\r\n").await.expect("writable");
    let mut answer = String::new();
    let ended = timeout(2 * PATIENCE, stream.read_to_string(&mut answer)).await;
    ended.expect("it ends").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
