//! What meshes remember, in Postgres: the search is its own, in English.

use async_trait::async_trait;

use super::{Memories, Memory, NewMemory};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::columns::Columns;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::row::{clean, clean_optional};
use crate::store::{Author, Kind, Result};

#[async_trait]
impl Memories for PostgresStore {
    async fn remember(&self, now: Timestamp, memory: &NewMemory) -> Result<()> {
        let NewMemory { author, id, content, tags } = memory;
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "insert into mesh.memory (id, mesh_id, content, tags, remembered_by,
                remembered_by_name, remembered_by_session_name, remembered_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(id.as_str())
        .bind(author.mesh.as_str())
        .bind(clean(content))
        .bind(tags.iter().map(|tag| clean(tag)).collect::<Vec<_>>())
        .bind(author.member.as_str())
        .bind(clean(&author.member_name))
        .bind(clean_optional(author.other_name()))
        .bind(now.to_naive());
        change.execute(query).await?;
        change.append(author, &AuditEvent::MemoryStored { id: id.clone() }).await?;
        change.within(&author.mesh, Kind::Memory).await?.commit().await
    }

    async fn recall(
        &self,
        mesh: &MeshId,
        query: &str,
        skip: i64,
        limit: i64,
    ) -> Result<Vec<Memory>> {
        let query = sqlx::query("select * from mesh.broker_recall_v1($1, $2, $3, $4)")
            .bind(mesh.as_str())
            .bind(clean(query))
            .bind(skip)
            .bind(limit);
        let _turn = self.searches.acquire().await;
        self.pool.records(query, Memory::read).await
    }

    async fn beginning_with(&self, mesh: &MeshId, beginning: &str) -> Result<Vec<String>> {
        let query = sqlx::query(
            "select id from mesh.memory
             where mesh_id = $1 and left(id, length($2)) = $2 and forgotten_at is null limit 2",
        )
        .bind(mesh.as_str())
        .bind(clean(beginning));
        self.pool.records(query, |row| row.text("id")).await
    }

    async fn forget(&self, now: Timestamp, author: &Author, id: &str) -> Result<bool> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        // What another program marks as forgotten it keeps; here nothing is left of it.
        let query = sqlx::query(
            "delete from mesh.memory where id = $1 and mesh_id = $2 and forgotten_at is null",
        )
        .bind(clean(id))
        .bind(author.mesh.as_str());
        if change.execute(query).await? == 0 {
            change.give_up().await?;
            return Ok(false);
        }
        change.append(author, &AuditEvent::MemoryForgotten { id: id.to_owned() }).await?;
        change.commit().await?;
        Ok(true)
    }
}
