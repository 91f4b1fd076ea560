//! The database that nodes share: its schema, its health, who the cluster is, what
//! other programs change.

use async_trait::async_trait;

use crate::store::columns::Columns as _;
use crate::store::postgres::{PostgresStore, migrations};
use crate::store::{Changes, ClusterIdentity, Database, PoolUse, Result};

#[async_trait]
impl Database for PostgresStore {
    async fn migrate(&self) -> Result<()> {
        migrations::run(&self.pool).await
    }

    async fn pending_migrations(&self) -> Result<Vec<String>> {
        migrations::pending(&self.pool).await
    }

    /// Of several nodes that begin at once, one's identity stays; a secret that was
    /// taken out is made anew.
    async fn cluster_identity(&self) -> Result<ClusterIdentity> {
        const READ: &str =
            "select id, secret from mesh.broker_cluster where single and secret is not null";
        // Reading comes first: it works where nothing can be written now.
        if let Some(row) = self.pool.fetch_optional(sqlx::query(READ)).await? {
            return Ok(ClusterIdentity { id: row.text("id")?, secret: row.bytes("secret")? });
        }
        let new = ClusterIdentity::generate();
        let query = sqlx::query(
            "insert into mesh.broker_cluster (id, secret) values ($1, $2)
             on conflict (single) do update
                set secret = coalesce(broker_cluster.secret, excluded.secret)
             returning id, secret",
        )
        .bind(new.id)
        .bind(new.secret);
        let row = self.pool.fetch_one(query).await?;
        Ok(ClusterIdentity { id: row.text("id")?, secret: row.bytes("secret")? })
    }

    async fn ping(&self) -> Result<()> {
        self.pool.execute(sqlx::query("select 1")).await?;
        Ok(())
    }

    async fn changes(&self) -> Result<Changes> {
        Ok(self.watch.changes(&self.pool, &self.name).await)
    }

    /// Without the connection that listens for changes.
    fn pool(&self) -> PoolUse {
        self.pool.in_use()
    }

    async fn close(&self) {
        self.watch.stop();
        self.pool.close().await;
    }
}
