//! How far messages are with their recipients, and those that never come.

pub(super) mod postgres;
pub(super) mod sqlite;

use std::collections::HashMap;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, MessageId, PresenceId};
use crate::protocol::{Reached, Stage};
use crate::store::Result;
use crate::store::columns::Columns;

/// What the subtype of a notice is: a message that the broker itself keeps for a member.
pub const NOTICE: &str = "system";

/// How far messages are with their recipients, and those that never come.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Stages: Send + Sync + 'static {
    /// The message that somebody answers.
    async fn answered(&self, mesh: &MeshId, id: &MessageId) -> Result<Option<Answered>>;

    /// From now on the member is told of what it sent that never comes.
    async fn tell_of_ends(&self, member: &MemberId) -> Result<()>;

    /// A recipient's model or person was given these. Of messages to many, those before
    /// them count as given, too. Returns those whose sender wants to know, each once.
    async fn surface(&self, now: Timestamp, surfaced: &Surfaced) -> Result<Vec<Wished>>;

    /// These were written to a socket, and nobody has confirmed them yet.
    async fn pushed(&self, now: Timestamp, messages: &[MessageId]) -> Result<()>;

    /// Takes back a message of that member's, with its audit row, if nobody has it; one to
    /// many, from those who have it not. `None`: the member sent no such message.
    async fn withdraw(
        &self,
        now: Timestamp,
        mesh: &MeshId,
        sender: &MemberId,
        id: &MessageId,
    ) -> Result<Option<Withdrawal>>;

    /// Ends direct messages that are too old: past their own time, or accepted before
    /// `accepted_before`. Each with its audit row, and with a notice for a sender that is
    /// told; returns the mailboxes of these notices.
    async fn end_overdue(
        &self,
        now: Timestamp,
        accepted_before: Timestamp,
        limit: i64,
    ) -> Result<Vec<(MeshId, Key)>>;

    /// Ends direct messages that the recipient's grants keep away, likewise.
    async fn block(
        &self,
        now: Timestamp,
        mesh: &MeshId,
        messages: &[MessageId],
    ) -> Result<Vec<(MeshId, Key)>>;

    /// How far these presences are with messages to many.
    async fn places(&self, presences: &[PresenceId]) -> Result<HashMap<PresenceId, Progress>>;
}

/// A message that somebody answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Who sent it.
    pub sender: MemberId,
    /// The target, as sent.
    pub target_spec: String,
    /// How many answers led to it.
    pub hop: u32,
}

impl Answered {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        let hop = row.optional_int("hop")?.and_then(|hop| u32::try_from(hop).ok());
        Ok(Self {
            sender: row.id("sender_member_id")?,
            target_spec: row.text("target_spec")?,
            hop: hop.unwrap_or_default(),
        })
    }
}

/// Messages that a presence's model or person was given.
#[derive(Clone, Debug)]
pub struct Surfaced {
    /// In which mesh.
    pub mesh: MeshId,
    /// The presence.
    pub presence: PresenceId,
    /// The member's key.
    pub member_key: Key,
    /// The session's own key.
    pub session_key: Option<Key>,
    /// The messages.
    pub messages: Vec<String>,
}

/// A message whose sender wants to know that it got there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wished {
    /// The message.
    pub message: MessageId,
    /// The sender's own id of it.
    pub client_message_id: Option<String>,
    /// Whom to tell.
    pub sender: MemberId,
}

impl Wished {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            message: row.id("id")?,
            client_message_id: row.optional_text("client_message_id")?,
            sender: row.id("sender_member_id")?,
        })
    }
}

/// What became of a withdrawal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// Whether the message was taken back by this call.
    pub is_done: bool,
    /// How far the message is.
    pub stage: Stage,
    /// The target, as sent.
    pub target_spec: String,
    /// The sender's own id of it.
    pub client_message_id: Option<String>,
}

/// How far a presence is with messages to many: everything up to these places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Its client has, or has passed over.
    pub confirmed: i64,
    /// Its model or person was given.
    pub surfaced: i64,
    /// When that was told last.
    pub surfaced_at: Option<Timestamp>,
}

impl Progress {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<(PresenceId, Self)> {
        let progress = Self {
            confirmed: row.optional_int("multicast_position")?.unwrap_or_default(),
            surfaced: row.optional_int("surfaced_position")?.unwrap_or_default(),
            surfaced_at: row.optional_time("surfaced_at")?,
        };
        Ok((row.id("id")?, progress))
    }
}

/// Those of the rows whose sender wishes to be told.
fn wished<R: Columns>(rows: &[R]) -> Result<Vec<Wished>> {
    let mut wished = Vec::new();
    for row in rows {
        if row.optional_flag("is_wished")? == Some(true) {
            wished.push(Wished::read(row)?);
        }
    }
    Ok(wished)
}

