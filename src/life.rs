//! The life of a node, as its parts see it: work that must end before the process
//! may, the signals that say so, and what keeps the node from taking new work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::supervisor::Supervisor;

/// What tells a node's parts how the node does. Made once, shared by all of them.
pub struct Life {
    /// Watches over the tasks that the node cannot do without.
    pub supervisor: Supervisor,
    /// Every task that must end before the process may.
    pub tasks: TaskTracker,
    /// Cancelled when the node starts to drain: not ready, no new sockets.
    pub draining: CancellationToken,
    /// Cancelled when background work should end.
    pub stopped: CancellationToken,
    /// Told when a message was scheduled that may be due before all others.
    pub scheduled: Notify,
    /// When the node started.
    pub started: Instant,
    /// Whether the store answered last.
    pub store_up: AtomicBool,
    /// Whether the store's disk has less room than it must keep.
    pub disk_low: AtomicBool,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            supervisor: Supervisor::default(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            stopped: CancellationToken::new(),
            scheduled: Notify::new(),
            started: Instant::now(),
            store_up: AtomicBool::new(true),
            disk_low: AtomicBool::new(false),
        }
    }
}

impl Life {
    /// Whether new sockets are welcome.
    pub fn is_ready(&self) -> bool {
        self.unready_because().is_none()
    }

    /// The reason why new sockets are not welcome, in a word; `None` if they are.
    pub fn unready_because(&self) -> Option<&'static str> {
        if self.draining.is_cancelled() {
            Some("draining")
        } else if !self.supervisor.is_well() {
            Some("failing")
        } else if !self.store_up.load(Ordering::Relaxed) {
            Some("db_down")
        } else {
            None
        }
    }

    /// Waits for every task that was begun, as a unit test does before it looks.
    #[cfg(test)]
    pub(crate) async fn settled(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}
