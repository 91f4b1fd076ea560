//! What the tests from outside stand on: nodes in this process on free ports or
//! as processes of their own, and raw sockets that say exactly what a test wants
//! said.

pub mod browser;
pub mod child;
pub mod cluster;
pub mod description;
pub mod executable;
pub mod frames;
pub mod http;
pub mod liar;
pub mod load;
pub mod msgpack;
pub mod node;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod program;
pub mod proxy;
pub mod raw;
pub mod receiver;
pub mod redis;
pub mod team;

pub use cluster::{Cluster, Setup};
pub use node::{Member, Node};
pub use process::BrokerProcess;
pub use raw::Raw;

use std::path::Path;
use std::time::Duration;

use serde_json::json;

/// Nothing that a test waits for may take longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `check` says so; for states that no frame announces.
pub async fn until<F: AsyncFnMut() -> bool>(what: &str, mut check: F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !check().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the broker knows that the peer's socket is gone. `probe` is a
/// multicast that the peer was there for.
pub async fn until_in_grace(raw: &mut Raw, probe: &str, name: &str) {
    until("a socket is known to be gone", async || {
        let asked = json!({ "type": "message_status", "messageId": probe });
        let recipients = raw.ask(asked).await["recipients"].clone();
        let recipients = recipients.as_array().expect("recipients");
        recipients
            .iter()
            .any(|recipient| recipient["name"] == name && recipient["peerStatus"] == "away")
    })
    .await;
}

/// A gauge or counter without labels, as `/metrics` has it now.
pub async fn metric(node: &Node, name: &str) -> u64 {
    let text = http::get(node, "/metrics").await.body;
    value_of(&text, name)
}

/// The same, of a page of metrics.
fn value_of(page: &str, name: &str) -> u64 {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).expect(name)
}

/// The folder of this repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of this repository.
pub fn text_of(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
