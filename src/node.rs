//! What the parts of one running node share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Timestamp;
use crate::cluster::{Cluster, PresenceRecord};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::protocol::CloseReason;
use crate::rates::Rates;
use crate::registry::Registry;
use crate::store::Store;
use crate::supervisor::Supervisor;
use crate::vitals::Vitals;
use crate::writers::confirmations::Ledger;
use crate::writers::group_commit::AcceptQueue;
use crate::writers::presences::Journal;

/// The end of a presence whose answer the store's connection lost. If the row ended
/// at that very instant, it was this call that ended it.
#[derive(Clone, Debug)]
pub struct UnsettledEnd {
    /// What was known of it.
    pub record: PresenceRecord,
    /// What to close its socket with, if one is open.
    pub close: Option<CloseReason>,
    /// The call's instant.
    pub at: Timestamp,
}

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
    /// Watches over the tasks that it cannot do without.
    pub supervisor: Supervisor,
    /// Every task that must end before the process may.
    pub tasks: TaskTracker,
    /// Cancelled when the node starts to drain: not ready, no new sockets.
    pub draining: CancellationToken,
    /// Cancelled when background work should end.
    pub stopped: CancellationToken,
    /// Counts what changes about members: a hello that read them before looks
    /// again after.
    pub member_changes: AtomicU64,
    /// Presences of which nobody knows whether this node has ended them.
    pub unsettled_ends: Mutex<Vec<UnsettledEnd>>,
    /// When it started.
    pub started: Instant,
    /// Whether the store answered last.
    pub store_up: AtomicBool,
    /// Whether its disk has less room than it must keep.
    pub disk_low: AtomicBool,
}

impl Node {
    /// Whether new sockets are welcome.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.draining.is_cancelled()
            && self.supervisor.is_well()
            && self.store_up.load(Ordering::Relaxed)
    }
}
