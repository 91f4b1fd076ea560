//! One broker at a time serves from a database without Redis: it holds an
//! advisory lock, by a connection of its own that does nothing else.
//!
//! The server lets go of the lock when that connection ends. So it is looked at,
//! and made anew after an outage; a lock that is another broker's by then means
//! that this one must end. Behind a pooler that shares sessions between
//! transactions there are no such locks, and nothing is claimed.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::{sleep, timeout};

use super::error::{refused, unavailable};
use super::pool::{Pool, PostgresSettings};
use crate::id::{self, NodeId};
use crate::store::{Result, StoreError};

/// Between two looks at the connection.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// For each answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Any number that no other program's advisory lock has.
const TRY: &str = "select pg_try_advisory_lock(7473773833)";
const HOLDER: &str = "select coalesce(application_name, '')
    from pg_stat_activity
    where pid in (
      select pid from pg_locks
      where locktype = 'advisory' and granted and objsubid = 1
        and ((classid::bigint << 32) | objid::bigint) = 7473773833
        and database = (select oid from pg_database where datname = current_database())
    )";
/// What the name of such a session begins with; then the process, an id that
/// tells its lives apart, and the node.
const NAME: &str = "claudemesh-owner";

/// A claim on a database, as long as it lives.
pub struct Claim {
    pool: Pool,
    /// By which this claim knows itself.
    id: String,
    /// `None` while it is broken.
    connection: Option<PgConnection>,
}

impl Claim {
    /// Claims the database for this process; `None` where that cannot be.
    ///
    /// # Errors
    ///
    /// `Conflict` with a sentence that names who has it; `Unavailable` if the
    /// server does not answer.
    pub async fn take(settings: &PostgresSettings, node: &NodeId) -> Result<Option<Self>> {
        if settings.statement_cache_max == 0 {
            tracing::info!("behind a pooler, whether another broker serves is not known");
            return Ok(None);
        }
        let id = id::generate().split_off(20);
        let name = format!("{NAME} {} {id} {node}", std::process::id());
        let mut claim = Self { pool: Pool::new(settings, &name)?, id, connection: None };
        match claim.try_again().await? {
            None => Ok(Some(claim)),
            Some(other) => Err(StoreError::Conflict(format!(
                "another broker serves from this database ({}): stop that one first, or make \
                 both nodes of a cluster with REDIS_URL",
                described(&other)
            ))),
        }
    }

    /// Waits until the claim is another broker's, and says whose.
    pub async fn lost(&mut self) -> String {
        loop {
            sleep(LOOK_INTERVAL).await;
            if let Some(connection) = &mut self.connection {
                if matches!(timeout(PATIENCE, connection.ping()).await, Ok(Ok(()))) {
                    continue;
                }
                tracing::warn!("the connection that holds the claim on the database broke");
                self.connection = None;
            }
            match self.try_again().await {
                Ok(None) => tracing::info!("the claim on the database is held again"),
                // The server has not noticed yet that the connection broke.
                Ok(Some(holder)) if holder.contains(&self.id) => {}
                Ok(Some(holder)) => {
                    return format!("another broker took the database ({})", described(&holder));
                }
                Err(error) => tracing::debug!(%error, "the claim on the database waits"),
            }
        }
    }

    /// `None` if it is held now, else the name of the session that holds it.
    async fn try_again(&mut self) -> Result<Option<String>> {
        let work = async {
            let mut connection = self.pool.options().connect().await?;
            let is_ours: bool = sqlx::query_scalar(TRY).fetch_one(&mut connection).await?;
            if is_ours {
                return Ok((Some(connection), None));
            }
            let holder = sqlx::query_scalar(HOLDER).fetch_optional(&mut connection).await?;
            connection.close().await?;
            Ok((None, Some(holder.unwrap_or_default())))
        };
        match timeout(PATIENCE, work).await {
            Ok(Ok((connection, holder))) => {
                self.connection = connection;
                Ok(holder)
            }
            Ok(Err(error)) => Err(refused(error)),
            Err(_) => Err(unavailable("Postgres did not answer in time")),
        }
    }
}

fn described(name: &str) -> String {
    let mut words = name.split(' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(NAME), Some(process), Some(_), Some(node)) => {
            format!("process {process}, node {node}").escape_debug().to_string()
        }
        _ => "which one is not known".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_described_by_its_sessions_name() {
        assert_eq!(described("claudemesh-owner 12 ab34 node-a"), "process 12, node node-a");
        for other in ["", "psql", "claudemesh-owner"] {
            assert_eq!(described(other), "which one is not known");
        }
    }
}
