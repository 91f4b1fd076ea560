//! What meshes remember: texts with tags, found by their words.

pub(super) mod postgres;
pub(super) mod sqlite;
mod words;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::columns::Columns;
use crate::store::{Author, Result};

/// Texts that are found by their words.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Memories: Send + Sync + 'static {
    /// Keeps a memory, with its audit row.
    async fn remember(&self, now: Timestamp, memory: &NewMemory) -> Result<()>;

    /// The memories of a mesh that have all words of the query in their text or their
    /// tags, the best first and of equal ones the newest; at most `limit` of those after
    /// the first `skip`. A query without words that count finds nothing.
    async fn recall(
        &self,
        mesh: &MeshId,
        query: &str,
        skip: i64,
        limit: i64,
    ) -> Result<Vec<Memory>>;

    /// The ids of memories of a mesh that begin so, two at most.
    async fn beginning_with(&self, mesh: &MeshId, beginning: &str) -> Result<Vec<String>>;

    /// Removes a memory, with an audit row if it was there.
    async fn forget(&self, now: Timestamp, author: &Author, id: &str) -> Result<bool>;
}

/// A memory to keep.
#[derive(Clone, Debug)]
pub struct NewMemory {
    /// From whom, where.
    pub author: Author,
    /// Its id.
    pub id: String,
    /// The text.
    pub content: String,
    /// The words that it is found by, too.
    pub tags: Vec<String>,
}

/// A memory as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Its id.
    pub id: String,
    /// The text.
    pub content: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// The name of the member that it comes from.
    pub remembered_by: String,
    /// What the member's session called itself, where that is another name.
    pub remembered_by_session: Option<String>,
    /// When.
    pub remembered_at: Timestamp,
}

impl Memory {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        let by = row.optional_text("remembered_by_name")?;
        Ok(Self {
            id: row.text("id")?,
            content: row.text("content")?,
            tags: row.described("tags")?,
            // Another program may have left it out.
            remembered_by: by.unwrap_or_else(|| "unknown".to_owned()),
            remembered_by_session: row.optional_text("remembered_by_session_name")?,
            remembered_at: row.time("remembered_at")?,
        })
    }
}
