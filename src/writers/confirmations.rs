//! Deliveries that are done, on their way to the store, in batches.
//!
//! Nothing here is a queue of messages: what is listed are *sessions* that have
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
pub(crate) struct Confirmations {
    sessions: Mutex<Vec<Arc<Session>>>,
    /// Confirmations of deliveries that an earlier socket made.
    stray: Mutex<Vec<Confirm>>,
    wake: Notify,
}

impl Confirmations {
    pub(crate) fn report(&self, session: &Arc<Session>) {
        if !session.is_in_confirmations.swap(true, Ordering::AcqRel) {
            self.sessions.lock().push(Arc::clone(session));
            self.wake.notify_one();
        }
    }

    /// Confirmations of what is not on its way on a socket here.
    pub(crate) fn report_strays(&self, confirms: Vec<Confirm>) {
        if confirms.is_empty() {
            return;
        }
        let mut stray = self.stray.lock();
        let room = limits::CONFIRM_QUEUE_MAX.saturating_sub(stray.len());
        stray.extend(confirms.into_iter().take(room));
        self.wake.notify_one();
    }

    /// Writes what one session is done with, now: before another socket of
    /// the same session reads its mail.
    pub(crate) async fn settle(
        &self,
        store: &dyn Mail,
        session: &Session,
    ) -> crate::store::Result<()> {
        let done = session.inbox.lock().done();
        write(store, &entries(session, &done)).await?;
        session.inbox.lock().saved(&done);
        Ok(())
    }

    /// Writes what one session is done with, and these of earlier sockets, now: before it is
    /// told so.
    pub(crate) async fn settle_with(
        &self,
        store: &dyn Mail,
        session: &Session,
        strays: Vec<Confirm>,
    ) -> crate::store::Result<()> {
        let written = write(store, &strays).await;
        if written.is_err() {
            self.report_strays(strays);
        }
        written?;
        self.settle(store, session).await
    }

