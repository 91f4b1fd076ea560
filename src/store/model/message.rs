//! Envelopes on their way.

use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, MessageId, PresenceId};
use crate::protocol::Priority;

/// How far an envelope reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One recipient. The claim says which presence is about to get it and
    /// until when no other may.
    Direct {
        /// The presence and the end of its claim, if one is open and takes it.
        claim: Option<(PresenceId, Timestamp)>,
    },
    /// Everyone connected or in grace that the target names.
    Multicast,
}

/// An envelope to accept.
#[derive(Clone, Debug)]
pub struct NewEnvelope {
    /// Its id, made here.
    pub id: MessageId,
    /// Its mesh.
    pub mesh: MeshId,
    /// The sender.
    pub sender_member: MemberId,
    /// The sender's name, for the audit row and for pushes from the store.
    pub sender_name: String,
    /// The sender's session key, if it has one.
    pub sender_session_key: Option<Key>,
    /// As sent.
    pub target_spec: String,
    /// How far it reaches.
    pub reach: Reach,
    /// As sent.
    pub priority: Priority,
    /// As sent (base64).
    pub nonce: String,
    /// As sent (base64).
    pub ciphertext: String,
    /// As sent.
    pub client_message_id: Option<String>,
    /// As sent.
    pub request_fingerprint: Option<String>,
    /// As sent.
    pub reply_to_id: Option<String>,
}

/// What became of an envelope of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is on disk under its own id.
    New {
        /// Its place in its mesh's order of commits.
        seq: i64,
        /// For a multicast: the place of the multicast before it, 0 if none
        /// is kept.
        previous_multicast: i64,
        /// When it was accepted.
        created_at: Timestamp,
    },
    /// The same member has sent it before.
    Duplicate {
        /// The id it has.
        id: MessageId,
    },
}

/// Whose waiting mail is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// What waits for one key.
    Mailbox {
        /// Its mesh.
        mesh: MeshId,
        /// The key, as in the rows.
        target: String,
    },
    /// What waits of one member's direct sends.
    Sender {
        /// Its mesh.
        mesh: MeshId,
        /// The sender.
        member: MemberId,
    },
    /// What waits in one mesh.
    Mesh {
        /// The mesh.
        mesh: MeshId,
    },
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitingLoad {
    /// Envelopes.
    pub messages: u64,
    /// Bytes of nonce and ciphertext, each envelope counting for at least
    /// [`WAITING_BYTES_MIN`](crate::limits::WAITING_BYTES_MIN).
    pub bytes: u64,
}

/// An envelope as the queue keeps it.
#[derive(Clone, Debug)]
pub struct StoredEnvelope {
    /// Its id.
    pub id: MessageId,
    /// Its place in its mesh's order; 0 for rows that another program wrote.
    pub seq: i64,
    /// The sender.
    pub sender_member: MemberId,
    /// The sender's key.
    pub sender_key: Key,
    /// The sender's name.
    pub sender_name: String,
    /// The sender's session key, if it had one.
    pub sender_session_key: Option<Key>,
    /// As sent.
    pub target_spec: String,
    /// As sent.
    pub priority: Priority,
    /// As sent.
    pub nonce: String,
    /// As sent.
    pub ciphertext: String,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// As sent.
    pub client_message_id: Option<String>,
    /// As sent.
    pub request_fingerprint: Option<String>,
    /// As sent.
    pub reply_to_id: Option<String>,
}

/// A presence asks for its mail.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// Who asks.
    pub presence: PresenceId,
    /// In which mesh.
    pub mesh: MeshId,
    /// The member's key; `None`: only what is addressed to the session's own.
    pub member_key: Option<Key>,
    /// The session's own key.
    pub session_key: Option<Key>,
    /// Whether only [`Priority::Now`] may be given.
    pub urgent_only: bool,
    /// What is on its way to it already.
    pub in_flight: Vec<MessageId>,
    /// Until when nobody else may have them.
    pub until: Timestamp,
    /// At most this many.
    pub limit: u32,
}

/// A delivery that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// A direct envelope, by its id. Only if it was addressed to one of the
    /// keys.
    Message {
        /// Its mesh.
        mesh: MeshId,
        /// Its id.
        id: MessageId,
        /// The recipient's member key.
        member_key: Key,
        /// The recipient's session key.
        session_key: Option<Key>,
    },
    /// A direct envelope, by the sender's own id for it.
    ClientMessage {
        /// Its mesh.
        mesh: MeshId,
        /// The sender's id for it.
        client_message_id: String,
        /// The recipient's member key.
        member_key: Key,
        /// The recipient's session key.
        session_key: Option<Key>,
    },
    /// Every multicast of the mesh up to here, for one presence.
    MulticastsUpTo {
        /// The presence.
        presence: PresenceId,
        /// The position.
        position: i64,
    },
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
