//! Webhooks: addresses that other programs call, and addresses that the broker calls.
//!
//! What a called address is to be told is written by the database in the transaction of
//! the audit row that tells of it, and that mail waits in that of the mail; what has no
//! such row comes by [`Webhooks::note`].
//! One node at a time delivers to an address, by a claim.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;
use serde_json::Value;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::protocol::{WebhookEvent, WebhookSigning};
use crate::store::columns::Columns;
use crate::store::{Author, Result};

/// Webhooks.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Webhooks: Send + Sync + 'static {
    /// Makes one; whether its name was free, also of those that were deleted.
    async fn create(&self, now: Timestamp, hook: &NewWebhook) -> Result<bool>;

    /// Those that are not deleted by name, after `after`, at most `limit`.
    async fn list<'a>(
        &self,
        mesh: &MeshId,
        after: Option<&'a str>,
        limit: i64,
    ) -> Result<Vec<Webhook>>;

    /// Deletes one; only if `only_of` made it, where that is given. The name stays taken.
    async fn delete<'a>(
        &self,
        now: Timestamp,
        author: &Author,
        name: &str,
        only_of: Option<&'a MemberId>,
    ) -> Result<Deleted>;

    /// Those that may have that secret and whose maker is a member still, of a mesh that is
    /// not archived: whoever asks compares.
    async fn by_secret(&self, mesh: &MeshId, secret: &str) -> Result<Vec<Webhook>>;

    /// How a call of that key was answered, if there was one since that instant.
    async fn answered(&self, webhook: &str, key: &str, since: Timestamp) -> Result<Option<i64>>;

    /// Writes down a call. `Some` if one with its key was answered before: with that.
    async fn receive(&self, now: Timestamp, call: &Call) -> Result<Option<i64>>;

    /// Which events without an audit row are to be told to somebody.
    async fn asked(&self) -> Result<Vec<(MeshId, WebhookEvent)>>;

    /// Puts events into the outboxes of those that asked; one that waits about the same
    /// stands for both.
    async fn note(&self, now: Timestamp, notes: &[Note]) -> Result<()>;

    /// Claims addresses for which something waits and whose time has come, each with
    /// what waits first.
    async fn claim(&self, now: Timestamp, claim: &OutClaim) -> Result<Vec<Waiting>>;

    /// Writes down what became of an event, and lets go of the claim or goes on under
    /// it. Whether the claim still held.
    async fn settle(&self, now: Timestamp, told: &Told) -> Result<bool>;

    /// Forgets calls that were answered before that instant.
    async fn forget_calls(&self, before: Timestamp) -> Result<u64>;
}

/// A webhook that begins.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    /// The id.
    pub id: String,
    /// Who makes it, where.
    pub author: Author,
    /// What it is called.
    pub name: String,
    /// The last part of the address that others call.
    pub secret: String,
    /// Whether what is posted is kept for members that are away.
    pub durable: bool,
    /// How calls are signed.
    pub signing: Option<WebhookSigning>,
    /// By what calls are signed.
    pub signing_secret: Option<String>,
    /// The address that the broker calls.
    pub url: Option<String>,
    /// Which events the broker tells it.
    pub events: Vec<WebhookEvent>,
}

impl NewWebhook {
    /// Whether it asks for events that have no audit row.
    pub(in crate::store) fn is_noted(&self) -> bool {
        let noted = [WebhookEvent::MailWaiting, WebhookEvent::Capacity];
        self.events.iter().any(|event| noted.contains(event))
    }
}

/// A webhook as it stands.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// The last part of the address that others call.
    pub secret: String,
    /// Who made it.
    pub created_by: MemberId,
    /// When.
    pub created_at: Timestamp,
    /// Whether what is posted is kept for members that are away.
    pub durable: bool,
    /// How calls are signed.
    pub signing: Option<WebhookSigning>,
    /// By what calls are signed.
    pub signing_secret: Option<String>,
    /// The address that the broker calls.
    pub url: Option<String>,
    /// Which events the broker tells it.
    pub events: Vec<WebhookEvent>,
    /// Events that wait to be told.
    pub waiting: i64,
    /// Events that were given up.
    pub dead_letters: i64,
    /// Why the last try failed.
    pub last_error: Option<String>,
    /// When it was last told something.
    pub delivered_at: Option<Timestamp>,
}

/// Without its secrets, and without its address, which may hold some.
impl std::fmt::Debug for Webhook {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Webhook").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The webhook is deleted.
    Done,
    /// There is none of that name.
    Absent,
    /// Somebody else made it.
    Foreign,
}

/// A call by another program.
#[derive(Clone, Debug)]
pub struct Call {
    /// The webhook's id.
    pub webhook: String,
    /// In its mesh, in the name of its maker.
    pub author: Author,
    /// The webhook's name.
    pub name: String,
    /// How large the body was.
    pub bytes: usize,
    /// What the caller calls the call: two of one key are one call.
    pub key: Option<String>,
    /// Calls before that instant are forgotten.
    pub since: Timestamp,
    /// To how many connections it goes.
    pub delivered: i64,
}

