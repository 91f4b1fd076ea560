//! Who the cluster is: of one node, which asks for it in tests only.

use super::connection::Db;
use super::error::refused;
use super::row::get;
use crate::clock::Timestamp;
use crate::store::{ClusterIdentity, Result};

/// Reads it, or makes it.
pub(super) async fn read(db: &Db) -> Result<ClusterIdentity> {
    let new = ClusterIdentity::generate();
    let mut tx = db.begin().await?;
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
