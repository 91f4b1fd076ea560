//! Leases, status and liveness of peers.

use super::reader::Reader;
use crate::limits;

/// Leases and status of peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceConfig {
    /// `STATUS_TTL_SECONDS`: after how many milliseconds a `working` that a hook
    /// set decays to `idle`. Default 60 s. 0.1 s to one day.
    pub status_ttl_ms: i64,
    /// `HOOK_FRESH_WINDOW_SECONDS`: for how many milliseconds a hook's status
    /// outranks weaker sources. Default 30 s. 0.1 s to one day.
    pub hook_fresh_window_ms: i64,
    /// `LEASE_GRACE_SECONDS`: how many milliseconds a session without a socket
    /// keeps its place. Default 90 s. 0 to one day.
    pub lease_grace_ms: i64,
    /// `LEASE_TTL_SECONDS`: after how many milliseconds without renewal a lease
    /// counts as lost, as those of a dead node do. Default 45 s. 0.1 s to one hour.
    pub lease_ttl_ms: i64,
    /// `MAX_CONNECTIONS_PER_MESH`: sessions of one mesh at a time, on all nodes
    /// together. Default 100. 1 to 1,000,000.
    pub connections_per_mesh_max: u32,
    /// `TRANSCRIPT_STATUS`: whether a status is inferred from the transcript on
    /// this machine's disk. Default `auto`. `auto`, `on`, `off`.
    pub transcript_status: TranscriptStatus,
}

/// Whether a peer's status is inferred from its transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TranscriptStatus {
    /// Where broker and peers are sure to share a machine: a single node that
    /// listens on loopback.
    Auto,
    /// A status is always inferred.
    On,
    /// A status is never inferred.
    Off,
}

/// How a dead socket is noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivenessConfig {
    /// `PING_INTERVAL_SECONDS`: milliseconds between pings to a peer. Default
    /// 25 s, below the idle timeout of common proxies. 0.05 s to one hour.
    pub ping_interval_ms: u64,
}

impl PresenceConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        use TranscriptStatus::{Auto, Off, On};
        let words = [("auto", Auto), ("on", On), ("off", Off)];
        Self {
            status_ttl_ms: reader.seconds_ms("STATUS_TTL_SECONDS", 100..=86_400_000),
            hook_fresh_window_ms: reader.seconds_ms("HOOK_FRESH_WINDOW_SECONDS", 100..=86_400_000),
            lease_grace_ms: reader.seconds_ms("LEASE_GRACE_SECONDS", 0..=86_400_000),
            lease_ttl_ms: reader.seconds_ms("LEASE_TTL_SECONDS", 100..=3_600_000),
            connections_per_mesh_max: reader.number("MAX_CONNECTIONS_PER_MESH", 1..=1_000_000),
            transcript_status: reader.word("TRANSCRIPT_STATUS", &words).unwrap_or(Auto),
        }
    }

    /// Milliseconds between two renewals of a lease.
    #[must_use]
    pub const fn lease_renewal_ms(&self) -> u64 {
        self.lease_ttl_ms.unsigned_abs() / limits::LEASE_RENEWALS_PER_TTL
    }
}

impl LivenessConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self { ping_interval_ms: reader.timer_ms("PING_INTERVAL_SECONDS", 50..=3_600_000) }
    }

    /// After how many milliseconds without a pong a socket counts as dead.
    #[must_use]
    pub const fn pong_deadline_ms(&self) -> u64 {
        self.ping_interval_ms * limits::PING_INTERVALS_WITHOUT_PONG_MAX
    }

    /// After how many milliseconds in which nothing of what waits for it left, a
    /// peer counts as one that does not read.
    #[must_use]
    pub fn write_deadline_ms(&self) -> u64 {
        let pauses = self.ping_interval_ms * limits::PING_INTERVALS_WITHOUT_WRITE_MAX;
        pauses.min(limits::WRITE_DEADLINE_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_may_live_faster_than_a_second() {
        let env = |name: &str| match name {
            "LEASE_TTL_SECONDS" => Some("0.3".to_owned()),
            "LEASE_GRACE_SECONDS" => Some("0".to_owned()),
            "TRANSCRIPT_STATUS" => Some("OFF".to_owned()),
            _ => None,
        };
        let mut reader = Reader::new(&env);
        let presence = PresenceConfig::read(&mut reader);
        assert!(reader.into_problems().is_empty());
        assert_eq!((presence.lease_ttl_ms, presence.lease_grace_ms), (300, 0));
        assert_eq!(presence.lease_renewal_ms(), 100);
        assert_eq!(presence.transcript_status, TranscriptStatus::Off);
    }

    #[test]
    fn the_pong_deadline_is_the_one_that_clients_know() {
        let liveness = LivenessConfig::read(&mut Reader::new(&|_: &str| None));
        assert_eq!(liveness.pong_deadline_ms(), 75_000);
    }
}
