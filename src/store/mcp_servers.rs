//! Servers that peers host and that stay listed when their hosts have gone.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId, PresenceId};
use crate::record::McpServer;
use crate::store::columns::Columns;
use crate::store::{Author, Result};

/// Servers that outlive their hosts.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait McpServers: Send + Sync + 'static {
    /// Keeps a server, with its audit row, in place of any other of its name.
    async fn keep(&self, now: Timestamp, by: &Author, server: &McpServer) -> Result<()>;

    /// Forgets the server of that name, with an audit row; `false` if there is none.
    async fn forget(&self, now: Timestamp, by: &Author, name: &str) -> Result<bool>;

    /// The server of that name.
    async fn named(&self, mesh: &MeshId, name: &str) -> Result<Option<KeptServer>>;

    /// Servers by name, those after `after`, at most `limit`.
    async fn list(&self, mesh: &MeshId, after: &str, limit: i64) -> Result<Vec<KeptServer>>;

    /// Those that a member registered, by name, at most `limit`.
    async fn of_member(
        &self,
        mesh: &MeshId,
        member: &MemberId,
        limit: i64,
    ) -> Result<Vec<KeptServer>>;

    /// Another presence of its member hosts a server from now on.
    async fn rehost(&self, mesh: &MeshId, name: &str, host: &PresenceId) -> Result<()>;
}

/// A server as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptServer {
    /// What is hosted.
    pub server: McpServer,
    /// Who hosts it.
    pub member: MemberId,
    /// The enrolled name of the member when it registered the server.
    pub hosted_by: String,
    /// When its last host was last heard of.
    pub heard_at: Timestamp,
}

impl KeptServer {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        let registered_at = row.time("registered_at")?;
        let server = McpServer {
            name: row.text("name")?,
            description: row.text("description")?,
            tools: row.described("tools")?,
            persistent: true,
            registered_at,
        };
        Ok(Self {
            server,
            member: row.id("member_id")?,
            hosted_by: row.text("hosted_by")?,
            // Its row may be gone.
            heard_at: row.optional_time("last_ping_at")?.unwrap_or(registered_at),
        })
    }
}
