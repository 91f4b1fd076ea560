//! Presence rows on their way to the store.
//!
//! Presences that begin meet in one batch, like sends: a thousand peers that
//! reconnect at once cost a handful of transactions. What changes about a
//! presence later is merged per presence until it is written, so a store that
//! is away costs nothing but its truth for a while.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::id::PresenceId;
use crate::limits;
use crate::store::{OpenPresence, PresenceChange, Result, Store, StoreError};

/// After the store refused.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Changes gather this long.
const GATHER: Duration = Duration::from_millis(10);

type Opening = (OpenPresence, oneshot::Sender<Result<i64>>);

/// Where presences report.
pub struct Journal {
    openings: mpsc::Sender<Opening>,
    changes: Mutex<HashMap<PresenceId, PresenceChange>>,
    wake: Notify,
}

/// The writer's end.
pub struct Openings(mpsc::Receiver<Opening>);

impl Journal {
    /// A journal and what its writer reads.
    #[must_use]
    pub fn new() -> (Self, Openings) {
        let (openings, receiver) = mpsc::channel(limits::PRESENCE_QUEUE_MAX);
        let journal = Self { openings, changes: Mutex::default(), wake: Notify::new() };
        (journal, Openings(receiver))
    }

    /// Writes a presence that begins, with others that begin now; returns its
    /// multicast position.
    ///
    /// # Errors
    ///
    /// As [`Store::open_presences`].
    pub async fn open(&self, presence: OpenPresence) -> Result<i64> {
        let gone = || StoreError::Unavailable("the node is stopping".to_owned());
        let (reply, answer) = oneshot::channel();
        self.openings.send((presence, reply)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Something changed about a presence. Merged with what is waiting.
    pub fn change(&self, change: PresenceChange) {
        let mut changes = self.changes.lock();
        match changes.get_mut(&change.id) {
            Some(waiting) => merge(waiting, change),
            None => {
                changes.insert(change.id.clone(), change);
            }
        }
        drop(changes);
        self.wake.notify_one();
    }

    /// A presence ended: what waits about it does not matter any more.
    pub fn forget(&self, presence: &PresenceId) {
        self.changes.lock().remove(presence);
    }

    /// Writes changes until `stop` is done, and then what is left.
    pub async fn run_changes(&self, store: &dyn Store, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let stopping = tokio::select! {
                () = &mut stop => true,
                () = self.wake.notified() => false,
            };
            let rest = match self.flush(store).await {
                Ok(()) => GATHER,
                Err(error) => {
                    if !error.is_retryable() {
                        tracing::warn!(%error, "presence changes were not written");
                    }
                    RETRY_INTERVAL
                }
            };
            if stopping {
                return;
            }
            tokio::time::sleep(rest).await;
        }
    }

    async fn flush(&self, store: &dyn Store) -> Result<()> {
        let changes: Vec<PresenceChange> =
            std::mem::take(&mut *self.changes.lock()).into_values().collect();
        if changes.is_empty() {
            return Ok(());
        }
        let written = store.update_presences(Timestamp::now(), &changes).await;
        if written.as_ref().is_err_and(StoreError::is_retryable) {
            let mut waiting = self.changes.lock();
            for mut change in changes {
                // What came meanwhile is newer.
                if let Some(newer) = waiting.remove(&change.id) {
                    merge(&mut change, newer);
                }
                waiting.insert(change.id.clone(), change);
            }
            self.wake.notify_one();
        }
        written
    }
}

/// Writes presences that begin, until `stop`, and then what is left.
pub async fn run_openings(openings: Openings, store: &dyn Store, stop: CancellationToken) {
    let Openings(mut receiver) = openings;
    let mut gathered = Vec::new();
    loop {
        let count = tokio::select! {
            count = receiver.recv_many(&mut gathered, limits::PRESENCE_BATCH_MAX) => count,
            () = stop.cancelled(), if !receiver.is_closed() => {
                receiver.close();
                continue;
            }
        };
        if count == 0 {
            return;
        }
        let (presences, replies): (Vec<_>, Vec<_>) = gathered.drain(..).unzip();
        let opened = store.open_presences(Timestamp::now(), &presences).await;
        match opened {
            Ok(positions) => {
                for (reply, position) in replies.into_iter().zip(positions) {
                    let _ = reply.send(Ok(position));
                }
            }
            Err(error) if presences.len() == 1 || error.is_retryable() => {
                for reply in replies {
                    let _ = reply.send(Err(StoreError::Unavailable(error.to_string())));
                }
            }
            Err(_) => open_one_by_one(store, &presences, replies).await,
        }
    }
}

/// One that cannot be written costs the others nothing.
async fn open_one_by_one(
    store: &dyn Store,
    presences: &[OpenPresence],
    replies: Vec<oneshot::Sender<Result<i64>>>,
) {
    for (presence, reply) in presences.iter().zip(replies) {
        let opened = store.open_presences(Timestamp::now(), std::slice::from_ref(presence)).await;
        let _ = reply.send(opened.map(|positions| positions.first().copied().unwrap_or(0)));
    }
}

fn merge(older: &mut PresenceChange, newer: PresenceChange) {
    let PresenceChange { id: _, status, summary, groups, visible, profile, stats } = newer;
    older.status = status.or(older.status.take());
    older.summary = summary.or(older.summary.take());
    older.groups = groups.or(older.groups.take());
    older.visible = visible.or(older.visible.take());
    older.profile = profile.or(older.profile.take());
    older.stats = stats.or(older.stats.take());
}
