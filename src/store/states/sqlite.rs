//! Shared state in SQLite.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::Row as _;

use super::deciding::{At, Decided, Known, NewRow};
use super::{StateEntry, StateWrite, StateWritten, States, read_change};
use crate::clock::Timestamp;
use crate::id::{self, MeshId};
use crate::record::SharedChange;
use crate::store::sqlite::change::Change;
use crate::store::sqlite::error::refused;
use crate::store::sqlite::{SqliteStore, rows};
use crate::store::{Kind, Result};

#[async_trait]
impl States for SqliteStore {
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
        let query = sqlx::query("select * from state where mesh_id = ?1 and key = ?2")
            .bind(mesh.as_str())
            .bind(key);
        self.record(query, StateEntry::read).await
    }

    async fn list<'a>(
        &self,
        mesh: &MeshId,
        after: Option<&'a str>,
        limit: i64,
    ) -> Result<Vec<StateEntry>> {
        // No key is empty.
        let query = sqlx::query(
            "select * from state where mesh_id = ?1 and key > ?2 order by key limit 0 + ?3",
        )
        .bind(mesh.as_str())
        .bind(after.unwrap_or_default())
        .bind(limit);
        self.records(query, StateEntry::read).await
    }

    async fn changed_since(
        &self,
        mesh: &MeshId,
        seq: i64,
        limit: i64,
    ) -> Result<Vec<SharedChange>> {
        let query = sqlx::query(
            "select * from (
                select seq, key, value, version, updated_by_name, updated_by_presence
                from state where mesh_id = ?1 and seq is not null and seq > ?2
                union all
                select seq, name, null, null, removed_by, null
                from removed where mesh_id = ?1 and kind = 'state' and seq > ?2
             ) order by seq limit 0 + ?3",
        )
        .bind(mesh.as_str())
        .bind(seq)
        .bind(limit);
        self.records(query, read_change).await
    }

    async fn forget_removed(&self, before: Timestamp) -> Result<u64> {
        let query = sqlx::query("delete from removed where removed_at < ?1").bind(before.as_ms());
        self.write(query).await
    }
}

async fn known<'a>(change: &mut Change, batch: &'a [StateWrite]) -> Result<HashMap<At<'a>, Known>> {
    let mut asked: Vec<At<'a>> =
        batch.iter().map(|write| (&write.author.mesh, write.key.as_str())).collect();
    asked.sort_unstable();
    asked.dedup();
    let mut known = HashMap::with_capacity(asked.len());
    for (mut query, group) in rows::statements(
        "with asked (at, mesh_id, name) as materialized (values (?, ?, ?))
         select asked.at, s.version, octet_length(s.key) + octet_length(s.value) as bytes
         from asked cross join state s on s.mesh_id = asked.mesh_id and s.key = asked.name",
        &asked,
    ) {
        for ((mesh, key), at) in group.iter().zip(0_i64..) {
            query = query.bind(at).bind(mesh.shared()).bind((*key).to_owned());
        }
        for row in query.fetch_all(&mut **change.tx()).await.map_err(refused)? {
            let at: i64 = row.try_get(0).map_err(refused)?;
            let [version, bytes] = [1, 2].map(|column| row.try_get(column).map_err(refused));
            let found = Known { version: version?, bytes: bytes? };
            if let Some(at) = usize::try_from(at).ok().and_then(|at| group.get(at)) {
                known.insert(*at, found);
            }
        }
    }
    Ok(known)
}

async fn put(change: &mut Change, now: Timestamp, rows: &[NewRow<'_>]) -> Result<()> {
    let now = now.as_ms();
    let (set, removed): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.write.value.is_some());
    rows::execute(
        change.tx(),
        "insert into state (id, mesh_id, key, value, version, updated_by_presence,
            updated_by_name, updated_by_session_name, updated_at, seq)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         on conflict (mesh_id, key) do update set value = excluded.value,
            version = excluded.version, updated_by_presence = excluded.updated_by_presence,
            updated_by_name = excluded.updated_by_name,
            updated_by_session_name = excluded.updated_by_session_name,
            updated_at = excluded.updated_at, seq = excluded.seq",
        &set,
        |mut query, group| {
            for NewRow { write, version, seq } in group {
                let author = &write.author;
                query = query
                    .bind(id::generate())
                    .bind(author.mesh.shared())
                    .bind(write.key.clone())
                    .bind(write.value.clone())
                    .bind(*version)
                    .bind(author.presence.shared())
                    .bind(author.member_name.clone())
                    .bind(author.other_name().map(str::to_owned))
                    .bind(now)
                    .bind(*seq);
            }
            query
        },
    )
    .await?;
    rows::execute(
        change.tx(),
        "insert into removed (mesh_id, kind, name, seq, removed_by, removed_at)
         values (?, 'state', ?, ?, ?, ?)
         on conflict (mesh_id, kind, name) do update set seq = excluded.seq,
            removed_by = excluded.removed_by, removed_at = excluded.removed_at",
        &removed,
        |mut query, group| {
            for NewRow { write, seq, .. } in group {
                let author = &write.author;
                query = query
                    .bind(author.mesh.shared())
                    .bind(write.key.clone())
                    .bind(*seq)
                    .bind(author.member_name.clone())
                    .bind(now);
            }
            query
        },
    )
    .await?;
    for NewRow { write, .. } in removed {
        let query = sqlx::query("delete from state where mesh_id = ?1 and key = ?2")
            .bind(write.author.mesh.as_str())
            .bind(write.key.as_str());
        change.execute(query).await?;
    }
    Ok(())
}
