//! `send`, `ack`, `push`, `client_ack`, `message_status`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ask::{Answer, Ask, Unasked};
use super::stages::{Reached, Stage};
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, MessageId};

/// How urgent a message is. A recipient that is `working` or `dnd` gets only
/// [`Priority::Now`]; the others wait for it to turn idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Interrupts.
    Now,
    /// Waits for an idle recipient.
    Next,
    /// Waits for an idle recipient.
    Low,
}

impl Priority {
    /// The word on the wire and in the tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Next => "next",
            Self::Low => "low",
        }
    }

    /// The priority with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "now" => Some(Self::Now),
            "next" => Some(Self::Next),
            "low" => Some(Self::Low),
            _ => None,
        }
    }
}

/// Sealed bytes that the broker carries and never opens.
///
/// Held as the base64 text that JSON peers send and the tables keep; a
/// MessagePack peer sends and gets the bytes themselves. Text that is no
/// base64 is carried as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob<'a>(Cow<'a, str>);

impl<'a> Blob<'a> {
    /// From base64 text.
    pub fn from_text(text: impl Into<Cow<'a, str>>) -> Self {
        Self(text.into())
    }

    /// The base64 text.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.0
    }

    /// The base64 text, owned.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0.into_owned()
    }
}

/// Sealed bytes never reach a log line.
impl fmt::Debug for Blob<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[{} sealed]", self.0.len())
    }
}

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable()
            && let Ok(bytes) = STANDARD.decode(self.0.as_bytes())
        {
            return serializer.serialize_bytes(&bytes);
        }
        serializer.serialize_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Blob<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BlobVisitor;
        impl<'de> Visitor<'de> for BlobVisitor {
            type Value = Blob<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("base64 text or bytes")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Blob(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Blob(Cow::Owned(text.to_owned())))
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Blob(Cow::Owned(STANDARD.encode(bytes))))
            }
        }
        deserializer.deserialize_any(BlobVisitor)
    }
}

fn owned_blob<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Blob<'static>, D::Error> {
    let blob = Blob::<'de>::deserialize(deserializer)?;
    Ok(Blob(Cow::Owned(blob.into_text())))
}

/// `send`: a sealed message for a target.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Send<'a> {
    /// The client's correlation id, echoed in the `ack`.
    #[serde(borrow, default)]
    pub id: Option<Cow<'a, str>>,
    /// A key, `*`, `@group` or `#topic`.
    #[serde(borrow)]
    pub target_spec: Cow<'a, str>,
    /// How urgent.
    pub priority: Priority,
    /// Travels with the ciphertext; may be empty.
    #[serde(borrow)]
    pub nonce: Blob<'a>,
    /// Sealed for the recipients.
    #[serde(borrow)]
    pub ciphertext: Blob<'a>,
    /// Idempotence key per mesh and member, for 7 days.
    #[serde(
        borrow,
        default,
        rename = "client_message_id",
        skip_serializing_if = "Option::is_none"
    )]
    pub client_message_id: Option<Cow<'a, str>>,
    /// The client's hash of the request; carried, not read.
    #[serde(
        borrow,
        default,
        rename = "request_fingerprint",
        skip_serializing_if = "Option::is_none"
    )]
    pub request_fingerprint: Option<Cow<'a, str>>,
    /// The id of the message that it answers.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<Cow<'a, str>>,
    /// After how long it must not be delivered any more: 1 second to 7 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<i64>,
    /// The conversation it belongs to; carried, not read.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<Cow<'a, str>>,
    /// Whether its sender waits for an answer; carried, not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expects_reply: Option<bool>,
    /// The sender's own id of an earlier message, which is withdrawn where nobody has it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<Cow<'a, str>>,
    /// At which stage the sender wants to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Reached>,
    /// `#topic` only. 1, as without it: base64 of the text; 2: sealed with the topic's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_version: Option<i32>,
    /// `#topic` only: names of members that the post mentions. Without it they are looked
    /// for in the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mentions: Option<Vec<String>>,
    /// `@group` and `*` only: the key of the ciphertext, sealed for each member, by the
    /// member's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_keys: Option<Box<BTreeMap<Key, String>>>,
    /// With `sealedKeys`: by the sending key, 128 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Box<str>>,
}

/// `ack`: what became of a send; also says that a request is done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// The send's `id`, or empty.
    pub id: String,
    /// The id it was accepted under, or empty.
    pub message_id: String,
    /// Whether it was accepted: on disk, and with its audit row.
    pub queued: bool,
    /// Why the send was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The same, stable for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Cow<'static, str>>,
    /// When a retry may help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// `rate_limit`: which limit the send is over: `member`, `pair` or `multicast`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Cow<'static, str>>,
    /// `rate_limit`: how many sends that limit allows in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Of a sealed message to many: the keys of members that are here, are meant, and get
    /// nothing, since none of their connections can open it. At most
    /// [`UNSEALED_FOR_MAX`](crate::limits::UNSEALED_FOR_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsealed_for: Vec<Key>,
    /// How many these are, where it is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsealed_count: Option<usize>,
}

impl Answer for Ack {
    const TYPE: &'static str = "ack";

