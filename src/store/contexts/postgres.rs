//! What members work on, in Postgres.

use std::borrow::Cow;

use async_trait::async_trait;

use super::{Context, ContextAt, ContextKept, Contexts, NewContext, read_change};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{self, MeshId};
use crate::record::SharedChange;
use crate::store::columns::{Columns as _, unreadable};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::row::{clean, clean_optional};
use crate::store::{Kind, Result};

fn cleaned(texts: &[String]) -> Vec<Cow<'_, str>> {
    texts.iter().map(|text| clean(text)).collect()
}

#[async_trait]
impl Contexts for PostgresStore {
    async fn share(&self, now: Timestamp, context: &NewContext) -> Result<ContextKept> {
        let NewContext { author, summary, files_read, key_findings, tags } = context;
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let seq = change.append(author, &AuditEvent::ContextShared).await?;
        // A shared database may hold two rows of a member: then both are its context. A
        // visitor's presence has no row.
        let query = sqlx::query(
            "with by (presence) as (
                select (select p.id from mesh.presence p where p.id = $4)
             ), changed as (
                update mesh.context set presence_id = by.presence, peer_name = $5,
                    peer_session_name = $6, tags = $7, updated_at = $8, seq = $9, summary = $10,
                    files_read = $11, key_findings = $12
                from by where mesh_id = $2 and member_id = $3
                returning id
             ), made as (
                insert into mesh.context (id, mesh_id, member_id, presence_id, peer_name,
                    peer_session_name, tags, updated_at, seq, summary, files_read, key_findings)
                select $1, $2, $3, by.presence, $5, $6, $7, $8, $9, $10, $11, $12
                from by where not exists (select from changed)
                returning id
             )
             select id from changed union all select id from made limit 1",
        )
        .bind(id::generate())
        .bind(author.mesh.as_str())
        .bind(author.member.as_str())
        .bind(author.presence.as_str())
        .bind(clean(&author.member_name))
        .bind(clean_optional(author.other_name()))
        .bind(cleaned(tags))
        .bind(now.to_naive())
        .bind(seq)
        .bind(clean(summary))
        .bind(cleaned(files_read))
        .bind(cleaned(key_findings));
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
        let query = sqlx::query(
            "select id, peer_name, peer_session_name, summary,
                to_json(files_read)::text as files_read,
                to_json(key_findings)::text as key_findings, to_json(tags)::text as tags,
                updated_at
             from mesh.context
             where mesh_id = $1
                and (updated_at, id) < (coalesce($2::timestamp, 'infinity'), coalesce($3, ''))
                and (strpos(lower(summary), lower($4)) > 0 or $4 = any (tags))
             order by updated_at desc, id desc limit $5",
        )
        .bind(mesh.as_str())
        .bind(after.map(|after| after.0.to_naive()))
        .bind(after.map(|after| clean(&after.1)))
        .bind(clean(query))
        .bind(limit);
        self.pool.records(query, Context::read).await
    }

    async fn list<'a>(
        &self,
        mesh: &MeshId,
        after: Option<&'a ContextAt>,
        limit: i64,
    ) -> Result<Vec<Context>> {
        let query = sqlx::query(
            "select id, peer_name, peer_session_name, summary, null::text as files_read,
                null::text as key_findings, to_json(tags)::text as tags, updated_at
             from mesh.context
             where mesh_id = $1
                and (updated_at, id) < (coalesce($2::timestamp, 'infinity'), coalesce($3, ''))
             order by updated_at desc, id desc limit $4",
        )
        .bind(mesh.as_str())
        .bind(after.map(|after| after.0.to_naive()))
        .bind(after.map(|after| clean(&after.1)))
        .bind(limit);
        self.pool.records(query, Context::read).await
    }

    async fn changed_since(
        &self,
        mesh: &MeshId,
        seq: i64,
        limit: i64,
    ) -> Result<Vec<SharedChange>> {
        let query = sqlx::query(
            "select seq, member_id, presence_id, peer_name, summary from mesh.context
             where mesh_id = $1 and seq > $2 and member_id is not null order by seq limit $3",
        )
        .bind(mesh.as_str())
        .bind(seq)
        .bind(limit);
        self.pool.records(query, read_change).await
    }
}
