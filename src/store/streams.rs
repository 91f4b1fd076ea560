//! Streams: names under which the peers of a mesh publish to each other.
//!
//! Kept is that a stream was made, and by whom. What is published passes the store by,
//! and who subscribes is in the directory of presences.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::columns::Columns;
use crate::store::{Author, Result};

/// Names of streams.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Streams: Send + Sync + 'static {
    /// The stream of that name: the one that is there, else a new one with its audit
    /// row.
    async fn create(&self, now: Timestamp, author: &Author, name: &str) -> Result<Stream>;

    /// Deletes the stream of that name; whether there was one.
    async fn delete(&self, now: Timestamp, author: &Author, name: &str) -> Result<bool>;

    /// The streams of a mesh, the oldest first, those after `after`, at most `limit`.
    async fn list(
        &self,
        mesh: &MeshId,
        after: Option<StreamPlace>,
        limit: i64,
    ) -> Result<Vec<Stream>>;
}

/// Where a stream stands in the list: when it was made, and its id.
pub type StreamPlace = (Timestamp, String);

/// A stream as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its id.
    pub id: String,
    /// Its name, which no other of the mesh has.
    pub name: String,
    /// The name of the member that made it, as far as that is known.
    pub created_by: Option<String>,
    /// What the member's session called itself, where that is another name.
    pub created_by_session: Option<String>,
    /// When.
    pub created_at: Timestamp,
}

impl Stream {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.text("id")?,
            name: row.text("name")?,
            created_by: row.optional_text("created_by_name")?,
            created_by_session: row.optional_text("created_by_session_name")?,
            created_at: row.time("created_at")?,
        })
    }

    fn new(now: Timestamp, author: &Author, name: &str) -> Self {
        Self {
            id: crate::id::generate(),
            name: name.to_owned(),
            created_by: Some(author.member_name.clone()),
            created_by_session: author.other_name().map(str::to_owned),
            created_at: now,
        }
    }
}
