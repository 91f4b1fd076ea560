//! The audit chain: appending to it inside a transaction, and reading it.
//!
//! The write lock of the transaction is what keeps a chain from forking: the
//! last hash is read after it was taken, also when another program appends.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::connection::{Db, Tx};
use super::error::refused;
use super::row::{get, id, json, time, to_json};
use super::rows;
use crate::audit::{AuditEvent, GENESIS, entry_hash_at};
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::store::{AuditEntry, AuditRecord, Result};

/// The ends of some meshes' chains, and what is to be appended to them.
pub(super) struct Chains {
    now: Timestamp,
    /// `now` as it is hashed.
    time: String,
    last_id: i64,
    heads: HashMap<MeshId, Arc<str>>,
    rows: Vec<NewRow>,
}

struct NewRow {
    id: i64,
    mesh_id: MeshId,
    event_type: &'static str,
    actor_member_id: Option<MemberId>,
    actor_display_name: Option<String>,
    payload: String,
    prev_hash: Arc<str>,
    hash: Arc<str>,
}

impl Chains {
    /// Reads where the chains of these meshes end.
    pub(super) async fn read(
        tx: &mut Tx,
        now: Timestamp,
        meshes: impl IntoIterator<Item = &MeshId>,
    ) -> Result<Self> {
        let mut meshes: Vec<&MeshId> = meshes.into_iter().collect();
        meshes.sort_unstable();
        meshes.dedup();
        let rows = sqlx::query(
            "select (select seq from sqlite_sequence where name = 'audit_log'),
                (select hash from audit_log where mesh_id = mesh.value order by id desc limit 1)
             from json_each(?1) mesh order by mesh.key",
        )
        .bind(to_json(&meshes))
        .fetch_all(&mut **tx)
        .await
        .map_err(refused)?;
        let mut last_id = 0;
        let mut heads = HashMap::with_capacity(meshes.len());
        for (mesh, row) in meshes.into_iter().zip(&rows) {
            last_id = row.try_get::<Option<i64>, _>(0).map_err(refused)?.unwrap_or_default();
            let head: Option<&str> = row.try_get(1).map_err(refused)?;
            heads.insert(mesh.clone(), Arc::from(head.unwrap_or(GENESIS)));
        }
        Ok(Self { now, time: now.to_string(), last_id, heads, rows: Vec::new() })
    }

    /// Adds a row and returns its id.
    pub(super) fn push(
        &mut self,
        mesh: &MeshId,
        actor: Option<&MemberId>,
        actor_name: Option<&str>,
        event: &AuditEvent,
    ) -> i64 {
        self.push_raw(mesh, actor, actor_name, event.event_type(), event.canonical_payload())
    }

    /// As [`Self::push`], for a payload that is canonical already.
    pub(super) fn push_raw(
        &mut self,
        mesh: &MeshId,
        actor: Option<&MemberId>,
        actor_name: Option<&str>,
        event_type: &'static str,
        payload: String,
    ) -> i64 {
        let head = self.heads.get_mut(mesh).expect("the chains of all meshes were read");
        let actor_text = actor.map(MemberId::as_str);
        let hash = entry_hash_at(head, mesh.as_str(), event_type, actor_text, &payload, &self.time);
        let hash: Arc<str> = hash.into();
        self.last_id += 1;
        self.rows.push(NewRow {
            id: self.last_id,
            mesh_id: mesh.clone(),
            event_type,
            actor_member_id: actor.cloned(),
            actor_display_name: actor_name.map(str::to_owned),
            payload,
            prev_hash: std::mem::replace(head, hash.clone()),
            hash,
        });
        self.last_id
    }

    /// Writes what was added.
    pub(super) async fn write(self, tx: &mut Tx) -> Result<()> {
        let now = self.now.as_ms();
        let bind = |mut query: rows::Statement, group: &[NewRow]| {
            for row in group {
                query = query
                    .bind(row.id)
                    .bind(row.mesh_id.shared())
                    .bind(row.event_type)
                    .bind(row.actor_member_id.as_ref().map(MemberId::shared))
                    .bind(row.actor_display_name.as_deref())
                    .bind(row.payload.as_str())
                    .bind(Arc::clone(&row.prev_hash))
                    .bind(Arc::clone(&row.hash))
                    .bind(now);
            }
            query
        };
        rows::execute(
            tx,
            "insert into audit_log (id, mesh_id, event_type, actor_member_id,
                actor_display_name, payload, prev_hash, hash, created_at)
             values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            &self.rows,
            bind,
        )
        .await
    }
}

/// Appends one row to one chain.
pub(super) async fn append_one(
    tx: &mut Tx,
    now: Timestamp,
    mesh: &MeshId,
    actor: Option<&MemberId>,
    actor_name: Option<&str>,
    event: &AuditEvent,
) -> Result<()> {
    let mut chains = Chains::read(tx, now, [mesh]).await?;
    chains.push(mesh, actor, actor_name, event);
    chains.write(tx).await
}

pub(super) async fn append(db: &Db, now: Timestamp, entries: &[AuditEntry]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut tx = db.begin().await?;
    let mut chains = Chains::read(&mut tx, now, entries.iter().map(|entry| &entry.mesh)).await?;
    for AuditEntry { mesh, actor, actor_name, event } in entries {
        chains.push(mesh, actor.as_ref(), actor_name.as_deref(), event);
    }
    chains.write(&mut tx).await?;
    tx.commit().await.map_err(refused)
}

pub(super) async fn page(
    db: &Db,
    mesh: &MeshId,
    event_type: Option<&str>,
    offset: i64,
    limit: i64,
) -> Result<(Vec<AuditRecord>, i64)> {
    // Two statements each, so that both use their index.
    let (rows, total) = match event_type {
        None => (
            "select * from audit_log where mesh_id = ?1 order by id desc limit 0 + ?3 offset ?4",
            "select count(*) from audit_log where mesh_id = ?1",
        ),
        Some(_) => (
            "select * from audit_log where mesh_id = ?1 and event_type = ?2
             order by id desc limit 0 + ?3 offset ?4",
            "select count(*) from audit_log where mesh_id = ?1 and event_type = ?2",
        ),
    };
    let rows = sqlx::query(rows)
        .bind(mesh.as_str())
        .bind(event_type)
        .bind(limit)
        .bind(offset)
        .fetch_all(db.reader())
        .await
        .map_err(refused)?;
    let total: i64 = sqlx::query_scalar(total)
        .bind(mesh.as_str())
        .bind(event_type)
        .fetch_one(db.reader())
        .await
        .map_err(refused)?;
    Ok((rows.iter().map(record).collect::<Result<_>>()?, total))
}

pub(super) async fn after(
    db: &Db,
    mesh: &MeshId,
    after_id: i64,
    limit: i64,
) -> Result<Vec<AuditRecord>> {
    let rows = sqlx::query(
        "select * from audit_log where mesh_id = ?1 and id > ?2 order by id limit 0 + ?3",
    )
    .bind(mesh.as_str())
    .bind(after_id)
    .bind(limit)
    .fetch_all(db.reader())
    .await
    .map_err(refused)?;
    rows.iter().map(record).collect()
}

fn record(row: &SqliteRow) -> Result<AuditRecord> {
    Ok(AuditRecord {
        id: get(row, "id")?,
        mesh: id(row, "mesh_id")?,
        event_type: get(row, "event_type")?,
        actor: get(row, "actor_member_id")?,
        actor_name: get(row, "actor_display_name")?,
        payload: json(row, "payload")?,
        prev_hash: get(row, "prev_hash")?,
        hash: get(row, "hash")?,
        created_at: time(row, "created_at")?,
    })
}
