//! The signed heads of audit chains.
//!
//! Whether one is due is looked at again under the chain's lock under which it is
//! appended.

use async_trait::async_trait;

use crate::audit::Anchor;
use crate::auth::SecretKey;
use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::audit_heads::{DueHead, read, written};
use crate::store::columns::Columns as _;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::row::clean;
use crate::store::{AuditHeads, HeadPace, Result};

/// The last row of each chain whose next head is due: after `$1` rows, or if the newest
/// one was signed at `$2` or before.
macro_rules! select_due {
    ($rest:literal) => {
        concat!(
            "select m.id as mesh_id, a.id::bigint as id, a.hash, a.name_hash
             from mesh.mesh m
             cross join lateral (
                select l.id, l.hash, l.name_hash from mesh.audit_log l where l.mesh_id = m.id
                order by l.id desc limit 1
             ) a
             left join mesh.broker_audit_head h on h.mesh_id = m.id
             where (h.mesh_id is null or a.id > h.head_id and (h.signed_at <= $2 or exists (
                select from mesh.audit_log since
                where since.mesh_id = m.id and since.id > h.head_id
                order by since.id offset $1::bigint - 1 limit 1))) ",
            $rest
        )
    };
}

#[async_trait]
impl AuditHeads for PostgresStore {
    async fn due(&self, pace: HeadPace, limit: i64) -> Result<Vec<MeshId>> {
        let query = sqlx::query(select_due!("limit $3"))
            .bind(pace.rows)
            .bind(pace.signed_before.to_naive())
            .bind(limit);
        self.pool.records(query, |row| row.id("mesh_id")).await
    }

    async fn sign(
        &self,
        now: Timestamp,
        mesh: &MeshId,
        pace: HeadPace,
        key: &SecretKey,
    ) -> Result<Option<Anchor>> {
        let mut change = self.begin_change(now, &[mesh]).await?;
        let query = sqlx::query(select_due!("and m.id = $3"))
            .bind(pace.rows)
            .bind(pace.signed_before.to_naive())
            .bind(clean(mesh.as_str()));
        let Some(due) = change.record(query, DueHead::read).await? else {
            change.give_up().await?;
            return Ok(None);
        };
        let (anchor, entry) = due.signed(now, mesh, key);
        let head_id = change.append_entry(&entry).await?;
        let query = sqlx::query(
            "insert into mesh.broker_audit_head (mesh_id, head_id, anchor, signed_at)
             values ($1, $2, $3, $4)
             on conflict (mesh_id) do update set head_id = excluded.head_id,
                anchor = excluded.anchor, signed_at = excluded.signed_at",
        )
        .bind(mesh.as_str())
        .bind(head_id)
        .bind(written(&anchor)?)
        .bind(now.to_naive());
        change.execute(query).await?;
        change.commit().await?;
        Ok(Some(anchor))
    }

    async fn newest(&self, since: Timestamp, limit: i64) -> Result<Vec<Anchor>> {
        let query = sqlx::query(
            "select anchor from mesh.broker_audit_head where signed_at >= $1
             order by signed_at limit $2",
        )
        .bind(since.to_naive())
        .bind(limit);
        let read: Vec<Option<Anchor>> = self.pool.records(query, read).await?;
        Ok(read.into_iter().flatten().collect())
    }
}
