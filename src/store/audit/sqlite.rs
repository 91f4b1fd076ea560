//! The audit chain: appending to it inside a transaction, and reading it.
//!
//! The write lock of the transaction is what keeps a chain from forking: the
//! last hash is read after it was taken, also when another program appends.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::chain::Chains;
use crate::store::sqlite::error::refused;
use crate::store::{AuditEntry, AuditRecord, AuditTrail, MissingRows, Result};

/// Rows with the names and keys of their actors, as they are enrolled now.
macro_rules! select_rows {
    ($rest:literal) => {
        concat!(
            "select a.*, m.display_name as member_name, m.peer_pubkey as member_key
             from audit_log a
             left join member m on m.id = a.actor_member_id and m.mesh_id = a.mesh_id ",
            $rest
        )
    };
}

#[async_trait]
impl AuditTrail for SqliteStore {
    async fn append(&self, now: Timestamp, entries: &[AuditEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let mut chains =
            Chains::read(&mut tx, now, entries.iter().map(|entry| &entry.mesh)).await?;
        for AuditEntry { mesh, actor, actor_name, event } in entries {
            chains.push(mesh, actor.as_ref(), actor_name.as_deref(), event);
        }
        chains.write(&mut tx).await?;
        tx.commit().await.map_err(refused)
    }

    async fn page<'a>(
        &self,
        mesh: &MeshId,
        event_type: Option<&'a str>,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<AuditRecord>, i64)> {
        // Two statements each, so that both use their index.
        let (rows, total) = match event_type {
            None => (
                select_rows!("where a.mesh_id = ?1 order by a.id desc limit 0 + ?3 offset ?4"),
                "select count(*) from audit_log where mesh_id = ?1",
            ),
            Some(_) => (
                select_rows!(
                    "where a.mesh_id = ?1 and a.event_type = ?2
                     order by a.id desc limit 0 + ?3 offset ?4"
                ),
                "select count(*) from audit_log where mesh_id = ?1 and event_type = ?2",
            ),
        };
        let rows = sqlx::query(rows)
            .bind(mesh.as_str())
            .bind(event_type)
            .bind(limit)
            .bind(offset)
            .fetch_all(self.reader())
            .await
            .map_err(refused)?;
        let total: i64 = sqlx::query_scalar(total)
            .bind(mesh.as_str())
            .bind(event_type)
            .fetch_one(self.reader())
            .await
            .map_err(refused)?;
        Ok((rows.iter().map(AuditRecord::read).collect::<Result<_>>()?, total))
    }

    async fn before<'a>(
        &self,
        mesh: &MeshId,
        event_type: Option<&'a str>,
        before_id: i64,
        limit: i64,
    ) -> Result<Vec<AuditRecord>> {
        let rows = match event_type {
            None => {
                select_rows!("where a.mesh_id = ?1 and a.id < ?3 order by a.id desc limit 0 + ?4")
            }
            Some(_) => select_rows!(
                "where a.mesh_id = ?1 and a.event_type = ?2 and a.id < ?3
                 order by a.id desc limit 0 + ?4"
            ),
        };
        let query =
            sqlx::query(rows).bind(mesh.as_str()).bind(event_type).bind(before_id).bind(limit);
        self.records(query, AuditRecord::read).await
    }

    async fn after(&self, mesh: &MeshId, after_id: i64, limit: i64) -> Result<Vec<AuditRecord>> {
        let query = sqlx::query(select_rows!(
            "where a.mesh_id = ?1 and a.id > ?2 order by a.id limit 0 + ?3"
        ))
        .bind(mesh.as_str())
        .bind(after_id)
        .bind(limit);
        self.records(query, AuditRecord::read).await
    }

    // Numbers are given without gaps: one that is taken by a transaction that is not
    // committed is given again.
    async fn missing(&self, mesh: &MeshId) -> Result<MissingRows> {
        let row = sqlx::query(
            "with sent (seq) as (
                select q.seq from message_queue q where q.mesh_id = ?1 and q.seq is not null
                union
                select p.seq from topic t cross join topic_message p on p.topic_id = t.id
                where t.mesh_id = ?1
             )
             select count(*) as messages, min(sent.seq) as first,
                not exists (select 1 from audit_log where mesh_id = ?1)
                    and exists (select 1 from member m cross join presence p on p.member_id = m.id
                        where m.mesh_id = ?1) as emptied,
                exists (select 1 from mesh m where m.id = ?1 and m.audit_genesis_id is not null
                    and m.audit_genesis_id is not (select a.id from audit_log a
                        where a.mesh_id = ?1 order by a.id limit 1)) as beheaded,
                coalesce((select seq from sqlite_sequence where name = 'audit_log'), 0)
                    - (select count(*) from audit_log) as numbers
             from sent where not exists (
                select 1 from audit_log a where a.id = sent.seq and a.mesh_id = ?1
                    and a.event_type = 'message_sent')",
        )
        .bind(mesh.as_str())
        .fetch_one(self.reader())
        .await
        .map_err(refused)?;
        MissingRows::read(&row)
    }
}
