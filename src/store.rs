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

mod accounts;
mod api_keys;
mod audit;
mod audit_heads;
mod author;
mod bans;
pub mod chain;
mod columns;
mod common_keys;
mod contexts;
mod database;
mod device_codes;
mod envelopes;
mod inventory;
mod invites;
mod mail;
mod mcp_servers;
mod members;
mod memories;
mod meshes;
mod messages;
mod ownership;
pub mod postgres;
mod presence_search;
mod presences;
mod profiles;
mod schedules;
mod skills;
pub mod sqlite;
mod stages;
mod states;
mod streams;
mod tasks;
#[cfg(test)]
pub(crate) mod testing;
mod tidings;
mod topic_calls;
mod topic_mail;
mod topic_reads;
mod topics;
mod usage;
mod vault;
mod webhooks;
mod workspaces;

use std::sync::Arc;

pub use self::accounts::*;
pub use self::api_keys::*;
pub use self::audit::*;
pub use self::audit_heads::*;
pub use self::author::*;
pub use self::bans::*;
pub use self::common_keys::*;
pub use self::contexts::*;
pub use self::database::*;
pub use self::device_codes::*;
pub use self::envelopes::*;
pub use self::inventory::*;
pub use self::invites::*;
pub use self::mail::*;
pub use self::mcp_servers::*;
pub use self::members::*;
pub use self::memories::*;
pub use self::meshes::*;
pub use self::messages::*;
pub use self::ownership::*;
pub use self::presence_search::*;
pub use self::presences::*;
pub use self::profiles::*;
pub use self::schedules::*;
pub use self::skills::*;
pub use self::stages::*;
pub use self::states::*;
pub use self::streams::*;
pub use self::tasks::*;
pub use self::tidings::*;
pub use self::topic_calls::*;
pub use self::topic_mail::*;
pub use self::topic_reads::*;
pub use self::topics::*;
pub use self::usage::*;
pub use self::vault::*;
pub use self::webhooks::*;
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

/// Makes of the list of traits what names them all: a line for each.
macro_rules! stores {
    ($($(#[$doc:meta])* $field:ident: $store:ident, $mock:ident;)*) => {
        /// The durable side of the broker, a small trait for each concern.
        #[derive(Clone)]
        pub struct Stores {
            $($(#[$doc])* pub $field: Arc<dyn $store>,)*
        }

        impl Stores {
            /// All of them, kept by one database.
            #[must_use]
            pub fn of<D>(database: Arc<D>) -> Self
            where
                D: $($store +)*,
            {
                Self { $($field: database.clone(),)* }
            }
        }

        /// What the stores are asked; an expectation is set before they are made of it.
        #[cfg(test)]
        #[derive(Default)]
        pub(crate) struct MockStores {
            $(pub(crate) $field: $mock,)*
        }

        #[cfg(test)]
        impl MockStores {
            pub(crate) fn stores(mut self) -> Stores {
                testing::without_topics(&mut self.topic_mail);
                testing::with_its_first_policy(&mut self.members);
                Stores { $($field: Arc::new(self.$field),)* }
            }
        }
    };
}

stores! {
    /// The database itself: its schema, its health, what other programs change in it.
    database: Database, MockDatabase;
    /// Who belongs to a mesh, and what each may do.
    members: Members, MockMembers;
    /// Memberships that were revoked.
    bans: Bans, MockBans;
    /// Presences: rows that begin, change and end.
    presences: Presences, MockPresences;
    /// Presences as those look for them who do not know their ids.
    presence_search: PresenceSearch, MockPresenceSearch;
    /// The way in: envelopes that a batch of sends brings.
    envelopes: Envelopes, MockEnvelopes;
    /// The way out: who has what to read, and what is done.
    mail: Mail, MockMail;
    /// Messages as those see them who look: their fate, their number, their end.
    messages: Messages, MockMessages;
    /// How far messages are with their recipients, and those that never come.
    stages: Stages, MockStages;
    /// The audit chain of each mesh.
    audit: AuditTrail, MockAuditTrail;
    /// The signed heads of those chains.
    audit_heads: AuditHeads, MockAuditHeads;
    /// Meshes.
    meshes: Meshes, MockMeshes;
    /// Keys that members hold in common.
    common_keys: CommonKeys, MockCommonKeys;
    /// Invites, and members that they enrol.
    invites: Invites, MockInvites;
    /// Accounts of people, and the sessions of their command lines.
    accounts: Accounts, MockAccounts;
    /// Codes by which command lines sign in.
    device_codes: DeviceCodes, MockDeviceCodes;
    /// Members as they describe themselves, and as accounts have them.
    profiles: Profiles, MockProfiles;
    /// Meshes as the accounts of their members and owners see them.
    ownership: Ownership, MockOwnership;
    /// Shared state.
    states: States, MockStates;
    /// Webhooks.
    webhooks: Webhooks, MockWebhooks;
    /// Servers that outlive their hosts.
    mcp_servers: McpServers, MockMcpServers;
    /// What meshes remember.
    memories: Memories, MockMemories;
    /// Skills.
    skills: Skills, MockSkills;
    /// What members work on.
    contexts: Contexts, MockContexts;
    /// What members keep for themselves.
    vault: Vault, MockVault;
    /// Keys by which programs call.
    api_keys: ApiKeys, MockApiKeys;
    /// Reads across members and meshes, for those programs.
    workspaces: Workspaces, MockWorkspaces;
    /// Names of streams.
    streams: Streams, MockStreams;
    /// Topics as programs see them that hold an API key.
    topic_calls: TopicCalls, MockTopicCalls;
    /// What members see of topics all at once.
    topic_reads: TopicReads, MockTopicReads;
    /// Topics, as delivery sees them.
    topic_mail: TopicMail, MockTopicMail;
    /// Topics, as their members see them.
    topics: Topics, MockTopics;
    /// Tasks.
    tasks: Tasks, MockTasks;
    /// Messages that are sent later.
    schedules: Schedules, MockSchedules;
    /// What meshes keep, without values.
    inventory: Inventory, MockInventory;
}
