//! What a mesh keeps, counted and named, for those who look at it as a whole.
//!
//! Never a value: the statements of this store do not name the columns that hold one.

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
