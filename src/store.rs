//! The durable side: meshes, members, queued envelopes, the audit chain.
//!
//! Two implementations, [`sqlite`] and [`postgres`], and one conformance
//! suite (`tests/it/store/conformance.rs`) that runs against both.
//!
//! Rules that hold for every method:
//! - it is one business transaction: it happened and is on disk when it
//!   returns `Ok`; it did not happen when it returns an error, except for
//!   [`StoreError::Unknown`], where nobody can tell;
//! - `now` is a parameter; the database's clock decides nothing;
//! - it must be awaited to its end. Callers run it in tasks that nobody
//!   cancels; dropping the future half-way may leave a pooled connection
//!   inside a transaction.

mod api_keys;
mod audit;
mod author;
mod bans;
pub mod chain;
mod columns;
mod database;
mod envelopes;
mod invites;
mod mail;
mod members;
mod meshes;
mod messages;
pub mod postgres;
mod presence_search;
mod presences;
pub mod sqlite;
mod states;
#[cfg(test)]
pub(crate) mod testing;
mod tidings;
mod topic_mail;
mod topics;
mod usage;
mod vault;
mod workspaces;

use std::sync::Arc;

pub use self::api_keys::*;
pub use self::audit::*;
pub use self::author::*;
pub use self::bans::*;
pub use self::database::*;
pub use self::envelopes::*;
pub use self::invites::*;
pub use self::mail::*;
pub use self::members::*;
pub use self::meshes::*;
pub use self::messages::*;
pub use self::presence_search::*;
pub use self::presences::*;
pub use self::states::*;
pub use self::tidings::*;
pub use self::topic_mail::*;
pub use self::topics::*;
pub use self::usage::*;
pub use self::vault::*;
pub use self::workspaces::*;

/// What a store answers when it cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away, full, read-only or out of connections. Nothing
    /// was done; the same call may succeed later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The connection broke off before the answer came: it was done, or it was not.
    /// The same call may be made again, where that does no harm.
    #[error("the database is not available, and may have done what it was asked: {0}")]
    Unknown(String),
    /// The rows are not what they must be, or a statement is wrong. A retry
    /// will not help.
    #[error("the database refused: {0}")]
    Broken(String),
    /// A unique name is taken.
    #[error("{0}")]
    Conflict(String),
    /// What the call is about does not exist.
    #[error("{0}")]
    NotFound(String),
    /// A bound of what a mesh may keep would be passed. Nothing was done.
    #[error(transparent)]
    Full(Full),
}

impl StoreError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unknown(_))
    }
}

/// The result of a store call.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The durable side of the broker, a small trait for each concern.
#[derive(Clone)]
pub struct Stores {
    /// The database itself: its schema, its health, what other programs change in it.
    pub database: Arc<dyn Database>,
    /// Who belongs to a mesh, and what each may do.
    pub members: Arc<dyn Members>,
    /// Memberships that were revoked.
    pub bans: Arc<dyn Bans>,
    /// Presences: rows that begin, change and end.
    pub presences: Arc<dyn Presences>,
    /// Presences as those look for them who do not know their ids.
    pub presence_search: Arc<dyn PresenceSearch>,
    /// The way in: envelopes that a batch of sends brings.
    pub envelopes: Arc<dyn Envelopes>,
    /// The way out: who has what to read, and what is done.
    pub mail: Arc<dyn Mail>,
    /// Messages as those see them who look: their fate, their number, their end.
    pub messages: Arc<dyn Messages>,
    /// The audit chain of each mesh.
    pub audit: Arc<dyn AuditTrail>,
    /// Meshes.
    pub meshes: Arc<dyn Meshes>,
    /// Invites, and members that they enrol.
    pub invites: Arc<dyn Invites>,
    /// Topics, as delivery sees them.
    pub topic_mail: Arc<dyn TopicMail>,
    /// Topics, as their members see them.
    pub topics: Arc<dyn Topics>,
    /// Shared state.
    pub states: Arc<dyn States>,
    /// What members keep for themselves.
    pub vault: Arc<dyn Vault>,
    /// Keys by which programs call.
    pub api_keys: Arc<dyn ApiKeys>,
    /// Reads across members and meshes, for those programs.
    pub workspaces: Arc<dyn Workspaces>,
}

impl Stores {
    /// All of them, kept by one database.
    #[must_use]
    pub fn of<D>(database: Arc<D>) -> Self
    where
        D: Database
            + Members
            + Bans
            + Presences
            + PresenceSearch
            + Envelopes
            + Mail
            + Messages
            + AuditTrail
            + Meshes
            + Invites
            + States
            + TopicMail
            + Topics
            + Vault
            + ApiKeys
            + Workspaces,
    {
        Self {
            database: database.clone(),
            members: database.clone(),
            bans: database.clone(),
            presences: database.clone(),
            presence_search: database.clone(),
            envelopes: database.clone(),
            mail: database.clone(),
            messages: database.clone(),
            audit: database.clone(),
            meshes: database.clone(),
            invites: database.clone(),
            states: database.clone(),
            topic_mail: database.clone(),
            topics: database.clone(),
            vault: database.clone(),
            api_keys: database.clone(),
            workspaces: database,
        }
    }
}
