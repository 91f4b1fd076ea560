//! Shared state in Postgres.

use std::borrow::Cow;
use std::collections::HashMap;

use async_trait::async_trait;

use super::deciding::{At, Decided, Known, NewRow};
use super::{StateEntry, StateWrite, StateWritten, States, read_change};
use crate::clock::Timestamp;
use crate::id::{self, MeshId};
use crate::record::SharedChange;
use crate::store::columns::Columns as _;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::change::Change;
use crate::store::postgres::row::{clean, clean_json, clean_optional};
use crate::store::{Kind, Result};

#[async_trait]
impl States for PostgresStore {
    async fn write(&self, now: Timestamp, batch: &[StateWrite]) -> Result<Vec<StateWritten>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let meshes: Vec<&MeshId> = batch.iter().map(|write| &write.author.mesh).collect();
        let mut change = self.begin_change(now, &meshes).await?;
        let known = known(&mut change, batch).await?;
        let usage = change.usage_of(&meshes, Kind::State).await?;
        let decided = Decided::new(batch, known, usage);
        let seqs = change.append_all(&decided.events()).await?;
        put(&mut change, now, &decided.rows(&seqs)).await?;
        change.commit().await?;
        Ok(decided.answers(&seqs))
    }

    async fn get(&self, mesh: &MeshId, key: &str) -> Result<Option<StateEntry>> {
        let query = sqlx::query(
            "select key, value::text as value, version, updated_by_name,
                updated_by_session_name, updated_at
             from mesh.state where mesh_id = $1 and key = $2 order by updated_at desc limit 1",
        )
        .bind(mesh.as_str())
        .bind(clean(key));
        self.pool.record(query, StateEntry::read).await
    }

    async fn list<'a>(
        &self,
        mesh: &MeshId,
        after: Option<&'a str>,
        limit: i64,
    ) -> Result<Vec<StateEntry>> {
        // No key is empty.
        let query = sqlx::query(
            "select key, value::text as value, version, updated_by_name,
                updated_by_session_name, updated_at
             from mesh.state where mesh_id = $1 and key > $2 order by key limit $3",
        )
        .bind(mesh.as_str())
        .bind(clean(after.unwrap_or_default()))
        .bind(limit);
        self.pool.records(query, StateEntry::read).await
    }

    async fn changed_since(
        &self,
        mesh: &MeshId,
        seq: i64,
        limit: i64,
    ) -> Result<Vec<SharedChange>> {
        let query = sqlx::query(
            "select * from (
                select seq, key, value::text as value, version, updated_by_name,
                    updated_by_presence
                from mesh.state where mesh_id = $1 and seq is not null and seq > $2
                union all
                select seq, name, null, null, removed_by, null
                from mesh.broker_removed where mesh_id = $1 and kind = 'state' and seq > $2
             ) changed order by seq limit $3",
        )
        .bind(mesh.as_str())
        .bind(seq)
        .bind(limit);
        self.pool.records(query, read_change).await
    }

    async fn forget_removed(&self, before: Timestamp) -> Result<u64> {
        let query = sqlx::query("delete from mesh.broker_removed where removed_at < $1")
            .bind(before.to_naive());
        self.pool.execute(query).await
    }
}

async fn known<'a>(change: &mut Change, batch: &'a [StateWrite]) -> Result<HashMap<At<'a>, Known>> {
    let mut asked: Vec<At<'a>> =
        batch.iter().map(|write| (&write.author.mesh, write.key.as_str())).collect();
    asked.sort_unstable();
    asked.dedup();
    let query = sqlx::query(
        "select e.at, s.version, octet_length(s.key) + octet_length(s.value::text) as bytes
         from unnest($1::text[], $2::text[]) with ordinality as e (mesh, name, at)
         join mesh.state s on s.mesh_id = e.mesh and s.key = e.name",
    )
    .bind(asked.iter().map(|(mesh, _)| mesh.as_str()).collect::<Vec<_>>())
    .bind(asked.iter().map(|(_, key)| clean(key)).collect::<Vec<_>>());
    let read = |row: &sqlx::postgres::PgRow| {
        let known = Known { version: row.int("version")?, bytes: row.short("bytes")?.into() };
        Ok((row.int("at")?, known))
    };
    let found: Vec<(i64, Known)> = change.records(query, read).await?;
    let at = |at: i64| usize::try_from(at - 1).ok().and_then(|at| asked.get(at).copied());
    Ok(found.into_iter().filter_map(|(place, known)| Some((at(place)?, known))).collect())
}

