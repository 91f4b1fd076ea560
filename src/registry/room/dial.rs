//! The mesh's simulation clock as this node knows it, and what the sessions here were told
//! of it.
//!
//! What the shared state says counts more: this only tells whether it is to be asked. Who
//! learns how the clock is writes it here: [`features`](crate::features),
//! [`bus`](crate::bus), [`jobs`](crate::jobs).

use std::time::Instant;

use super::Room;
use crate::clock::Timestamp;
use crate::cluster::SimClock;

/// What a room knows of its mesh's clock.
#[derive(Default)]
pub(super) struct Dial {
    known: Option<SimClock>,
    /// Which clock's which tick the sessions here were told last.
    told: Option<(Timestamp, u64)>,
    /// When this node's next turn at the clock comes; at once, if nothing is said.
    turn_at: Option<Instant>,
}

impl Room {
    /// Takes over how the clock is, unless something later is known. One that was changed
    /// is looked at again at once.
    pub(crate) fn see_clock(&self, clock: SimClock, was_changed: bool) {
        let mut dial = self.dial.lock();
        if dial.known.is_none_or(|known| clock.is_later_than(&known)) {
            dial.known = Some(clock);
            if was_changed {
                dial.turn_at = None;
            }
        }
    }

    /// Runs `tell` unless the sessions here were told of that tick, or of a later one.
    /// Nothing of this room's clock may be called from there.
    pub(crate) fn tell_tick(&self, clock: &SimClock, tell: impl FnOnce()) {
        let mut dial = self.dial.lock();
        let tick = (clock.started_at, clock.tick);
        if dial.told.is_none_or(|told| told < tick) {
            dial.told = Some(tick);
            // Under the lock, so that two of them keep their order.
            tell();
        }
    }

    /// When this node's next turn at the clock comes, if it is known and the clock runs.
    pub(crate) fn clock_turn_at(&self) -> Option<Instant> {
        let dial = self.dial.lock();
        dial.turn_at.filter(|_| dial.known.is_some_and(|clock| !clock.is_paused))
    }

    /// The clock, if it runs and this node's turn has come. Unless the turn ends otherwise,
    /// the next one comes at `again`.
    pub(crate) fn begin_clock_turn(&self, now: Instant, again: Instant) -> Option<SimClock> {
        let mut dial = self.dial.lock();
        let running = dial.known.filter(|clock| !clock.is_paused)?;
        if dial.turn_at.is_some_and(|at| at > now) {
            return None;
        }
        dial.turn_at = Some(again);
        Some(running)
    }

    /// Notes when the next turn comes, unless the clock was changed meanwhile.
    pub(crate) fn end_clock_turn(&self, next: Instant) {
        let mut dial = self.dial.lock();
        dial.turn_at = dial.turn_at.map(|_| next);
    }
}
