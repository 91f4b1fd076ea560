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
