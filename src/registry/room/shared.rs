//! Changes of what the mesh shares, told to the sessions here in an order that leaves
//! the last one standing. [`events`](crate::events) alone calls this.

use super::Room;

impl Room {
    /// Calls `tell` if a change of that thing is later than all that was told of it.
    /// Whether so much was told since the store was last read that it should be again.
    pub fn tell_shared(&self, thing: &str, seq: i64, tell: impl FnOnce()) -> bool {
        let mut told = self.told.lock();
        if told.is_news(thing, seq) {
            // Under the lock: of two changes the later is also the later to be queued.
            tell();
        }
        told.is_long()
    }

    /// All up to that seq has been read from the store and told.
    pub fn shared_is_read(&self, place: i64) {
        self.told.lock().skip_to(place);
    }

    /// Up to which seq all has been read.
    #[must_use]
    pub fn shared_place(&self) -> i64 {
        self.told.lock().place()
    }

    /// Whether the caller is to read what changed; until [`Self::end_catch_up`] whoever
    /// else wants it has it read once more.
    #[must_use]
    pub fn begin_catch_up(&self) -> bool {
        self.catch_ups.fetch_add(1, std::sync::atomic::Ordering::AcqRel) == 0
    }

    /// Ends a reading; whether it is to be read once more.
    #[must_use]
    pub fn end_catch_up(&self) -> bool {
        self.catch_ups.swap(0, std::sync::atomic::Ordering::AcqRel) > 1
    }
}
