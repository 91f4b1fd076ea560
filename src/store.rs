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

pub mod chain;
pub mod model;
pub mod postgres;
pub mod sqlite;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;

pub use model::*;

use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, MessageId, PresenceId};

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

/// The database itself: its schema, its health, what other programs change in it.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Database: Send + Sync + 'static {
    /// Brings the schema up to date. Safe to run from many nodes at once.
    async fn migrate(&self) -> Result<()>;

    /// The migrations that have not run yet, by name; runs nothing.
    async fn pending_migrations(&self) -> Result<Vec<String>>;

    /// Who the cluster is that keeps its messages here; made by the first that
    /// asks.
    async fn cluster_identity(&self) -> Result<ClusterIdentity>;

    /// One round trip that reads and writes nothing.
    async fn ping(&self) -> Result<()>;

    /// Meshes that another program has changed since the last call (members
    /// banned, grants or roles edited, a mesh archived, envelopes inserted).
    /// Waits until there is something to tell, or for about a second.
    async fn changes(&self) -> Result<Changes>;

    /// How many bytes it can still grow by, where that is this machine's to know:
    /// free on the disk, and free within the file.
    async fn room(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// How much of what it may use it uses now.
    fn pool(&self) -> PoolUse;

    /// Ends every connection after the work under way.
    async fn close(&self);
}

/// Who belongs to a mesh, and what each may do.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Members: Send + Sync + 'static {
    /// The member behind a key, with what a hello needs. Nothing kept older
    /// brokers from enrolling a key twice: of several active memberships it is
    /// the one with the id `member`, else the oldest.
    async fn admit(&self, mesh: &MeshId, key: &str, member: &str) -> Result<Admission>;

    /// The active members of a mesh, as routing needs them.
    async fn active(&self, mesh: &MeshId) -> Result<Vec<Member>>;

    /// The member that a session key, seen in this mesh since `since`,
    /// belongs to.
    async fn of_session_key(
        &self,
        mesh: &MeshId,
        session_key: &str,
        since: Timestamp,
    ) -> Result<Option<MemberId>>;

    /// The member behind a session key to which a message can be sent that waits
    /// for it: as above, but not of a `hello` that has ended, since nobody comes
    /// back under a key that was only named there.
    async fn addressee_of_session_key(
        &self,
        mesh: &MeshId,
        session_key: &str,
        since: Timestamp,
    ) -> Result<Option<MemberId>>;

    /// Active members whose name or key is `target`, or whose key begins so.
    async fn find(&self, mesh: &MeshId, target: &str) -> Result<Vec<Member>>;

    /// Every member of a mesh, revoked ones included.
    async fn all(&self, mesh: &MeshId) -> Result<Vec<Member>>;

    /// Changes a member's role, with its audit row.
    async fn set_role(&self, now: Timestamp, member: &MemberId, role: Role) -> Result<()>;

    /// Replaces one entry of a member's grants; `None` restores the defaults.
    async fn set_grant<'a>(
        &self,
        now: Timestamp,
        member: &MemberId,
        sender_key: &str,
        capabilities: Option<&'a [String]>,
    ) -> Result<()>;
}

/// Memberships that were revoked.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Bans: Send + Sync + 'static {
    /// Revokes a membership, with its audit row. `false` if it was revoked
    /// already.
    async fn ban(&self, now: Timestamp, ban: &Moderation) -> Result<bool>;

    /// Restores a membership, with its audit row. `false` if it was active.
    async fn unban(&self, now: Timestamp, unban: &Moderation) -> Result<bool>;

    /// The revoked members.
    async fn banned(&self, mesh: &MeshId) -> Result<Vec<Member>>;
}

