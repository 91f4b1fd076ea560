//! Streams in Postgres.

use async_trait::async_trait;

use super::{Stream, StreamPlace, Streams};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::row::{clean, clean_optional};
use crate::store::{Author, Kind, Result};

#[async_trait]
impl Streams for PostgresStore {
    async fn create(&self, now: Timestamp, author: &Author, name: &str) -> Result<Stream> {
        let (mesh, name) = (&author.mesh, clean(name));
        let mut change = self.begin_change(now, &[mesh]).await?;
        // A shared database may hold a name twice: then the oldest is the stream.
        let query = sqlx::query(
            "select id, name, created_by_name, created_by_session_name, created_at
             from mesh.stream where mesh_id = $1 and name = $2 order by created_at, id limit 1",
        )
        .bind(mesh.as_str())
        .bind(&*name);
        if let Some(known) = change.record(query, Stream::read).await? {
            change.give_up().await?;
            return Ok(known);
        }
        let stream = Stream::new(now, author, &name);
        let query = sqlx::query(
            "insert into mesh.stream (id, mesh_id, name, created_by_name,
                created_by_session_name, created_at)
             values ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&stream.id)
        .bind(mesh.as_str())
        .bind(&*name)
        .bind(clean_optional(stream.created_by.as_deref()))
        .bind(clean_optional(stream.created_by_session.as_deref()))
        .bind(now.to_naive());
        change.execute(query).await?;
        change.append(author, &AuditEvent::StreamCreated { name: stream.name.clone() }).await?;
        change.within(mesh, Kind::Stream).await?.commit().await?;
        Ok(stream)
    }

    async fn delete(&self, now: Timestamp, author: &Author, name: &str) -> Result<bool> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query("delete from mesh.stream where mesh_id = $1 and name = $2")
            .bind(author.mesh.as_str())
            .bind(clean(name));
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
        // Other programs write microseconds, and a place is known to the millisecond.
        let query = sqlx::query(
            "select id, name, created_by_name, created_by_session_name, created_at
             from mesh.stream
             where mesh_id = $1 and ($2::timestamp is null
                or (date_trunc('milliseconds', created_at), id) > ($2, $3))
             order by date_trunc('milliseconds', created_at), id limit $4",
        )
        .bind(mesh.as_str())
        .bind(after.as_ref().map(|(at, _)| at.to_naive()))
        .bind(after.as_ref().map_or("", |(_, id)| id))
        .bind(limit);
        self.pool.records(query, Stream::read).await
    }
}
