//! The store in Postgres: what every node of a cluster shares.
//!
//! The tables are those of the schema `mesh` that a dashboard may use as well;
//! `migrations/postgres` makes or completes them. Each method is one statement,
//! in which functions of the database do what must be done under a lock, or one
//! short transaction.
//!
//! Locks are taken in one order: join and slug locks, then the chains of the
//! meshes concerned, ascending, then rows.
//!
//! Text cannot hold NUL here: it is stored as U+FFFD.

pub(super) mod chain;
pub(super) mod change;
mod changes;
mod claim;
pub(super) mod error;
pub(super) mod migrations;
pub(super) mod pool;
pub(super) mod row;

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;

use self::changes::Watch;
use self::pool::Pool;
use super::Result;
use crate::limits;

pub use self::claim::Claim;
pub use self::pool::PostgresSettings;

/// A store in a Postgres database.
pub struct PostgresStore {
    pub(super) pool: Arc<Pool>,
    pub(super) watch: Watch,
    /// Turns to search: whoever waits for one leaves the other connections to those who
    /// write.
    pub(super) searches: Semaphore,
    /// What its sessions are called: `claudemesh-broker/` and who they are.
    pub(super) name: String,
}

impl PostgresStore {
    /// A store that connects when it is first asked something. Runs no
    /// migration.
    ///
    /// # Errors
    ///
    /// `Broken` if the URL is not understood.
    pub fn connect(settings: &PostgresSettings) -> Result<Self> {
        let who = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("claudemesh-broker/{}", who.get(..12).unwrap_or(&who));
        let pool = Arc::new(Pool::new(settings, &name)?);
        let searches = (settings.pool_max as usize / limits::SEARCHING_PART).max(1);
        Ok(Self { pool, watch: Watch::new(), searches: Semaphore::new(searches), name })
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PostgresStore").field("name", &self.name).finish_non_exhaustive()
    }
}
