//! The simulation clock of a mesh: its own time, which peers set and which ticks.
//!
//! `set_clock`, `pause_clock`, `resume_clock` and `get_clock` have one answer. A tick is a
//! system event of that name.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ask::{Answer, Ask};
use crate::clock::Timestamp;

/// How many minutes of the simulation pass in one minute: 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Speed(f64);

impl Speed {
    /// The speed of a clock that there is none of.
    pub const NONE: Self = Self(0.0);
    /// The highest speed that there is.
    pub const FASTEST: Self = Self(Self::MAX);
    const MIN: f64 = 1.0;
    const MAX: f64 = 100.0;

    /// The nearest speed that a clock may have. Nothing, zero and what is no number
    /// count as 1.
    #[must_use]
    pub fn nearest(wanted: f64) -> Self {
        if wanted.is_nan() { Self(Self::MIN) } else { Self(wanted.clamp(Self::MIN, Self::MAX)) }
    }

    /// The speed as a number.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.0
    }
}

/// Whole speeds are written as whole numbers, as older brokers did.
impl Serialize for Speed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 && (0.0..=Self::MAX).contains(&self.0) {
            #[expect(clippy::cast_possible_truncation, reason = "a whole number up to 100")]
            #[expect(clippy::cast_sign_loss, reason = "a whole number from 0")]
            let whole = self.0 as u64;
            return serializer.serialize_u64(whole);
        }
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Speed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self)
    }
}

/// `set_clock`: sets the mesh's clock going, or changes its speed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetClock {
    /// The speed that is wanted; the nearest that there is comes of it.
    #[serde(default)]
    pub speed: Option<f64>,
}

impl Ask for SetClock {
    const TYPE: &'static str = "set_clock";
    type Answer = ClockStatus;
}

/// `pause_clock`: stops the mesh's clock where it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PauseClock {}

impl Ask for PauseClock {
    const TYPE: &'static str = "pause_clock";
    type Answer = ClockStatus;
}

/// `resume_clock`: lets a clock that was paused go on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResumeClock {}

impl Ask for ResumeClock {
    const TYPE: &'static str = "resume_clock";
    type Answer = ClockStatus;
}

/// `get_clock`: how the mesh's clock is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GetClock {}

impl Ask for GetClock {
    const TYPE: &'static str = "get_clock";
    type Answer = ClockStatus;
}

/// `clock_status`: how the mesh's clock is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClockStatus {
    /// Its speed; 0 where there is no clock.
    pub speed: Speed,
    /// Whether it stands.
    pub paused: bool,
    /// How often it has ticked.
    pub tick: u64,
    /// The simulation's time: a minute later with each tick.
    pub sim_time: Timestamp,
    /// When the clock was first set.
    pub started_at: Timestamp,
}

impl ClockStatus {
    /// The answer where nobody has set a clock.
    #[must_use]
    pub fn none(now: Timestamp) -> Self {
        Self { speed: Speed::NONE, paused: true, tick: 0, sim_time: now, started_at: now }
    }
}

impl Answer for ClockStatus {
    const TYPE: &'static str = "clock_status";
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_speed_is_the_nearest_that_there_is() {
        for (wanted, speed) in [
            (0.0, json!(1)),
            (-3.0, json!(1)),
            (f64::NAN, json!(1)),
            (5.0, json!(5)),
            (2.5, json!(2.5)),
            (1e9, json!(100)),
            (f64::INFINITY, json!(100)),
        ] {
            assert_eq!(json!(Speed::nearest(wanted)), speed, "{wanted}");
        }
        assert_eq!(json!(Speed::NONE), json!(0));
    }
}
