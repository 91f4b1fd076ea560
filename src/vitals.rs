//! What operators see of a node's last hour: rates per mesh, and the points of a
//! series.
//!
//! Data and arithmetic only: nothing here looks at a node or a clock, and nothing is
//! on a message's way. [`jobs`](crate::jobs) samples, the admin API shows.

pub(crate) mod series;

use std::collections::HashMap;
use std::time::Instant;

use parking_lot::Mutex;

use crate::id::MeshId;

use self::series::{Point, Series};

/// Between two samples.
pub(crate) const SAMPLE_INTERVAL_MS: u64 = 2_000;
/// A point of the series covers this many samples.
const SAMPLES_PER_POINT: u64 = series::POINT_INTERVAL_MS / SAMPLE_INTERVAL_MS;

/// What the samples have found.
pub(crate) struct Vitals {
    state: Mutex<State>,
    series: Mutex<Series>,
}

/// Messages accepted and deliveries written, per mesh, since its room was entered.
pub(crate) type Traffic = HashMap<MeshId, (u64, u64)>;

/// Messages in a time, by the second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Throughput {
    pub(crate) accepted_per_second: f64,
    pub(crate) delivered_per_second: f64,
}

impl Throughput {
    fn of((accepted, delivered): (u64, u64), since: Instant, now: Instant) -> Self {
        let seconds = now.duration_since(since).as_secs_f64().max(0.001);
        Self {
            accepted_per_second: rounded(accepted as f64 / seconds),
            delivered_per_second: rounded(delivered as f64 / seconds),
        }
    }
}

struct State {
    /// The last sample, and its instant.
    counts: Traffic,
    sampled_at: Instant,
    rates: HashMap<MeshId, Throughput>,
    /// Samples since the last point of the series, and what they found in all.
    samples: u64,
    grown: (u64, u64),
    point_at: Instant,
}

impl Vitals {
    /// Vitals of a node that began then.
    pub(crate) fn new(began: Instant) -> Self {
        let state = State {
            counts: HashMap::new(),
            sampled_at: began,
            rates: HashMap::new(),
            samples: 0,
            grown: (0, 0),
            point_at: began,
        };
        Self { state: Mutex::new(state), series: Mutex::default() }
    }

    /// Takes a sample. Returns the throughput since the last point of the series, if a
    /// point is due.
    pub(crate) fn note(&self, now: Instant, counts: Traffic) -> Option<Throughput> {
        let mut state = self.state.lock();
        let mut rates = HashMap::with_capacity(counts.len());
        for (mesh, now_at) in &counts {
            let before = state.counts.get(mesh).copied().unwrap_or_default();
            // A room that was left and entered anew counts from zero.
            let grown = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
            let grown = (grown(now_at.0, before.0), grown(now_at.1, before.1));
            state.grown.0 += grown.0;
            state.grown.1 += grown.1;
            rates.insert(mesh.clone(), Throughput::of(grown, state.sampled_at, now));
        }
        (state.counts, state.sampled_at, state.rates) = (counts, now, rates);
        state.samples += 1;
        if state.samples < SAMPLES_PER_POINT {
            return None;
        }
        let throughput = Throughput::of(state.grown, state.point_at, now);
        (state.samples, state.grown, state.point_at) = (0, (0, 0), now);
        Some(throughput)
    }

    /// A mesh's throughput between the last two samples.
    pub(crate) fn rate_of(&self, mesh: &MeshId) -> Throughput {
        self.state.lock().rates.get(mesh).copied().unwrap_or_default()
    }

    /// Adds a point to the series.
    pub(crate) fn push(&self, point: Point) {
        self.series.lock().push(point);
    }

    /// The points of the last hour, oldest first.
    pub(crate) fn points(&self) -> Vec<Point> {
        self.series.lock().points()
    }

    /// The newest point of the series.
    pub(crate) fn newest_point(&self) -> Option<Point> {
        self.series.lock().newest()
    }
}

/// To three decimals: more is noise that would have to be read.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn counts(all: &[(&str, u64, u64)]) -> Traffic {
        all.iter()
            .map(|(mesh, accepted, written)| (MeshId::from(*mesh), (*accepted, *written)))
            .collect()
    }

    fn rate(vitals: &Vitals, mesh: &str) -> (f64, f64) {
        let rate = vitals.rate_of(&MeshId::from(mesh));
        (rate.accepted_per_second, rate.delivered_per_second)
    }

    #[test]
    fn a_rate_is_what_has_come_since_the_last_sample() {
        let began = Instant::now();
        let vitals = Vitals::new(began);
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(vitals.note(at(2), counts(&[("a", 10, 20), ("b", 4, 0)])), None);
        assert_eq!((rate(&vitals, "a"), rate(&vitals, "b")), ((5.0, 10.0), (2.0, 0.0)));
        assert_eq!(vitals.note(at(5), counts(&[("a", 11, 20), ("b", 1, 3)])), None);
        assert_eq!(rate(&vitals, "a"), (0.333, 0.0), "to three decimals");
        assert_eq!(rate(&vitals, "b"), (0.333, 1.0), "its room was entered anew");
        assert_eq!(vitals.note(at(6), counts(&[("a", 11, 20)])), None);
        assert_eq!(rate(&vitals, "b"), (0.0, 0.0), "nobody here is in it any more");
    }

    #[test]
    fn a_point_is_due_after_its_samples_and_covers_all_of_them() {
        let began = Instant::now();
        let vitals = Vitals::new(began);
        let mut due = Vec::new();
        for round in 1..=2 * SAMPLES_PER_POINT {
            let now = began + Duration::from_millis(round * SAMPLE_INTERVAL_MS);
            // The first point is of a busy time, the second of a quiet one.
            let accepted = round.min(SAMPLES_PER_POINT) * 4;
            due.extend(
                vitals
                    .note(now, counts(&[("a", accepted, 2 * accepted)]))
                    .map(|point| (round, point)),
            );
        }
        let point = |accepted_per_second, delivered_per_second| Throughput {
            accepted_per_second,
            delivered_per_second,
        };
        let wanted =
            [(SAMPLES_PER_POINT, point(2.0, 4.0)), (2 * SAMPLES_PER_POINT, point(0.0, 0.0))];
        assert_eq!(due, wanted);
    }
}
