//! What a mesh keeps, counted and named, in SQLite.

use std::collections::HashMap;

use async_trait::async_trait;

use super::{Inventory, ScheduledLine, StateLine, TopicLine, counted, read_count, read_usage};
use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::protocol::TaskCounts;
use crate::store::columns::Columns as _;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::row::to_json;
use crate::store::{Kind, Result, Usage};

/// Answered by the index alone.
const TASK_COUNTS: &str = "select case when status = 'claimed' and claim_expires_at <= ?2
        then 'open' else status end as status, count(*) as rows
     from task where mesh_id = ?1 group by 1";

#[async_trait]
impl Inventory for SqliteStore {
    async fn usage(&self, mesh: &MeshId, kinds: &[Kind]) -> Result<HashMap<Kind, Usage>> {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        let query = sqlx::query(
            "select coalesce(u.rows, 0) as rows, coalesce(u.bytes, 0) as bytes
             from json_each(?2) asked
             left join usage u on u.mesh_id = ?1 and u.kind = asked.value
             order by asked.key",
        )
        .bind(mesh.as_str())
        .bind(to_json(&names));
        let usage: Vec<Usage> = self.records(query, read_usage).await?;
        Ok(kinds.iter().copied().zip(usage).collect())
    }

    async fn task_counts(&self, now: Timestamp, mesh: &MeshId) -> Result<TaskCounts> {
        let query = sqlx::query(TASK_COUNTS).bind(mesh.as_str()).bind(now.as_ms());
        Ok(counted(self.records(query, read_count).await?))
    }

    async fn state_keys(&self, mesh: &MeshId, limit: i64) -> Result<Vec<String>> {
        let query =
            sqlx::query("select key from state where mesh_id = ?1 order by key limit 0 + ?2")
                .bind(mesh.as_str())
                .bind(limit);
        self.records(query, |row| row.text("key")).await
    }

    async fn states(&self, mesh: &MeshId, limit: i64) -> Result<Vec<StateLine>> {
        let query = sqlx::query(
            "select key, version, updated_by_name, updated_at from state
             where mesh_id = ?1 order by key limit 0 + ?2",
        )
        .bind(mesh.as_str())
        .bind(limit);
        self.records(query, StateLine::read).await
    }

    async fn scheduled(&self, mesh: &MeshId, limit: i64) -> Result<Vec<ScheduledLine>> {
        let query = sqlx::query(
            "select s.id, m.display_name, s.[to] as target, s.nonce is not null as sealed, s.due_at,
                s.cron, s.timezone, s.created_at
             from scheduled_message s left join member m on m.id = s.member_id
             where s.mesh_id = ?1 and s.due_at is not null order by s.due_at, s.id limit 0 + ?2",
        )
        .bind(mesh.as_str())
        .bind(limit);
        self.records(query, ScheduledLine::read).await
    }

    async fn topics(&self, mesh: &MeshId, limit: i64) -> Result<Vec<TopicLine>> {
        let query = sqlx::query(
            "select t.name, t.visibility, t.created_at, t.archived_at,
                (select count(*) from topic_member tm where tm.topic_id = t.id) as members
             from topic t where t.mesh_id = ?1 order by t.name limit 0 + ?2",
        )
        .bind(mesh.as_str())
        .bind(limit);
        self.records(query, TopicLine::read).await
    }
}

#[cfg(test)]
mod tests {
    use sqlx::AssertSqlSafe;

    use super::*;
    use crate::store::Database as _;

    #[tokio::test]
    async fn tasks_are_counted_without_a_look_at_their_rows() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = SqliteStore::open(&folder.path().join("broker.db")).await.expect("a new file");
        store.migrate().await.expect("a new schema");
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(AssertSqlSafe(format!("explain query plan {TASK_COUNTS}")))
                .fetch_all(store.reader())
                .await
                .expect("a plan");
        let by_index = "SEARCH task USING COVERING INDEX task_status_idx";
        assert!(plan[0].3.starts_with(by_index), "{plan:?}");
    }
}
