//! The mesh's multicasts, in its order: one at a time is handed to the sessions here, and
//! what is missing is read from the store. Delivery alone calls this.

use std::sync::atomic::Ordering;

use super::Room;
use crate::clock::Timestamp;
use crate::cluster::Multicast;
use crate::registry::order::Arrival;

impl Room {
    /// The sequence number of the last multicast that was delivered here.
    #[must_use]
    pub fn last_multicast(&self) -> i64 {
        self.multicasts.lock().last()
    }

    /// Sessions here read the store up to this number; `read` begins it.
    pub fn skip_to(&self, seq: i64, read: impl FnOnce()) {
        let mut order = self.multicasts.lock();
        order.skip_to(seq);
        // Under the lock: no later one is handed over before it has begun.
        read();
    }

    /// A multicast arrives, from here or from another node: it and those that
    /// waited for it are handed to `deliver` in the mesh's order, one at a
    /// time; if too many wait, `read` begins to read all from the store. What
    /// else is to be done is in the answer.
    pub fn arrive(
        &self,
        multicast: Multicast,
        mut deliver: impl FnMut(Multicast),
        read: impl FnOnce(),
    ) -> Arrival<Multicast> {
        let mut order = self.multicasts.lock();
        let arrival = order.arrive(multicast.previous, multicast.delivery.seq, multicast);
        match arrival {
            Arrival::Now(multicasts) => {
                // Under the lock: two that arrive at once keep their order.
                multicasts.into_iter().for_each(&mut deliver);
                Arrival::Now(Vec::new())
            }
            Arrival::Lost => {
                read();
                Arrival::Lost
            }
            waits @ Arrival::Waits { .. } => waits,
        }
    }

    /// Whether multicasts wait for one before them.
    #[must_use]
    pub fn multicasts_wait(&self) -> bool {
        self.multicasts.lock().is_waiting()
    }

    /// What was waited for did not come: if anything waited, `read` sees to it
    /// that it is read from the store.
    pub fn give_up_waiting(&self, read: impl FnOnce()) {
        let mut order = self.multicasts.lock();
        if order.give_up() {
            // Under the lock: whoever sees that nothing waits any more finds
            // the sessions draining.
            read();
        }
    }

    /// The store, asked then, was where it was believed to be.
    pub fn seqs_go_on(&self, asked_at: Timestamp) {
        self.seqs_known_ms.fetch_max(asked_at.as_ms(), Ordering::Relaxed);
    }

    /// When that was last so.
    #[must_use]
    pub fn seqs_known_at(&self) -> Timestamp {
        Timestamp::from_ms(self.seqs_known_ms.load(Ordering::Relaxed))
    }

    /// The store went back, and knows no number beyond `newest`: nobody here believes
    /// in one any more, and sessions that did go on from `seq`. Whether any did.
    pub fn rewind(&self, newest: i64, seq: i64) -> bool {
        self.told.lock().rewind(newest);
        let mut order = self.multicasts.lock();
        let mut was_ahead = order.rewind(newest);
        // Under the lock: no later one is handed over to a session that is ahead.
        self.for_each_session(|session, _| {
            was_ahead |= session.inbox.lock().rewind(newest, seq);
        });
        was_ahead
    }

    /// Whether the caller is to look if the store went back; until
    /// [`Self::end_look`] nobody else is.
    #[must_use]
    pub fn begin_look(&self) -> bool {
        !self.looks.swap(true, Ordering::AcqRel)
    }

    /// Notes that the look at the store is done.
    pub fn end_look(&self) {
        self.looks.store(false, Ordering::Release);
    }
}
