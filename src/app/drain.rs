//! The end of a node: its peers are sent away, then what they caused is written down.
//!
//! What was accepted must reach the disk before the process ends, whatever the peers
//! do. The root calls, once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;

use super::assembly::Writers;
use crate::node::Node;
use crate::protocol::CloseReason;

/// Drains a node: not ready at once; sockets closed in waves, so that their peers do not all
/// arrive elsewhere in one moment; then the writers, then the rest. Sockets
/// have two thirds of the time at most: what is accepted must reach the disk.
pub(super) async fn drain(
    node: &Arc<Node>,
    background: TaskTracker,
    writers: Writers,
    budget: Duration,
) {
    let begun = Instant::now();
    node.life.draining.cancel();
    tracing::info!(sockets = node.registry.sessions(), "draining");
    // Operators see it at once; nobody waits for that.
    let sampler = Arc::clone(&node.sampler);
    node.life.tasks.spawn(async move { sampler.announce().await });
    close_in_waves(node, budget / 3).await;
    node.life.stopped.cancel();
    node.life.tasks.close();
    background.close();
    let sockets = async {
        if tokio::time::timeout(STRAGGLER_PATIENCE.min(budget / 6), node.life.tasks.wait())
            .await
            .is_err()
        {
            abort_stragglers(node);
            node.life.tasks.wait().await;
        }
        background.wait().await;
    };
    let sockets_left = budget / 3 * 2;
    if tokio::time::timeout(sockets_left.saturating_sub(begun.elapsed()), sockets).await.is_err() {
        let tasks = node.life.tasks.len();
        tracing::warn!(tasks, "some sockets did not end in time; their leases run out");
    }
    writers.stop.cancel();
    writers.tasks.close();
    let writing = async {
        writers.tasks.wait().await;
        // Beside each other: a Redis that does not answer costs its own time.
        tokio::join!(node.cluster.close(), node.stores.database.close());
    };
    if tokio::time::timeout(budget.saturating_sub(begun.elapsed()), writing).await.is_err() {
        tracing::warn!("the drain took longer than DRAIN_SECONDS; stopping anyway");
    }
    tracing::info!(elapsed_ms = begun.elapsed().as_millis(), "stopped");
}

/// How long closed sockets may take to say goodbye.
const STRAGGLER_PATIENCE: Duration = Duration::from_secs(3);

/// Sockets whose peers do not read end now.
fn abort_stragglers(node: &Node) {
    for room in node.registry.rooms() {
        room.for_each_session(|session, _| session.outbox.abort(CloseReason::SHUTTING_DOWN));
    }
}

/// Between two waves.
const WAVE_INTERVAL: Duration = Duration::from_millis(100);
/// Sockets that may be closed at once without a second thought.
const WAVE_SOCKETS_MIN: usize = 50;

async fn close_in_waves(node: &Arc<Node>, budget: Duration) {
    let waves = (budget.as_millis() / WAVE_INTERVAL.as_millis()).max(1);
    let wave = node.registry.sessions().div_ceil(usize::try_from(waves).unwrap_or(1));
    let wave = wave.max(WAVE_SOCKETS_MIN);
    loop {
        let open: Vec<_> = node
            .registry
            .rooms()
            .iter()
            .flat_map(|room| room.sessions())
            .filter(|(session, _)| session.outbox.is_open())
            .take(wave)
            .collect();
        if open.is_empty() {
            return;
        }
        for (session, _) in &open {
            session.outbox.close(CloseReason::SHUTTING_DOWN);
        }
        if open.len() == wave {
            tokio::time::sleep(WAVE_INTERVAL).await;
        }
    }
}