    fn refusal(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

/// `push`: a message, or a system event.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Push {
    /// The broker's id of the message.
    pub message_id: MessageId,
    /// The mesh it belongs to.
    pub mesh_id: MeshId,
    /// The key whose secret sealed it: the sender's session key if it has
    /// one, else the member's; `system` for events.
    pub sender_pubkey: Key,
    /// The sender's member key; left out when it is also the recipient's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_member_pubkey: Option<Key>,
    /// The sender's member id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_member_id: Option<MemberId>,
    /// The sender's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_name: Option<String>,
    /// How urgent.
    pub priority: Priority,
    /// The nonce, as sent.
    #[serde(deserialize_with = "owned_blob")]
    pub nonce: Blob<'static>,
    /// The ciphertext, as sent.
    #[serde(deserialize_with = "owned_blob")]
    pub ciphertext: Blob<'static>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// The sender's own id of the message, as sent.
    #[serde(default, rename = "client_message_id", skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
    /// The sender's fingerprint, as sent.
    #[serde(default, rename = "request_fingerprint", skip_serializing_if = "Option::is_none")]
    pub request_fingerprint: Option<String>,
    /// The target, of a message to many: `*`, `@group`, `#topic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_spec: Option<String>,
    /// The message that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<String>,
    /// Its number in its mesh's order; of a message only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<i64>,
    /// How old it was when this was made, in milliseconds; of a message only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<i64>,
    /// When it is too old, if it ever is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The conversation it belongs to, as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<String>,
    /// Whether its sender waits for an answer, as sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expects_reply: bool,
    /// The sender's own id of the message whose place this one takes, as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<String>,
    /// At least how many newer messages of the same sender wait behind it; of a message
    /// only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer_from_sender: Option<u32>,
    /// How many answers led to it, one to the other; of a message only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hop: Option<u32>,
    /// At which stage its sender is told, as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Reached>,
    /// Whether the recipient may have had it on an earlier socket.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redelivered: bool,
    /// The name of the topic that the message was posted to, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Of a post: 2 where its text is sealed with the topic's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_version: Option<i32>,
    /// Of a sealed message to many: by the key that sealed it, as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Of a sealed message to many: the key of its ciphertext, sealed for this recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_key: Option<String>,
    /// `system` for events, `reminder` for a message that was scheduled as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtype: Option<Cow<'static, str>>,
    /// The event's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Cow<'static, str>>,
    /// The event's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_data: Option<serde_json::Value>,
    /// Whether it was to be sent earlier, and could not be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
}

/// A system event before it has its envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemEvent {
    /// `peer_joined`, `peer_left` ...
    pub event: Cow<'static, str>,
    /// The event's data.
    pub data: serde_json::Value,
}

impl SystemEvent {
    /// The push that carries it. System events are not queued.
    #[must_use]
    pub fn into_push(self, mesh_id: MeshId, now: Timestamp) -> Push {
        Push {
            message_id: MessageId::from(uuid::Uuid::new_v4().to_string()),
            mesh_id,
            sender_pubkey: Key::from("system"),
            sender_member_pubkey: None,
            sender_member_id: None,
            sender_name: None,
            priority: Priority::Low,
            nonce: Blob::from_text(""),
            ciphertext: Blob::from_text(""),
            created_at: now,
            client_message_id: None,
            request_fingerprint: None,
            target_spec: None,
            reply_to_id: None,
            seq: None,
            age_ms: None,
            expires_at: None,
            thread_id: None,
            expects_reply: false,
            supersedes: None,
            newer_from_sender: None,
            hop: None,
            receipt: None,
            redelivered: false,
            topic: None,
            body_version: None,
            signature: None,
            sealed_key: None,
            subtype: Some(Cow::Borrowed("system")),
            event: Some(self.event),
            event_data: Some(self.data),
            late: false,
        }
    }
}

/// `client_ack`: how far a delivery is, or several. At least one id must be given.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientAck {
    /// The sender's `client_message_id`, or the broker's id again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
    /// The `messageId` of the push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_message_id: Option<String>,
    /// The `messageId`s of several pushes, instead of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_ids: Option<Vec<String>>,
    /// How far they are; confirmed if it is not said. For messages to many, surfaced says
    /// so of those before it as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Reached>,
}

/// `message_status`: what became of a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageStatus {
    /// The whole id, or a prefix of at least 8 characters.
    #[serde(default)]
    pub message_id: String,
    /// From an answer that was cut: the recipients go on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for MessageStatus {
    const TYPE: &'static str = "message_status";
    const UNASKED: Unasked = Unasked::Refused;
    type Answer = MessageStatusResult;
}

/// Answers `message_status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageStatusResult {
    /// The message's id, as asked.
    pub message_id: String,
    /// The target, as sent.
    pub target_spec: String,
    /// Whether every recipient's client has it.
    pub delivered: bool,
    /// When the last recipient's client had it, as far as that is known.
    pub delivered_at: Option<Timestamp>,
    /// One entry per recipient known now.
    pub recipients: Vec<Recipient>,
    /// Whether there are more recipients than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for MessageStatusResult {
    const TYPE: &'static str = "message_status_result";
}

/// One recipient of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipient {
    /// The peer's name, `unknown` if it is not here.
    pub name: String,
    /// The peer's key, cut to 16 characters if it is not here.
    pub pubkey: String,
    /// How far it got, in the words of older brokers.
    pub status: RecipientStatus,
    /// How far it is.
    pub stage: Stage,
    /// Since when, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// What the peer does now, as far as it is known here: `idle`, `working` or `dnd`; `away`
    /// if its socket is gone.
    #[serde(default, rename = "peerStatus", skip_serializing_if = "Option::is_none")]
    pub peer_status: Option<Cow<'static, str>>,
}

/// How far a message got with one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecipientStatus {
    /// The recipient is done with the message.
    Delivered,
    /// The message is kept for the recipient.
    Held,
    /// Kept; the recipient is not here.
    Disconnected,
    /// Kept for 7 days, then given up.
    Expired,
}
