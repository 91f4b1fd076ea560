//! The event stream.

use std::time::Duration;

use claudemesh_broker::limits;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{TOKEN, call, post, presence_of, start};
use crate::harness::{Node, PATIENCE, Raw};

/// A stream of events.
pub struct Events {
    lines: BufReader<TcpStream>,
    pub status: u16,
}

impl Events {
    pub async fn open(node: &Node, query: &str) -> Self {
        let mut stream = TcpStream::connect(node.address).await.expect("a connection");
        let head = format!(
            "GET /admin/v1/events{query} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("writable");
        let mut lines = BufReader::new(stream);
        let mut status = 0;
        loop {
            let mut line = String::new();
            lines.read_line(&mut line).await.expect("a line");
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().expect("a status");
            }
            if line == "\r\n" {
                return Self { lines, status };
            }
        }
    }

    /// The next event of that name; `None` at the end of the stream.
    pub async fn next(&mut self, name: &str) -> Option<Value> {
        let mut is_it = false;
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.lines.read_line(&mut line)).await.expect("in time");
            if read.unwrap_or(0) == 0 {
                return None;
            }
            if let Some(event) = line.strip_prefix("event: ") {
                is_it = event.trim() == name;
            }
            if let (true, Some(data)) = (is_it, line.strip_prefix("data: ")) {
                return Some(serde_json::from_str(data).expect("JSON"));
            }
        }
    }

    /// The first change that fits.
    async fn change_where(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let change = self.next("change").await.expect("the stream goes on");
            if fits(&change) {
                return change;
            }
        }
    }
}

fn peer_names(mesh: &Value) -> Vec<&str> {
    let peers = mesh["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    peers.iter().filter_map(|peer| peer["name"].as_str()).collect()
}

#[tokio::test]
async fn a_stream_tells_all_and_then_what_changes() {
    let mut node = start().await;
    let mut events = Events::open(&node, &format!("?mesh={}", node.mesh)).await;
    assert_eq!(events.status, 200);
    let snapshot = events.next("snapshot").await.expect("a snapshot");
    assert_eq!(snapshot["nodes"][0]["id"], snapshot["node"]);
    assert_eq!(snapshot["meshes"][0]["slug"], "test");
    assert_eq!(peer_names(&snapshot["mesh"]), [""; 0]);

    let bob = node.member("bob").await;
    let mut b = Raw::hello(&node, &bob).await;
    let arrived = events.change_where(|change| peer_names(&change["mesh"]) == ["bob"]).await;
    let joined = |change: &Value| {
        let rows = change["audit"].as_array().cloned().unwrap_or_default();
        rows.iter().any(|row| row["event"] == "peer_joined")
    };
    assert!(joined(&arrived), "the audit row comes with it: {arrived}");
    events.change_where(|change| change["meshes"]["set"][0]["places"] == 1).await;

    let presence = presence_of(&node, "bob").await;
    post(&node, &format!("/meshes/{}/presences/{presence}/evict", node.mesh)).await;
    b.closed().await;
    let left = events.change_where(|change| {
        change["mesh"].is_object() && peer_names(&change["mesh"]).is_empty()
    });
    let left = left.await;
    assert!(!joined(&left), "rows are told once: {left}");

    node.begin_stop();
    while events.next("change").await.is_some() {}
    node.stop().await;
}

#[tokio::test]
async fn streams_are_bounded_and_a_reader_that_leaves_makes_room() {
    let node = start().await;
    let mut streams = Vec::new();
    for _ in 0..limits::ADMIN_STREAMS_MAX {
        let stream = Events::open(&node, "").await;
        assert_eq!(stream.status, 200);
        streams.push(stream);
    }
    let refused = call(&node, "GET", "/events").await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (503, &json!("too_many_streams"))
    );
    streams.pop();
    crate::harness::until("the place of one that left is free", async || {
        Events::open(&node, "").await.status == 200
    })
    .await;
    drop(streams);
    crate::harness::until("there is room again", async || {
        let unknown = call(&node, "GET", "/events?mesh=nothing").await;
        (unknown.status, &unknown.json()["error"]["code"]) == (404, &json!("no_mesh"))
    })
    .await;
    let twice = call(&node, "GET", "/events?mesh=a&mesh=b").await;
    assert_eq!((twice.status, &twice.json()["error"]["code"]), (400, &json!("invalid")));
}

#[tokio::test]
async fn a_stream_without_news_still_shows_that_it_lives() {
    let node = start().await;
    let mut events = Events::open(&node, "").await;
    events.next("snapshot").await.expect("a snapshot");
    let mut line = String::new();
    let read = timeout(Duration::from_secs(10), events.lines.read_line(&mut line)).await;
    assert!(read.is_ok_and(|read| read.is_ok_and(|bytes| bytes > 0)), "it went silent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_stays_however_many_strangers_come() {
    let node = Node::program_with_files(&[("ADMIN_TOKEN", TOKEN)], 256).await;
    let mut events = Events::open(&node, "").await;
    events.next("snapshot").await.expect("a snapshot");
    let mut strangers = Vec::new();
    for _ in 0..400 {
        strangers.push(TcpStream::connect(node.address).await.expect("a connection"));
    }
    let mut oldest = strangers.swap_remove(0);
    let told = timeout(PATIENCE, oldest.read(&mut [0])).await.expect("told to go");
    assert!(matches!(told, Ok(0) | Err(_)), "{told:?}");
    let _bob = Raw::hello(&node, &node.member("bob").await).await;
    events.change_where(|change| change["meshes"]["set"][0]["places"] == 1).await;
}
