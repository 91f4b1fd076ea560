//! From the books of calls to the spool: what an answer has shown is seen, what was
//! cancelled goes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::calls::{Calls, Settled};
use crate::claude::link::Link;
use crate::claude::spool::Way;
use crate::clock::Timestamp;

/// Between two looks when nothing is known to come.
const IDLE: Duration = Duration::from_secs(3600);

/// Settles until it is dropped.
pub(super) async fn run(calls: Arc<Calls<Link>>) {
    loop {
        let settled = calls.settle(Instant::now());
        let next = settled.next;
        note(settled).await;
        let pause = next.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = calls.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Settles what is left when the host is gone.
pub(super) async fn finish(calls: &Calls<Link>) {
    note(calls.settle_all()).await;
}

async fn note(settled: Settled<Link>) {
    for (link, ids) in settled.seen {
        let seen = link.party().spool.seen(&ids, Way::ToolResult, Timestamp::now()).await;
        if let Err(error) = seen {
            tracing::warn!(error = format!("{error:#}"), "what was seen is not noted");
        }
        link.stir();
    }
    for (link, ids) in settled.back {
        // What cannot be given back waits for the end of its lease.
        if let Err(error) = link.party().spool.give_back(&ids).await {
            tracing::debug!(error = format!("{error:#}"), "a cancelled call holds messages");
        }
    }
}