/// Presences: rows that begin, change and end.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Presences: Send + Sync + 'static {
    /// Writes presences that begin, each with its `peer_joined` audit row,
    /// and returns for each the mesh's multicast position: later multicasts
    /// are for it, earlier ones are not.
    async fn open(&self, now: Timestamp, opened: &[OpenPresence]) -> Result<Vec<i64>>;

    /// Brings a presence back that a new socket reattached to. Returns the
    /// multicast position to go on from; `None` if the row is gone (the
    /// caller opens a new one under the same id).
    async fn reattach(
        &self,
        now: Timestamp,
        presence: &PresenceId,
        about: &ReattachPresence,
    ) -> Result<Option<i64>>;

    /// Writes what changed about open presences.
    async fn update(&self, now: Timestamp, changes: &[PresenceChange]) -> Result<()>;

    /// These presences were heard of, those among them that are open.
    async fn touch(&self, now: Timestamp, presences: &[PresenceId]) -> Result<()>;

    /// A presence's socket closed and its grace began: saves the member's
    /// last state, keeps the multicast position, and lets go of deliveries
    /// addressed to the member (those to the session's own key stay its own).
    async fn suspend(&self, now: Timestamp, closed: &SuspendPresence) -> Result<()>;

    /// Ends presences, each at most once however many nodes try: sets
    /// `disconnected_at`, lets go of what they had claimed, and writes the
    /// audit rows given. Returns those that this call ended.
    async fn end(&self, now: Timestamp, ended: &[EndPresence]) -> Result<Vec<PresenceId>>;

    /// Which of these presences have no open row, each with the instant of its
    /// end; `None` where there is no row at all.
    async fn ended(&self, presences: &[PresenceId])
    -> Result<Vec<(PresenceId, Option<Timestamp>)>>;
}

/// Presences as those look for them who do not know their ids.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait PresenceSearch: Send + Sync + 'static {
    /// Presences that are not ended and were last heard of before that
    /// instant, with enough to list them and to let their sessions reattach.
    async fn unheard(&self, before: Timestamp) -> Result<Vec<StoredPresence>>;

    /// Open presences in that directory, of any mesh: those with that process id
    /// first (0 is no process), then the newest first.
    async fn in_folder(&self, cwd: &str, pid: i32, limit: u32) -> Result<Vec<PresenceAt>>;

    /// Open presences of sessions that call themselves so, of any mesh, newest
    /// first.
    async fn called(&self, session_id: &str, limit: u32) -> Result<Vec<PresenceAt>>;
}

/// The way in: envelopes that a batch of sends brings.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Envelopes: Send + Sync + 'static {
    /// Takes envelopes: queue row and audit row each, all in one transaction.
    /// The answers are in the order of the batch.
    async fn accept(&self, now: Timestamp, batch: &[NewEnvelope]) -> Result<Vec<Accepted>>;

    /// How much undelivered direct mail each holder has; looks at no more than so
    /// many rows of each. What other programs post to topics is no mail.
    async fn waiting_load(&self, asked: &[(Holder, u64)]) -> Result<Vec<WaitingLoad>>;

    /// For each envelope, the message that its sender's own id for it names
    /// already. Takes nothing.
    async fn repeats(&self, batch: &[NewEnvelope]) -> Result<Vec<Option<MessageId>>>;
}

/// The way out: who has what to read, and what is done.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Mail: Send + Sync + 'static {
    /// Marks deliveries done and moves multicast positions forward. Alone among
    /// these methods it may return before the disk has it: a crash of the
    /// machine brings such a delivery again, as one on its way.
    async fn confirm(&self, now: Timestamp, batch: &[Confirm]) -> Result<()>;

    /// Claims direct envelopes for a presence until `ask.until`, oldest
    /// first. Those that it has claimed before are given again unless named
    /// in `ask.in_flight`.
    async fn claim(&self, now: Timestamp, ask: &ClaimRequest) -> Result<Vec<StoredEnvelope>>;

    /// Takes back the claims of `presence` on these envelopes.
    async fn unclaim(&self, presence: &PresenceId, messages: &[MessageId]) -> Result<()>;

    /// Multicasts of the mesh after that position, oldest first.
    async fn multicasts_after(
        &self,
        mesh: &MeshId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<StoredEnvelope>>;

    /// The newest place that the mesh has given away: every envelope up to it
    /// can be read from now on. 0 in a mesh without a past.
    async fn newest_seq(&self, mesh: &MeshId) -> Result<i64>;

    /// The newest place that the mesh had given away before that instant, by the
    /// clocks of those who asked for places. 0 if none.
    async fn seq_before(&self, mesh: &MeshId, before: Timestamp) -> Result<i64>;

    /// Which of these (mesh, key) mailboxes hold an undelivered envelope that
    /// nobody has a live claim on.
    async fn waiting(
        &self,
        now: Timestamp,
        mailboxes: &[(MeshId, Key)],
    ) -> Result<Vec<(MeshId, Key)>>;

    /// Which of these presences have a claim on an undelivered envelope in the
    /// mailbox named with them.
    async fn claimed(&self, mailboxes: &[(MeshId, Key, PresenceId)])
    -> Result<HashSet<PresenceId>>;

    /// Open presences of the mesh whose multicast position is beyond `newest`, which
    /// no place is, go on from `place`.
    async fn rewind(&self, mesh: &MeshId, newest: i64, place: i64) -> Result<()>;
}

