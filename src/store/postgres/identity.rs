//! Who the cluster is.

use super::pool::Db;
use super::row::get;
use crate::store::{ClusterIdentity, Result};

/// Reads it, or makes it. Of several nodes that begin at once, one's stays; a
/// secret that was taken out is made anew.
pub(super) async fn read(db: &Db) -> Result<ClusterIdentity> {
    const READ: &str =
        "select id, secret from mesh.broker_cluster where single and secret is not null";
    // Reading comes first: it works where nothing can be written now.
    if let Some(row) = db.fetch_optional(sqlx::query(READ)).await? {
        return Ok(ClusterIdentity { id: get(&row, "id")?, secret: get(&row, "secret")? });
    }
    let new = ClusterIdentity::generate();
    let row = db
        .fetch_one(
            sqlx::query(
                "insert into mesh.broker_cluster (id, secret) values ($1, $2)
                 on conflict (single) do update
                    set secret = coalesce(broker_cluster.secret, excluded.secret)
                 returning id, secret",
            )
            .bind(new.id)
            .bind(new.secret),
        )
        .await?;
    Ok(ClusterIdentity { id: get(&row, "id")?, secret: get(&row, "secret")? })
}
