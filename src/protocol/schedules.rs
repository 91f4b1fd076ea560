//! Messages that are sent later: `schedule`, `list_scheduled`, `cancel_scheduled`.

use serde::{Deserialize, Serialize};

use super::ask::{Answer, Ask};

/// `schedule`: a message that the broker sends in the member's name when its time comes,
/// whoever is there then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// For whom: as the target of a `send`.
    pub to: String,
    /// The message, for everybody to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Sealed, in base64, in place of `message`; by the member's own key, which is the
    /// sender then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ciphertext: Option<String>,
    /// The nonce of `ciphertext`, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// When, in milliseconds since 1970; what is past is sent at once. Not with `cron`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<i64>,
    /// `reminder`, or left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtype: Option<String>,
    /// When, again and again: `minute hour day-of-month month day-of-week`, all of which
    /// must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The IANA name of the zone in which `cron` is read; UTC if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// The id of the message that it answers.
    #[serde(rename = "replyToId", default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<String>,
}

impl Ask for Schedule {
    const TYPE: &'static str = "schedule";
    type Answer = ScheduledAck;
}

/// Answers `schedule`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledAck {
    /// What is scheduled.
    pub scheduled_id: String,
    /// When it is sent, or first sent.
    pub deliver_at: i64,
    /// The expression, as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The zone, as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
}

impl Answer for ScheduledAck {
    const TYPE: &'static str = "scheduled_ack";
}

/// `list_scheduled`: what the member has scheduled and was not sent, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListScheduled {
    /// From an answer that was cut: the list goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for ListScheduled {
    const TYPE: &'static str = "list_scheduled";
    type Answer = ScheduledList;
}

/// Answers `list_scheduled`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScheduledList {
    /// What is scheduled.
    pub messages: Vec<ScheduledRow>,
    /// Whether there is more than fits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the rest is asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for ScheduledList {
    const TYPE: &'static str = "scheduled_list";
}

/// A message that is sent later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledRow {
    /// Its id.
    pub id: String,
    /// For whom.
    pub to: String,
    /// The message; empty if it is sealed.
    pub message: String,
    /// Whether it is sealed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sealed: bool,
    /// When it is sent, or sent next, in milliseconds since 1970.
    pub deliver_at: i64,
    /// Since when it is scheduled, in milliseconds since 1970.
    pub created_at: i64,
    /// When, again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The zone of `cron`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// How often it was sent; only with `cron`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired_count: Option<i64>,
}

/// `cancel_scheduled`: it is not sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelScheduled {
    /// What is scheduled.
    pub scheduled_id: String,
}

impl Ask for CancelScheduled {
    const TYPE: &'static str = "cancel_scheduled";
    type Answer = CancelScheduledAck;
}

/// Answers `cancel_scheduled`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelScheduledAck {
    /// What was asked for.
    pub scheduled_id: String,
    /// Whether it was still to be sent, and is not any more.
    pub ok: bool,
}

impl Answer for CancelScheduledAck {
    const TYPE: &'static str = "cancel_scheduled_ack";
}
