//! The tasks that a node cannot do without.
//!
//! Each runs as long as its node does. A panic in one is a defect: what it did is
//! half done, what it should do is done no more, and nobody would notice. So the
//! node ends with a sentence, and whoever started it starts it again; it is built
//! to survive a `kill -9`. A handler's panic ends its own socket only, and is not
//! what this is about.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Watches over the tasks of one node.
#[derive(Clone, Default)]
pub struct Supervisor(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Of the first that failed.
    failure: Mutex<Option<Failed>>,
    failed: CancellationToken,
    /// From now on they may end.
    released: CancellationToken,
}

/// Why a node cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}, so the broker has stopped")]
pub struct Failed(String);

impl Supervisor {
    /// Runs a task that may end only once [`Self::release`] has been called.
    pub fn spawn(
        &self,
        tasks: &TaskTracker,
        name: impl Into<Cow<'static, str>>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let (supervisor, name) = (self.clone(), name.into());
        tasks.spawn(async move {
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(()) if supervisor.0.released.is_cancelled() => {}
                Ok(()) => supervisor.fail(format!("{name} ended by itself")),
                Err(_) => supervisor.fail(format!("{name} panicked")),
            }
        });
    }

    /// The node stops: its tasks may end.
    pub fn release(&self) {
        self.0.released.cancel();
    }

    /// Whether none has failed.
    pub fn is_well(&self) -> bool {
        !self.0.failed.is_cancelled()
    }

    /// Waits until one fails.
    pub async fn failed(&self) {
        self.0.failed.cancelled().await;
    }

    /// Which failed first, if any has.
    pub fn failure(&self) -> Option<Failed> {
        self.0.failure.lock().clone()
    }

    /// The node cannot go on, which a clause explains.
    pub fn fail(&self, why: String) {
        tracing::error!("{why}: the broker stops");
        self.0.failure.lock().get_or_insert(Failed(why));
        self.0.failed.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_ends_too_soon_is_named() {
        let tasks = TaskTracker::new();
        let supervisor = Supervisor::default();
        supervisor.spawn(&tasks, "the idle task", std::future::pending());
        supervisor.spawn(&tasks, "the doomed task", async { panic!("on purpose") });
        supervisor.failed().await;
        assert!(!supervisor.is_well());
        let text = supervisor.failure().expect("one").to_string();
        assert!(text.starts_with("the doomed task panicked"), "{text}");

        let supervisor = Supervisor::default();
        supervisor.spawn(&tasks, "the short task", async {});
        supervisor.failed().await;
        let text = supervisor.failure().expect("one").to_string();
        assert!(text.starts_with("the short task ended by itself"), "{text}");
    }

    #[tokio::test]
    async fn a_task_may_end_when_its_node_does() {
        let tasks = TaskTracker::new();
        let supervisor = Supervisor::default();
        let stop = CancellationToken::new();
        supervisor.spawn(&tasks, "the task", stop.clone().cancelled_owned());
        supervisor.release();
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        assert!(supervisor.is_well() && supervisor.failure().is_none());
    }
}
