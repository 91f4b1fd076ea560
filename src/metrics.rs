//! What `/metrics` exports. Never a label per mesh, member or peer.

mod histograms;
mod plain;

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

pub(crate) use histograms::{Sizes, Timing};

/// The commit this was built from, if the build knew it.
pub(crate) const GIT_SHA: &str = env!("CLAUDEMESH_COMMIT");
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A gauge with decimals.
type Decimal = Gauge<f64, AtomicU64>;

/// A label named `reason`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    /// A stable code.
    pub reason: String,
}

/// A label named `priority`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PriorityLabel {
    /// `now`, `next` or `low`.
    pub priority: &'static str,
}

/// A label named `cap`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Capability {
    /// `dm` or `broadcast`.
    pub cap: &'static str,
}

/// A label named `flipped`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Flipped {
    /// Whether the sweep changed anything.
    pub flipped: &'static str,
}

/// The labels of a signed head: of whichever mesh, which is not said.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct AuditHeadLabels {
    /// The row that is signed.
    pub row: i64,
    /// That row's hash.
    pub hash: String,
    /// The public key.
    pub key: String,
}

/// Writes each metric down once: its field is its name in a scrape (with its unit
/// at the end, if it has one), its comment the text that explains it there.
macro_rules! metrics {
    ($(#[doc = $help:literal] $name:ident: $kind:ty,)+) => {
        /// Every metric, typed, with the registry that exports them.
        pub struct Metrics {
            registry: Registry,
            /// When the oldest send of each commit under way was read.
            committing: Mutex<Vec<Instant>>,
            $(#[doc = $help] pub $name: $kind,)+
        }

        impl Metrics {
            fn registered() -> Self {
                let mut registry = Registry::with_prefix("broker");
                let build = Info::new([("version", VERSION), ("git_sha", GIT_SHA)]);
                registry.register("build", "What is running", build);
                Self {
                    committing: Mutex::default(),
                    $($name: register(&mut registry, stringify!($name), $help),)+
                    registry,
                }
            }
        }
    };
}

metrics! {
    /// Sessions that became active.
    connections: Counter,
    /// Hellos refused, by code.
    connections_rejected: Family<Reason, Counter>,
    /// Messages accepted, by priority.
    messages_routed: Family<PriorityLabel, Counter>,
    /// Frames and sends refused, by reason.
    messages_rejected: Family<Reason, Counter>,
    /// Deliveries that a recipient's grants kept away.
    messages_dropped_by_grant: Family<Capability, Counter>,
    /// Sweeps for decayed statuses.
    ttl_sweeps: Family<Flipped, Counter>,
    /// Calls of the status hook.
    hook_requests: Counter,
    /// Calls of the status hook refused for their rate.
    hook_requests_rate_limited: Counter,
    /// Calls with an unauthenticated user id; this broker takes none.
    legacy_auth_hits: Counter,
    /// Sessions now.
    connections_active: Gauge,
    /// Undelivered envelopes.
    queue_depth: Gauge,
    /// 1 while the store answers.
    db_healthy: Gauge,
    /// Deliveries written to sockets.
    messages_delivered: Counter,
    /// Deliveries offered again because nobody confirmed them.
    messages_redelivered: Counter,
    /// Sockets closed, by reason.
    connections_closed: Family<Reason, Counter>,
    /// Places in grace given to a newcomer.
    leases_yielded: Counter,
    /// Presences that ended because nobody came back.
    leases_reaped: Counter,
    /// Gaps noticed on the bus.
    bus_gaps: Counter,
    /// Hellos refused for want of a place.
    leases_denied: Counter,
    /// Places taken over by a session that came back.
    leases_reattached: Counter,
    /// Leases that this node holds.
    leases_held: Gauge,
    /// 1 while the node welcomes new sockets.
    ready: Gauge,
    /// Frames and records in Redis that no node of this cluster has signed.
    cluster_refused: Counter,
    /// 1 while the cluster's shared state cannot be reached or used.
    cluster_degraded: Gauge,
    /// How long the bus takes back to this node; 0 without a bus.
    bus_lag_seconds: Decimal,
    /// For how long the oldest send has waited for its commit and its audit row.
    audit_lag_seconds: Decimal,
    /// Heads of audit chains that this node signed.
    audit_heads: Counter,
    /// The newest head that this node signed, of whichever mesh.
    audit_head_info: Family<AuditHeadLabels, Gauge>,
    /// Bytes that wait on all peers.
    outbox_bytes: Gauge,
    /// Bytes that wait on the peer that is furthest behind.
    outbox_largest_bytes: Gauge,
    /// Connections to the database in use.
    db_pool_in_use: Gauge,
    /// Connections to the database that may be in use at once.
    db_pool_max: Gauge,
    /// Calls of the admin API without the right token.
    admin_refused: Counter,
    /// How long the commit of one batch of sends took.
    accept_commit_seconds: Timing,
    /// Mailboxes read from the store.
    drains: Counter,
    /// From the read of a send to its commit.
    accept_seconds: Timing,
    /// Envelopes per commit.
    accept_batch_envelopes: Sizes,
    /// From a commit to its frames being queued on this node.
    deliver_seconds: Timing,
    /// From the read of a hello to its answer.
    hello_seconds: Timing,
}

/// A new metric, at zero, which the registry exports.
fn register<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    let help = help.trim().trim_end_matches('.');
    for unit in [Unit::Seconds, Unit::Bytes] {
        if let Some(name) = name.strip_suffix(unit.as_str()) {
            registry.register_with_unit(name.trim_end_matches('_'), help, unit, metric.clone());
            return metric;
        }
    }
    registry.register(name, help, metric.clone());
    metric
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let metrics = Self::registered();
        metrics.begin_at_zero();
        metrics
    }

    /// Messages accepted here, of all priorities.
    pub fn accepted(&self) -> u64 {
        let of = |priority| self.messages_routed.get_or_create(&PriorityLabel { priority }).get();
        ["now", "next", "low"].into_iter().map(of).sum()
    }

    /// Series that alerts read exist from the start: the first of a kind would
    /// otherwise not count as an increase.
    fn begin_at_zero(&self) {
        for priority in ["now", "next", "low"] {
            let _ = self.messages_routed.get_or_create(&PriorityLabel { priority });
        }
        for cap in ["dm", "broadcast"] {
            let _ = self.messages_dropped_by_grant.get_or_create(&Capability { cap });
        }
        for flipped in ["true", "false"] {
            let _ = self.ttl_sweeps.get_or_create(&Flipped { flipped });
        }
        let begin = |family: &Family<Reason, Counter>, reasons: &[&str]| {
            for reason in reasons {
                let _ = family.get_or_create(&Reason { reason: (*reason).to_owned() });
            }
        };
        begin(
            &self.messages_rejected,
            &["malformed", "rate_limit", "rejected", "request_rate", "unavailable"],
        );
        // Else it would not be there at all until the first is signed.
        let none = AuditHeadLabels { row: 0, hash: String::new(), key: String::new() };
        let _ = self.audit_head_info.get_or_create(&none);
        begin(&self.connections_rejected, &["capacity", "malformed"]);
        begin(&self.connections_closed, &["answer_too_large", "kicked", "slow_reader"]);
    }

    /// A hello was refused.
    pub fn rejected_hello(&self, code: &str) {
        self.connections_rejected.get_or_create(&Reason { reason: code.to_owned() }).inc();
    }

    /// A frame or a send was refused.
    pub fn rejected(&self, reason: &str) {
        self.messages_rejected.get_or_create(&Reason { reason: reason.to_owned() }).inc();
    }

    /// A head of an audit chain was signed.
    pub fn head_signed(&self, head: AuditHeadLabels) {
        self.audit_heads.inc();
        // One series at a time: there would be more of them with each head.
        self.audit_head_info.clear();
        self.audit_head_info.get_or_create(&head).set(1);
    }

    /// Sends are being committed, the oldest of which was read then.
    pub fn commit_begins(&self, oldest: Instant) {
        self.committing.lock().push(oldest);
    }

    /// As [`Self::commit_begins`], and they are committed or refused now.
    pub fn commit_ended(&self, oldest: Instant) {
        let mut committing = self.committing.lock();
        if let Some(index) = committing.iter().position(|at| *at == oldest) {
            committing.swap_remove(index);
        }
    }

    /// For how long the oldest send that is being committed has waited.
    pub fn oldest_wait(&self) -> Duration {
        let committing = self.committing.lock();
        committing.iter().min().map(Instant::elapsed).unwrap_or_default()
    }

    /// The text that a scrape gets.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut out, &self.registry);
        out
    }

    /// The same in the text format that came before OpenMetrics.
    pub fn render_plain(&self) -> String {
        plain::from_open_metrics(&self.render())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_dashboards_know_are_there() {
        let metrics = Metrics::new();
        metrics.rejected_hello("capacity");
        metrics.rejected("rate_limit");
        metrics.messages_routed.get_or_create(&PriorityLabel { priority: "now" }).inc();
        metrics.messages_dropped_by_grant.get_or_create(&Capability { cap: "dm" }).inc();
        metrics.ttl_sweeps.get_or_create(&Flipped { flipped: "true" }).inc();
        let text = metrics.render();
        for name in [
            "broker_connections_total 0",
            "broker_connections_rejected_total{reason=\"capacity\"} 1",
            "broker_messages_routed_total{priority=\"now\"} 1",
            "broker_messages_rejected_total{reason=\"rate_limit\"} 1",
            "broker_messages_dropped_by_grant_total{cap=\"dm\"} 1",
            "broker_legacy_auth_hits_total 0",
            "broker_ttl_sweeps_total{flipped=\"true\"} 1",
            "broker_hook_requests_total 0",
            "broker_hook_requests_rate_limited_total 0",
            "broker_connections_active 0",
            "broker_queue_depth 0",
            "broker_db_healthy 0",
            "broker_accept_seconds_bucket",
            "broker_deliver_seconds_bucket",
            "broker_hello_seconds_bucket",
        ] {
            assert!(text.contains(name), "{name} is missing from:\n{text}");
        }
    }

    #[test]
    fn the_newest_signed_head_alone_is_exported() {
        let metrics = Metrics::new();
        for row in [1, 2] {
            let (hash, key) = ("ab".to_owned(), "cd".to_owned());
            metrics.head_signed(AuditHeadLabels { row, hash, key });
        }
        let text = metrics.render();
        let newest = "broker_audit_head_info{row=\"2\",hash=\"ab\",key=\"cd\"} 1";
        assert!(text.contains(newest) && text.contains("broker_audit_heads_total 2"), "{text}");
        assert_eq!(text.matches("broker_audit_head_info{").count(), 1, "{text}");
    }

    #[test]
    fn the_oldest_send_that_waits_is_known() {
        let metrics = Metrics::new();
        assert_eq!(metrics.oldest_wait(), Duration::ZERO);
        let (old, young) = (Instant::now() - Duration::from_secs(9), Instant::now());
        metrics.commit_begins(young);
        metrics.commit_begins(old);
        assert!(metrics.oldest_wait() >= Duration::from_secs(9));
        metrics.commit_ended(old);
        assert!(metrics.oldest_wait() < Duration::from_secs(9));
        metrics.commit_ended(young);
        assert_eq!(metrics.oldest_wait(), Duration::ZERO);
    }
}
