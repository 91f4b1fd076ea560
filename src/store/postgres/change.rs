//! One change of what meshes share: its rows and its audit rows in one transaction.
//!
//! The chains' locks are taken first, by a statement of their own, so that whatever is
//! read then is what the last holder wrote. Dropped before it commits, a change did not
//! happen. For the bodies of features' stores.

use std::collections::HashMap;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::chain::{Entries, Query, locks};
use super::error::refused;
use super::pool::Call;
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::columns::{Columns as _, unreadable};
use crate::store::{AuditEntry, Author, Kind, Result, Usage};

/// A change under way; the chains' locks are held.
pub(in crate::store) struct Change {
    call: Call,
    now: Timestamp,
}

impl PostgresStore {
    /// Begins a change in these meshes.
    pub(in crate::store) async fn begin_change(
        &self,
        now: Timestamp,
        meshes: &[&MeshId],
    ) -> Result<Change> {
        let mut call = self.pool.begin().await?;
        let locks = locks(meshes.iter().map(|mesh| mesh.as_str()));
        call.execute(sqlx::query("select mesh.broker_lock_v1($1)").bind(locks)).await?;
        Ok(Change { call, now })
    }
}

impl Change {
    /// One statement; says how many rows it touched.
    pub(in crate::store) async fn execute(&mut self, query: Query<'_>) -> Result<u64> {
        self.call.execute(query).await
    }

    /// What a statement returns, if it finds a row.
    pub(in crate::store) async fn record<T>(
        &mut self,
        query: Query<'_>,
        read: impl Fn(&PgRow) -> Result<T> + Send,
    ) -> Result<Option<T>> {
        self.call.fetch_optional(query).await?.as_ref().map(read).transpose()
    }

    /// What a statement returns, a record for each row.
    pub(in crate::store) async fn records<T, C: FromIterator<T>>(
        &mut self,
        query: Query<'_>,
        read: impl Fn(&PgRow) -> Result<T> + Send,
    ) -> Result<C> {
        self.call.fetch_all(query).await?.iter().map(read).collect()
    }

    /// Appends to the chain of the author's mesh; the row's id is the change's seq.
    pub(in crate::store) async fn append(
        &mut self,
        author: &Author,
        event: &AuditEvent,
    ) -> Result<i64> {
        let seqs = self.append_all(&[(author, event.clone())]).await?;
        seqs.first().copied().ok_or_else(|| unreadable("seqs"))
    }

    /// Appends what somebody did without a session, or an operator; the row's id.
    pub(in crate::store) async fn append_entry(&mut self, entry: &AuditEntry) -> Result<i64> {
        let AuditEntry { mesh, actor, actor_name, event } = entry;
        let mut entries = Entries::default();
        entries.push(mesh, actor.as_ref(), actor_name.as_deref(), event);
        let seqs = self.append_rows(entries).await?;
        seqs.first().copied().ok_or_else(|| unreadable("seqs"))
    }

    /// As [`Self::append`], for many; the seqs are in the order given.
    pub(in crate::store) async fn append_all(
        &mut self,
        events: &[(&Author, AuditEvent)],
    ) -> Result<Vec<i64>> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        // Rows of one mesh stand together, each mesh's in their order.
        let mut order: Vec<usize> = (0..events.len()).collect();
        order.sort_by_key(|at| &events[*at].0.mesh);
        let mut entries = Entries::default();
        for at in &order {
            let (author, event) = &events[*at];
            entries.push(&author.mesh, Some(&author.member), Some(&author.session_name), event);
        }
        let appended = self.append_rows(entries).await?;
        let mut seqs = vec![0; events.len()];
        for (at, seq) in order.into_iter().zip(appended) {
            seqs[at] = seq;
        }
        Ok(seqs)
    }

    /// Appends rows whose chains' locks are held; their ids, in the order given.
    async fn append_rows(&mut self, entries: Entries<'_>) -> Result<Vec<i64>> {
        let query = sqlx::query(
            "select mesh.broker_append_v2($1, $2, '{}', $3, $4, $5, $6, $7, null) as seqs",
        )
        .bind(self.now.to_naive())
        .bind(self.now.to_string());
        let row = self.call.fetch_optional(entries.bind_rows(query)).await?;
        row.ok_or_else(|| unreadable("seqs"))?.try_get("seqs").map_err(refused)
    }

    /// How much of that kind a mesh keeps, with what was written so far.
    pub(in crate::store) async fn usage(&mut self, mesh: &MeshId, kind: Kind) -> Result<Usage> {
        let query = sqlx::query(
            "select u.rows, u.bytes from mesh.broker_usage u where u.mesh_id = $1 and u.kind = $2",
        )
        .bind(mesh.as_str())
        .bind(kind.as_str());
        Ok(self.record(query, read_usage).await?.unwrap_or_default())
    }

    /// As [`Self::usage`], of several meshes.
    pub(in crate::store) async fn usage_of<'a>(
        &mut self,
        meshes: &[&'a MeshId],
        kind: Kind,
    ) -> Result<HashMap<&'a MeshId, Usage>> {
        let mut meshes = meshes.to_vec();
        meshes.sort_unstable();
        meshes.dedup();
        let query = sqlx::query(
            "select coalesce(u.rows, 0) as rows, coalesce(u.bytes, 0) as bytes
             from unnest($1::text[]) with ordinality as e (mesh, at)
             left join mesh.broker_usage u on u.mesh_id = e.mesh and u.kind = $2
             order by e.at",
        )
        .bind(meshes.iter().map(|mesh| mesh.as_str()).collect::<Vec<_>>())
        .bind(kind.as_str());
        let usage: Vec<Usage> = self.records(query, read_usage).await?;
        Ok(meshes.into_iter().zip(usage).collect())
    }

    /// Holds what was written against what a mesh may keep of that kind. After an
    /// error nothing of the change has happened.
    pub(in crate::store) async fn within(mut self, mesh: &MeshId, kind: Kind) -> Result<Self> {
        match self.usage(mesh, kind).await?.check(kind) {
            Ok(()) => Ok(self),
            Err(full) => {
                self.give_up().await?;
                Err(full)
            }
        }
    }

    /// Undoes the change.
    pub(in crate::store) async fn give_up(self) -> Result<()> {
        self.call.rollback().await
    }

    pub(in crate::store) async fn commit(self) -> Result<()> {
        self.call.commit().await
    }
}

fn read_usage(row: &PgRow) -> Result<Usage> {
    Ok(Usage { rows: row.int("rows")?, bytes: row.int("bytes")? })
}
