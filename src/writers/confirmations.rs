//! Deliveries that are done, on their way to the store, in batches.
//!
//! Nothing here is a queue of messages: the ledger lists *sessions* that have
//! something to report (each at most once), and the truth stays in their
//! inboxes until the store has it. So it is bounded by the sockets, and a
//! store that is away costs a retry, not a confirmation.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::limits;
use crate::session::Session;
use crate::session::inbox::Done;
use crate::store::{Confirm, Mail};

/// Between two flushes: confirmations gather, and commits are left for sends.
const FLUSH_INTERVAL: Duration = Duration::from_millis(5);
/// Multicast positions move with every message; they are written more rarely.
/// After `kill -9` at most this much is delivered again.
const POSITION_INTERVAL: Duration = Duration::from_millis(100);
/// After the store refused.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Where sessions report.
#[derive(Default)]
pub struct Confirmations {
    sessions: Mutex<Vec<Arc<Session>>>,
    /// Confirmations of deliveries that an earlier socket made.
    stray: Mutex<Vec<Confirm>>,
    wake: Notify,
}

impl Confirmations {
    /// The session has something to report.
    pub fn report(&self, session: &Arc<Session>) {
        if !session.is_in_confirmations.swap(true, Ordering::AcqRel) {
            self.sessions.lock().push(Arc::clone(session));
            self.wake.notify_one();
        }
    }

    /// A confirmation of something that is not on its way on this socket.
    pub fn report_stray(&self, confirm: Confirm) {
        let mut stray = self.stray.lock();
        if stray.len() < limits::CONFIRM_QUEUE_MAX {
            stray.push(confirm);
            self.wake.notify_one();
        }
    }

    /// Writes what one session is done with, now: before another socket of
    /// the same session reads its mail.
    ///
    /// # Errors
    ///
    /// The store's; nothing is forgotten.
    pub async fn settle(&self, store: &dyn Mail, session: &Session) -> crate::store::Result<()> {
        let done = session.inbox.lock().done();
        write(store, &entries(session, &done)).await?;
        session.inbox.lock().saved(&done);
        Ok(())
    }

    /// Writes until `stop` is done, and then what is left.
    pub async fn run(&self, store: &dyn Mail, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut positions_due = Instant::now();
        let mut stopping = false;
        while !stopping {
            tokio::select! {
                () = &mut stop => stopping = true,
                () = self.wake.notified() => {}
            }
            let with_positions = stopping || Instant::now() >= positions_due;
            if with_positions {
                positions_due = Instant::now() + POSITION_INTERVAL;
            }
            let rest = match self.flush(store, with_positions).await {
                Ok(true) => POSITION_INTERVAL,
                Ok(false) => FLUSH_INTERVAL,
                Err(error) => {
                    tracing::debug!(%error, "confirmations wait");
                    RETRY_INTERVAL
                }
            };
            if !stopping {
                tokio::select! {
                    () = &mut stop => stopping = true,
                    () = tokio::time::sleep(rest) => {}
                }
                if stopping {
                    let _ = self.flush(store, true).await;
                }
            }
        }
    }

    /// `Ok(true)` if only positions that are not due yet are left.
    async fn flush(&self, store: &dyn Mail, with_positions: bool) -> crate::store::Result<bool> {
        let sessions = std::mem::take(&mut *self.sessions.lock());
        let mut reports: Vec<(Arc<Session>, Done)> = Vec::with_capacity(sessions.len());
        let mut batch = Batch::of(std::mem::take(&mut *self.stray.lock()));
        let mut later = Vec::new();
        for session in sessions {
            session.is_in_confirmations.store(false, Ordering::Release);
            let mut done = session.inbox.lock().done();
            if !with_positions && done.position.take().is_some() {
                later.push(Arc::clone(&session));
            }
            batch.entries.extend(entries(&session, &done));
            reports.push((session, done));
        }
        let only_later = batch.entries.is_empty() && !later.is_empty();
        let written = write(store, &batch.entries).await;
        match &written {
            Ok(()) => {
                for (session, done) in &reports {
                    session.inbox.lock().saved(done);
                }
            }
            Err(_) => {
                batch.give_back(&mut self.stray.lock());
                later = reports.into_iter().map(|(session, _)| session).collect();
            }
        }
        for session in &later {
            self.report(session);
        }
        written.map(|()| only_later)
    }
}

/// What is written at once: first what belongs to no session here, then what the
/// sessions' inboxes hold until it is written.
struct Batch {
    entries: Vec<Confirm>,
    strays: usize,
}

impl Batch {
    fn of(strays: Vec<Confirm>) -> Self {
        Self { strays: strays.len(), entries: strays }
    }

    /// It could not be written: the strays go before those that came since. The
    /// rest is where it was.
    fn give_back(self, stray: &mut Vec<Confirm>) {
        let mut entries = self.entries;
        entries.truncate(self.strays);
        entries.append(stray);
        entries.truncate(limits::CONFIRM_QUEUE_MAX);
        *stray = entries;
    }
}

async fn write(store: &dyn Mail, batch: &[Confirm]) -> crate::store::Result<()> {
    for part in batch.chunks(limits::CONFIRM_BATCH_MAX) {
        store.confirm(Timestamp::now(), part).await?;
    }
    Ok(())
}

fn entries(session: &Session, done: &Done) -> Vec<Confirm> {
    let direct = done.directs.iter().map(|id| Confirm::Message {
        mesh: session.mesh.clone(),
        id: id.clone(),
        member_key: session.member_key.clone(),
        session_key: session.session_key.clone(),
    });
    let position = done
        .position
        .map(|position| Confirm::MulticastsUpTo { presence: session.presence.clone(), position });
    direct.chain(position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Key, MeshId, PresenceId};

    fn confirm(id: &str) -> Confirm {
        Confirm::Message {
            mesh: MeshId::from("mesh"),
            id: id.into(),
            member_key: Key::from("key"),
            session_key: None,
        }
    }

    fn position(position: i64) -> Confirm {
        Confirm::MulticastsUpTo { presence: PresenceId::from("presence"), position }
    }

    #[test]
    fn what_a_store_that_is_away_refuses_is_told_apart_by_its_place_alone() {
        let mut batch = Batch::of(vec![confirm("earlier"), confirm("both")]);
        // A session reports the same message, and its position.
        batch.entries.extend([confirm("both"), confirm("own"), position(7)]);
        let mut stray = vec![confirm("since")];
        batch.give_back(&mut stray);
        assert_eq!(stray, [confirm("earlier"), confirm("both"), confirm("since")]);
    }

    #[test]
    fn strays_are_bounded_however_often_the_store_refuses() {
        let of = |count: usize| (0..count).map(|id| confirm(&id.to_string())).collect::<Vec<_>>();
        let batch = Batch::of(of(limits::CONFIRM_QUEUE_MAX));
        let mut stray = vec![confirm("since")];
        batch.give_back(&mut stray);
        assert_eq!(stray, of(limits::CONFIRM_QUEUE_MAX), "the oldest stay");
    }
}
