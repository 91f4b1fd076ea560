//! What the tests from outside stand on: nodes in this process on free ports or
//! as processes of their own, and raw sockets that say exactly what a test wants
//! said.

pub mod msgpack;
pub mod node;
pub mod process;
pub mod raw;

pub use node::{Member, Node};
pub use process::BrokerProcess;
pub use raw::Raw;

use std::time::Duration;

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
