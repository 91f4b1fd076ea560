//! What members say that they work on: one context for each member of a mesh.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::record::{Shared, SharedChange};
use crate::store::columns::Columns;
use crate::store::{Author, Result};

/// One context for each member.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Contexts: Send + Sync + 'static {
    /// Keeps what a member works on, in place of what it said before, with an audit row.
    async fn share(&self, now: Timestamp, context: &NewContext) -> Result<ContextKept>;

    /// The contexts that have the query in their summary, in whatever case, or as a tag;
    /// the newest first, those after `after`, at most `limit`.
    async fn find<'a>(
        &self,
        mesh: &MeshId,
        query: &str,
        after: Option<&'a ContextAt>,
        limit: i64,
    ) -> Result<Vec<Context>>;

    /// All contexts, the newest first, those after `after`, at most `limit`, without the
    /// files and findings.
    async fn list<'a>(
        &self,
        mesh: &MeshId,
        after: Option<&'a ContextAt>,
        limit: i64,
    ) -> Result<Vec<Context>>;

    /// What is otherwise since that seq, in the order of the changes, at most `limit`.
    async fn changed_since(&self, mesh: &MeshId, seq: i64, limit: i64)
    -> Result<Vec<SharedChange>>;
}

/// Where a context stands in the order of lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextAt(pub Timestamp, pub String);

/// What a member works on.
#[derive(Clone, Debug)]
pub struct NewContext {
    /// Who, where.
    pub author: Author,
    /// What it is about.
    pub summary: String,
    /// Files that were read for it.
    pub files_read: Vec<String>,
    /// What was found out.
    pub key_findings: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// A context that is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextKept {
    /// The context's id, which stays the member's.
    pub id: String,
    /// The change's seq.
    pub seq: i64,
}

/// A context as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Its id.
    pub id: String,
    /// The member's name.
    pub peer_name: String,
    /// What the member's session called itself, where that is another name.
    pub peer_session: Option<String>,
    /// What it is about.
    pub summary: String,
    /// Files that were read for it; lists leave them out.
    pub files_read: Vec<String>,
    /// What was found out; lists leave it out.
    pub key_findings: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// When it was said.
    pub updated_at: Timestamp,
}

impl Context {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.text("id")?,
            peer_name: peer_name(row)?,
            peer_session: row.optional_text("peer_session_name")?,
            summary: row.text("summary")?,
            files_read: row.described("files_read")?,
            key_findings: row.described("key_findings")?,
            tags: row.described("tags")?,
            updated_at: row.time("updated_at")?,
        })
    }

    /// Where it stands in the order of lists.
    #[must_use]
    pub fn at(&self) -> ContextAt {
        ContextAt(self.updated_at, self.id.clone())
    }
}

fn read_change(row: &impl Columns) -> Result<SharedChange> {
    let (member, name) = (row.id("member_id")?, peer_name(row)?);
    let what = Shared::Context { member, name, summary: row.text("summary")? };
    Ok(SharedChange { seq: row.int("seq")?, by: row.optional_id("presence_id")?, what })
}

/// Another program may have left it out.
fn peer_name(row: &impl Columns) -> Result<String> {
    Ok(row.optional_text("peer_name")?.unwrap_or_else(|| "unknown".to_owned()))
}
