//! Messages as those see them who look: their fate, their number, their end.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId, MessageId, PresenceId};
use crate::protocol::{Priority, Stage};
use crate::store::Result;
use crate::store::columns::Columns;
use crate::store::stages::read_end;

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
    /// When its delivery was done: confirmed, or ended otherwise.
    pub delivered_at: Option<Timestamp>,
    /// When it was written to a socket, if it was and nobody confirmed it soon.
    pub pushed_at: Option<Timestamp>,
    /// When the recipient's model or person was given it.
    pub surfaced_at: Option<Timestamp>,
    /// When it is too old.
    pub expires_at: Option<Timestamp>,
    /// Where it ended, if its recipient's client never said that it has it.
    pub ended: Option<Stage>,
    /// The presence that has a live claim on it.
    pub claimed_by: Option<PresenceId>,
}

impl MessageState {
    /// How far a direct message is with its recipient, and since when.
    #[must_use]
    pub fn stage(&self, now: Timestamp) -> (Stage, Option<Timestamp>) {
        let is_over = self.expires_at.is_some_and(|at| at <= now);
        match (self.surfaced_at, self.ended, self.delivered_at) {
            (Some(at), ..) => (Stage::Surfaced, Some(at)),
            (None, Some(end), at) => (end, at),
            (None, None, Some(at)) => (Stage::Confirmed, Some(at)),
            (None, None, None) if is_over => (Stage::Expired, self.expires_at),
            (None, None, None) if self.pushed_at.is_some() => (Stage::Pushed, self.pushed_at),
            (None, None, None) => (Stage::Kept, None),
        }
    }
}

/// Whether a row is a post that a web application has copied here from a topic: it
/// is for nobody, and goes without an audit row.
#[must_use]
pub fn is_topic_post(target_spec: &str) -> bool {
    target_spec.starts_with('#')
}

/// What [`Messages::expire`] deletes.
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

/// What [`Messages::expire`] deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Delivered rows.
    pub delivered: u64,
    /// Undelivered rows.
    pub undelivered: u64,
    /// Idempotence keys.
    pub keys: u64,
}

impl MessageState {
    /// A row of the queue.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        let delivered_at = row.optional_time("delivered_at")?;
        // A delivered row keeps its last claim: who got it, no longer a claim.
        let claimed_by = if delivered_at.is_none() { row.optional_id("claim_id")? } else { None };
        Ok(Self {
            id: row.id("id")?,
            seq: row.optional_int("seq")?.unwrap_or_default(),
            sender_member: row.id("sender_member_id")?,
            target_spec: row.text("target_spec")?,
            priority: row.word("priority", Priority::parse)?,
            multicast: row.flag("multicast")?,
            ciphertext_bytes: row.int("ciphertext_bytes")?,
            created_at: row.time("created_at")?,
            delivered_at,
            pushed_at: row.optional_time("pushed_at")?,
            surfaced_at: row.optional_time("surfaced_at")?,
            expires_at: row.optional_time("expires_at")?,
            ended: read_end(row)?,
            claimed_by,
        })
    }
}

/// An undelivered envelope past its time.
pub(in crate::store) struct Overdue {
    pub(in crate::store) id: MessageId,
    pub(in crate::store) mesh: MeshId,
    pub(in crate::store) sender: MemberId,
    pub(in crate::store) sender_name: Option<String>,
    pub(in crate::store) target: String,
}

impl Overdue {
    /// A row of the queue with its sender's name.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.id("id")?,
            mesh: row.id("mesh_id")?,
            sender: row.id("sender_member_id")?,
            sender_name: row.optional_text("sender_name")?,
            target: row.text("target_spec")?,
        })
    }
}
