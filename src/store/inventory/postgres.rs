//! What a mesh keeps, counted and named, in Postgres.

use std::collections::HashMap;

use async_trait::async_trait;

use super::{Inventory, ScheduledLine, StateLine, TopicLine, counted, read_count, read_usage};
use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::protocol::TaskCounts;
use crate::store::columns::Columns as _;
use crate::store::postgres::PostgresStore;
use crate::store::{Kind, Result, Usage};

#[async_trait]
impl Inventory for PostgresStore {
    async fn usage(&self, mesh: &MeshId, kinds: &[Kind]) -> Result<HashMap<Kind, Usage>> {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        let query = sqlx::query(
            "select coalesce(u.rows, 0) as rows, coalesce(u.bytes, 0) as bytes
             from unnest($2::text[]) with ordinality as asked (kind, place)
             left join mesh.broker_usage u on u.mesh_id = $1 and u.kind = asked.kind
             order by asked.place",
        )
        .bind(mesh.as_str())
        .bind(names);
        let usage: Vec<Usage> = self.pool.records(query, read_usage).await?;
        Ok(kinds.iter().copied().zip(usage).collect())
    }

    async fn task_counts(&self, now: Timestamp, mesh: &MeshId) -> Result<TaskCounts> {
        let query = sqlx::query(
            "select case when status = 'claimed' and claim_expires_at <= $2
                then 'open' else status end as status, count(*) as rows
             from mesh.task where mesh_id = $1 group by 1",
        )
        .bind(mesh.as_str())
        .bind(now.to_naive());
        Ok(counted(self.pool.records(query, read_count).await?))
    }

    async fn state_keys(&self, mesh: &MeshId, limit: i64) -> Result<Vec<String>> {
        let query =
            sqlx::query("select key from mesh.state where mesh_id = $1 order by key limit $2")
                .bind(mesh.as_str())
                .bind(limit);
        self.pool.records(query, |row| row.text("key")).await
    }

    async fn states(&self, mesh: &MeshId, limit: i64) -> Result<Vec<StateLine>> {
        let query = sqlx::query(
            "select key, version, updated_by_name, updated_at from mesh.state
             where mesh_id = $1 order by key limit $2",
        )
        .bind(mesh.as_str())
        .bind(limit);
        self.pool.records(query, StateLine::read).await
    }

    async fn scheduled(&self, mesh: &MeshId, limit: i64) -> Result<Vec<ScheduledLine>> {
        let query = sqlx::query(
            "select s.id, m.display_name, s.\"to\" as target, s.nonce is not null as sealed,
                s.due_at, s.cron, s.timezone, s.created_at
             from mesh.scheduled_message s left join mesh.member m on m.id = s.member_id
             where s.mesh_id = $1 and s.due_at is not null order by s.due_at, s.id limit $2",
        )
        .bind(mesh.as_str())
        .bind(limit);
        self.pool.records(query, ScheduledLine::read).await
    }

    async fn topics(&self, mesh: &MeshId, limit: i64) -> Result<Vec<TopicLine>> {
        let query = sqlx::query(
            "select t.name, t.visibility::text as visibility, t.created_at, t.archived_at,
                (select count(*) from mesh.topic_member tm where tm.topic_id = t.id) as members
             from mesh.topic t where t.mesh_id = $1 order by t.name collate \"C\" limit $2",
        )
        .bind(mesh.as_str())
        .bind(limit);
        self.pool.records(query, TopicLine::read).await
    }
}
