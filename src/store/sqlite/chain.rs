//! The audit chain: appending to it inside a transaction, and reading it.
//!
//! The write lock of the transaction is what keeps a chain from forking: the
//! last hash is read after it was taken, also when another program appends.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::Row as _;

use crate::audit::{AuditEvent, GENESIS, NameHead, ROW_HASH_BYTES, entry_hash_at, row_hash};
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::store::Result;
use crate::store::sqlite::connection::Tx;
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::to_json;
use crate::store::sqlite::rows;

/// The ends of some meshes' chains, and what is to be appended to them.
pub(in crate::store) struct Chains {
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
    name_hash: [u8; ROW_HASH_BYTES],
}

impl Chains {
    /// Reads where the chains of these meshes end.
    pub(in crate::store) async fn read(
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
    pub(in crate::store) fn push(
        &mut self,
        mesh: &MeshId,
        actor: Option<&MemberId>,
        actor_name: Option<&str>,
        event: &AuditEvent,
    ) -> i64 {
        self.push_raw(mesh, actor, actor_name, event.event_type(), event.canonical_payload())
    }

    /// As [`Self::push`], for a payload that is canonical already.
    pub(in crate::store) fn push_raw(
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
        self.last_id += 1;
        let name_hash = row_hash(&head.names, self.last_id, &hash, actor_name);
        head.names = NameHead::after(&hash, Some(&name_hash));
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
    pub(in crate::store) async fn write(self, tx: &mut Tx) -> Result<()> {
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
pub(in crate::store) async fn append_one(
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
