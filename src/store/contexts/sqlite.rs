//! What members work on, in SQLite.

use async_trait::async_trait;

use super::{Context, ContextAt, ContextKept, Contexts, NewContext, read_change};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{self, MeshId};
use crate::record::SharedChange;
use crate::store::columns::{Columns as _, unreadable};
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::row::to_json;
use crate::store::{Kind, Result};

/// Before the newest of all.
fn place(after: Option<&ContextAt>) -> (i64, &str) {
    after.map_or((i64::MAX, ""), |ContextAt(at, id)| (at.as_ms(), id.as_str()))
}

#[async_trait]
impl Contexts for SqliteStore {
    async fn share(&self, now: Timestamp, context: &NewContext) -> Result<ContextKept> {
        let NewContext { author, summary, files_read, key_findings, tags } = context;
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let seq = change.append(author, &AuditEvent::ContextShared).await?;
        let query = sqlx::query(
            "insert into context (id, mesh_id, member_id, presence_id, peer_name,
                peer_session_name, tags, updated_at, seq, summary, words, files_read, key_findings)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             on conflict (mesh_id, member_id) do update set presence_id = excluded.presence_id,
                peer_name = excluded.peer_name, peer_session_name = excluded.peer_session_name,
                tags = excluded.tags, updated_at = excluded.updated_at, seq = excluded.seq,
                summary = excluded.summary, words = excluded.words,
                files_read = excluded.files_read, key_findings = excluded.key_findings
             returning id",
        )
        .bind(id::generate())
        .bind(author.mesh.as_str())
        .bind(author.member.as_str())
        .bind(author.presence.as_str())
        .bind(author.member_name.as_str())
        .bind(author.other_name())
        .bind(to_json(tags))
        .bind(now.as_ms())
        .bind(seq)
        .bind(summary.as_str())
        .bind(summary.to_lowercase())
        .bind(to_json(files_read))
        .bind(to_json(key_findings));
        let id = change.record(query, |row| row.text("id")).await?;
        let id = id.ok_or_else(|| unreadable("id"))?;
        change.within(&author.mesh, Kind::Context).await?.commit().await?;
        Ok(ContextKept { id, seq })
    }

    async fn find<'a>(
        &self,
        mesh: &MeshId,
        query: &str,
        after: Option<&'a ContextAt>,
        limit: i64,
    ) -> Result<Vec<Context>> {
        let (at, id) = place(after);
        let query = sqlx::query(
            "select * from context
             where mesh_id = ?1 and (updated_at, id) < (?2, ?3)
                and (instr(words, ?4) > 0 or ?5 in (select value from json_each(tags)))
             order by updated_at desc, id desc limit 0 + ?6",
        )
        .bind(mesh.as_str())
        .bind(at)
        .bind(id)
        .bind(query.to_lowercase())
        .bind(query)
        .bind(limit);
        self.records(query, Context::read).await
    }

    async fn list<'a>(
        &self,
        mesh: &MeshId,
        after: Option<&'a ContextAt>,
        limit: i64,
    ) -> Result<Vec<Context>> {
        let (at, id) = place(after);
        let query = sqlx::query(
            "select id, peer_name, peer_session_name, summary, null as files_read,
                null as key_findings, tags, updated_at
             from context where mesh_id = ?1 and (updated_at, id) < (?2, ?3)
             order by updated_at desc, id desc limit 0 + ?4",
        )
        .bind(mesh.as_str())
        .bind(at)
        .bind(id)
        .bind(limit);
        self.records(query, Context::read).await
    }

    async fn changed_since(
        &self,
        mesh: &MeshId,
        seq: i64,
        limit: i64,
    ) -> Result<Vec<SharedChange>> {
        let query = sqlx::query(
            "select seq, member_id, presence_id, peer_name, summary from context
             where mesh_id = ?1 and seq > ?2 order by seq limit 0 + ?3",
        )
        .bind(mesh.as_str())
        .bind(seq)
        .bind(limit);
        self.records(query, read_change).await
    }
}
