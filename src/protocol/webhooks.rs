//! Webhooks: `create_webhook`, `list_webhooks`, `delete_webhook`, and the push of what
//! another program posted.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ask::{Answer, Ask};
use super::{Blob, Priority, Push, SystemEvent};
use crate::clock::Timestamp;
use crate::id::{Key, MeshId};

/// How calls of a webhook prove where they come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookSigning {
    /// As Standard Webhooks has it.
    Standard,
    /// As GitHub has it.
    Github,
}

impl WebhookSigning {
    /// The word on the wire and in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Github => "github",
        }
    }

    /// The one of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Standard, Self::Github].into_iter().find(|known| known.as_str() == word)
    }
}

/// What the broker tells an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookEvent {
    /// A message waits: no session of its recipient takes it now.
    MailWaiting,
    /// A message was given up undelivered.
    MessageExpired,
    /// A presence began.
    PeerJoined,
    /// A presence ended.
    PeerLeft,
    /// A task changed.
    Task,
    /// A session was refused: the mesh is full.
    Capacity,
}

impl WebhookEvent {
    const ALL: [Self; 6] = [
        Self::MailWaiting,
        Self::MessageExpired,
        Self::PeerJoined,
        Self::PeerLeft,
        Self::Task,
        Self::Capacity,
    ];

    /// The word on the wire and in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MailWaiting => "mail_waiting",
            Self::MessageExpired => "message_expired",
            Self::PeerJoined => "peer_joined",
            Self::PeerLeft => "peer_left",
            Self::Task => "task",
            Self::Capacity => "capacity",
        }
    }

    /// The one of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }
}

/// `create_webhook`: an address for others to call; with `url`, one for the broker to call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CreateWebhook {
    /// What it is called.
    #[serde(default)]
    pub name: String,
    /// How its callers sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing: Option<WebhookSigning>,
    /// Whether what is posted is also kept for members that are away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<bool>,
    /// The address that the broker calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What the broker tells that address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<WebhookEvent>,
}

impl Ask for CreateWebhook {
    const TYPE: &'static str = "create_webhook";
    type Answer = WebhookAck;
}

/// `delete_webhook`: nobody calls it any more. Its name stays taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeleteWebhook {
    /// What it is called.
    #[serde(default)]
    pub name: String,
}

impl Ask for DeleteWebhook {
    const TYPE: &'static str = "delete_webhook";
    type Answer = WebhookAck;
}

/// Answers both; of one that is deleted, `url` and `secret` are empty.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookAck {
    /// What it is called.
    pub name: String,
    /// The address to call, with its secret; or the address that the broker calls.
    pub url: String,
    /// The secret in the address; or the one by which the broker signs.
    pub secret: String,
    /// By what callers sign, if they have to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret: Option<String>,
}

impl Answer for WebhookAck {
    const TYPE: &'static str = "webhook_ack";
}

/// Without the secrets.
impl std::fmt::Debug for WebhookAck {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("WebhookAck").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `list_webhooks`: those that are not deleted, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListWebhooks {
    /// From an answer that was cut: the list goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for ListWebhooks {
    const TYPE: &'static str = "list_webhooks";
    type Answer = WebhookList;
}

/// Answers `list_webhooks`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookList {
    /// The webhooks.
    pub webhooks: Vec<WebhookRow>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for WebhookList {
    const TYPE: &'static str = "webhook_list";
}

/// A webhook as it is listed.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookRow {
    /// What it is called.
    pub name: String,
    /// The address; with its secret only for its maker, admins and the owner.
    pub url: String,
    /// Always true.
    pub active: bool,
    /// When it was made, in ISO 8601.
    pub created_at: String,
    /// Whether what is posted is also kept for members that are away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub durable: bool,
    /// How its callers sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing: Option<WebhookSigning>,
    /// What the broker tells the address, if it is one that the broker calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<WebhookEvent>,
    /// How the calls of the broker do, if it is one that the broker calls.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<WebhookCalls>,
}

/// Without the address.
impl std::fmt::Debug for WebhookRow {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("WebhookRow").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How the broker's calls of an address do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookCalls {
    /// Events that wait to be told.
    pub waiting: i64,
    /// Events that were given up.
    pub dead_letters: i64,
    /// Why the last try failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When it was last told something, in ISO 8601.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<String>,
}

/// What stands before a webhook's name where a sender's key would stand.
const SENDER_PREFIX: &str = "webhook:";

/// The sender of what is posted to that webhook. No key begins so.
#[must_use]
pub fn sender_of(name: &str) -> Key {
    Key::from(format!("{SENDER_PREFIX}{name}"))
}

/// The webhook that a sender's key stands for, if it stands for one.
#[must_use]
pub fn posted_to(sender: &Key) -> Option<&str> {
    sender.as_str().strip_prefix(SENDER_PREFIX)
}

/// What was posted to a webhook, with the text of it: for programs that show nothing else.
/// `None` if the push is no such post.
#[must_use]
pub fn as_text(push: &Push) -> Option<Push> {
    let (name, data) = (posted_to(&push.sender_pubkey)?, push.event_data.as_ref()?);
    let ciphertext = Blob::from_text(STANDARD.encode(data.to_string()));
    let sender_name = Some(format!("webhook {name}"));
    Some(Push { sender_name, ciphertext, ..push.clone() })
}

/// What another program posted to a webhook, as everybody in the mesh gets it.
#[must_use]
pub fn posted(name: &str, data: Value, mesh_id: MeshId, now: Timestamp) -> Push {
    let event = SystemEvent { event: Cow::Owned(name.to_owned()), data };
    let push = event.into_push(mesh_id, now);
    let (sender_pubkey, subtype) = (sender_of(name), Some(Cow::Borrowed("webhook")));
    Push { sender_pubkey, subtype, priority: Priority::Next, ..push }
}
