//! Streams in SQLite.

use async_trait::async_trait;

use super::{Stream, StreamPlace, Streams};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::sqlite::SqliteStore;
use crate::store::{Author, Kind, Result};

#[async_trait]
impl Streams for SqliteStore {
    async fn create(&self, now: Timestamp, author: &Author, name: &str) -> Result<Stream> {
        let mesh = &author.mesh;
        let mut change = self.begin_change(now, &[mesh]).await?;
        let query = sqlx::query("select * from stream where mesh_id = ?1 and name = ?2")
            .bind(mesh.as_str())
            .bind(name);
        if let Some(known) = change.record(query, Stream::read).await? {
            change.give_up().await?;
            return Ok(known);
        }
        let stream = Stream::new(now, author, name);
        let query = sqlx::query(
            "insert into stream (id, mesh_id, name, created_by_name, created_by_session_name,
                created_at)
             values (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(&stream.id)
        .bind(mesh.as_str())
        .bind(name)
        .bind(&stream.created_by)
        .bind(&stream.created_by_session)
        .bind(now.as_ms());
        change.execute(query).await?;
        change.append(author, &AuditEvent::StreamCreated { name: name.to_owned() }).await?;
        change.within(mesh, Kind::Stream).await?.commit().await?;
        Ok(stream)
    }

    async fn delete(&self, now: Timestamp, author: &Author, name: &str) -> Result<bool> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query("delete from stream where mesh_id = ?1 and name = ?2")
            .bind(author.mesh.as_str())
            .bind(name);
        if change.execute(query).await? == 0 {
            change.give_up().await?;
            return Ok(false);
        }
        change.append(author, &AuditEvent::StreamDeleted { name: name.to_owned() }).await?;
        change.commit().await?;
        Ok(true)
    }

    async fn list(
        &self,
        mesh: &MeshId,
        after: Option<StreamPlace>,
        limit: i64,
    ) -> Result<Vec<Stream>> {
        let (at, id) = after.unwrap_or((Timestamp::from_ms(i64::MIN), String::new()));
        let query = sqlx::query(
            "select * from stream where mesh_id = ?1 and (created_at, id) > (?2, ?3)
             order by created_at, id limit 0 + ?4",
        )
        .bind(mesh.as_str())
        .bind(at.as_ms())
        .bind(id)
        .bind(limit);
        self.records(query, Stream::read).await
    }
}
