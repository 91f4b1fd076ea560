//! Readings of the cluster's directory, and what is heard while they last.
//!
//! What a node hears of a presence while it reads the directory is newer than
//! what it reads, or followed by what is. So a reading gives way to it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::id::PresenceId;
use crate::record::PresenceRecord;

/// The readings of one mesh's directory.
#[derive(Default)]
pub(super) struct Readings {
    begun: u64,
    open: usize,
    /// The newest that was taken over.
    taken: u64,
    /// What changed while readings were open: no more than presences come and
    /// go in the seconds that the cluster has to answer.
    changes: HashMap<PresenceId, Change>,
}

struct Change {
    /// The newest reading that was open then.
    during: u64,
    to: Heard,
}

/// What became of a presence.
pub(super) enum Heard {
    Is(Arc<PresenceRecord>),
    Ended,
}

impl Readings {
    /// Begins a reading and returns its number.
    pub(super) fn begin(&mut self) -> u64 {
        self.open += 1;
        self.begun += 1;
        self.begun
    }

    /// Ends a reading, whether it was taken over or failed.
    pub(super) fn end(&mut self) {
        self.open -= 1;
        if self.open == 0 {
            self.changes.clear();
        }
    }

    pub(super) fn note(&mut self, presence: &PresenceId, to: Heard) {
        if self.open > 0 {
            self.changes.insert(presence.clone(), Change { during: self.begun, to });
        }
    }

    /// Whether that reading counts: it does not, once a later one was taken.
    pub(super) fn take(&mut self, number: u64) -> bool {
        let is_newest = number > self.taken;
        self.taken = self.taken.max(number);
        is_newest
    }

    /// Whether what was begun last has not been taken over: it lasts, or it failed.
    pub(super) fn is_behind(&self) -> bool {
        self.begun > self.taken
    }

    /// What was heard of a presence since that reading began.
    pub(super) fn heard_since(&self, number: u64, presence: &PresenceId) -> Option<&Heard> {
        let change = self.changes.get(presence)?;
        (change.during >= number).then_some(&change.to)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Room;
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::MeshId;

    fn record(id: &str, epoch: u64, online: bool) -> PresenceRecord {
        let (mesh, member, key) = ("mesh".into(), "member".into(), "key".into());
        let record = PresenceRecord::new(mesh, member, key, Timestamp::default());
        PresenceRecord { id: PresenceId::from(id), epoch, online, ..record }
    }

    fn room() -> Arc<Room> {
        Arc::new(Room::new(MeshId::from("mesh"), Arc::default()))
    }

    /// Id, epoch, whether online.
    fn seen(room: &Room) -> Vec<(String, u64, bool)> {
        let records = room.records();
        records.iter().map(|read| (read.id.to_string(), read.epoch, read.online)).collect()
    }

    #[test]
    fn what_was_read_replaces_what_was_known_before() {
        let room = room();
        room.mirror(record("gone", 1, true));
        room.begin_reading().finish(vec![record("read", 1, true)]);
        assert_eq!(seen(&room), [("read".to_owned(), 1, true)]);
    }

    #[test]
    fn what_is_heard_during_a_reading_is_not_undone_by_it() {
        let room = room();
        room.mirror(record("ends", 1, true));
        let reading = room.begin_reading();
        room.end(&PresenceId::from("ends"));
        room.mirror(record("comes", 1, true));
        // It came after the last reading, and went away before this one was done.
        room.mirror(record("goes", 1, false));
        reading.finish(vec![record("ends", 1, true), record("goes", 1, true)]);
        assert_eq!(seen(&room), [("comes".to_owned(), 1, true), ("goes".to_owned(), 1, false)]);
        room.begin_reading().finish(vec![record("ends", 2, true)]);
        assert_eq!(seen(&room), [("ends".to_owned(), 2, true)], "it counts for that reading only");
    }

    #[test]
    fn a_later_holding_that_was_read_counts_more_than_an_earlier_one_that_was_heard() {
        let room = room();
        let reading = room.begin_reading();
        room.mirror(record("known", 1, true));
        room.mirror(record("unknown", 1, false));
        reading.finish(vec![record("known", 2, false), record("unknown", 2, true)]);
        assert_eq!(seen(&room), [("known".to_owned(), 2, false), ("unknown".to_owned(), 2, true)]);
    }

    #[test]
    fn of_two_readings_the_later_counts() {
        let room = room();
        let (first, second) = (room.begin_reading(), room.begin_reading());
        second.finish(vec![record("second", 1, true)]);
        first.finish(vec![record("first", 1, true)]);
        assert_eq!(seen(&room), [("second".to_owned(), 1, true)]);
    }

    #[test]
    fn what_was_heard_before_a_reading_gives_way_to_it() {
        let room = room();
        let first = room.begin_reading();
        room.end(&PresenceId::from("back"));
        let second = room.begin_reading();
        second.finish(vec![record("back", 2, true)]);
        drop(first);
        assert_eq!(seen(&room), [("back".to_owned(), 2, true)]);
    }

    #[test]
    fn a_room_is_behind_from_a_readings_beginning_until_one_is_taken_over() {
        let room = std::sync::Arc::new(Room::new(MeshId::from("mesh"), Arc::default()));
        assert!(!room.is_behind());
        let (first, second) = (room.begin_reading(), room.begin_reading());
        assert!(room.is_behind());
        first.finish(Vec::new());
        assert!(room.is_behind(), "it began before the last gap");
        drop(second);
        assert!(room.is_behind(), "that one failed");
        room.begin_reading().finish(Vec::new());
        assert!(!room.is_behind());
    }
}
