//! What `/metrics` exports. Never a label per mesh, member or peer.

mod plain;
mod timing;

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use timing::{Quantiles, Timing};

/// The commit this was built from, if the build knew it.
pub const GIT_SHA: &str = env!("CLAUDEMESH_COMMIT");
/// The version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

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

/// Every metric, typed, with the registry that exports them.
pub struct Metrics {
    registry: Registry,
    /// When the oldest send of each commit under way was read.
    committing: Mutex<Vec<Instant>>,
    /// Sessions that became active.
    pub connections: Counter,
    /// Hellos refused, by code.
    pub connections_rejected: Family<Reason, Counter>,
    /// Messages accepted, by priority.
    pub messages_routed: Family<PriorityLabel, Counter>,
    /// Frames and sends refused, by reason.
    pub messages_rejected: Family<Reason, Counter>,
    /// Deliveries that a recipient's grants kept away.
    pub messages_dropped_by_grant: Family<Capability, Counter>,
    /// Sweeps that look for statuses that have decayed.
    pub ttl_sweeps: Family<Flipped, Counter>,
    /// Calls of `/hook/set-status`.
    pub hook_requests: Counter,
    /// Those refused for their rate.
    pub hook_requests_rate_limited: Counter,
    /// Calls with the reference's unauthenticated form; always 0 here.
    pub legacy_auth_hits: Counter,
    /// Sockets that are sessions now.
    pub connections_active: Gauge,
    /// Undelivered envelopes in the store.
    pub queue_depth: Gauge,
    /// 1 while the store answers.
    pub db_healthy: Gauge,
    /// Deliveries written to sockets.
    pub messages_delivered: Counter,
    /// Deliveries offered again because nobody confirmed them.
    pub messages_redelivered: Counter,
    /// Sockets closed, by reason.
    pub connections_closed: Family<Reason, Counter>,
    /// Leases that gave up their place in grace to a newcomer.
    pub leases_yielded: Counter,
    /// Presences that ended because nobody came back.
    pub leases_reaped: Counter,
    /// Gaps noticed on the bus.
    pub bus_gaps: Counter,
    /// Drains run.
    pub drains: Counter,
    /// Hellos refused for want of a place.
    pub leases_denied: Counter,
    /// Places taken over by a session that came back.
    pub leases_reattached: Counter,
    /// Leases that this node holds: its open sessions.
    pub leases_held: Gauge,
    /// 1 while the node welcomes new sockets.
    pub ready: Gauge,
    /// 1 while the cluster's shared state cannot be reached.
    pub cluster_degraded: Gauge,
    /// Frames and records in Redis that no node of this cluster has signed.
    pub cluster_refused: Counter,
    /// How long the bus takes back to this node; 0 without a bus.
    pub bus_lag_seconds: Decimal,
    /// For how long the oldest send has been waiting for its commit, and with
    /// it for its audit row; 0 when none waits.
    pub audit_lag_seconds: Decimal,
    /// Bytes that wait on all peers.
    pub outbox_bytes: Gauge,
    /// Bytes that wait on the peer that is furthest behind.
    pub outbox_bytes_largest: Gauge,
    /// Connections to the database in use.
    pub db_pool_in_use: Gauge,
    /// Connections to the database that may be in use at once.
    pub db_pool_max: Gauge,
    /// Calls of the admin API without the right token.
    pub admin_refused: Counter,
    /// How long one commit of a batch took.
    pub accept_commit_seconds: Timing,
    /// From the read of a send to its commit.
    pub accept_seconds: Timing,
    /// Envelopes per commit.
    pub accept_batch: Histogram,
    /// From the commit of a message to its frames being queued here.
    pub deliver_seconds: Timing,
    /// From the read of a hello to its `hello_ack`.
    pub hello_seconds: Timing,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one registration per metric")]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("broker"),
            committing: Mutex::default(),
            connections: Counter::default(),
            connections_rejected: Family::default(),
            messages_routed: Family::default(),
            messages_rejected: Family::default(),
            messages_dropped_by_grant: Family::default(),
            ttl_sweeps: Family::default(),
            hook_requests: Counter::default(),
            hook_requests_rate_limited: Counter::default(),
            legacy_auth_hits: Counter::default(),
            connections_active: Gauge::default(),
            queue_depth: Gauge::default(),
            db_healthy: Gauge::default(),
            messages_delivered: Counter::default(),
            messages_redelivered: Counter::default(),
            connections_closed: Family::default(),
            leases_yielded: Counter::default(),
            leases_reaped: Counter::default(),
            bus_gaps: Counter::default(),
            drains: Counter::default(),
            leases_denied: Counter::default(),
            leases_reattached: Counter::default(),
            leases_held: Gauge::default(),
            ready: Gauge::default(),
            cluster_degraded: Gauge::default(),
            cluster_refused: Counter::default(),
            bus_lag_seconds: Decimal::default(),
            audit_lag_seconds: Decimal::default(),
            outbox_bytes: Gauge::default(),
            outbox_bytes_largest: Gauge::default(),
            db_pool_in_use: Gauge::default(),
            db_pool_max: Gauge::default(),
            admin_refused: Counter::default(),
            accept_commit_seconds: Timing::default(),
            accept_seconds: Timing::default(),
            accept_batch: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            deliver_seconds: Timing::default(),
            hello_seconds: Timing::default(),
        };
        let m = &mut metrics;
        let r = &mut m.registry;
        r.register("connections", "Sessions that became active", m.connections.clone());
        r.register(
            "connections_rejected",
            "Hellos refused, by code",
            m.connections_rejected.clone(),
        );
        r.register("messages_routed", "Messages accepted, by priority", m.messages_routed.clone());
        r.register(
            "messages_rejected",
            "Frames and sends refused, by reason",
            m.messages_rejected.clone(),
        );
        r.register(
            "messages_dropped_by_grant",
            "Deliveries that a recipient's grants kept away",
            m.messages_dropped_by_grant.clone(),
        );
        r.register("ttl_sweeps", "Sweeps for decayed statuses", m.ttl_sweeps.clone());
        r.register("hook_requests", "Calls of the status hook", m.hook_requests.clone());
        r.register(
            "hook_requests_rate_limited",
            "Calls of the status hook refused for their rate",
            m.hook_requests_rate_limited.clone(),
        );
        r.register(
            "legacy_auth_hits",
            "Calls with an unauthenticated user id; this broker takes none",
            m.legacy_auth_hits.clone(),
        );
        r.register("connections_active", "Sessions now", m.connections_active.clone());
        r.register("queue_depth", "Undelivered envelopes", m.queue_depth.clone());
        r.register("db_healthy", "1 while the store answers", m.db_healthy.clone());
        r.register(
            "messages_delivered",
            "Deliveries written to sockets",
            m.messages_delivered.clone(),
        );
        r.register(
            "messages_redelivered",
            "Deliveries offered again because nobody confirmed them",
            m.messages_redelivered.clone(),
        );
        r.register("connections_closed", "Sockets closed, by reason", m.connections_closed.clone());
        r.register(
            "leases_yielded",
            "Places in grace given to a newcomer",
            m.leases_yielded.clone(),
        );
        r.register(
            "leases_reaped",
            "Presences that ended because nobody came back",
            m.leases_reaped.clone(),
        );
        r.register("bus_gaps", "Gaps noticed on the bus", m.bus_gaps.clone());
        r.register("leases_denied", "Hellos refused for want of a place", m.leases_denied.clone());
        r.register(
            "leases_reattached",
            "Places taken over by a session that came back",
            m.leases_reattached.clone(),
        );
        r.register("leases_held", "Leases that this node holds", m.leases_held.clone());
        r.register("ready", "1 while the node welcomes new sockets", m.ready.clone());
        r.register(
            "cluster_refused",
            "Frames and records in Redis that no node of this cluster has signed",
            m.cluster_refused.clone(),
        );
        r.register(
            "cluster_degraded",
            "1 while the cluster's shared state cannot be reached or used",
            m.cluster_degraded.clone(),
        );
        r.register_with_unit(
            "bus_lag",
            "How long the bus takes back to this node; 0 without a bus",
            Unit::Seconds,
            m.bus_lag_seconds.clone(),
        );
        r.register_with_unit(
            "audit_lag",
            "For how long the oldest send has waited for its commit and its audit row",
            Unit::Seconds,
            m.audit_lag_seconds.clone(),
        );
        r.register_with_unit(
            "outbox",
            "Bytes that wait on all peers",
            Unit::Bytes,
            m.outbox_bytes.clone(),
        );
        r.register_with_unit(
            "outbox_largest",
            "Bytes that wait on the peer that is furthest behind",
            Unit::Bytes,
            m.outbox_bytes_largest.clone(),
        );
        r.register(
            "db_pool_in_use",
            "Connections to the database in use",
            m.db_pool_in_use.clone(),
        );
        r.register(
            "db_pool_max",
            "Connections to the database that may be in use at once",
            m.db_pool_max.clone(),
        );
        r.register(
            "admin_refused",
            "Calls of the admin API without the right token",
            m.admin_refused.clone(),
        );
        r.register(
            "build",
            "What is running",
            Info::new([("version", VERSION), ("git_sha", GIT_SHA)]),
        );
        r.register_with_unit(
            "accept_commit",
            "How long the commit of one batch of sends took",
            Unit::Seconds,
            m.accept_commit_seconds.histogram(),
        );
        r.register("drains", "Mailboxes read from the store", m.drains.clone());
        r.register_with_unit(
            "accept",
            "From the read of a send to its commit",
            Unit::Seconds,
            m.accept_seconds.histogram(),
        );
        r.register("accept_batch_envelopes", "Envelopes per commit", m.accept_batch.clone());
        r.register_with_unit(
            "deliver",
            "From a commit to its frames being queued on this node",
            Unit::Seconds,
            m.deliver_seconds.histogram(),
        );
        r.register_with_unit(
            "hello",
            "From the read of a hello to its answer",
            Unit::Seconds,
            m.hello_seconds.histogram(),
        );
        metrics.begin_at_zero();
        metrics
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
    #[must_use]
    pub fn oldest_wait(&self) -> Duration {
        let committing = self.committing.lock();
        committing.iter().min().map(Instant::elapsed).unwrap_or_default()
    }

    /// The text that a scrape gets.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut out, &self.registry);
        out
    }

    /// The same in the text format that came before OpenMetrics.
    #[must_use]
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
