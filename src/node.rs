//! What the parts of one running node share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::AcceptQueue;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::rates::Rates;
use crate::registry::Registry;
use crate::store::Store;
use crate::vitals::Vitals;

/// One running node. Made by [`app`](crate::app), shared by reference count.
pub struct Node {
    /// Its configuration.
    pub config: Config,
    /// The durable side.
    pub store: Arc<dyn Store>,
    /// What nodes share.
    pub cluster: Arc<dyn Cluster>,
    /// Live sessions and the mirrored directory.
    pub registry: Arc<Registry>,
    /// The way into the group commit.
    pub accept: AcceptQueue,
    /// Deliveries that are done.
    pub ledger: Ledger,
    /// Presence rows on their way to the store.
    pub journal: Journal,
    /// Turns of drains to read the store.
    pub drains: Semaphore,
    /// Whether an audit chain is being walked.
    pub verifying: AtomicBool,
    /// Rate limits.
    pub rates: Rates,
    /// What `/metrics` exports.
    pub metrics: Arc<Metrics>,
    /// What operators see of the last hour.
    pub vitals: Vitals,
    /// Every task that must end before the process may.
    pub tasks: TaskTracker,
    /// Cancelled when the node starts to drain: not ready, no new sockets.
    pub draining: CancellationToken,
    /// Cancelled when background work should end.
    pub stopped: CancellationToken,
    /// Counts what changes about members: a hello that read them before looks
    /// again after.
    pub member_changes: AtomicU64,
    /// When it started.
    pub started: Instant,
    /// Whether the store answered last.
    pub store_up: AtomicBool,
}

impl Node {
    /// Whether new sockets are welcome.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.draining.is_cancelled() && self.store_up.load(Ordering::Relaxed)
    }
}
