//! The audit chain: appending to it inside a transaction, and reading it.
//!
//! The write lock of the transaction is what keeps a chain from forking: the
//! last hash is read after it was taken, also when another program appends.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::connection::{Db, Tx};
use super::error::{refused, unreadable};
use super::row::{get, id, time, to_json};
use super::rows;
use crate::audit::{AuditEvent, GENESIS, NameHead, entry_hash_at, name_hash};
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::store::{AuditEntry, AuditRecord, Result};

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

/// The ends of some meshes' chains, and what is to be appended to them.
pub(super) struct Chains {
    now: Timestamp,
    /// `now` as it is hashed.
    time: String,
    last_id: i64,
    heads: HashMap<MeshId, Head>,
    rows: Vec<NewRow>,
}

/// Where a chain ends: its last hash, and what the next second hash is made over.
struct Head {
    hash: Arc<str>,
    names: NameHead,
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
    name_hash: [u8; 32],
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
            "select (select seq from sqlite_sequence where name = 'audit_log'), a.hash, a.name_hash
             from json_each(?1) mesh
             left join audit_log a on a.id = (
                select id from audit_log where mesh_id = mesh.value order by id desc limit 1)
             order by mesh.key",
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
            let hash = head.unwrap_or(GENESIS);
            let names = NameHead::after(hash, row.try_get(2).map_err(refused)?);
            heads.insert(mesh.clone(), Head { hash: Arc::from(hash), names });
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
        let before = &head.hash;
        let hash =
            entry_hash_at(before, mesh.as_str(), event_type, actor_text, &payload, &self.time);
        let hash: Arc<str> = hash.into();
        let name_hash = name_hash(&head.names, &hash, actor_name);
        head.names = NameHead::after(&hash, Some(&name_hash));
        self.last_id += 1;
        self.rows.push(NewRow {
            id: self.last_id,
            mesh_id: mesh.clone(),
            event_type,
            actor_member_id: actor.cloned(),
            actor_display_name: actor_name.map(str::to_owned),
            payload,
            prev_hash: std::mem::replace(&mut head.hash, hash.clone()),
            hash,
            name_hash,
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
                    .bind(now)
                    .bind(row.name_hash.as_slice());
            }
            query
        };
        rows::execute(
            tx,
            "insert into audit_log (id, mesh_id, event_type, actor_member_id,
                actor_display_name, payload, prev_hash, hash, created_at, name_hash)
             values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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

pub(super) async fn before(
    db: &Db,
    mesh: &MeshId,
    event_type: Option<&str>,
    before_id: i64,
    limit: i64,
) -> Result<Vec<AuditRecord>> {
    let rows = match event_type {
        None => select_rows!("where a.mesh_id = ?1 and a.id < ?3 order by a.id desc limit 0 + ?4"),
        Some(_) => select_rows!(
            "where a.mesh_id = ?1 and a.event_type = ?2 and a.id < ?3
             order by a.id desc limit 0 + ?4"
        ),
    };
    let rows = sqlx::query(rows)
        .bind(mesh.as_str())
        .bind(event_type)
        .bind(before_id)
        .bind(limit)
        .fetch_all(db.reader())
        .await
        .map_err(refused)?;
    rows.iter().map(record).collect()
}

pub(super) async fn after(
    db: &Db,
    mesh: &MeshId,
    after_id: i64,
    limit: i64,
) -> Result<Vec<AuditRecord>> {
    let rows =
        sqlx::query(select_rows!("where a.mesh_id = ?1 and a.id > ?2 order by a.id limit 0 + ?3"))
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
        member_name: get(row, "member_name")?,
        member_key: get(row, "member_key")?,
        payload: payload(get(row, "payload")?)?,
        prev_hash: get(row, "prev_hash")?,
        hash: get(row, "hash")?,
        name_hash: get(row, "name_hash")?,
        created_at: time(row, "created_at")?,
    })
}

/// A payload as it stands. One that names a key twice means something else to each
/// reader, and nobody's hash covers that: it is given as the text that it is, and no
/// longer fits its hash.
fn payload(text: &str) -> Result<Value> {
    if crate::auth::has_duplicate_keys(text) {
        return Ok(Value::String(text.to_owned()));
    }
    serde_json::from_str(text).map_err(|_| unreadable("payload"))
}