async fn put(change: &mut Change, now: Timestamp, rows: &[NewRow<'_>]) -> Result<()> {
    let (set, removed): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.write.value.is_some());
    if !set.is_empty() {
        insert(change, now, &set).await?;
    }
    if removed.is_empty() {
        return Ok(());
    }
    let (mesh, key): (Vec<&str>, Vec<Cow<'_, str>>) =
        removed.iter().map(|row| (row.write.author.mesh.as_str(), clean(&row.write.key))).unzip();
    let query = sqlx::query(
        "delete from mesh.state s using unnest($1::text[], $2::text[]) as e (mesh, name)
         where s.mesh_id = e.mesh and s.key = e.name",
    )
    .bind(mesh.clone())
    .bind(key.clone());
    change.execute(query).await?;
    let query = sqlx::query(
        "insert into mesh.broker_removed (mesh_id, kind, name, seq, removed_by, removed_at)
         select e.mesh, 'state', e.name, e.seq, e.author, $5
         from unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
            as e (mesh, name, seq, author)
         on conflict (mesh_id, kind, name) do update set seq = excluded.seq,
            removed_by = excluded.removed_by, removed_at = excluded.removed_at",
    )
    .bind(mesh)
    .bind(key)
    .bind(removed.iter().map(|row| row.seq).collect::<Vec<_>>())
    .bind(removed.iter().map(|row| clean(&row.write.author.member_name)).collect::<Vec<_>>())
    .bind(now.to_naive());
    change.execute(query).await?;
    Ok(())
}

async fn insert(change: &mut Change, now: Timestamp, set: &[&NewRow<'_>]) -> Result<()> {
    let authors = || set.iter().map(|row| &row.write.author);
    let value =
        |row: &NewRow<'_>| clean_json(row.write.value.as_deref().unwrap_or("null")).into_owned();
    let values: Vec<String> = set.iter().map(|row| value(row)).collect();
    // A shared database may hold a key twice: then all of its rows are the value.
    let query = sqlx::query(
        "with given as (
            select e.* from unnest($1::text[], $2::text[], $3::text[], $4::text[],
                $5::bigint[], $6::text[], $7::text[], $8::text[], $9::bigint[])
                as e (id, mesh, name, value, version, presence, member, session, seq)
         ), changed as (
            update mesh.state s set value = g.value::jsonb, version = g.version,
                updated_by_presence = g.presence, updated_by_name = g.member,
                updated_by_session_name = g.session, updated_at = $10, seq = g.seq
            from given g where s.mesh_id = g.mesh and s.key = g.name
            returning g.id
         )
         insert into mesh.state (id, mesh_id, key, value, version, updated_by_presence,
            updated_by_name, updated_by_session_name, updated_at, seq)
         select g.id, g.mesh, g.name, g.value::jsonb, g.version, g.presence, g.member,
            g.session, $10, g.seq
         from given g where not exists (select from changed c where c.id = g.id)",
    )
    .bind(set.iter().map(|_| id::generate()).collect::<Vec<_>>())
    .bind(authors().map(|author| author.mesh.as_str()).collect::<Vec<_>>())
    .bind(set.iter().map(|row| clean(&row.write.key)).collect::<Vec<_>>())
    .bind(values)
    .bind(set.iter().map(|row| row.version).collect::<Vec<_>>())
    .bind(authors().map(|author| author.presence.as_str()).collect::<Vec<_>>())
    .bind(authors().map(|author| clean(&author.member_name)).collect::<Vec<_>>())
    .bind(authors().map(|author| clean_optional(author.other_name())).collect::<Vec<_>>())
    .bind(set.iter().map(|row| row.seq).collect::<Vec<_>>())
    .bind(now.to_naive());
    change.execute(query).await?;
    Ok(())
}
