//! What a mesh keeps, counted and named, in Postgres.

use std::collections::HashMap;

use async_trait::async_trait;

use super::{Inventory, counted, read_count, read_usage};
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
}
