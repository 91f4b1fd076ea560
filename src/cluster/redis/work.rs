//! The tasks behind the connections to Redis.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

/// Runs tasks that end with `stop`. One that panics, or ends before, is a defect that
/// would leave the node deaf or its leases to run out: `failed` tells of it, and the
/// node ends.
#[derive(Clone, Default)]
pub(super) struct Work {
    pub(super) stop: CancellationToken,
    pub(super) failed: CancellationToken,
}

impl Work {
    pub(super) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let Self { stop, failed } = self.clone();
        tokio::spawn(async move {
            let ended = AssertUnwindSafe(task).catch_unwind().await;
            if !stop.is_cancelled() {
                let how = if ended.is_err() { "panicked" } else { "ended by itself" };
                tracing::error!("{name} of this node's Redis connections {how}");
                failed.cancel();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_ends_too_soon_is_told() {
        let work = Work::default();
        work.spawn("the idle task", std::future::pending());
        work.spawn("the doomed task", async { panic!("on purpose") });
        work.failed.cancelled().await;

        let work = Work::default();
        work.spawn("the short task", async {});
        work.failed.cancelled().await;
    }

    #[tokio::test]
    async fn a_task_may_end_when_all_do() {
        let work = Work::default();
        let (ends, ended) = tokio::sync::oneshot::channel::<()>();
        let stop = work.stop.clone();
        work.spawn("the task", async move {
            stop.cancelled().await;
            drop(ends);
        });
        work.stop.cancel();
        assert!(ended.await.is_err(), "it ended");
        tokio::task::yield_now().await;
        assert!(!work.failed.is_cancelled());
    }
}
