//! The simulation clock of a mesh as nodes share it.
//!
//! One node at a time ticks it: the *ticker*, by a lease of its own that a dead node loses
//! within seconds. A tick's number is given out by the shared state, once.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::protocol::{ClockStatus, Speed};

/// How long a node stays a mesh's ticker without being heard of.
pub(crate) const TICKER_LEASE_MS: u64 = 3_000;

/// What a tick adds to the simulation's time, and real time at speed 1 between two.
pub(crate) const TICK_MS: u32 = 60_000;

/// How a mesh's simulation clock is.
///
/// It travels as a MessagePack map with named fields; unknown fields are ignored and
/// missing ones default, so that two releases can share a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SimClock {
    /// How fast it goes.
    pub speed: Speed,
    /// Whether it stands.
    #[serde(default)]
    pub is_paused: bool,
    /// The number of its last tick.
    pub tick: u64,
    /// When it was first set, by the cluster's clock: which clock of the mesh it is.
    pub started_at: Timestamp,
    /// Grows with everything that happens to it, by the cluster's clock.
    #[serde(default)]
    pub version: u64,
}

impl SimClock {
    /// The simulation's time.
    #[must_use]
    pub fn sim_time(&self) -> Timestamp {
        let ticked_ms = self.tick.saturating_mul(u64::from(TICK_MS));
        self.started_at.plus_ms(i64::try_from(ticked_ms).unwrap_or(i64::MAX))
    }

    /// Whether this is a later state than that one, or of a later clock.
    #[must_use]
    pub fn is_later_than(&self, other: &Self) -> bool {
        (self.started_at, self.version) > (other.started_at, other.version)
    }

    /// The answer to whoever asks for it.
    #[must_use]
    pub fn status(&self) -> ClockStatus {
        ClockStatus {
            speed: self.speed,
            paused: self.is_paused,
            tick: self.tick,
            sim_time: self.sim_time(),
            started_at: self.started_at,
        }
    }
}

/// What a peer does to its mesh's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ClockChange {
    /// Sets it going, or changes its speed.
    Set(Speed),
    /// Stops it where it is.
    Pause,
    /// Lets it go on.
    Resume,
}

/// What came of a node's turn at a clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClockTurn {
    /// How the clock is now.
    pub clock: SimClock,
    /// Whether it ticked in this turn: this node tells the mesh.
    pub has_ticked: bool,
    /// After how long the node's next turn comes. It means nothing for a clock that
    /// stands.
    pub wait_ms: u64,
}
