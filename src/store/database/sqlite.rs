//! The database in a file: its schema, its health, who the cluster is (which one
//! node asks for in tests only), what other programs commit.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqlitePool;

use crate::clock::Timestamp;
use crate::store::sqlite::connection::{READERS_MAX, folder_of};
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::get;
use crate::store::sqlite::{SqliteStore, migrations};
use crate::store::{Changes, ClusterIdentity, Database, PoolUse, Result, StoreError};

/// How often a watcher looks for other programs' commits, and how many times
/// before it says that there were none.
const WATCH_PERIOD: Duration = Duration::from_millis(500);
const WATCH_LOOKS: u32 = 2;

#[async_trait]
impl Database for SqliteStore {
    async fn migrate(&self) -> Result<()> {
        migrations::run(self).await
    }

    async fn pending_migrations(&self) -> Result<Vec<String>> {
        migrations::pending(self).await
    }

    async fn cluster_identity(&self) -> Result<ClusterIdentity> {
        let new = ClusterIdentity::generate();
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "insert into broker_cluster (single, id, secret, created_at) values (1, ?1, ?2, ?3)
             on conflict (single) do update set secret = coalesce(secret, excluded.secret)
             returning id, secret",
        )
        .bind(new.id)
        .bind(new.secret)
        .bind(Timestamp::now().as_ms())
        .fetch_one(&mut *tx)
        .await
        .map_err(refused)?;
        tx.commit().await.map_err(refused)?;
        Ok(ClusterIdentity { id: get(&row, "id")?, secret: get(&row, "secret")? })
    }

    /// One look at the file, which must still be the one that was opened: what
    /// is written to one that was removed or replaced is gone at the end.
    async fn ping(&self) -> Result<()> {
        if !self.is_in_place() {
            return Err(StoreError::Unavailable(format!(
                "{} was removed or replaced while the broker runs: start the broker again with \
                 the file that is wanted",
                self.path.display()
            )));
        }
        sqlx::query("select 1 from sqlite_schema limit 1")
            .fetch_optional(self.reader())
            .await
            .map_err(refused)?;
        Ok(())
    }

    async fn changes(&self) -> Result<Changes> {
        for look in 0..=WATCH_LOOKS {
            if look > 0 {
                tokio::time::sleep(WATCH_PERIOD).await;
            }
            if self.has_news().await? {
                return Ok(Changes::Unknown);
            }
        }
        Ok(Changes::None)
    }

    async fn room(&self) -> Result<Option<u64>> {
        // The file's free pages are written again before it grows.
        let inside: i64 = sqlx::query_scalar(
            "select freelist_count * page_size from pragma_freelist_count, pragma_page_size",
        )
        .fetch_one(self.reader())
        .await
        .map_err(refused)?;
        let disk = rustix::fs::statvfs(folder_of(&self.path)).map_err(|error| {
            StoreError::Unavailable(format!("the disk does not answer: {error}"))
        })?;
        let outside = disk.f_bavail.saturating_mul(disk.f_frsize);
        Ok(Some(outside.saturating_add(inside.unsigned_abs())))
    }

    /// The writer counts as one of them.
    fn pool(&self) -> PoolUse {
        let busy = |pool: &SqlitePool| pool.size().saturating_sub(idle_of(pool));
        PoolUse { in_use: busy(&self.writer) + busy(&self.reader), max: READERS_MAX + 1 }
    }

    /// The writer is last: whoever closes the file last folds the WAL into it.
    async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// Connections of a pool that nobody uses.
fn idle_of(pool: &SqlitePool) -> u32 {
    u32::try_from(pool.num_idle()).unwrap_or(u32::MAX)
}
