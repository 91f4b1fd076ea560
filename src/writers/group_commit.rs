//! The group commit: sends from all sockets of a node meet in one writer.
//!
//! The writer takes what has gathered while the last batch was written, so
//! batches grow with load and nobody waits for company when there is none.
//! What a batch's envelopes lead to (answers, deliveries) runs in a second
//! task, in order, while the next batch is being written.
//!
//! Meshes are spread over a few lanes; a mesh stays in its lane, so its order
//! is kept.

mod batch;
mod quotas;

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::batch::Writer;
pub use self::quotas::Quota;
use crate::config::QuotaConfig;
use crate::id::MeshId;
use crate::limits;
use crate::metrics::Metrics;
use crate::store::{Accepted, Envelopes, NewEnvelope};

/// What became of one envelope.
pub type Outcome = Result<Accepted, Refused>;

/// Why an envelope is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The store is away; the same send may succeed later.
    Unavailable,
    /// The store will never take it.
    Rejected,
    /// As much waits already as may.
    Full(Quota),
}

/// Called once the envelope's fate is known. Must not block.
pub type Completion = Box<dyn FnOnce(NewEnvelope, Outcome) + Send>;

/// An envelope on its way to the store.
pub struct Submission {
    /// The envelope.
    pub envelope: NewEnvelope,
    /// When its frame was read.
    pub received: Instant,
    /// What follows.
    pub done: Completion,
}

/// The way into the writer. Bounded: a socket whose send finds it full stops
/// reading until there is room.
#[derive(Clone)]
pub struct AcceptQueue {
    lanes: Arc<[mpsc::Sender<Submission>]>,
    hasher: RandomState,
}

/// The writer's end of one lane.
pub struct AcceptLane(mpsc::Receiver<Submission>);

/// A queue of that many lanes.
#[must_use]
pub fn lanes(count: usize) -> (AcceptQueue, Vec<AcceptLane>) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..count.max(1))
        .map(|_| {
            let (sender, receiver) = mpsc::channel(limits::ACCEPT_QUEUE_ENVELOPES_MAX);
            (sender, AcceptLane(receiver))
        })
        .unzip();
    (AcceptQueue { lanes: senders.into(), hasher: RandomState::new() }, receivers)
}

impl AcceptQueue {
    /// Hands an envelope over; waits while the lane is full. The lane's order
    /// is the order of calls.
    pub async fn submit(&self, submission: Submission) {
        let lane = &self.lanes[self.lane_of(&submission.envelope.mesh)];
        if let Err(mpsc::error::SendError(submission)) = lane.send(submission).await {
            // The writer is gone: the node has stopped.
            (submission.done)(submission.envelope, Err(Refused::Unavailable));
        }
    }

    fn lane_of(&self, mesh: &MeshId) -> usize {
        let lanes = self.lanes.len() as u64;
        usize::try_from(self.hasher.hash_one(mesh) % lanes).unwrap_or(0)
    }
}

/// A batch whose fate is known.
struct Decided {
    outcomes: Vec<Outcome>,
    envelopes: Vec<NewEnvelope>,
    completions: Vec<Completion>,
}

