//! Messages as those see them who look: their fate, their number, their end.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId, MessageId, PresenceId};
use crate::protocol::Priority;
use crate::store::Result;

/// Messages as those see them who look: their fate, their number, their end.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Messages: Send + Sync + 'static {
    /// The envelopes whose id begins so, in the order of ids, after that one; at
    /// most [`FIND_MESSAGES_MAX`](crate::limits::FIND_MESSAGES_MAX).
    async fn find<'a>(
        &self,
        mesh: &MeshId,
        id_prefix: &str,
        after: Option<&'a MessageId>,
    ) -> Result<Vec<MessageState>>;

    /// Deletes what is past its time: delivered rows older than
    /// `delivered_before`, undelivered ones older than `undelivered_before`
    /// (each with an `expired` audit row), idempotence keys older than
    /// `keys_before`. At most `limit` rows of each kind; says how many.
    async fn expire(&self, now: Timestamp, limits: &Retention) -> Result<Expired>;

    /// Undelivered envelopes in all.
    async fn depth(&self) -> Result<i64>;

    /// What lies in a mesh's queue, oldest first.
    async fn queued(&self, mesh: &MeshId, limit: i64) -> Result<Vec<MessageState>>;
}

/// How a message stands.
#[derive(Clone, Debug)]
pub struct MessageState {
    /// Its id.
    pub id: MessageId,
    /// Its place in its mesh's order.
    pub seq: i64,
    /// The sender.
    pub sender_member: MemberId,
    /// As sent.
    pub target_spec: String,
    /// As sent.
    pub priority: Priority,
    /// Whether it went to many.
    pub multicast: bool,
    /// Bytes of its ciphertext's text.
    pub ciphertext_bytes: i64,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its delivery was confirmed.
    pub delivered_at: Option<Timestamp>,
    /// The presence that has a live claim on it.
    pub claimed_by: Option<PresenceId>,
}

/// Whether a row is a post that a web application has copied here from a topic: it
/// is for nobody, and goes without an audit row.
#[must_use]
pub fn is_topic_post(target_spec: &str) -> bool {
    target_spec.starts_with('#')
}

/// What [`Store::expire`](crate::store::Store::expire) deletes.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Delivered rows older than this.
    pub delivered_before: Timestamp,
    /// Undelivered rows older than this.
    pub undelivered_before: Timestamp,
    /// Idempotence keys older than this.
    pub keys_before: Timestamp,
    /// At most this many rows of each kind.
    pub limit: i64,
}

/// What [`Store::expire`](crate::store::Store::expire) deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Delivered rows.
    pub delivered: u64,
    /// Undelivered rows.
    pub undelivered: u64,
    /// Idempotence keys.
    pub keys: u64,
}
