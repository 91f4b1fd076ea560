//! The findings of a run.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::process::Usage;

/// One bucket of throughput over time.
pub(super) const BUCKET: Duration = Duration::from_millis(100);

/// What must hold, and what did not.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Checks {
    /// Messages sent.
    pub(super) sent: u64,
    /// Messages accepted.
    pub(super) acked: u64,
    /// Messages refused.
    pub(super) refused: u64,
    /// Deliveries that had to be.
    pub(super) expected: u64,
    /// Deliveries that were, the first time each.
    pub(super) received: u64,
    /// Deliveries that came again.
    pub(super) duplicates: u64,
    /// Deliveries that never came.
    pub(super) lost: u64,
    /// Deliveries that came after a later one of the same sender.
    pub(super) reordered: u64,
    /// Messages that did not decrypt, or were not what was sent.
    pub(super) unreadable: u64,
    /// Connections that failed or ended before they should.
    pub(super) disconnected: u64,
    /// The first thing that went wrong, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_problem: Option<String>,
}

impl Checks {
    /// Whether all is as it must be.
    pub(super) fn hold(&self) -> bool {
        self.acked == self.sent
            && self.received == self.expected
            && [self.refused, self.duplicates, self.lost, self.reordered]
                .iter()
                .all(|count| *count == 0)
            && self.unreadable == 0
            && self.disconnected == 0
    }

    /// Notes what went wrong, if it is the first.
    pub(super) fn problem(&mut self, text: impl Into<String>) {
        self.first_problem.get_or_insert_with(|| text.into());
    }
}

/// One run of a scenario.
pub(super) struct Outcome {
    /// What is counted: `messages`, `deliveries`, `hellos`, `sockets`, `cycles`.
    pub(super) unit: &'static str,
    /// The number of them.
    pub(super) count: u64,
    /// The time that they took.
    pub(super) seconds: f64,
    pub(super) checks: Checks,
    /// Microseconds from send (or when it should have been) to receipt.
    pub(super) end_to_end: Histogram<u64>,
    /// Microseconds from send to ack; for `connect` from dial to `hello_ack`.
    pub(super) ack: Histogram<u64>,
    /// The number of them in each [`BUCKET`].
    pub(super) over_time: Vec<u64>,
    /// The cost of the broker's processes.
    pub(super) broker: Usage,
    /// The cost of this process.
    pub(super) load: Usage,
    /// What only this scenario has.
    pub(super) extra: Map<String, Value>,
}

impl Outcome {
    pub(super) fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.count as f64 / self.seconds } else { 0.0 }
    }

    /// Broker CPU for each of what is counted, in microseconds.
    pub(super) fn cpu_us_each(&self) -> f64 {
        self.broker.cpu_seconds * 1e6 / self.count.max(1) as f64
    }

    pub(super) fn to_json(&self) -> Value {
        let mut object = json!({
            "unit": self.unit,
            "count": self.count,
            "seconds": round(self.seconds, 4),
            "perSecond": round(self.per_second(), 1),
            "ok": self.checks.hold(),
            "checks": self.checks,
            "endToEndUs": percentiles(&self.end_to_end),
            "ackUs": percentiles(&self.ack),
            "broker": {
                "cpuSeconds": round(self.broker.cpu_seconds, 3),
                "cpuUsEach": round(self.cpu_us_each(), 2),
                "residentBytes": self.broker.resident(),
                "residentPeakBytes": self.broker.resident_peak(),
                "grownBytes": self.broker.grown(),
                "processes": self.broker.after,
            },
            "load": {"cpuSeconds": round(self.load.cpu_seconds, 3)},
        });
        if let Some(fields) = object.as_object_mut() {
            fields.extend(self.extra.clone());
        }
        object
    }
}

/// Percentiles that are reported.
pub(super) const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9), ("p9999", 99.99)];

/// The percentiles that are reported; nothing of an empty histogram.
pub(super) fn percentiles(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let mut fields: Map<String, Value> = PERCENTILES
        .iter()
        .map(|(name, at)| ((*name).to_owned(), json!(histogram.value_at_percentile(*at))))
        .collect();
    fields.insert("count".to_owned(), json!(histogram.len()));
    fields.insert("mean".to_owned(), json!(round(histogram.mean(), 1)));
    fields.insert("max".to_owned(), json!(histogram.max()));
    Value::Object(fields)
}

/// An empty histogram: microseconds, three digits, up to an hour and more.
pub(super) fn histogram() -> Histogram<u64> {
    // `saturating_record` does not let a histogram grow: it has its size from the start.
    Histogram::new_with_bounds(1, u64::from(u32::MAX), 3).expect("bounds that are allowed")
}

/// A histogram of what peers noted.
pub(super) fn histogram_of<'a>(latencies_us: impl IntoIterator<Item = &'a u32>) -> Histogram<u64> {
    let mut histogram = histogram();
    for us in latencies_us {
        histogram.saturating_record(u64::from(*us));
    }
    histogram
}

/// Rounds for printing.
pub(super) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// The median; of two in the middle, their mean.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lost_delivery_is_enough_to_fail() {
        let good = Checks { sent: 2, acked: 2, expected: 2, received: 2, ..Checks::default() };
        assert!(good.hold());
        for bad in [
            Checks { received: 1, lost: 1, ..good.clone() },
            Checks { duplicates: 1, ..good.clone() },
            Checks { reordered: 1, ..good.clone() },
            Checks { unreadable: 1, ..good.clone() },
            Checks { disconnected: 1, ..good.clone() },
            Checks { acked: 1, refused: 1, ..good.clone() },
        ] {
            assert!(!bad.hold(), "{bad:?}");
        }
    }

    #[test]
    fn a_histogram_keeps_small_and_large_latencies_apart() {
        let histogram = histogram_of(&[5, 5000, 60_000_000]);
        assert_eq!(histogram.value_at_percentile(1.0), 5);
        assert!(histogram.value_at_percentile(50.0).abs_diff(5000) < 10);
        assert!(histogram.max() >= 60_000_000);
    }

    #[test]
    fn the_median_of_pairs_is_their_mean() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![1.0, 2.0]), 1.5);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
