//! What meshes remember, in SQLite: the search is FTS5 with the porter stemmer.

use async_trait::async_trait;

use super::words::search_of;
use super::{Memories, Memory, NewMemory};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::columns::Columns;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::row::to_json;
use crate::store::{Author, Kind, Result};

/// The mesh is a word of each row, so that only that mesh's rows are looked at. Crossed,
/// so that the search comes first.
const RECALL: &str = "select m.id, m.content, m.tags, m.remembered_by_name,
        m.remembered_by_session_name, m.remembered_at
     from memory_search cross join memory m on m.number = memory_search.rowid
     where memory_search match ?1 and m.mesh_id = ?2
     order by bm25(memory_search, 0.0, 1.0, 1.0), m.remembered_at desc, m.number desc
     limit 0 + ?3 offset 0 + ?4";

#[async_trait]
impl Memories for SqliteStore {
    async fn remember(&self, now: Timestamp, memory: &NewMemory) -> Result<()> {
        let NewMemory { author, id, content, tags } = memory;
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "insert into memory (id, mesh_id, content, tags, remembered_by, remembered_by_name,
                remembered_by_session_name, remembered_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .bind(id.as_str())
        .bind(author.mesh.as_str())
        .bind(content.as_str())
        .bind(to_json(tags))
        .bind(author.member.as_str())
        .bind(author.member_name.as_str())
        .bind(author.other_name())
        .bind(now.as_ms());
        change.execute(query).await?;
        change.append(author, &AuditEvent::MemoryStored { id: id.clone() }).await?;
        change.within(&author.mesh, Kind::Memory).await?.commit().await
    }

    async fn recall(
        &self,
        mesh: &MeshId,
        query: &str,
        skip: i64,
        limit: i64,
    ) -> Result<Vec<Memory>> {
        let Some(search) = search_of(mesh, query) else { return Ok(Vec::new()) };
        let query = sqlx::query(RECALL).bind(search).bind(mesh.as_str()).bind(limit).bind(skip);
        self.records(query, Memory::read).await
    }

    async fn beginning_with(&self, mesh: &MeshId, beginning: &str) -> Result<Vec<String>> {
        let query = sqlx::query(
            "select id from memory
             where mesh_id = ?1 and id >= ?2 and id < ?2 || '~' limit 2",
        )
        .bind(mesh.as_str())
        .bind(beginning);
        self.records(query, |row| row.text("id")).await
    }

    async fn forget(&self, now: Timestamp, author: &Author, id: &str) -> Result<bool> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query("delete from memory where id = ?1 and mesh_id = ?2")
            .bind(id)
            .bind(author.mesh.as_str());
        if change.execute(query).await? == 0 {
            change.give_up().await?;
            return Ok(false);
        }
        change.append(author, &AuditEvent::MemoryForgotten { id: id.to_owned() }).await?;
        change.commit().await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::AssertSqlSafe;

    use super::*;
    use crate::store::Database as _;

    #[tokio::test]
    async fn a_search_goes_by_its_index_and_reads_what_it_found_by_number() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = SqliteStore::open(&folder.path().join("broker.db")).await.expect("a new file");
        store.migrate().await.expect("a new schema");
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(AssertSqlSafe(format!("explain query plan {RECALL}")))
                .fetch_all(store.reader())
                .await
                .expect("a plan");
        let steps: Vec<&str> = plan.iter().map(|(.., step)| step.as_str()).collect();
        let [search, read, ..] = &steps[..] else { panic!("{steps:?}") };
        assert!(search.starts_with("SCAN memory_search VIRTUAL TABLE INDEX 0:M"), "{steps:?}");
        assert!(read.starts_with("SEARCH m USING INTEGER PRIMARY KEY"), "{steps:?}");
    }
}
