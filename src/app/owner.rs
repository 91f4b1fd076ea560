//! Whose store it is. A store of a single node has one owner: a second broker on
//! it would take the first one's presences for those of its own earlier life, and
//! end them. In a cluster the nodes share theirs and tell each other apart.
//!
//! Other programs, such as the command line, may read and write beside the
//! owner; they hold no presences.

use super::backends::postgres_settings;
use crate::config::{Config, Deployment, StoreConfig};
use crate::store::{postgres, sqlite};

/// A claim that holds until it is dropped, or the process ends.
pub(super) enum Owner {
    /// Nodes share it, or nothing can be claimed.
    Shared,
    /// A file on this machine.
    File { _claim: sqlite::Claim },
    /// A database, by a connection that must not end.
    Server(Box<postgres::Claim>),
}

impl Owner {
    /// Claims the store that the configuration names.
    ///
    /// # Errors
    ///
    /// A sentence that names the broker that has it.
    pub(super) async fn claim(config: &Config) -> anyhow::Result<Self> {
        match &config.deployment {
            Deployment::Single { store: StoreConfig::Sqlite { file, .. } } => {
                let claim = sqlite::Claim::take(file, &config.node.id)?;
                Ok(claim.map_or(Self::Shared, |_claim| Self::File { _claim }))
            }
            Deployment::Single { store: StoreConfig::Postgres(postgres) } => {
                let settings = postgres_settings(postgres);
                let claim = postgres::Claim::take(&settings, &config.node.id).await?;
                Ok(claim.map_or(Self::Shared, |claim| Self::Server(Box::new(claim))))
            }
            Deployment::Clustered { .. } => Ok(Self::Shared),
        }
    }

    /// Waits until the store has become another broker's, and says whose.
    pub(super) async fn lost(&mut self) -> String {
        match self {
            Self::Server(claim) => claim.lost().await,
            Self::Shared | Self::File { .. } => std::future::pending().await,
        }
    }
}
