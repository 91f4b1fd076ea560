//! The rules of a mesh's simulation clock where one node keeps the books: pure, with the
//! instant as a parameter. `cluster/redis/sim_clock.lua` has the same rules for many nodes.
//!
//! Ticks fall on a grid that begins when the clock is set going, so that none drifts by
//! what a node was late. One that a node was too late for altogether is left out, and its
//! number is the next one's.

use super::MeshBooks;
use crate::clock::Timestamp;
use crate::cluster::sim_clock::{ClockChange, ClockTurn, SimClock, TICK_MS};
use crate::protocol::Speed;

/// A clock with what makes it tick.
#[derive(Clone, Debug)]
pub(super) struct Clockwork {
    clock: SimClock,
    /// Where the grid of its ticks begins.
    grid_ms: u64,
    /// When the next tick falls.
    due_ms: u64,
}

impl Clockwork {
    fn new(now_ms: u64, clock: SimClock) -> Self {
        let mut clockwork = Self { clock, grid_ms: now_ms, due_ms: now_ms };
        clockwork.start_grid(now_ms);
        clockwork
    }

    fn start_grid(&mut self, now_ms: u64) {
        self.grid_ms = now_ms;
        self.due_ms = next_due(now_ms, now_ms, self.clock.speed);
    }

    fn touch(&mut self, now_ms: u64) {
        self.clock.version = now_ms.max(self.clock.version + 1);
    }
}

/// The first instant of the grid after now.
fn next_due(grid_ms: u64, now_ms: u64, speed: Speed) -> u64 {
    let interval_ms = f64::from(TICK_MS) / speed.as_f64();
    #[expect(clippy::cast_precision_loss, reason = "a clock runs for less than 2^53 ms")]
    let passed_ms = now_ms.saturating_sub(grid_ms) as f64;
    let step = (passed_ms / interval_ms).floor() + 1.0;
    let instant = |step: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "less than 2^53, and whole")]
        #[expect(clippy::cast_sign_loss, reason = "a step is at least 1")]
        let after_ms = (step * interval_ms).ceil() as u64;
        grid_ms + after_ms
    };
    // What was rounded may have led to this very instant.
    if instant(step) > now_ms { instant(step) } else { instant(step + 1.0) }
}

impl MeshBooks {
    /// The mesh's clock, if it has one.
    #[must_use]
    pub fn sim_clock(&self) -> Option<SimClock> {
        self.clockwork.as_ref().map(|clockwork| clockwork.clock)
    }

    /// See [`Cluster::change_clock`](crate::cluster::Cluster::change_clock).
    pub fn change_clock(&mut self, now_ms: u64, change: ClockChange) -> Option<SimClock> {
        match (change, &mut self.clockwork) {
            (ClockChange::Set(speed), Some(clockwork)) => {
                clockwork.clock.speed = speed;
                clockwork.start_grid(now_ms);
            }
            (ClockChange::Set(speed), none) => {
                let started_at = Timestamp::from_ms(now_ms.cast_signed());
                let clock = SimClock { speed, is_paused: false, tick: 0, started_at, version: 0 };
                *none = Some(Clockwork::new(now_ms, clock));
            }
            (ClockChange::Pause, Some(clockwork)) => clockwork.clock.is_paused = true,
            (ClockChange::Resume, Some(clockwork)) if clockwork.clock.is_paused => {
                clockwork.clock.is_paused = false;
                clockwork.start_grid(now_ms);
            }
            (ClockChange::Pause | ClockChange::Resume, _) => {}
        }
        if let Some(clockwork) = &mut self.clockwork {
            clockwork.touch(now_ms);
        }
        self.stop_if_deserted(now_ms);
        self.sim_clock()
    }

    /// See [`Cluster::tick_clocks`](crate::cluster::Cluster::tick_clocks).
    pub fn tick_clock(&mut self, now_ms: u64, known: &SimClock) -> ClockTurn {
        let is_there = |clockwork: &mut Clockwork| clockwork.clock.started_at >= known.started_at;
        if !self.clockwork.as_mut().is_some_and(is_there) {
            self.clockwork = Some(Clockwork::new(now_ms, *known));
        }
        self.stop_if_deserted(now_ms);
        let clockwork = self.clockwork.get_or_insert_with(|| Clockwork::new(now_ms, *known));
        let has_ticked = !clockwork.clock.is_paused && now_ms >= clockwork.due_ms;
        if has_ticked {
            clockwork.clock.tick += 1;
            clockwork.due_ms = next_due(clockwork.grid_ms, now_ms, clockwork.clock.speed);
            clockwork.touch(now_ms);
        }
        let wait_ms = clockwork.due_ms.saturating_sub(now_ms);
        ClockTurn { clock: clockwork.clock, has_ticked, wait_ms }
    }

    /// A clock stands once the mesh's last presence has ended.
    pub(super) fn stop_if_deserted(&mut self, now_ms: u64) {
        let is_deserted = self.leases.is_empty();
        if let Some(clockwork) = self.clockwork.as_mut().filter(|_| is_deserted)
            && !clockwork.clock.is_paused
        {
            clockwork.clock.is_paused = true;
            clockwork.touch(now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_fall_on_the_grid_however_late_the_ones_before_were() {
        for speed in [1.0, 7.0, 33.3, 60.0, 99.9, 100.0] {
            let interval_ms = f64::from(TICK_MS) / speed;
            let (speed, mut now_ms) = (Speed::nearest(speed), 1_000);
            for step in 1..2_000_u32 {
                let due_ms = next_due(1_000, now_ms, speed);
                let exactly_ms = f64::from(step) * interval_ms;
                #[expect(clippy::cast_precision_loss, reason = "small")]
                let off_ms = (due_ms - 1_000) as f64 - exactly_ms;
                assert!((0.0..=1.5).contains(&off_ms), "step {step} at {speed:?}: {off_ms}");
                // Late by something, and less than an interval.
                now_ms = due_ms + u64::from(step % 500);
            }
        }
    }

    #[test]
    fn a_tick_that_was_missed_is_left_out() {
        let speed = Speed::nearest(100.0);
        assert_eq!(next_due(0, 0, speed), 600);
        assert_eq!(next_due(0, 600, speed), 1_200);
        assert_eq!(next_due(0, 6_010, speed), 6_600);
    }
}