    /// Writes until `stop` is done, and then what is left.
    pub(crate) async fn run(&self, store: &dyn Mail, stop: impl Future<Output = ()>) {
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
            // Both, in any case.
            if !with_positions && done.position.take().is_some() | done.posts.take().is_some() {
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

    /// The batch could not be written: its strays go before those that came since,
    /// and the rest is where it was.
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
        is_written_only: !done.is_confirmed,
    });
    let position = done
        .position
        .map(|position| Confirm::MulticastsUpTo { presence: session.presence.clone(), position });
    let posts =
        done.posts.map(|position| Confirm::PostsUpTo { member: session.member.clone(), position });
    direct.chain(position).chain(posts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::testing;
    use crate::id::{Key, MeshId, MessageId, PresenceId};
    use crate::record::PresenceRecord;
    use crate::store::testing::{member, record};
    use crate::store::{MockMail, StoreError};

    fn confirm(id: &str) -> Confirm {
        Confirm::Message {
            mesh: MeshId::from("mesh"),
            id: id.into(),
            member_key: Key::from("key"),
            session_key: None,
            is_written_only: false,
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

    /// A store that is away at first, for so many calls; and what it wrote then.
    fn store(away: usize) -> (MockMail, Arc<Mutex<Vec<Vec<Confirm>>>>) {
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut store, noted) = (MockMail::new(), Arc::clone(&written));
        let no = |_, _: &[Confirm]| Err(StoreError::Unavailable("away".to_owned()));
        store.expect_confirm().times(away).returning(no);
        store.expect_confirm().returning(move |_, batch| {
            noted.lock().push(batch.to_vec());
            Ok(())
        });
        (store, written)
    }

    /// A session of Bob that is done with that direct message.
    fn done_with(id: &str) -> Arc<Session> {
        let record = PresenceRecord { has_confirmed: true, ..record(&member("bob")) };
        let session = testing::session(&record);
        assert!(session.offer(&testing::delivery(id, 1)));
        assert!(session.inbox.lock().confirm(Some(id), None).is_some());
        session
    }

    fn of_bob(id: &str) -> Confirm {
        Confirm::Message {
            mesh: MeshId::from("mesh"),
            id: MessageId::from(id),
            member_key: Key::from("bob-key"),
            session_key: None,
            is_written_only: false,
        }
    }

    #[tokio::test]
    async fn a_store_that_is_away_costs_a_retry_and_no_confirmation() {
        let (store, written) = store(1);
        let confirmations = Confirmations::default();
        let session = done_with("own");
        confirmations.report(&session);
        confirmations.report_strays(vec![confirm("stray")]);
        assert!(confirmations.flush(&store, true).await.is_err());
        assert!(!session.inbox.lock().is_settled(), "the truth stays in the inbox");
        assert!(matches!(confirmations.flush(&store, true).await, Ok(false)));
        assert_eq!(*written.lock(), [[confirm("stray"), of_bob("own")]]);
        assert!(session.inbox.lock().is_settled());
        confirmations.flush(&store, true).await.expect("writable");
        assert_eq!(written.lock().len(), 1, "and nothing twice");
    }

    #[tokio::test]
    async fn what_is_answered_is_written_first_and_what_cannot_be_is_tried_again() {
        let (store, written) = store(1);
        let confirmations = Confirmations::default();
        let session = done_with("own");
        session.inbox.lock().pass_over(7);
        confirmations.report(&session);
        let refused = confirmations.settle_with(&store, &session, vec![confirm("stray")]).await;
        assert!(refused.is_err() && !session.inbox.lock().is_settled());
        confirmations.settle_with(&store, &session, vec![confirm("next")]).await.expect("writable");
        let position = Confirm::MulticastsUpTo { presence: session.presence.clone(), position: 7 };
        let answered = [vec![confirm("next")], vec![of_bob("own"), position]];
        assert_eq!(*written.lock(), answered, "also the position, which is not due");
        assert!(session.inbox.lock().is_settled());
        confirmations.flush(&store, true).await.expect("writable");
        assert_eq!(written.lock()[2..], [[confirm("stray")]]);
    }

    #[tokio::test]
    async fn a_session_is_listed_once_however_much_it_has_to_report() {
        let (confirmations, session) = (Confirmations::default(), done_with("own"));
        for _ in 0..3 {
            confirmations.report(&session);
        }
        assert_eq!(confirmations.sessions.lock().len(), 1);
        confirmations.flush(&store(0).0, true).await.expect("writable");
        assert!(confirmations.sessions.lock().is_empty());
        confirmations.report(&session);
        assert_eq!(confirmations.sessions.lock().len(), 1, "it may report again");
    }

    #[tokio::test]
    async fn a_position_waits_until_it_is_due_and_what_is_done_does_not() {
        let (store, written) = store(0);
        let (confirmations, session) = (Confirmations::default(), done_with("own"));
        session.inbox.lock().pass_over(7);
        confirmations.report(&session);
        assert!(matches!(confirmations.flush(&store, false).await, Ok(false)));
        assert_eq!(*written.lock(), [[of_bob("own")]]);
        assert!(
            matches!(confirmations.flush(&store, false).await, Ok(true)),
            "the position is left"
        );
        assert_eq!(written.lock().len(), 1);
        confirmations.flush(&store, true).await.expect("writable");
        let (presence, position) = (session.presence.clone(), 7);
        assert_eq!(written.lock()[1], [Confirm::MulticastsUpTo { presence, position }]);
        assert!(session.inbox.lock().is_settled());
    }

    #[tokio::test]
    async fn many_confirmations_are_written_some_at_a_time() {
        let (store, written) = store(0);
        let confirmations = Confirmations::default();
        for number in 0..=limits::CONFIRM_BATCH_MAX {
            confirmations.report_strays(vec![confirm(&number.to_string())]);
        }
        confirmations.flush(&store, true).await.expect("writable");
        let counts: Vec<usize> = written.lock().iter().map(Vec::len).collect();
        assert_eq!(counts, [limits::CONFIRM_BATCH_MAX, 1]);
    }

    #[test]
    fn strays_that_come_while_as_many_wait_as_may_are_dropped() {
        let confirmations = Confirmations::default();
        for number in 0..=limits::CONFIRM_QUEUE_MAX {
            confirmations.report_strays(vec![confirm(&number.to_string())]);
        }
        assert_eq!(confirmations.stray.lock().len(), limits::CONFIRM_QUEUE_MAX);
    }

    #[tokio::test]
    async fn a_session_that_moves_to_another_socket_is_settled_first_or_not_at_all() {
        let (store, written) = store(1);
        let (confirmations, session) = (Confirmations::default(), done_with("own"));
        assert!(confirmations.settle(&store, &session).await.is_err());
        assert!(!session.inbox.lock().is_settled(), "nothing is forgotten");
        confirmations.settle(&store, &session).await.expect("writable");
        assert_eq!(*written.lock(), [[of_bob("own")]]);
        assert!(session.inbox.lock().is_settled());
    }

    #[tokio::test]
    async fn what_is_left_is_written_at_the_stop() {
        let (store, written) = store(0);
        let (confirmations, session) = (Confirmations::default(), done_with("own"));
        session.inbox.lock().pass_over(7);
        confirmations.report(&session);
        confirmations.run(&store, std::future::ready(())).await;
        assert_eq!(written.lock().concat().len(), 2, "the position too");
    }
}
