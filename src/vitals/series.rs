//! Points of the last hour, in a ring.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::limits;

/// Between two points.
pub(crate) const POINT_INTERVAL_MS: u64 = 10_000;

/// What happened on this node in the time before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Point {
    /// The end of that time.
    pub at: Timestamp,
    /// Messages accepted.
    pub accepted_per_second: f64,
    /// Deliveries written to sockets.
    pub delivered_per_second: f64,
    /// Sockets open.
    pub sockets: u64,
    /// From the read of a send to its commit: half of them took at most this;
    /// 0 without any.
    pub accept_p50_ms: f64,
    /// 99 of 100.
    pub accept_p99_ms: f64,
    /// From a commit to its frames being queued.
    pub deliver_p50_ms: f64,
    /// 99 of 100.
    pub deliver_p99_ms: f64,
}

/// The ring.
#[derive(Debug, Default)]
pub(crate) struct Series(VecDeque<Point>);

impl Series {
    /// Adds a point; the oldest goes if there are too many.
    pub(crate) fn push(&mut self, point: Point) {
        if self.0.len() >= limits::SERIES_POINTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(point);
    }

    /// All of them, oldest first.
    pub(crate) fn points(&self) -> Vec<Point> {
        self.0.iter().copied().collect()
    }

    pub(crate) fn newest(&self) -> Option<Point> {
        self.0.back().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut series = Series::default();
        assert_eq!(series.newest(), None);
        let count = 5 + i64::try_from(limits::SERIES_POINTS_MAX).expect("small");
        for second in 0..count {
            series.push(Point {
                at: Timestamp::from_ms(second),
                accepted_per_second: 0.0,
                delivered_per_second: 0.0,
                sockets: 0,
                accept_p50_ms: 0.0,
                accept_p99_ms: 0.0,
                deliver_p50_ms: 0.0,
                deliver_p99_ms: 0.0,
            });
        }
        let points = series.points();
        assert_eq!(points.len(), limits::SERIES_POINTS_MAX);
        assert_eq!(points[0].at, Timestamp::from_ms(5));
        assert_eq!(series.newest().map(|point| point.at), Some(Timestamp::from_ms(count - 1)));
        assert_eq!(points.len() as u64 * POINT_INTERVAL_MS, 3_600_000);
    }
}
