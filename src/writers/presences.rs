//! Presence rows on their way to the store.
//!
//! Presences that begin meet in one batch, like sends: a thousand peers that
//! reconnect at once cost a handful of transactions. What changes about a
//! presence later is merged per presence until it is written, so a store that
//! is away costs nothing but its truth for a while.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::id::PresenceId;
use crate::limits;
use crate::store::{OpenPresence, PresenceChange, Presences, Result, StoreError};
use crate::writers::batches::{self, Batches, Gathered, Sink};

/// After the store refused.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Changes gather this long.
const GATHER: Duration = Duration::from_millis(10);

/// Where presences report.
pub(crate) struct PresenceWriter {
    openings: Batches<OpenPresence, i64>,
    changes: Mutex<HashMap<PresenceId, PresenceChange>>,
    wake: Notify,
}

/// The writer's end.
pub(crate) type Openings = Gathered<OpenPresence, i64>;

impl PresenceWriter {
    /// A journal and what its writer reads.
    pub(crate) fn new() -> (Self, Openings) {
        let (openings, gathered) =
            batches::batches(limits::PRESENCE_QUEUE_MAX, limits::PRESENCE_BATCH_MAX);
        let journal = Self { openings, changes: Mutex::default(), wake: Notify::new() };
        (journal, gathered)
    }

    /// Writes a presence that begins, with others that begin now; returns its
    /// multicast position.
    pub(crate) async fn open(&self, presence: OpenPresence) -> Result<i64> {
        self.openings.write(presence).await
    }

    /// Something changed about a presence. Merged with what is waiting.
    pub(crate) fn change(&self, change: PresenceChange) {
        let mut changes = self.changes.lock();
        match changes.get_mut(&change.id) {
            Some(waiting) => waiting.merge(change),
            None => {
                changes.insert(change.id.clone(), change);
            }
        }
        drop(changes);
        self.wake.notify_one();
    }

    /// A presence ended: what waits about it does not matter any more.
    pub(crate) fn forget(&self, presence: &PresenceId) {
        self.changes.lock().remove(presence);
    }

    /// Writes changes until `stop` is done, and then what is left.
    pub(crate) async fn run_changes(&self, store: &dyn Presences, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let stopping = tokio::select! {
                () = &mut stop => true,
                () = self.wake.notified() => false,
            };
            let rest = match self.flush(store).await {
                Ok(()) => GATHER,
                Err(error) => {
                    tracing::debug!(%error, "presence changes wait");
                    RETRY_INTERVAL
                }
            };
            if stopping {
                return;
            }
            tokio::time::sleep(rest).await;
        }
    }

    /// Writes what waits, some at a time. What the store refuses for now waits on;
    /// one change that it never takes costs the others nothing.
    async fn flush(&self, store: &dyn Presences) -> Result<()> {
        let mut changes: Vec<PresenceChange> =
            std::mem::take(&mut *self.changes.lock()).into_values().collect();
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(limits::PRESENCE_BATCH_MAX));
            match store.update(&changes).await {
                Ok(()) => {}
                Err(error) if error.is_retryable() => {
                    changes.extend(rest);
                    self.give_back(changes);
                    return Err(error);
                }
                Err(error) => {
                    tracing::warn!(%error, "presence changes were refused; one by one");
                    if let Err((error, mut unwritten)) = one_by_one(store, changes).await {
                        unwritten.extend(rest);
                        self.give_back(unwritten);
                        return Err(error);
                    }
                }
            }
            changes = rest;
        }
        Ok(())
    }

    /// What came meanwhile is newer.
    fn give_back(&self, changes: Vec<PresenceChange>) {
        let mut waiting = self.changes.lock();
        for mut change in changes {
            if let Some(newer) = waiting.remove(&change.id) {
                change.merge(newer);
            }
            waiting.insert(change.id.clone(), change);
        }
        drop(waiting);
        self.wake.notify_one();
    }
}

