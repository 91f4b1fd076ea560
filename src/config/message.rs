//! What one member may send, and how long messages are kept.

use super::reader::Reader;
use crate::limits;

/// What one member may send, and how long messages are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageConfig {
    /// `MAX_MESSAGE_BYTES`: the largest frame and HTTP body in bytes. Default
    /// 65536. 512 to [`limits::MESSAGE_BYTES_MAX_CEILING`].
    pub message_bytes_max: usize,
    /// `SEND_RATE_PER_MINUTE`: sends of one member per minute on all nodes
    /// together. Default 600. 0 to 1,000,000; 0 turns the limit off.
    pub send_rate_per_minute: u32,
    /// `SEND_BURST`: sends that a member may make at once. Default 100. 1 to
    /// 1,000,000.
    pub send_burst: u32,
    /// `PAIR_RATE_PER_MINUTE`: sends of one member to one other, or to itself, per minute
    /// on all nodes together. Default 120. 0 to 1,000,000; 0 turns the limit off, and so
    /// does `SEND_RATE_PER_MINUTE=0`.
    pub pair_rate_per_minute: u32,
    /// `PAIR_BURST`: sends that a member may make to one other at once. Default 60. 1 to
    /// 1,000,000.
    pub pair_burst: u32,
    /// `MULTICAST_RATE_PER_MINUTE`: sends of one member to groups, topics and everyone per
    /// minute on all nodes together. Default 120. 0 to 1,000,000; 0 turns the limit off,
    /// and so does `SEND_RATE_PER_MINUTE=0`.
    pub multicast_rate_per_minute: u32,
    /// `MULTICAST_BURST`: sends to many that a member may make at once. Default 40. 1 to
    /// 1,000,000.
    pub multicast_burst: u32,
    /// `REQUEST_RATE_PER_MINUTE`: what one member may ask per minute on all nodes
    /// together, in units of cost ([`crate::rates::cost`]). Default 12000. 0 to
    /// 1,000,000; 0 turns the limit off.
    pub request_rate_per_minute: u32,
    /// `REQUEST_BURST`: what a member may ask at once, in the same units. Default
    /// 6000. 100 to 1,000,000.
    pub request_burst: u32,
    /// `HOPS_MAX`: how many answers may lead to a message, one to the other. Default 16. 0
    /// to 1,000,000; 0 turns the limit off.
    pub hops_max: u32,
    /// `DELIVERED_RETENTION_HOURS`: hours that a delivered message is kept.
    /// Default 24. 0 to 8760; 0 deletes it at the next sweep.
    pub delivered_retention_hours: u32,
    /// `TOPIC_RETENTION_DAYS`: days that what was said in a topic is kept. Default 365. 0
    /// to 36500; 0 keeps it for good.
    pub topic_retention_days: u32,
    /// `REDELIVERY_SECONDS`: after how many milliseconds an unconfirmed delivery
    /// is offered again. Default 30 s. 0.05 s to one hour.
    pub claim_ms: i64,
    /// How much may wait.
    pub quotas: QuotaConfig,
    /// `DISK_FREE_MIN_MB`: bytes of the data folder's disk below which nothing
    /// new is taken. Default 256 MiB. 0 to 1,000,000 MiB; 0 turns it off.
    pub disk_free_min_bytes: u64,
}

/// How much mail may wait for those that are away. 0 turns a bound off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaConfig {
    /// `MAILBOX_MESSAGES_MAX`: messages that wait for one key. Default 10000. 0 to
    /// 10,000,000.
    pub mailbox_messages_max: u64,
    /// `MAILBOX_BYTES_MAX`: their bytes. Default 64 MiB. 0 to 64 GiB.
    pub mailbox_bytes_max: u64,
    /// `SENDER_WAITING_BYTES_MAX`: bytes that wait of one member's sends in a
    /// mesh. Default 256 MiB. 0 to 64 GiB.
    pub sender_bytes_max: u64,
    /// `MESH_WAITING_BYTES_MAX`: bytes that wait in one mesh. Default 1 GiB. 0 to
    /// 64 GiB.
    pub mesh_bytes_max: u64,
}