/// Messages as those see them who look: their fate, their number, their end.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Messages: Send + Sync + 'static {
    /// The envelopes whose id begins so, in the order of ids, after that one; at
    /// most [`FIND_MESSAGES_MAX`](crate::limits::FIND_MESSAGES_MAX).
    async fn find<'a>(
        &self,
        mesh: &MeshId,
        id_prefix: &str,
        after: Option<&'a MessageId>,
    ) -> Result<Vec<MessageState>>;

    /// Deletes what is past its time: delivered rows older than
    /// `delivered_before`, undelivered ones older than `undelivered_before`
    /// (each with an `expired` audit row), idempotence keys older than
    /// `keys_before`. At most `limit` rows of each kind; says how many.
    async fn expire(&self, now: Timestamp, limits: &Retention) -> Result<Expired>;

    /// Undelivered envelopes in all.
    async fn depth(&self) -> Result<i64>;

    /// What lies in a mesh's queue, oldest first.
    async fn queued(&self, mesh: &MeshId, limit: i64) -> Result<Vec<MessageState>>;
}

/// The audit chain of each mesh.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait AuditTrail: Send + Sync + 'static {
    /// Appends audit rows that stand for themselves.
    async fn append(&self, now: Timestamp, entries: &[AuditEntry]) -> Result<()>;

    /// Rows newest first, with the number of all that match.
    async fn page<'a>(
        &self,
        mesh: &MeshId,
        event_type: Option<&'a str>,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<AuditRecord>, i64)>;

    /// Rows before `before_id`, newest first: a page after the first, or with
    /// `i64::MAX` the newest ones without counting the chain.
    async fn before<'a>(
        &self,
        mesh: &MeshId,
        event_type: Option<&'a str>,
        before_id: i64,
        limit: i64,
    ) -> Result<Vec<AuditRecord>>;

    /// Rows after `after_id`, oldest first: what a verifier walks, from `i64::MIN`.
    async fn after(&self, mesh: &MeshId, after_id: i64, limit: i64) -> Result<Vec<AuditRecord>>;
}

/// Meshes.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Meshes: Send + Sync + 'static {
    /// The mesh, archived or not.
    async fn get(&self, mesh: &MeshId) -> Result<Option<Mesh>>;

    /// Creates a mesh with its owner as first member.
    async fn create(&self, now: Timestamp, mesh: &NewMesh) -> Result<()>;

    /// All meshes, archived ones last.
    async fn all(&self) -> Result<Vec<MeshSummary>>;

    /// The newest mesh with that slug that is not archived, else one with
    /// that id.
    async fn find(&self, slug_or_id: &str) -> Result<Option<Mesh>>;

    /// Archives a mesh. `false` if it was archived already.
    async fn archive(&self, now: Timestamp, mesh: &MeshId) -> Result<bool>;
}

/// Invites, and members that they enrol.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Invites: Send + Sync + 'static {
    /// Writes an invite.
    async fn create(&self, now: Timestamp, invite: &NewInvite) -> Result<()>;

    /// A mesh's invites, newest first.
    async fn of_mesh(&self, mesh: &MeshId) -> Result<Vec<Invite>>;

    /// Revokes the invite with that id or token. `false` if there is none
    /// that could be used.
    async fn revoke(&self, now: Timestamp, id_or_token: &str) -> Result<bool>;

    /// Enrols a member by invite, with its audit row; checks and use of the
    /// invite are one transaction. The signature has been checked.
    async fn join(&self, now: Timestamp, join: &Join) -> Result<Joined>;
}

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
            + Invites,
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
            invites: database,
        }
    }
}
