//! The group commit: sends from all sockets of a node meet in one writer.
//!
//! The writer takes what has gathered while the last batch was written, so
//! batches grow with load and nobody waits for company when there is none.
//! Who waits for a batch's outcomes ([`Pending`]) learns them in a second task, in
//! order, while the next batch is being written.
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
pub(crate) use self::quotas::Quota;
use crate::config::QuotaConfig;
use crate::id::MeshId;
use crate::limits;
use crate::metrics::Metrics;
use crate::store::{Accepted, Envelopes, NewEnvelope};

/// What became of one envelope.
pub(crate) type Outcome = Result<Accepted, Refused>;

/// Why an envelope is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The store is away; the same send may succeed later.
    Unavailable,
    /// The store will never take it.
    Rejected,
    /// The queue is full.
    Full(Quota),
    /// Its sender sends too much, and has not sent this one before.
    OverRate,
}

/// Who waits for an outcome: goes to the disk with its envelope, and comes back
/// with it.
pub trait Pending: Send + 'static {
    /// The envelope's fate is known. Must not block.
    fn decided(self, envelope: NewEnvelope, outcome: Outcome);
}

/// An envelope on its way to the store.
pub struct Submission<P> {
    pub envelope: NewEnvelope,
    /// When its frame was read.
    pub received: Instant,
    /// Who waits for its outcome.
    pub pending: P,
    /// Whether it is to be taken only if its sender's own id for it names a message already:
    /// as new, it is over a rate.
    pub only_known: bool,
}

/// The way into the writer. Bounded: a socket whose send finds it full stops
/// reading until there is room.
pub struct CommitQueue<P> {
    lanes: Box<[mpsc::Sender<Submission<P>>]>,
    hasher: RandomState,
}

/// The writer's end of one lane.
pub(crate) struct CommitLane<P>(mpsc::Receiver<Submission<P>>);

/// A queue of that many lanes.
pub(crate) fn lanes<P: Pending>(count: usize) -> (CommitQueue<P>, Vec<CommitLane<P>>) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..count.max(1))
        .map(|_| {
            let (sender, receiver) = mpsc::channel(limits::ACCEPT_QUEUE_ENVELOPES_MAX);
            (sender, CommitLane(receiver))
        })
        .unzip();
    (CommitQueue { lanes: senders.into(), hasher: RandomState::new() }, receivers)
}

impl<P: Pending> CommitQueue<P> {
    /// Hands an envelope over; waits while the lane is full. The lane's order
    /// is the order of calls.
    pub async fn submit(&self, submission: Submission<P>) {
        let lane = &self.lanes[self.lane_of(&submission.envelope.mesh)];
        if let Err(mpsc::error::SendError(submission)) = lane.send(submission).await {
            // The writer is gone: the node has stopped.
            submission.pending.decided(submission.envelope, Err(Refused::Unavailable));
        }
    }

    fn lane_of(&self, mesh: &MeshId) -> usize {
        let lanes = self.lanes.len() as u64;
        usize::try_from(self.hasher.hash_one(mesh) % lanes).unwrap_or(0)
    }
}

/// A batch whose fate is known.
struct Decided<P> {
    outcomes: Vec<Outcome>,
    envelopes: Vec<NewEnvelope>,
    pending: Vec<P>,
}

/// Writes one lane until `stop`, and then what is left in it. Never cancelled:
/// it holds transactions.
pub(crate) async fn run<P: Pending>(
    lane: CommitLane<P>,
    store: Arc<dyn Envelopes>,
    metrics: Arc<Metrics>,
    quotas: QuotaConfig,
    stop: CancellationToken,
) {
    let mut writer = Writer::new(quotas);
    let CommitLane(mut submissions) = lane;
    let (decided, mut to_complete) = mpsc::channel::<Decided<P>>(2);
    let completer = tokio::spawn(async move {
        while let Some(Decided { outcomes, envelopes, pending }) = to_complete.recv().await {
            for ((pending, envelope), outcome) in pending.into_iter().zip(envelopes).zip(outcomes) {
                complete(pending, envelope, outcome);
            }
        }
    });
    let mut gathered = Vec::with_capacity(limits::ACCEPT_BATCH_ENVELOPES_MAX);
    while gather(&mut submissions, &mut gathered, &stop).await {
        metrics.accept_batch_envelopes.observe(gathered.len());
        let mut envelopes = Vec::with_capacity(gathered.len());
        let mut pending = Vec::with_capacity(gathered.len());
        let mut received = Vec::with_capacity(gathered.len());
        let mut only_known = Vec::new();
        for (at, submission) in gathered.drain(..).enumerate() {
            if submission.only_known {
                only_known.push(at);
            }
            envelopes.push(submission.envelope);
            pending.push(submission.pending);
            received.push(submission.received);
        }
        // Those that wait in the lane are younger.
        let (oldest, began) = (received[0], Instant::now());
        metrics.commit_begins(oldest);
        let (envelopes, outcomes) = writer.write(&*store, envelopes, &only_known).await;
        metrics.commit_ended(oldest);
        metrics.accept_commit_seconds.observe(began.elapsed().as_secs_f64());
        for at in received {
            metrics.accept_seconds.observe(at.elapsed().as_secs_f64());
        }
        if decided.send(Decided { outcomes, envelopes, pending }).await.is_err() {
            break;
        }
    }
    drop(decided);
    if let Err(error) = completer.await {
        tracing::error!(%error, "what follows from the last sends did not happen");
    }
}