impl QuotaConfig {
    fn read(reader: &mut Reader<'_>) -> Self {
        const GIB: u64 = 1 << 30;
        Self {
            mailbox_messages_max: reader.number("MAILBOX_MESSAGES_MAX", 0..=10_000_000),
            mailbox_bytes_max: reader.number("MAILBOX_BYTES_MAX", 0..=64 * GIB),
            sender_bytes_max: reader.number("SENDER_WAITING_BYTES_MAX", 0..=64 * GIB),
            mesh_bytes_max: reader.number("MESH_WAITING_BYTES_MAX", 0..=64 * GIB),
        }
    }
}

impl MessageConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let bytes = limits::MESSAGE_BYTES_MAX_FLOOR..=limits::MESSAGE_BYTES_MAX_CEILING;
        Self {
            message_bytes_max: reader.number("MAX_MESSAGE_BYTES", bytes),
            send_rate_per_minute: reader.number("SEND_RATE_PER_MINUTE", 0..=1_000_000),
            send_burst: reader.number("SEND_BURST", 1..=1_000_000),
            pair_rate_per_minute: reader.number("PAIR_RATE_PER_MINUTE", 0..=1_000_000),
            pair_burst: reader.number("PAIR_BURST", 1..=1_000_000),
            multicast_rate_per_minute: reader.number("MULTICAST_RATE_PER_MINUTE", 0..=1_000_000),
            multicast_burst: reader.number("MULTICAST_BURST", 1..=1_000_000),
            request_rate_per_minute: reader.number("REQUEST_RATE_PER_MINUTE", 0..=1_000_000),
            request_burst: reader.number("REQUEST_BURST", 100..=1_000_000),
            hops_max: reader.number("HOPS_MAX", 0..=1_000_000),
            delivered_retention_hours: reader.number("DELIVERED_RETENTION_HOURS", 0..=8760),
            topic_retention_days: reader.number("TOPIC_RETENTION_DAYS", 0..=36_500),
            claim_ms: reader.seconds_ms("REDELIVERY_SECONDS", 50..=3_600_000),
            quotas: QuotaConfig::read(reader),
            disk_free_min_bytes: reader.number::<u64>("DISK_FREE_MIN_MB", 0..=1_000_000) << 20,
        }
    }

    /// [`Self::delivered_retention_hours`] in milliseconds.
    #[must_use]
    pub fn delivered_retention_ms(&self) -> i64 {
        i64::from(self.delivered_retention_hours) * 3_600_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_documented_ones() {
        let message = MessageConfig::read(&mut Reader::new(&|_: &str| None));
        assert_eq!(
            message,
            MessageConfig {
                message_bytes_max: 65_536,
                send_rate_per_minute: 600,
                send_burst: 100,
                pair_rate_per_minute: 120,
                pair_burst: 60,
                multicast_rate_per_minute: 120,
                multicast_burst: 40,
                request_rate_per_minute: 12_000,
                request_burst: 6000,
                hops_max: 16,
                delivered_retention_hours: 24,
                topic_retention_days: 365,
                claim_ms: 30_000,
                quotas: QuotaConfig {
                    mailbox_messages_max: 10_000,
                    mailbox_bytes_max: 64 << 20,
                    sender_bytes_max: 256 << 20,
                    mesh_bytes_max: 1 << 30,
                },
                disk_free_min_bytes: 256 << 20,
            }
        );
        assert_eq!(message.delivered_retention_ms(), 86_400_000);
    }

    #[test]
    fn a_frame_that_no_outbox_could_hold_cannot_be_configured() {
        let env = |name: &str| (name == "MAX_MESSAGE_BYTES").then(|| "10000000".to_owned());
        let mut reader = Reader::new(&env);
        MessageConfig::read(&mut reader);
        assert_eq!(reader.into_problems().len(), 1);
    }
}
