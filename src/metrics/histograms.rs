//! Histograms with their buckets: sizes, and spans of time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// How many there were of something at a time.
#[derive(Clone, Debug)]
pub struct Sizes(Histogram);

impl Default for Sizes {
    fn default() -> Self {
        // 1 to 1,024.
        Self(Histogram::new(exponential_buckets(1.0, 2.0, 11)))
    }
}

impl Sizes {
    pub fn observe(&self, size: usize) {
        self.0.observe(size as f64);
    }
}

impl EncodeMetric for Sizes {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.0.metric_type()
    }
}

/// Buckets per doubling: a quantile is right to within a fifth.
const PER_DOUBLING: f64 = 4.0;
/// From one microsecond to about half a minute; beyond counts as that.
const BUCKETS: usize = 100;

/// Spans of time, in seconds; also answers what the last seconds were like.
#[derive(Clone, Debug)]
pub struct Timing {
    histogram: Histogram,
    recent: Arc<[AtomicU64; BUCKETS]>,
}

/// What was observed since the last time of asking.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quantiles {
    /// How many there were.
    pub count: u64,
    /// Half of them took at most this many milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took at most this many milliseconds.
    pub p99_ms: f64,
}

impl Default for Timing {
    fn default() -> Self {
        // 50 microseconds to 13 seconds.
        let histogram = Histogram::new(exponential_buckets(0.000_05, 2.0, 19));
        Self { histogram, recent: Arc::new([const { AtomicU64::new(0) }; BUCKETS]) }
    }
}

impl Timing {
    pub fn observe(&self, seconds: f64) {
        self.histogram.observe(seconds);
        self.recent[bucket_of(seconds)].fetch_add(1, Ordering::Relaxed);
    }

    /// What was observed since this was last called. For one caller.
    pub fn take_recent(&self) -> Quantiles {
        let mut counts = [0; BUCKETS];
        for (count, recent) in counts.iter_mut().zip(&*self.recent) {
            *count = recent.swap(0, Ordering::Relaxed);
        }
        let count = counts.iter().sum();
        let quantile = |part: f64| {
            let wanted = (count as f64 * part).ceil().max(1.0) as u64;
            let mut seen = 0;
            let index = counts.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            index.map_or(0.0, upper_ms)
        };
        Quantiles { count, p50_ms: quantile(0.5), p99_ms: quantile(0.99) }
    }
}

impl EncodeMetric for Timing {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.histogram.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.histogram.metric_type()
    }
}

fn bucket_of(seconds: f64) -> usize {
    let index = ((seconds * 1e6).max(1.0).log2() * PER_DOUBLING).ceil();
    (index as usize).min(BUCKETS - 1)
}

fn upper_ms(bucket: usize) -> f64 {
    (bucket as f64 / PER_DOUBLING).exp2() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_never_below_and_at_most_a_fifth_above() {
        let timing = Timing::default();
        for ms in 1..=100 {
            timing.observe(f64::from(ms) / 1e3);
        }
        let Quantiles { count, p50_ms, p99_ms } = timing.take_recent();
        assert_eq!(count, 100);
        assert!((50.0..=60.0).contains(&p50_ms), "{p50_ms}");
        assert!((99.0..=119.0).contains(&p99_ms), "{p99_ms}");
        assert_eq!(timing.take_recent(), Quantiles::default(), "each is told once");
    }

    #[test]
    fn what_is_out_of_range_counts_at_its_edge() {
        let timing = Timing::default();
        timing.observe(0.0);
        timing.observe(1e9);
        let Quantiles { count, p50_ms, p99_ms } = timing.take_recent();
        assert_eq!((count, p50_ms), (2, 0.001));
        assert!(p99_ms > 20_000.0, "{p99_ms}");
    }
}
