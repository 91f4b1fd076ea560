//! The database itself: its schema, its health, what other programs change in it.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::store::{Changes, PoolUse, Result};

/// The database itself: its schema, its health, what other programs change in it.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Database: Send + Sync + 'static {
    /// Brings the schema up to date. Safe to run from many nodes at once.
    async fn migrate(&self) -> Result<()>;

    /// The migrations that have not run yet, by name; runs nothing.
    async fn pending_migrations(&self) -> Result<Vec<String>>;

    /// Who the cluster is that keeps its messages here; made by the first that
    /// asks.
    async fn cluster_identity(&self) -> Result<ClusterIdentity>;

    /// One round trip that reads and writes nothing.
    async fn ping(&self) -> Result<()>;

    /// Meshes that another program has changed since the last call (members
    /// banned, grants or roles edited, a mesh archived, envelopes inserted).
    /// Waits until there is something to tell, or for about a second.
    async fn changes(&self) -> Result<Changes>;

    /// How many bytes it can still grow by, where that is this machine's to know:
    /// free on the disk, and free within the file.
    async fn room(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// How much of what it may use it uses now.
    fn pool(&self) -> PoolUse;

    /// Ends every connection after the work under way.
    async fn close(&self);
}

/// Who the cluster is that keeps its messages in a database.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterIdentity {
    /// Part of every name that it uses elsewhere.
    pub id: String,
    /// What its nodes know and nobody else: random bytes.
    pub secret: Vec<u8>,
}

/// Without the secret.
impl std::fmt::Debug for ClusterIdentity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ClusterIdentity").field("id", &self.id).finish_non_exhaustive()
    }
}

impl ClusterIdentity {
    /// A key that nobody had before.
    #[must_use]
    pub fn generate() -> Self {
        let (id, secret): ([u8; 8], [u8; 32]) = (rand::random(), rand::random());
        Self { id: hex::encode(id), secret: secret.to_vec() }
    }
}