/// Of one's own message, what decides whether it can be taken back.
pub(in crate::store) struct Sent {
    pub(in crate::store) sender_name: Option<String>,
    pub(in crate::store) target_spec: String,
    pub(in crate::store) client_message_id: Option<String>,
    is_many: bool,
    delivered_at: Option<Timestamp>,
    surfaced_at: Option<Timestamp>,
    ended: Option<Stage>,
}

impl Sent {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            sender_name: row.optional_text("sender_name")?,
            target_spec: row.text("target_spec")?,
            client_message_id: row.optional_text("client_message_id")?,
            is_many: row.flag("multicast")?,
            delivered_at: row.optional_time("delivered_at")?,
            surfaced_at: row.optional_time("surfaced_at")?,
            ended: read_end(row)?,
        })
    }

    /// Whether it can be taken back. A post stays in its topic's history.
    pub(in crate::store) fn can_be_withdrawn(&self) -> bool {
        let is_post = self.target_spec.starts_with('#');
        self.ended.is_none() && !is_post && (self.is_many || self.delivered_at.is_none())
    }

    pub(in crate::store) fn withdrawal(self, is_done: bool) -> Withdrawal {
        let stage = match (is_done, self.surfaced_at, self.ended) {
            (true, ..) => Stage::Withdrawn,
            (_, Some(_), _) => Stage::Surfaced,
            (_, None, Some(end)) => end,
            (_, None, None) if self.is_many => Stage::Kept,
            (_, None, None) => Stage::Confirmed,
        };
        let Self { target_spec, client_message_id, .. } = self;
        Withdrawal { is_done, stage, target_spec, client_message_id }
    }
}

/// Where a message ended, if it did before its recipient's client said that it has it.
pub(in crate::store) fn read_end(row: &impl Columns) -> Result<Option<Stage>> {
    Ok(row.optional_text("ended")?.as_deref().and_then(Stage::parse_end))
}

/// A direct message that ends.
pub(in crate::store) struct Ending {
    pub(in crate::store) id: MessageId,
    pub(in crate::store) mesh: MeshId,
    pub(in crate::store) sender: MemberId,
    pub(in crate::store) sender_name: String,
    target: String,
    client_message_id: Option<String>,
    /// The mailbox of its sender, if that one is told.
    told: Option<Key>,
}

impl Ending {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.id("id")?,
            mesh: row.id("mesh_id")?,
            sender: row.id("sender_member_id")?,
            sender_name: row.text("sender_name")?,
            target: row.text("target_spec")?,
            client_message_id: row.optional_text("client_message_id")?,
            told: row.optional_id("told")?,
        })
    }

    pub(in crate::store) fn event(&self, end: End) -> AuditEvent {
        let (message_id, target) = (self.id.clone(), self.target.clone());
        match end {
            End::Expired => AuditEvent::Expired { message_id, target },
            End::Blocked => AuditEvent::Blocked { message_id, target },
        }
    }
}

/// Why a direct message ends.
#[derive(Clone, Copy)]
pub(in crate::store) enum End {
    Expired,
    Blocked,
}

impl End {
    pub(in crate::store) const fn stage(self) -> Stage {
        match self {
            Self::Expired => Stage::Expired,
            Self::Blocked => Stage::Blocked,
        }
    }

    const fn event(self) -> &'static str {
        match self {
            Self::Expired => "message_expired",
            Self::Blocked => "message_blocked",
        }
    }
}

/// What a sender is told of a message that ended, as a row of the queue.
pub(in crate::store) struct Notice<'a> {
    pub(in crate::store) id: MessageId,
    pub(in crate::store) about: &'a Ending,
    pub(in crate::store) mailbox: &'a Key,
    pub(in crate::store) body: String,
    /// The seq of the end's audit row.
    pub(in crate::store) seq: i64,
}

/// The notices of messages that ended, whose audit rows have those numbers.
pub(in crate::store) fn notices(endings: &[Ending], end: End, seqs: Vec<i64>) -> Vec<Notice<'_>> {
    let told = endings.iter().zip(seqs).filter_map(|(about, seq)| {
        let mailbox = about.told.as_ref()?;
        let data = json!({
            "messageId": about.id,
            "clientMessageId": about.client_message_id,
            "targetSpec": about.target,
        });
        let body = json!({ "event": end.event(), "data": data }).to_string();
        let (id, body) = (MessageId::generate(), STANDARD.encode(body));
        Some(Notice { id, about, mailbox, body, seq })
    });
    told.collect()
}

/// The mailboxes of notices, each once.
pub(in crate::store) fn mailboxes(notices: &[Notice<'_>]) -> Vec<(MeshId, Key)> {
    let mut mailboxes: Vec<(MeshId, Key)> =
        notices.iter().map(|notice| (notice.about.mesh.clone(), notice.mailbox.clone())).collect();
    mailboxes.sort_unstable();
    mailboxes.dedup();
    mailboxes
}

/// Whether a sender with that wish is told when a model or person was given the message.
pub(in crate::store) const WISH: &str = Reached::Surfaced.as_str();
