//! One change of what meshes share: its rows and its audit rows in one transaction.
//!
//! Dropped before it commits, a change did not happen. For the bodies of features'
//! stores.

use std::collections::HashMap;

use sqlx::sqlite::SqliteRow;

use super::chain::Chains;
use super::connection::{self, SqliteStore, Statement, Tx};
use super::error::refused;
use super::row::to_json;
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::columns::Columns as _;
use crate::store::{AuditEntry, Author, Kind, Result, Usage};

/// A change under way; the file's write lock is held.
pub(in crate::store) struct Change {
    tx: Tx,
    chains: Chains,
}

impl SqliteStore {
    /// Begins a change in these meshes.
    pub(in crate::store) async fn begin_change(
        &self,
        now: Timestamp,
        meshes: &[&MeshId],
    ) -> Result<Change> {
        let mut tx = self.begin().await?;
        let chains = Chains::read(&mut tx, now, meshes.iter().copied()).await?;
        Ok(Change { tx, chains })
    }
}

impl Change {
    /// The transaction, for statements over many rows.
    pub(in crate::store) fn tx(&mut self) -> &mut Tx {
        &mut self.tx
    }

    /// One statement; says how many rows it touched.
    pub(in crate::store) async fn execute(&mut self, query: Statement<'_>) -> Result<u64> {
        connection::execute(&mut self.tx, query).await
    }

    /// What a statement returns, if it finds a row.
    pub(in crate::store) async fn record<T>(
        &mut self,
        query: Statement<'_>,
        read: impl Fn(&SqliteRow) -> Result<T> + Send,
    ) -> Result<Option<T>> {
        connection::fetch_optional(&mut self.tx, query).await?.as_ref().map(read).transpose()
    }

    /// What a statement returns, a record for each row.
    pub(in crate::store) async fn records<T, C: FromIterator<T>>(
        &mut self,
        query: Statement<'_>,
        read: impl Fn(&SqliteRow) -> Result<T> + Send,
    ) -> Result<C> {
        let rows = query.fetch_all(&mut *self.tx).await.map_err(refused)?;
        rows.iter().map(read).collect()
    }

    /// Appends to the chain of the author's mesh; the row's id is the change's seq.
    #[expect(clippy::unused_async, reason = "the shape that it has in both databases")]
    pub(in crate::store) async fn append(
        &mut self,
        author: &Author,
        event: &AuditEvent,
    ) -> Result<i64> {
        let Author { mesh, member, session_name, .. } = author;
        Ok(self.chains.push(mesh, Some(member), Some(session_name), event))
    }

    /// Appends what somebody did without a session, or an operator; the row's id.
    #[expect(clippy::unused_async, reason = "the shape that it has in both databases")]
    pub(in crate::store) async fn append_entry(&mut self, entry: &AuditEntry) -> Result<i64> {
        let AuditEntry { mesh, actor, actor_name, event } = entry;
        Ok(self.chains.push(mesh, actor.as_ref(), actor_name.as_deref(), event))
    }

    /// As [`Self::append`], for many; the seqs are in the order given.
    pub(in crate::store) async fn append_all(
        &mut self,
        events: &[(&Author, AuditEvent)],
    ) -> Result<Vec<i64>> {
        let mut seqs = Vec::with_capacity(events.len());
        for (author, event) in events {
            seqs.push(self.append(author, event).await?);
        }
        Ok(seqs)
    }

    /// How much of that kind a mesh keeps, with what was written so far.
    pub(in crate::store) async fn usage(&mut self, mesh: &MeshId, kind: Kind) -> Result<Usage> {
        let query = sqlx::query("select rows, bytes from usage where mesh_id = ?1 and kind = ?2")
            .bind(mesh.as_str())
            .bind(kind.as_str());
        let usage =
            |row: &SqliteRow| Ok(Usage { rows: row.int("rows")?, bytes: row.int("bytes")? });
        Ok(self.record(query, usage).await?.unwrap_or_default())
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
             from json_each(?1) mesh
             left join usage u on u.mesh_id = mesh.value and u.kind = ?2
             order by mesh.key",
        )
        .bind(to_json(&meshes))
        .bind(kind.as_str());
        let usage: Vec<Usage> = self.records(query, read_usage).await?;
        Ok(meshes.into_iter().zip(usage).collect())
    }

    /// Holds what was written against what a mesh may keep of that kind. After an
    /// error nothing of the change has happened.
    pub(in crate::store) async fn within(mut self, mesh: &MeshId, kind: Kind) -> Result<Self> {
        self.usage(mesh, kind).await?.check(kind)?;
        Ok(self)
    }

    /// Undoes the change.
    pub(in crate::store) async fn give_up(self) -> Result<()> {
        self.tx.rollback().await.map_err(refused)
    }

    pub(in crate::store) async fn commit(mut self) -> Result<()> {
        self.chains.write(&mut self.tx).await?;
        self.tx.commit().await.map_err(refused)
    }
}

fn read_usage(row: &SqliteRow) -> Result<Usage> {
    Ok(Usage { rows: row.int("rows")?, bytes: row.int("bytes")? })
}
