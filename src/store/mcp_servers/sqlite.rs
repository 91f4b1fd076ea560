//! Servers that outlive their hosts, in SQLite.

use async_trait::async_trait;

use super::{KeptServer, McpServers};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId, PresenceId};
use crate::record::McpServer;
use crate::store::sqlite::SqliteStore;
use crate::store::{Author, Kind, Result, StoreError};

#[async_trait]
impl McpServers for SqliteStore {
    async fn keep(&self, now: Timestamp, by: &Author, server: &McpServer) -> Result<()> {
        let mut change = self.begin_change(now, &[&by.mesh]).await?;
        let event = AuditEvent::McpRegistered { server_name: server.name.clone() };
        let seq = change.append(by, &event).await?;
        let tools = serde_json::to_string(&server.tools)
            .map_err(|error| StoreError::Broken(error.to_string()))?;
        let query = sqlx::query(
            "insert into mcp_server (id, mesh_id, name, member_id, presence_id, hosted_by,
                description, tools, registered_at, seq)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             on conflict (mesh_id, name) do update set member_id = excluded.member_id,
                presence_id = excluded.presence_id, hosted_by = excluded.hosted_by,
                description = excluded.description, tools = excluded.tools,
                registered_at = excluded.registered_at, seq = excluded.seq",
        )
        .bind(crate::id::generate())
        .bind(by.mesh.as_str())
        .bind(&server.name)
        .bind(by.member.as_str())
        .bind(by.presence.as_str())
        .bind(&by.member_name)
        .bind(&server.description)
        .bind(tools)
        .bind(server.registered_at.as_ms())
        .bind(seq);
        change.execute(query).await?;
        change.within(&by.mesh, Kind::McpServer).await?.commit().await
    }

    async fn forget(&self, now: Timestamp, by: &Author, name: &str) -> Result<bool> {
        let mut change = self.begin_change(now, &[&by.mesh]).await?;
        let query = sqlx::query("delete from mcp_server where mesh_id = ?1 and name = ?2")
            .bind(by.mesh.as_str())
            .bind(name);
        if change.execute(query).await? == 0 {
            change.give_up().await?;
            return Ok(false);
        }
        let event = AuditEvent::McpUnregistered { server_name: name.to_owned() };
        change.append(by, &event).await?;
        change.commit().await?;
        Ok(true)
    }

    async fn named(&self, mesh: &MeshId, name: &str) -> Result<Option<KeptServer>> {
        let query = sqlx::query(
            "select s.*, p.last_ping_at from mcp_server s
             left join presence p on p.id = s.presence_id
             where s.mesh_id = ?1 and s.name = ?2",
        )
        .bind(mesh.as_str())
        .bind(name);
        self.record(query, KeptServer::read).await
    }

    async fn list(&self, mesh: &MeshId, after: &str, limit: i64) -> Result<Vec<KeptServer>> {
        let query = sqlx::query(
            "select s.*, p.last_ping_at from mcp_server s
             left join presence p on p.id = s.presence_id
             where s.mesh_id = ?1 and s.name > ?2 order by s.name limit 0 + ?3",
        )
        .bind(mesh.as_str())
        .bind(after)
        .bind(limit);
        self.records(query, KeptServer::read).await
    }

    async fn of_member(
        &self,
        mesh: &MeshId,
        member: &MemberId,
        limit: i64,
    ) -> Result<Vec<KeptServer>> {
        let query = sqlx::query(
            "select s.*, p.last_ping_at from mcp_server s
             left join presence p on p.id = s.presence_id
             where s.member_id = ?1 and s.mesh_id = ?2 order by s.name limit 0 + ?3",
        )
        .bind(member.as_str())
        .bind(mesh.as_str())
        .bind(limit);
        self.records(query, KeptServer::read).await
    }

    async fn rehost(&self, mesh: &MeshId, name: &str, host: &PresenceId) -> Result<()> {
        let query =
            sqlx::query("update mcp_server set presence_id = ?3 where mesh_id = ?1 and name = ?2")
                .bind(mesh.as_str())
                .bind(name)
                .bind(host.as_str());
        self.write(query).await.map(|_| ())
    }
}
