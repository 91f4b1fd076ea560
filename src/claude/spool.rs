//! The spool of one session: the messages that have come for it, in a file that the
//! session's process and its host's hooks share.
//!
//! A message is `stored`, then `offered` to one way of reaching the model, until an
//! instant, then `seen`; one that no way proved in time waits again for the next. It is
//! `seen` only on evidence, whoever calls this has to have it; what was written and may
//! have been read is offered and no more. What the broker was told as surfaced comes from
//! here, so a restart loses none and tells none twice.
//!
//! Every change is one statement: it happens or not, whatever a caller gives up. The
//! session's process and the hooks call this; nothing here knows a host or a socket.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;

use crate::clock::Timestamp;
use crate::id::{Key, MessageId};
use crate::protocol::Priority;

mod file;
mod mail;
mod turn;

#[cfg(test)]
mod tests;

/// A message as it comes from the broker, opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Incoming {
    /// The broker's id.
    pub(crate) message_id: MessageId,
    /// The sender's own id: one that is sent again is no second message.
    pub(crate) client_message_id: Option<String>,
    /// The key of the member who sent it, as the broker proved it.
    pub(crate) sender_key: Key,
    /// The sender's session key, where that is another.
    pub(crate) sender_session_key: Option<Key>,
    /// The name under which that member is enrolled.
    pub(crate) sender_name: String,
    /// What the sender's session calls itself, which nobody proved.
    pub(crate) sender_session_name: Option<String>,
    /// The mesh's slug.
    pub(crate) mesh: String,
    /// Whom it was for where that is more than this session: `@group`, `#topic`, `*`.
    pub(crate) target: Option<String>,
    /// Whether it was for many; `None` where that is not known.
    #[serde(default)]
    pub(crate) to_many: Option<bool>,
    /// Whether it was for this session's own key, so that no other session may have it.
    #[serde(default)]
    pub(crate) for_session: bool,
    /// How urgent.
    pub(crate) priority: Priority,
    /// `reminder` for one that was scheduled as such; other marks of the broker.
    pub(crate) subtype: Option<String>,
    /// When the broker had it.
    pub(crate) sent_at: Timestamp,
    /// From when on it is not shown any more.
    pub(crate) expires_at: Option<Timestamp>,
    /// The conversation it belongs to.
    pub(crate) thread_id: Option<String>,
    /// The message that it answers.
    pub(crate) reply_to_id: Option<String>,
    /// Whether its sender waits for an answer; `None` where nobody said.
    pub(crate) expects_reply: Option<bool>,
    /// How many answers of answers it is away from a person or a first word.
    pub(crate) hop: Option<u32>,
    /// How many newer ones of that sender waited behind it.
    pub(crate) newer_from_sender: Option<u32>,
    /// Whether an earlier socket may have had it.
    #[serde(default)]
    pub(crate) redelivered: bool,
    /// Whether it was sealed, so that the broker could not read it; `None` where that is not
    /// known.
    #[serde(default)]
    pub(crate) is_sealed: Option<bool>,
    /// Its number in the mesh's order.
    pub(crate) seq: Option<u64>,
    /// What it says.
    pub(crate) body: String,
}

/// What became of a message that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// It is in the spool now: it can be confirmed.
    New,
    /// It was there already: it can be confirmed again.
    Known,
    /// There is no room: it must not be confirmed, so that the broker keeps it.
    Full,
}

/// A way by which a message reaches a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The hook at a session's start, its return, and after its context was compacted.
    SessionStart,
    /// The hook beside what the user typed.
    Prompt,
    /// The hook between two tools.
    Tools,
    /// The hook at a turn's end.
    Stop,
    /// A notification of the channel.
    Channel,
    /// The answer of a tool call that asked for messages.
    ToolResult,
    /// The answer of another tool call, below what it says itself.
    Beside,
}

/// A message in the spool.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Letter {
    /// Its number here, in the order of arrival.
    pub(crate) id: i64,
    /// When it came here.
    pub(crate) received_at: Timestamp,
    /// Whether any way was offered it before: the model may have read it.
    pub(crate) tried: bool,
    /// Whether it is known that the model has read it.
    pub(crate) seen: bool,
    /// What came. The body is empty where it was let go of since.
    pub(crate) message: Incoming,
}

/// Which of those that wait are wanted. The default is all of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    /// Only those sent as `now`, and any that came at this instant or before.
    pub(crate) urgent_or_before: Option<Timestamp>,
    /// Only those that this way was never offered.
    pub(crate) untried_by: Option<Way>,
    /// Also those that the channel holds: what was pushed can still be pulled.
    pub(crate) pushed_too: bool,
}

/// What is in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Not seen yet: what a person would call unread.
    pub(crate) unread: i64,
    /// Of those, such as no way holds at the moment.
    pub(crate) free: i64,
    /// Of the unread, those sent as `now`.
    pub(crate) urgent: i64,
    /// Seen, and the broker does not know yet.
    pub(crate) untold: i64,
    /// When the oldest unread one came.
    pub(crate) oldest: Option<Timestamp>,
}

/// The spool of one session. Clones share the connection.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    pool: SqlitePool,
}

impl Spool {
    /// Opens the file, or makes it for this user alone. Other programs may have it open.
    pub(crate) async fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { pool: file::open(path).await? })
    }

    /// A number that changes whenever another program has changed the file.
    pub(crate) async fn version(&self) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar("pragma data_version").fetch_one(&self.pool).await?)
    }

    /// Closes the file. What was not waited for is not written.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

impl Way {
    /// The word in the file.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::SessionStart => "session-start",
            Self::Prompt => "prompt",
            Self::Tools => "tools",
            Self::Stop => "stop",
            Self::Channel => "channel",
            Self::ToolResult => "tool-result",
            Self::Beside => "beside",
        }
    }

    const fn bit(self) -> i64 {
        1 << self as i64
    }

    /// Of which ways it may take what they hold: what was pushed can still be pulled.
    const fn takes_from(self) -> i64 {
        match self {
            Self::ToolResult => Self::Channel.bit(),
            _ => 0,
        }
    }
}

impl Incoming {
    /// By what one that comes again is recognised.
    fn identity(&self) -> String {
        match &self.client_message_id {
            Some(id) => self.identity_of(id),
            None => self.message_id.to_string(),
        }
    }

    /// The same of another message of its sender.
    fn identity_of(&self, client_message_id: &str) -> String {
        format!("{} {client_message_id}", self.sender_key)
    }
}
