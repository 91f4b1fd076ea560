//! Shared state: values under keys, which every member of a mesh may read and write.

mod deciding;
pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::record::{Shared, SharedChange};
use crate::store::columns::Columns;
use crate::store::{Author, Full, Result};

/// Values under keys.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait States: Send + Sync + 'static {
    /// Writes a batch in its order, in one transaction: rows and audit rows. The
    /// answers are in the order of the batch.
    async fn write(&self, now: Timestamp, batch: &[StateWrite]) -> Result<Vec<StateWritten>>;

    /// The value under a key.
    async fn get(&self, mesh: &MeshId, key: &str) -> Result<Option<StateEntry>>;

    /// Values by key, those after `after`, at most `limit`.
    async fn list<'a>(
        &self,
        mesh: &MeshId,
        after: Option<&'a str>,
        limit: i64,
    ) -> Result<Vec<StateEntry>>;

    /// What is otherwise since that seq, in the order of the changes, at most `limit`.
    async fn changed_since(&self, mesh: &MeshId, seq: i64, limit: i64)
    -> Result<Vec<SharedChange>>;

    /// Forgets what was removed before that instant: whoever missed it has read
    /// everything since.
    async fn forget_removed(&self, before: Timestamp) -> Result<u64>;
}

/// One value to write.
#[derive(Clone, Debug)]
pub struct StateWrite {
    /// By whom, where.
    pub author: Author,
    /// Under which key.
    pub key: String,
    /// The value, as JSON text; `None` removes it.
    pub value: Option<String>,
    /// Only if the version is this one; 0: only if there is none.
    pub if_version: Option<i64>,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateWritten {
    /// The value is on disk.
    Written {
        /// The change's seq.
        seq: i64,
        /// The value's version; of a removed one, the version that it had.
        version: i64,
    },
    /// There was nothing to remove.
    Absent,
    /// The version is another one; 0: there is no such value.
    Conflict {
        /// The version.
        version: i64,
    },
    /// The mesh may keep no more.
    Full(Full),
}

/// A value as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct StateEntry {
    /// Its key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// How often it was written since it last came to be.
    pub version: i64,
    /// The name of the member that wrote it.
    pub updated_by: String,
    /// What the member's session called itself, where that is another name.
    pub updated_by_session: Option<String>,
    /// When.
    pub updated_at: Timestamp,
}

impl StateEntry {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            key: row.text("key")?,
            value: row.json("value")?,
            version: row.int("version")?,
            // Another program may have left it out.
            updated_by: row
                .optional_text("updated_by_name")?
                .unwrap_or_else(|| "unknown".to_owned()),
            updated_by_session: row.optional_text("updated_by_session_name")?,
            updated_at: row.time("updated_at")?,
        })
    }
}

/// A change as a row says it; a row without a value says that it was removed.
fn read_change(row: &impl Columns) -> Result<SharedChange> {
    let value = match row.optional_str("value")? {
        Some(_) => row.json("value")?,
        None => Value::Null,
    };
    let what = Shared::State {
        key: row.text("key")?,
        value,
        version: row.optional_int("version")?,
        updated_by: row.optional_text("updated_by_name")?.unwrap_or_default(),
    };
    Ok(SharedChange { seq: row.int("seq")?, by: row.optional_id("updated_by_presence")?, what })
}
