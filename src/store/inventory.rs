//! What a mesh keeps, counted and named, for those who look at it as a whole.
//!
//! Never a value: the statements of this store read no column that holds one.

pub(super) mod postgres;
pub(super) mod sqlite;

use std::collections::HashMap;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::protocol::{TaskCounts, TaskStatus};
use crate::store::columns::Columns;
use crate::store::{Kind, Result, Usage};

/// What meshes keep, without values.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Inventory: Send + Sync + 'static {
    /// How much of each of these kinds a mesh keeps, as the database has counted it.
    async fn usage(&self, mesh: &MeshId, kinds: &[Kind]) -> Result<HashMap<Kind, Usage>>;

    /// How many tasks are of each status, as they stand at that instant.
    async fn task_counts(&self, now: Timestamp, mesh: &MeshId) -> Result<TaskCounts>;

    /// The keys of shared values, in their order, at most `limit`.
    async fn state_keys(&self, mesh: &MeshId, limit: i64) -> Result<Vec<String>>;

    /// Shared values, by their keys, at most `limit`.
    async fn states(&self, mesh: &MeshId, limit: i64) -> Result<Vec<StateLine>>;

    /// What is sent later, of all members, the next first, at most `limit`.
    async fn scheduled(&self, mesh: &MeshId, limit: i64) -> Result<Vec<ScheduledLine>>;

    /// All topics, whoever may see them, by name, at most `limit`.
    async fn topics(&self, mesh: &MeshId, limit: i64) -> Result<Vec<TopicLine>>;
}

/// A shared value, without the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateLine {
    /// Its key.
    pub key: String,
    /// How often it was written since it last came to be.
    pub version: i64,
    /// The name of the member that wrote it, as far as that is known.
    pub updated_by: Option<String>,
    /// When.
    pub updated_at: Timestamp,
}

impl StateLine {
    fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            key: row.text("key")?,
            version: row.int("version")?,
            updated_by: row.optional_text("updated_by_name")?,
            updated_at: row.time("updated_at")?,
        })
    }
}

/// A message that is sent later, without the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledLine {
    /// Its id.
    pub id: String,
    /// The name of the member that sends it.
    pub by: Option<String>,
    /// The target.
    pub target: String,
    /// Whether it is sealed.
    pub sealed: bool,
    /// When it is sent, or sent next.
    pub due_at: Timestamp,
    /// When it is sent again.
    pub cron: Option<String>,
    /// The zone of `cron`.
    pub timezone: Option<String>,
    /// Since when it is scheduled.
    pub created_at: Timestamp,
}

impl ScheduledLine {
    fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.text("id")?,
            by: row.optional_text("display_name")?,
            target: row.text("target")?,
            sealed: row.flag("sealed")?,
            due_at: row.time("due_at")?,
            cron: row.optional_text("cron")?.filter(|cron| !cron.is_empty()),
            timezone: row.optional_text("timezone")?,
            created_at: row.time("created_at")?,
        })
    }
}

/// A topic, without what was said in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicLine {
    /// Its name.
    pub name: String,
    /// Who sees it.
    pub visibility: String,
    /// How many are in it.
    pub members: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was archived, if it was.
    pub archived_at: Option<Timestamp>,
}

impl TopicLine {
    fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            name: row.text("name")?,
            visibility: row.text("visibility")?,
            members: row.int("members")?,
            created_at: row.time("created_at")?,
            archived_at: row.optional_time("archived_at")?,
        })
    }
}

fn read_usage(row: &impl Columns) -> Result<Usage> {
    Ok(Usage { rows: row.int("rows")?, bytes: row.int("bytes")? })
}

fn read_count(row: &impl Columns) -> Result<(TaskStatus, i64)> {
    Ok((TaskStatus::read(&row.text("status")?), row.int("rows")?))
}

/// Other programs' words may come to one status.
fn counted(rows: Vec<(TaskStatus, i64)>) -> TaskCounts {
    let mut counts = TaskCounts::default();
    for (status, rows) in rows {
        *counts.of(status) += rows;
    }
    counts
}
