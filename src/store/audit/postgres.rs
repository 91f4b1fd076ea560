//! The audit chain: what is appended, and reading it.
//!
//! The functions `mesh.broker_append_v2` and its callers take the lock of each
//! chain (`chain_lock_key`), read where it ends and append, all in one round
//! trip: a chain cannot fork, and no lock is held while a node thinks.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::columns::Columns as _;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::chain::Entries;
use crate::store::postgres::row::clean_optional;
use crate::store::{AuditEntry, AuditRecord, AuditTrail, MissingRows, Result};

/// Rows with the names and keys of their actors, as they are enrolled now.
macro_rules! select_rows {
    ($rest:literal) => {
        concat!(
            "select a.id::bigint as id, a.mesh_id, a.event_type, a.actor_member_id,
                a.actor_display_name, a.payload::text as payload, a.prev_hash, a.hash,
                a.name_hash, a.created_at, m.display_name as member_name,
                m.peer_pubkey as member_key
             from mesh.audit_log a
             left join mesh.member m on m.id = a.actor_member_id and m.mesh_id = a.mesh_id ",
            $rest
        )
    };
}

#[async_trait]
impl AuditTrail for PostgresStore {
    async fn append(&self, now: Timestamp, entries: &[AuditEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        // Rows of one mesh stand together, each mesh's in their order.
        let mut grouped: Vec<&AuditEntry> = entries.iter().collect();
        grouped.sort_by_key(|entry| &entry.mesh);
        let mut rows = Entries::default();
        for AuditEntry { mesh, actor, actor_name, event } in grouped {
            rows.push(mesh, actor.as_ref(), actor_name.as_deref(), event);
        }
        self.pool
            .execute(rows.bind(
                sqlx::query("select mesh.broker_append_v2($1, $2, $3, $4, $5, $6, $7, $8, null)"),
                now,
            ))
            .await?;
        Ok(())
    }

    async fn page<'a>(
        &self,
        mesh: &MeshId,
        event_type: Option<&'a str>,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<AuditRecord>, i64)> {
        let event_type = clean_optional(event_type);
        let query = sqlx::query(select_rows!(
            "where a.mesh_id = $1 and ($2::text is null or a.event_type = $2)
             order by a.id desc limit $3 offset $4"
        ))
        .bind(mesh.as_str())
        .bind(event_type.as_deref())
        .bind(limit)
        .bind(offset);
        let rows = self.pool.fetch_all(query).await?;
        let query = sqlx::query(
            "select count(*) as total from mesh.audit_log
             where mesh_id = $1 and ($2::text is null or event_type = $2)",
        )
        .bind(mesh.as_str())
        .bind(event_type.as_deref());
        let total = self.pool.fetch_one(query).await?;
        Ok((rows.iter().map(AuditRecord::read).collect::<Result<_>>()?, total.int("total")?))
    }

    async fn before<'a>(
        &self,
        mesh: &MeshId,
        event_type: Option<&'a str>,
        before_id: i64,
        limit: i64,
    ) -> Result<Vec<AuditRecord>> {
        let query = sqlx::query(select_rows!(
            "where a.mesh_id = $1 and ($2::text is null or a.event_type = $2) and a.id < $3
             order by a.id desc limit $4"
        ))
        .bind(mesh.as_str())
        .bind(clean_optional(event_type))
        .bind(before_id)
        .bind(limit);
        self.pool.records(query, AuditRecord::read).await
    }

    async fn after(&self, mesh: &MeshId, after_id: i64, limit: i64) -> Result<Vec<AuditRecord>> {
        let query =
            sqlx::query(select_rows!("where a.mesh_id = $1 and a.id > $2 order by a.id limit $3"))
                .bind(mesh.as_str())
                .bind(after_id)
                .bind(limit);
        self.pool.records(query, AuditRecord::read).await
    }

    // Rows that another program wrote have no place, or 0, and presences of it no node.
    async fn missing(&self, mesh: &MeshId) -> Result<MissingRows> {
        let query = sqlx::query(
            "with sent as (
                select q.seq from mesh.message_queue q where q.mesh_id = $1 and q.seq > 0
                union
                select p.seq from mesh.topic t join mesh.topic_message p on p.topic_id = t.id
                where t.mesh_id = $1 and p.seq > 0
             )
             select count(*) as messages, min(sent.seq) as first, 0::bigint as numbers,
                (not exists (select from mesh.audit_log where mesh_id = $1)
                    and exists (select from mesh.member m
                        join mesh.presence p on p.member_id = m.id
                        where m.mesh_id = $1 and p.node is not null))::int::bigint as emptied,
                exists (select from mesh.mesh m where m.id = $1 and m.audit_genesis_id is not null
                    and m.audit_genesis_id is distinct from (select a.id from mesh.audit_log a
                        where a.mesh_id = $1 order by a.id limit 1))::int::bigint as beheaded
             from sent where not exists (
                select from mesh.audit_log a where a.id = sent.seq and a.mesh_id = $1
                    and a.event_type = 'message_sent')",
        )
        .bind(mesh.as_str());
        MissingRows::read(&self.pool.fetch_one(query).await?)
    }
}
