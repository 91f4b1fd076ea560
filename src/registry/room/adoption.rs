//! Whether posts of other programs were looked for in the mesh, and when that is tried
//! again.
//!
//! Nothing is read here. Admission begins it, the watch for other programs' changes goes
//! on with it, and what failed waits here for a job that tries it again.

use super::Room;
use crate::clock::{Timestamp, retry_pause_ms};
use crate::limits;

/// How far the looking is.
#[derive(Default)]
pub(super) struct Adoption {
    /// Whether it was begun in this room's life.
    is_begun: bool,
    /// How often it failed in a row.
    failures: u32,
    /// When it is tried again, where it failed.
    again_at: Option<Timestamp>,
}

impl Room {
    /// Whether posts of other programs have to be looked for: once in a room's life,
    /// however many peers come at once. Later ones are told of by the database.
    #[must_use]
    pub(crate) fn begin_adoption(&self) -> bool {
        !std::mem::replace(&mut self.adoption.lock().is_begun, true)
    }

    /// The looking ended, or failed at that instant: then it is to be tried again, later
    /// each time.
    pub(crate) fn end_adoption(&self, failed_at: Option<Timestamp>) {
        let mut adoption = self.adoption.lock();
        let Some(now) = failed_at else {
            (adoption.failures, adoption.again_at) = (0, None);
            return;
        };
        let (first, max) = (limits::ADOPTION_RETRY_MS, limits::ADOPTION_RETRY_MAX_MS);
        adoption.again_at = Some(now.plus_ms(retry_pause_ms(adoption.failures, first, max)));
        adoption.failures = adoption.failures.saturating_add(1);
    }

    /// Whether it is time to try again what failed; whoever is told so does that.
    #[must_use]
    pub(crate) fn takes_up_adoption(&self, now: Timestamp) -> bool {
        self.adoption.lock().again_at.take_if(|again_at| *again_at <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MeshId;

    fn room() -> Room {
        Room::new(MeshId::from("mesh"), std::sync::Arc::default())
    }

    #[test]
    fn of_peers_that_come_at_once_one_has_the_posts_of_other_programs_looked_for() {
        let room = room();
        let looks: Vec<bool> = std::thread::scope(|scope| {
            let peers: Vec<_> = (0..8).map(|_| scope.spawn(|| room.begin_adoption())).collect();
            peers.into_iter().map(|peer| peer.join().expect("it ends")).collect()
        });
        assert_eq!(looks.into_iter().filter(|looks| *looks).count(), 1);
    }

    #[test]
    fn what_failed_is_taken_up_once_and_later_each_time_until_it_succeeds() {
        let (room, mut now) = (room(), Timestamp::from_ms(0));
        assert!(!room.takes_up_adoption(now.plus_ms(i64::MAX)), "nothing failed");
        for failures in 0..12 {
            room.end_adoption(Some(now));
            let most = (limits::ADOPTION_RETRY_MS << failures).min(limits::ADOPTION_RETRY_MAX_MS);
            assert!(!room.takes_up_adoption(now.plus_ms(most / 2 - 1)), "{failures}");
            now = now.plus_ms(most);
            assert!(room.takes_up_adoption(now), "{failures}");
            assert!(!room.takes_up_adoption(now), "somebody has it in hand");
        }
        room.end_adoption(Some(now));
        room.end_adoption(None);
        assert!(!room.takes_up_adoption(now.plus_ms(i64::MAX)));
    }
}
