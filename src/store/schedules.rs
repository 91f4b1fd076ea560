//! Messages that are sent later.
//!
//! A message leaves its row in the transaction that accepts it, so it is sent once
//! whichever nodes try, and not lost where one dies.

mod firing;
pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId};
use crate::store::columns::Columns;
use crate::store::{Accepted, Author, NewEnvelope, Result};

/// Messages that are sent later.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Schedules: Send + Sync + 'static {
    /// Keeps one.
    async fn schedule(&self, now: Timestamp, author: &Author, new: &NewSchedule) -> Result<()>;

    /// What a member has scheduled and was not sent, the oldest first, what comes after
    /// that position: when it was scheduled, and its id.
    async fn list(
        &self,
        mesh: &MeshId,
        member: &MemberId,
        after: Option<(Timestamp, String)>,
        limit: i64,
    ) -> Result<Vec<Scheduled>>;

    /// Takes one back; whether it was the author's, and still to be sent. One that is
    /// being sent at this moment is not.
    async fn cancel(&self, now: Timestamp, author: &Author, id: &str) -> Result<bool>;

    /// What is due, the longest first.
    async fn due(&self, now: Timestamp, limit: i64) -> Result<Vec<Due>>;

    /// When the next one is due.
    async fn next_due(&self) -> Result<Option<Timestamp>>;

    /// Does with each what was decided, all in one transaction, as far as its row is as
    /// it was read and nobody else has it in hand: the message is accepted, and the row
    /// goes or moves on. The answers are in the order given.
    async fn fire(&self, now: Timestamp, firings: &[Firing]) -> Result<Vec<Fired>>;
}

/// A message to send later.
#[derive(Clone, Debug)]
pub struct NewSchedule {
    /// Its id, made by the caller.
    pub id: String,
    /// The target.
    pub to: String,
    /// The message: for everybody to read, or sealed.
    pub message: String,
    /// The nonce, if it is sealed.
    pub nonce: Option<String>,
    /// When it is sent, or first sent.
    pub deliver_at: Timestamp,
    /// When it is sent again.
    pub cron: Option<String>,
    /// The zone of `cron`.
    pub timezone: Option<String>,
    /// What the message is to call itself.
    pub subtype: Option<String>,
    /// The message that it answers.
    pub reply_to_id: Option<String>,
    /// How many answers led to it.
    pub hop: u32,
}

/// A message that is sent later, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// Its id.
    pub id: String,
    /// The target.
    pub to: String,
    /// The message: for everybody to read, or sealed.
    pub message: String,
    /// The nonce, if it is sealed.
    pub nonce: Option<String>,
    /// When it is sent, or sent next.
    pub deliver_at: Timestamp,
    /// When it is sent again.
    pub cron: Option<String>,
    /// The zone of `cron`.
    pub timezone: Option<String>,
    /// What the message is to call itself.
    pub subtype: Option<String>,
    /// The message that it answers.
    pub reply_to_id: Option<String>,
    /// How many answers led to it.
    pub hop: u32,
    /// How often it was sent.
    pub fired_count: i64,
    /// Since when it is scheduled.
    pub created_at: Timestamp,
}

impl Scheduled {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        let created_at = row.time("created_at")?;
        Ok(Self {
            id: row.text("id")?,
            to: row.text("to")?,
            message: row.text("message")?,
            nonce: row.optional_text("nonce")?,
            deliver_at: row.optional_time("deliver_at")?.unwrap_or(created_at),
            cron: row.optional_text("cron")?.filter(|cron| !cron.is_empty()),
            timezone: row.optional_text("timezone")?,
            subtype: row.optional_text("subtype")?,
            reply_to_id: row.optional_text("reply_to_id")?,
            hop: row
                .optional_int("hop")?
                .and_then(|hop| u32::try_from(hop).ok())
                .unwrap_or_default(),
            fired_count: row.int("fired_count")?,
            created_at,
        })
    }
}

/// A message whose time has come.
#[derive(Clone, Debug)]
pub struct Due {
    /// The message.
    pub scheduled: Scheduled,
    /// Its mesh.
    pub mesh: MeshId,
    /// The member in whose name it is sent.
    pub member: MemberId,
    /// The name that the member is enrolled under.
    pub member_name: String,
    /// The member's key.
    pub member_key: Key,
    /// Whether the member was shut out.
    pub is_revoked: bool,
    /// Whether the mesh was archived.
    pub is_archived: bool,
    /// Since when it is due; how its row is known again.
    pub due_at: Timestamp,
}

impl Due {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            scheduled: Scheduled::read(row)?,
            mesh: row.id("mesh_id")?,
            member: row.id("member_id")?,
            member_name: row.text("member_name")?,
            member_key: row.id("member_key")?,
            is_revoked: row.optional_time("revoked_at")?.is_some(),
            is_archived: row.optional_time("archived_at")?.is_some(),
            due_at: row.time("due_at")?,
        })
    }
}

/// What is to be done with one that is due.
#[derive(Clone, Debug)]
pub struct Firing {
    /// The one.
    pub due: Due,
    /// What is done with it.
    pub fate: Fate,
}

/// What is done with a message whose time has come.
#[derive(Clone, Debug)]
pub enum Fate {
    /// The message is sent.
    Send {
        /// As what.
        envelope: Box<NewEnvelope>,
        /// When it is sent next; `None`: it is gone.
        next: Option<Timestamp>,
    },
    /// Nothing is sent this time.
    Skip {
        /// When it is sent next.
        next: Timestamp,
    },
    /// Nothing is sent, and it is gone.
    Drop {
        /// Why, in a word for the audit row.
        reason: &'static str,
    },
    /// Whoever looks then decides anew.
    PutOff {
        /// When.
        until: Timestamp,
    },
}

/// What became of a firing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fired {
    /// The message is on disk.
    Sent {
        /// Its seq.
        seq: i64,
        /// For a multicast: the seq of the one before it.
        previous_multicast: i64,
        /// For a post: the version of its topic's roster.
        roster: i64,
    },
    /// It was skipped, dropped or put off.
    Settled,
    /// Another has it in hand, or had.
    Elsewhere,
}

impl Fired {
    fn of(accepted: &Accepted) -> Self {
        match accepted {
            Accepted::New { seq, previous_multicast, roster, .. } => {
                Self::Sent { seq: *seq, previous_multicast: *previous_multicast, roster: *roster }
            }
            Accepted::Duplicate { .. } => Self::Settled,
        }
    }
}