/// A panic in what follows from a send is a defect; it must not take the lane with it.
fn complete(pending: impl Pending, envelope: NewEnvelope, outcome: Outcome) {
    let (id, mesh) = (envelope.id.clone(), envelope.mesh.clone());
    if catch_unwind(AssertUnwindSafe(|| pending.decided(envelope, outcome))).is_err() {
        tracing::error!(message_id = %id, %mesh, "what follows from a send panicked");
    }
}

/// What has gathered; `false` once the lane is closed and empty.
async fn gather<P>(
    submissions: &mut mpsc::Receiver<Submission<P>>,
    gathered: &mut Vec<Submission<P>>,
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
    use std::collections::HashSet;
    use std::path::Path;

    use parking_lot::Mutex;
    use tokio::sync::oneshot;

    use super::*;
    use crate::protocol::Priority;
    use crate::store::{Envelope, Holder, MockEnvelopes, Reach, WaitingLoad};

    /// From that member to that key.
    pub(super) fn direct(member: &str, key: &str) -> NewEnvelope {
        NewEnvelope {
            envelope: Envelope {
                id: "id".into(),
                mesh: "mesh".into(),
                sender_member: member.into(),
                sender_name: String::new(),
                sender_session_key: None,
                target_spec: key.to_owned(),
                priority: Priority::Next,
                nonce: String::new(),
                ciphertext: String::new(),
                client_message_id: None,
                request_fingerprint: None,
                reply_to_id: None,
                scheduled: None,
                properties: None,
            },
            reach: Reach::Direct { claim: None, note: None },
        }
    }

    /// Tells its outcome, unless it panics.
    struct Told {
        tell: oneshot::Sender<Outcome>,
        panics: bool,
    }

    impl Pending for Told {
        fn decided(self, _: NewEnvelope, outcome: Outcome) {
            assert!(!self.panics, "a defect");
            let _ = self.tell.send(outcome);
        }
    }

    /// A store that takes all, and remembers the envelopes of each transaction.
    fn store() -> (MockEnvelopes, Arc<Mutex<Vec<usize>>>) {
        let transactions = Arc::new(Mutex::new(Vec::new()));
        let mut store = MockEnvelopes::new();
        let seen = Arc::clone(&transactions);
        store.expect_accept().returning(move |now, batch| {
            seen.lock().push(batch.len());
            let new = Accepted::New { seq: 1, previous_multicast: 0, roster: 0, created_at: now };
            Ok(vec![new; batch.len()])
        });
        let nothing = |asked: &[(Holder, u64)]| Ok(vec![WaitingLoad::default(); asked.len()]);
        store.expect_waiting_load().returning(nothing);
        (store, transactions)
    }

    async fn submit(queue: &CommitQueue<Told>, panics: bool) -> oneshot::Receiver<Outcome> {
        let (tell, told) = oneshot::channel();
        let (envelope, pending) = (direct("member", "key"), Told { tell, panics });
        let received = Instant::now();
        queue.submit(Submission { envelope, received, pending, only_known: false }).await;
        told
    }

    fn write(
        lane: CommitLane<Told>,
        store: MockEnvelopes,
        stop: &CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let quotas = crate::config::Config::for_tests(Path::new("unused")).message.quotas;
        run(lane, Arc::new(store), Arc::new(Metrics::new()), quotas, stop.clone())
    }

    #[tokio::test]
    async fn what_follows_from_one_send_may_panic_and_the_lane_goes_on() {
        let (queue, mut lanes) = lanes(1);
        let stop = CancellationToken::new();
        let writer = tokio::spawn(write(lanes.remove(0), store().0, &stop));
        for panics in [false, true, false] {
            let outcome = submit(&queue, panics).await.await;
            assert_eq!(outcome.is_err(), panics, "who panics tells nothing");
        }
        stop.cancel();
        writer.await.expect("the lane lives");
    }

    #[tokio::test]
    async fn what_has_gathered_is_one_transaction_and_is_written_after_the_stop() {
        let (queue, mut lanes) = lanes(1);
        let stop = CancellationToken::new();
        let mut told = Vec::new();
        for _ in 0..5 {
            told.push(submit(&queue, false).await);
        }
        stop.cancel();
        let (store, transactions) = store();
        write(lanes.remove(0), store, &stop).await;
        for told in told {
            let outcome = told.await.expect("each is told before the lane ends");
            assert!(matches!(outcome, Ok(Accepted::New { .. })));
        }
        assert_eq!(*transactions.lock(), [5]);
        let late = submit(&queue, false).await.await.expect("told");
        assert_eq!(late, Err(Refused::Unavailable), "the node has stopped");
    }

    #[test]
    fn a_mesh_stays_in_its_lane() {
        let (queue, _lanes) = lanes::<Told>(4);
        let lane = |mesh: usize| queue.lane_of(&MeshId::from(mesh.to_string()));
        assert!((0..100).all(|mesh| lane(mesh) == lane(mesh)));
        let used: HashSet<usize> = (0..100).map(lane).collect();
        assert_eq!(used.len(), 4, "all are used");
    }
}