/// Leaves out what the store never takes; gives back what it does not take now.
async fn one_by_one(
    store: &dyn Presences,
    changes: Vec<PresenceChange>,
) -> std::result::Result<(), (StoreError, Vec<PresenceChange>)> {
    let mut changes = changes.into_iter();
    while let Some(change) = changes.next() {
        let written = store.update(std::slice::from_ref(&change)).await;
        match written {
            Ok(()) => {}
            Err(error) if error.is_retryable() => {
                return Err((error, std::iter::once(change).chain(changes).collect()));
            }
            Err(error) => {
                tracing::warn!(%error, presence_id = %change.id, "a presence change was dropped");
            }
        }
    }
    Ok(())
}

/// Writes presences that begin, until `stop`, and then what is left.
pub(crate) async fn run_openings(
    openings: Openings,
    store: &dyn Presences,
    stop: CancellationToken,
) {
    batches::run(openings, &Opens(store), stop).await;
}

/// Opens presences, a batch at a time.
struct Opens<'s>(&'s dyn Presences);

#[async_trait]
impl Sink<OpenPresence, i64> for Opens<'_> {
    async fn write(&self, batch: &[OpenPresence]) -> Result<Vec<i64>> {
        self.0.open(Timestamp::now(), batch).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::{join, join_all};

    use super::*;
    use crate::audit::AuditEvent;
    use crate::protocol::{Status, StatusSource};
    use crate::record::PresenceRecord;
    use crate::store::MockPresences;
    use crate::store::testing::{member, record, unavailable};

    /// What a store was asked.
    #[derive(Default)]
    struct Asked {
        calls: Vec<usize>,
        written: HashMap<PresenceId, PresenceChange>,
    }

    /// A store that never takes some presences, and takes nothing after so many
    /// calls.
    fn store(
        refused: &'static [&'static str],
        calls_max: usize,
    ) -> (MockPresences, Arc<Mutex<Asked>>) {
        let asked = Arc::new(Mutex::new(Asked::default()));
        let (mut store, noted) = (MockPresences::new(), Arc::clone(&asked));
        store.expect_update().returning(move |changes| {
            let mut asked = noted.lock();
            asked.calls.push(changes.len());
            if asked.calls.len() > calls_max {
                return Err(StoreError::Unavailable("away".to_owned()));
            }
            if changes.iter().any(|change| refused.contains(&change.id.as_str())) {
                return Err(StoreError::Broken("never".to_owned()));
            }
            asked.written.extend(changes.iter().map(|change| (change.id.clone(), change.clone())));
            Ok(())
        });
        (store, asked)
    }

    fn summary(id: &str, text: &str) -> PresenceChange {
        PresenceChange { summary: Some(text.to_owned()), ..PresenceChange::of(id.into()) }
    }

    fn journal_of(count: usize) -> PresenceWriter {
        let (journal, _openings) = PresenceWriter::new();
        for number in 0..count {
            journal.change(summary(&number.to_string(), "text"));
        }
        journal
    }

    #[tokio::test]
    async fn one_change_that_is_never_taken_costs_the_others_nothing() {
        let (store, asked) = store(&["7"], usize::MAX);
        let journal = journal_of(20);
        journal.flush(&store).await.expect("it goes on");
        assert_eq!(asked.lock().written.len(), 19);
        assert!(journal.changes.lock().is_empty());
    }

    #[tokio::test]
    async fn many_changes_are_written_some_at_a_time() {
        let (store, asked) = store(&[], usize::MAX);
        journal_of(2 * limits::PRESENCE_BATCH_MAX + 1).flush(&store).await.expect("writable");
        let calls = [limits::PRESENCE_BATCH_MAX, limits::PRESENCE_BATCH_MAX, 1];
        assert_eq!(asked.lock().calls, calls);
    }

    #[tokio::test]
    async fn what_is_not_taken_now_waits_under_what_is_newer() {
        let count = limits::PRESENCE_BATCH_MAX + 10;
        let journal = journal_of(count);
        for away_after in [0, 1] {
            let (store, asked) = store(&[], away_after);
            assert!(journal.flush(&store).await.is_err());
            let waiting = journal.changes.lock().len();
            assert_eq!(waiting + asked.lock().written.len(), count, "after {away_after}");
        }
        let waiting: Vec<PresenceId> = journal.changes.lock().keys().cloned().collect();
        assert_eq!(waiting.len(), 10);
        let idle = (Status::Idle, StatusSource::Hook, Timestamp::from_ms(1));
        let change =
            PresenceChange { status: Some(idle), ..PresenceChange::of(waiting[0].clone()) };
        let older = journal.changes.lock().remove(&waiting[0]).expect("it waits");
        journal.change(change);
        journal.change(summary(waiting[1].as_str(), "newer"));
        journal.give_back(vec![older]);
        let (store, asked) = store(&[], usize::MAX);
        journal.flush(&store).await.expect("writable");
        let written = &asked.lock().written;
        assert_eq!(written.len(), 10);
        assert_eq!(written[&waiting[0]].summary.as_deref(), Some("text"), "both are kept");
        assert!(written[&waiting[0]].status.is_some());
        assert_eq!(written[&waiting[1]].summary.as_deref(), Some("newer"));
    }

    fn opening(id: &str) -> OpenPresence {
        let record = PresenceRecord { id: id.into(), ..record(&member("bob")) };
        OpenPresence { record, audit: AuditEvent::PeerLeft }
    }

    /// What presences that begin at the same moment are answered.
    async fn opened(store: &MockPresences, ids: &[&str]) -> Vec<Result<i64>> {
        let ((writer, openings), stop) = (PresenceWriter::new(), CancellationToken::new());
        let answers = async {
            let answers = join_all(ids.iter().map(|id| writer.open(opening(id)))).await;
            stop.cancel();
            answers
        };
        // All of them wait before the writer looks.
        join(answers, run_openings(openings, store, stop.clone())).await.0
    }

    #[tokio::test]
    async fn one_presence_that_is_never_taken_costs_the_others_nothing() {
        let (mut store, calls) = (MockPresences::new(), Arc::new(Mutex::new(Vec::new())));
        let noted = Arc::clone(&calls);
        store.expect_open().returning(move |_, opened| {
            noted.lock().push(opened.len());
            let position = |opened: &OpenPresence| opened.record.id.as_str().parse();
            let positions = opened.iter().map(position).collect::<std::result::Result<_, _>>();
            positions.map_err(|_| StoreError::Broken("never".to_owned()))
        });
        let answers = opened(&store, &["1", "bad", "3"]).await;
        assert!(matches!(answers[..], [Ok(1), Err(StoreError::Broken(_)), Ok(3)]), "{answers:?}");
        assert_eq!(*calls.lock(), [3, 1, 1, 1]);
    }

    #[tokio::test]
    async fn where_the_store_is_away_all_that_begin_are_told_so_and_it_is_asked_once() {
        let mut store = MockPresences::new();
        store.expect_open().times(1).returning(|_, _| Err(unavailable()));
        let answers = opened(&store, &["1", "2", "3"]).await;
        assert_eq!(answers.len(), 3);
        for answer in answers {
            assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_store_that_answers_for_fewer_leaves_nobody_without_an_answer() {
        let mut store = MockPresences::new();
        store.expect_open().times(1).returning(|_, _| Ok(vec![7]));
        let answers = opened(&store, &["1", "2", "3"]).await;
        let [Ok(7), Err(StoreError::Broken(_)), Err(StoreError::Broken(_))] = answers[..] else {
            panic!("{answers:?}")
        };
    }

    #[tokio::test]
    async fn what_waits_when_the_node_stops_is_written_and_what_comes_later_is_refused() {
        let mut store = MockPresences::new();
        store.expect_open().times(1).returning(|_, opened| Ok(vec![7; opened.len()]));
        let ((writer, openings), stop) = (PresenceWriter::new(), CancellationToken::new());
        stop.cancel();
        let waiting = writer.open(opening("1"));
        let (answer, ()) = join(waiting, run_openings(openings, &store, stop)).await;
        assert!(matches!(answer, Ok(7)), "{answer:?}");
        let late = writer.open(opening("2")).await;
        assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    }
}