/// Writes one lane until `stop`, and then what is left in it. Never cancelled:
/// it holds transactions.
pub async fn run(
    lane: AcceptLane,
    store: Arc<dyn Envelopes>,
    metrics: Arc<Metrics>,
    quotas: QuotaConfig,
    stop: CancellationToken,
) {
    let mut writer = Writer::new(quotas);
    let AcceptLane(mut submissions) = lane;
    let (decided, mut to_complete) = mpsc::channel::<Decided>(2);
    let completer = tokio::spawn(async move {
        while let Some(Decided { outcomes, envelopes, completions }) = to_complete.recv().await {
            for ((done, envelope), outcome) in completions.into_iter().zip(envelopes).zip(outcomes)
            {
                complete(done, envelope, outcome);
            }
        }
    });
    let mut gathered = Vec::with_capacity(limits::ACCEPT_BATCH_ENVELOPES_MAX);
    while gather(&mut submissions, &mut gathered, &stop).await {
        metrics.accept_batch_envelopes.observe(gathered.len());
        let mut envelopes = Vec::with_capacity(gathered.len());
        let mut completions = Vec::with_capacity(gathered.len());
        let mut received = Vec::with_capacity(gathered.len());
        for submission in gathered.drain(..) {
            envelopes.push(submission.envelope);
            completions.push(submission.done);
            received.push(submission.received);
        }
        // Those that wait in the lane are younger.
        let (oldest, began) = (received[0], Instant::now());
        metrics.commit_begins(oldest);
        let (envelopes, outcomes) = writer.write(&*store, envelopes).await;
        metrics.commit_ended(oldest);
        metrics.accept_commit_seconds.observe(began.elapsed().as_secs_f64());
        for at in received {
            metrics.accept_seconds.observe(at.elapsed().as_secs_f64());
        }
        if decided.send(Decided { outcomes, envelopes, completions }).await.is_err() {
            break;
        }
    }
    drop(decided);
    if let Err(error) = completer.await {
        tracing::error!(%error, "what follows from the last sends did not happen");
    }
}

/// A panic in a completion is a defect; it must not take the lane with it.
fn complete(done: Completion, envelope: NewEnvelope, outcome: Outcome) {
    let (id, mesh) = (envelope.id.clone(), envelope.mesh.clone());
    if catch_unwind(AssertUnwindSafe(|| done(envelope, outcome))).is_err() {
        tracing::error!(message_id = %id, %mesh, "what follows from a send panicked");
    }
}

/// What has gathered; `false` once the lane is closed and empty.
async fn gather(
    submissions: &mut mpsc::Receiver<Submission>,
    gathered: &mut Vec<Submission>,
    stop: &CancellationToken,
) -> bool {
    let max = limits::ACCEPT_BATCH_ENVELOPES_MAX;
    tokio::select! {
        count = submissions.recv_many(gathered, max) => return count > 0,
        () = stop.cancelled() => submissions.close(),
    }
    submissions.recv_many(gathered, max).await > 0
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::protocol::Priority;
    use crate::store::Reach;
    use crate::store::sqlite::SqliteStore;

    /// From that member to that key.
    pub(super) fn direct(member: &str, key: &str) -> NewEnvelope {
        NewEnvelope {
            id: "id".into(),
            mesh: "mesh".into(),
            sender_member: member.into(),
            sender_name: String::new(),
            sender_session_key: None,
            target_spec: key.to_owned(),
            reach: Reach::Direct { claim: None },
            priority: Priority::Next,
            nonce: String::new(),
            ciphertext: String::new(),
            client_message_id: None,
            request_fingerprint: None,
            reply_to_id: None,
        }
    }

    #[tokio::test]
    async fn one_completion_that_panics_does_not_end_the_lane() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open(&folder.path().join("broker.db")).await.expect("a new file");
        let (queue, mut lanes) = lanes(1);
        let stop = CancellationToken::new();
        let lane = lanes.remove(0);
        let metrics = Arc::new(Metrics::new());
        let quotas = crate::config::Config::for_tests(folder.path()).message.quotas;
        let writer = tokio::spawn(run(lane, Arc::new(store), metrics, quotas, stop.clone()));
        let completed = Arc::new(AtomicU32::new(0));
        for panics in [false, true, false] {
            let (told, tell) = tokio::sync::oneshot::channel::<()>();
            let count = Arc::clone(&completed);
            let done: Completion = Box::new(move |_, _| {
                let _told = told;
                assert!(!panics, "a defect");
                count.fetch_add(1, Ordering::Relaxed);
            });
            let envelope = direct("member", "key");
            queue.submit(Submission { envelope, received: Instant::now(), done }).await;
            assert!(tell.await.is_err(), "it ran, or was dropped");
        }
        assert_eq!(completed.load(Ordering::Relaxed), 2);
        stop.cancel();
        writer.await.expect("the lane lives");
    }
}
