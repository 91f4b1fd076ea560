//! Traces of messages, as a collector gets them.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::harness::ports::free_port;
use crate::harness::{Cluster, Raw, Setup, until};

const CIPHERTEXT: &str = "c2VjcmV0LXRoaW5n";

/// What takes traces, and what it got.
struct Collector {
    url: String,
    bodies: Bodies,
}

type Bodies = Arc<Mutex<Vec<Vec<u8>>>>;

impl Collector {
    async fn start(answers: StatusCode) -> Self {
        let take = async move |State(bodies): State<Bodies>, body: Bytes| {
            bodies.lock().push(body.to_vec());
            answers
        };
        let bodies = Bodies::default();
        let routes = Router::new().route("/v1/traces", post(take)).with_state(bodies.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, bodies }
    }

    /// Whether one request holds all of these.
    fn has(&self, parts: &[&[u8]]) -> bool {
        self.bodies.lock().iter().any(|body| parts.iter().all(|part| contains(body, part)))
    }
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

async fn nodes_with(collector: &str) -> Cluster {
    Setup::new(2)
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
        .set("OTEL_BSP_SCHEDULE_DELAY", 100)
        .set("LOG", "warn")
        .start_processes()
        .await
}

/// One message over both nodes, delivered and confirmed; its id.
async fn message(cluster: &Cluster) -> String {
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    let (alice, bob) = (first.member("alice").await, first.member("bob").await);
    let mut a = Raw::hello(first, &alice).await;
    let mut b = Raw::hello(second, &bob).await;
    let sent = a.sent(bob.pubkey().as_str(), "now", CIPHERTEXT).await;
    let push = b.message().await;
    assert_eq!(push["messageId"], sent.as_str());
    b.confirm(&push).await;
    // What it said is done once this is answered.
    b.so_far().await;
    sent
}

#[tokio::test]
async fn the_spans_of_all_nodes_meet_in_the_trace_of_the_message() {
    let collector = Collector::start(StatusCode::OK).await;
    let mut cluster = nodes_with(&collector.url).await;
    let id = message(&cluster).await;
    let trace = hex::decode(&id).expect("16 bytes");
    let (first, second) = (b"node-1".as_slice(), b"node-2".as_slice());
    for (node, name) in [(first, "accept"), (second, "deliver"), (second, "confirm")] {
        until(name, async || collector.has(&[&trace, node, name.as_bytes()])).await;
    }
    assert!(!collector.has(&[b"node-1", b"deliver"]), "that was the other node");
    for process in &mut cluster.processes {
        assert!(process.sigterm().await.success());
    }
    assert!(!collector.has(&[CIPHERTEXT.as_bytes()]), "a ciphertext in a span");
}

#[tokio::test]
async fn a_collector_that_is_away_or_refuses_disturbs_nobody() {
    let refusing = Collector::start(StatusCode::INTERNAL_SERVER_ERROR).await;
    let away = format!("http://127.0.0.1:{}", free_port());
    for url in [&refusing.url, &away] {
        let mut cluster = nodes_with(url).await;
        message(&cluster).await;
        message(&cluster).await;
        let process = &mut cluster.processes[0];
        until("it is said", async || process.log().contains("traces are lost")).await;
        assert!(process.sigterm().await.success());
        assert_eq!(process.log().matches("traces are lost").count(), 1, "{}", process.log());
    }
    assert!(!refusing.bodies.lock().is_empty());
}