impl Call {
    /// What the audit chain says of it.
    pub(in crate::store) fn event(&self) -> AuditEvent {
        AuditEvent::WebhookReceived { name: self.name.clone(), bytes: self.bytes }
    }
}

/// Something happened of which there is no audit row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where.
    pub mesh: MeshId,
    /// What.
    pub event: WebhookEvent,
    /// About what: while one waits, another about the same is not added.
    pub subject: String,
    /// Ids, names and numbers.
    pub data: Value,
}

/// A node takes addresses to call.
#[derive(Clone, Debug)]
pub struct OutClaim {
    /// What the claim is called.
    pub id: String,
    /// Until when nobody else may call them.
    pub until: Timestamp,
    /// At most so many addresses.
    pub limit: i64,
    /// At most so many events of each.
    pub events: i64,
}

/// An address with what waits for it.
#[derive(Clone)]
pub struct Waiting {
    /// The webhook's id.
    pub webhook: String,
    /// In which mesh.
    pub mesh: MeshId,
    /// What it is called.
    pub name: String,
    /// The address.
    pub url: String,
    /// By what calls are signed.
    pub signing_secret: String,
    /// How many tries of the first event have failed.
    pub attempts: i64,
    /// The events, in their order.
    pub events: Vec<WaitingEvent>,
}

/// An event that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitingEvent {
    /// Where it stands.
    pub id: i64,
    /// What happened.
    pub event: String,
    /// Ids, names and numbers.
    pub data: Value,
    /// When.
    pub created_at: Timestamp,
}

/// What became of an event.
#[derive(Clone, Debug)]
pub struct Told {
    /// The claim that it was told under.
    pub claim: String,
    /// The webhook's id.
    pub webhook: String,
    /// The outcome.
    pub outcome: Outcome,
    /// Until when the claim holds then; `None` lets go of it.
    pub until: Option<Timestamp>,
}

/// How a try to tell an event ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has the event.
    Taken {
        /// The event.
        event: i64,
    },
    /// The event is tried again.
    Failed {
        /// Why.
        error: String,
        /// When.
        next_at: Timestamp,
    },
    /// The event is given up.
    GivenUp {
        /// The event.
        event: i64,
        /// Why its last try failed.
        error: String,
    },
    /// There was no try.
    Left,
}

impl Outcome {
    /// The event that waits no more.
    pub(in crate::store) fn done(&self) -> Option<i64> {
        match self {
            Self::Taken { event } | Self::GivenUp { event, .. } => Some(*event),
            Self::Failed { .. } | Self::Left => None,
        }
    }

    pub(in crate::store) fn error(&self) -> Option<&str> {
        match self {
            Self::Failed { error, .. } | Self::GivenUp { error, .. } => Some(error),
            Self::Taken { .. } | Self::Left => None,
        }
    }

    pub(in crate::store) fn next_at(&self) -> Option<Timestamp> {
        match self {
            Self::Failed { next_at, .. } => Some(*next_at),
            _ => None,
        }
    }

    /// `taken`, `failed`, `given_up`, `left`.
    pub(in crate::store) const fn as_str(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "taken",
            Self::Failed { .. } => "failed",
            Self::GivenUp { .. } => "given_up",
            Self::Left => "left",
        }
    }
}

impl Webhook {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        let events: Vec<String> = row.described("events")?;
        Ok(Self {
            id: row.text("id")?,
            name: row.text("name")?,
            secret: row.text("secret")?,
            created_by: row.id("created_by")?,
            created_at: row.time("created_at")?,
            durable: row.flag("durable")?,
            signing: row.optional_str("signing")?.and_then(WebhookSigning::parse),
            signing_secret: row.optional_text("signing_secret")?,
            url: row.optional_text("url")?,
            // Another release may know more of them.
            events: events.iter().filter_map(|event| WebhookEvent::parse(event)).collect(),
            waiting: row.int("waiting")?,
            dead_letters: row.int("dead_letters")?,
            last_error: row.optional_text("last_error")?,
            delivered_at: row.optional_time("delivered_at")?,
        })
    }
}

impl Waiting {
    /// A claimed row; its events are read by themselves.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            webhook: row.text("id")?,
            mesh: row.id("mesh_id")?,
            name: row.text("name")?,
            url: row.text("url")?,
            signing_secret: row.optional_text("signing_secret")?.unwrap_or_default(),
            attempts: row.int("attempts")?,
            events: Vec::new(),
        })
    }
}

impl WaitingEvent {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.int("id")?,
            event: row.text("event")?,
            data: row.json("data")?,
            created_at: row.time("created_at")?,
        })
    }
}

/// A row of `asked`.
fn read_asked(row: &impl Columns) -> Result<Option<(MeshId, WebhookEvent)>> {
    let event = WebhookEvent::parse(row.str("event")?);
    event.map(|event| Ok((row.id("mesh_id")?, event))).transpose()
}
