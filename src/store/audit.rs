//! The audit chain of each mesh, read and appended to.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;
use serde_json::Value;

use crate::audit::ChainRow;
use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::columns::Columns;
use crate::store::columns::unreadable;
use crate::store::{AuditEntry, Result};

/// The audit chain of each mesh.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait AuditTrail: Send + Sync + 'static {
    /// Appends audit rows that stand for themselves.
    async fn append(&self, now: Timestamp, entries: &[AuditEntry]) -> Result<()>;

    /// Rows newest first, with the number of all that match.
    async fn page<'a>(
        &self,
        mesh: &MeshId,
        event_type: Option<&'a str>,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<AuditRecord>, i64)>;

    /// Rows before `before_id`, newest first: a page after the first, or with
    /// `i64::MAX` the newest ones without counting the chain.
    async fn before<'a>(
        &self,
        mesh: &MeshId,
        event_type: Option<&'a str>,
        before_id: i64,
        limit: i64,
    ) -> Result<Vec<AuditRecord>>;

    /// Rows after `after_id`, oldest first: what a verifier walks, from `i64::MIN`.
    async fn after(&self, mesh: &MeshId, after_id: i64, limit: i64) -> Result<Vec<AuditRecord>>;

    /// What other tables say of rows that the chain lacks, as of one instant: what is
    /// being written meanwhile is there with its row, or not at all. Nothing that the
    /// broker does by itself makes a row lack.
    async fn missing(&self, mesh: &MeshId) -> Result<MissingRows>;
}

/// Rows that a chain lacks by what other tables say. A chain cannot show by itself that its
/// newest rows were removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissingRows {
    /// Messages and posts to topics that are kept here and whose rows are not.
    pub messages: i64,
    /// The smallest number of those rows.
    pub first: Option<i64>,
    /// Whether peers have been here and the chain has no row at all.
    pub all: bool,
    /// Whether the mesh was made with a first row of its chain, and the chain does not begin
    /// with it.
    pub genesis: bool,
    /// Rows of whichever mesh that have had a number and are not there. Always 0 on
    /// Postgres, which leaves numbers out where something was not done in the end.
    pub numbers: i64,
}

impl MissingRows {
    /// As both databases answer.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            messages: row.int("messages")?,
            first: row.optional_int("first")?,
            all: row.int("emptied")? != 0,
            genesis: row.int("beheaded")? != 0,
            numbers: row.int("numbers")?,
        })
    }
}

/// An audit row as it stands.
#[derive(Clone, Debug)]
pub struct AuditRecord {
    /// Its place.
    pub id: i64,
    /// The mesh.
    pub mesh: MeshId,
    /// What happened.
    pub event_type: String,
    /// Who did it.
    pub actor: Option<String>,
    /// The name that the actor's session had, or what an operator is called: the
    /// actor's own choice.
    pub actor_name: Option<String>,
    /// The name that the actor is enrolled under, if it still is.
    pub member_name: Option<String>,
    /// The actor's member key, if it still is one.
    pub member_key: Option<String>,
    /// To what.
    pub payload: Value,
    /// The hash of the row before.
    pub prev_hash: String,
    /// This row's hash.
    pub hash: String,
    /// The second hash, over number and name; another or none in rows of earlier releases.
    pub name_hash: Option<Vec<u8>>,
    /// When.
    pub created_at: Timestamp,
}

impl AuditRecord {
    /// Who did it, in one word: the enrolled name, never one that a session gave
    /// itself.
    #[must_use]
    pub fn actor_label(&self) -> &str {
        match (&self.actor, &self.member_name, &self.actor_name) {
            (Some(_), Some(name), _) | (None, _, Some(name)) => name,
            (Some(id), None, _) => id,
            (None, _, None) => "system",
        }
    }

    /// What the actor's session called itself.
    #[must_use]
    pub fn session_name(&self) -> Option<&str> {
        self.actor_name.as_deref().filter(|_| self.actor.is_some())
    }

    /// The row as a verifier takes it.
    #[must_use]
    pub fn as_link(&self) -> ChainRow<'_> {
        ChainRow {
            id: self.id,
            prev_hash: &self.prev_hash,
            event_type: &self.event_type,
            actor: self.actor.as_deref(),
            payload: &self.payload,
            created_at: self.created_at,
            hash: &self.hash,
            actor_name: self.actor_name.as_deref(),
            name_hash: self.name_hash.as_deref(),
        }
    }
}

impl AuditRecord {
    /// A row of `audit_log` with the actor as enrolled now.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.int("id")?,
            mesh: row.id("mesh_id")?,
            event_type: row.text("event_type")?,
            actor: row.optional_text("actor_member_id")?,
            actor_name: row.optional_text("actor_display_name")?,
            member_name: row.optional_text("member_name")?,
            member_key: row.optional_text("member_key")?,
            payload: payload(row.str("payload")?)?,
            prev_hash: row.text("prev_hash")?,
            hash: row.text("hash")?,
            name_hash: row.optional_bytes("name_hash")?,
            created_at: row.time("created_at")?,
        })
    }
}

/// A payload as it stands. One that names a key twice means something else to each
/// reader, and nobody's hash covers that: it is given as the text that it is, and no
/// longer fits its hash.
fn payload(text: &str) -> Result<Value> {
    if crate::auth::has_duplicate_keys(text) {
        return Ok(Value::String(text.to_owned()));
    }
    serde_json::from_str(text).map_err(|_| unreadable("payload"))
}
