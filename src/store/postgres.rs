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

mod accept;
mod admin;
mod admission;
mod audit;
mod changes;
mod claim;
mod claims;
mod departure;
mod error;
mod identity;
mod invites;
mod load;
mod messages;
mod migrations;
mod moderation;
mod pool;
mod presence;
mod retention;
mod row;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use self::changes::Watch;
pub use self::claim::Claim;
use self::pool::Db;
pub use self::pool::PostgresSettings;
use super::*;

/// A store in a Postgres database.
pub struct PostgresStore {
    db: Arc<Db>,
    watch: Watch,
    /// What its sessions are called: `claudemesh-broker/` and who they are.
    name: String,
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
        let db = Arc::new(Db::new(settings, &name)?);
        Ok(Self { db, watch: Watch::new(), name })
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PostgresStore").field("name", &self.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl Database for PostgresStore {
    async fn migrate(&self) -> Result<()> {
        migrations::run(&self.db).await
    }

    async fn pending_migrations(&self) -> Result<Vec<String>> {
        migrations::pending(&self.db).await
    }

    async fn cluster_identity(&self) -> Result<ClusterIdentity> {
        identity::read(&self.db).await
    }

    async fn ping(&self) -> Result<()> {
        self.db.execute(sqlx::query("select 1")).await?;
        Ok(())
    }

    async fn changes(&self) -> Result<Changes> {
        Ok(self.watch.changes(&self.db, &self.name).await)
    }

    fn pool(&self) -> PoolUse {
        self.db.pool()
    }

    async fn close(&self) {
        self.watch.stop();
        self.db.close().await;
    }
}

#[async_trait]
impl Members for PostgresStore {
    async fn admit(&self, mesh: &MeshId, key: &str, member: &str) -> Result<Admission> {
        admission::admit(&self.db, mesh, key, member).await
    }

    async fn active(&self, mesh: &MeshId) -> Result<Vec<Member>> {
        admission::members(&self.db, mesh).await
    }

    async fn of_session_key(
        &self,
        mesh: &MeshId,
        session_key: &str,
        since: Timestamp,
    ) -> Result<Option<MemberId>> {
        admission::member_of_session_key(&self.db, mesh, session_key, since).await
    }

    async fn addressee_of_session_key(
        &self,
        mesh: &MeshId,
        session_key: &str,
        since: Timestamp,
    ) -> Result<Option<MemberId>> {
        admission::addressee_of_session_key(&self.db, mesh, session_key, since).await
    }

    async fn find(&self, mesh: &MeshId, target: &str) -> Result<Vec<Member>> {
        moderation::find(&self.db, mesh, target).await
    }

    async fn all(&self, mesh: &MeshId) -> Result<Vec<Member>> {
        moderation::all(&self.db, mesh).await
    }

    async fn set_role(&self, now: Timestamp, member: &MemberId, role: Role) -> Result<()> {
        moderation::set_role(&self.db, now, member, role).await
    }

    async fn set_grant<'a>(
        &self,
        _now: Timestamp,
        member: &MemberId,
        sender_key: &str,
        capabilities: Option<&'a [String]>,
    ) -> Result<()> {
        moderation::set_grant(&self.db, member, sender_key, capabilities).await
    }
}

#[async_trait]
impl Bans for PostgresStore {
    async fn ban(&self, now: Timestamp, ban: &Moderation) -> Result<bool> {
        moderation::ban(&self.db, now, ban).await
    }

    async fn unban(&self, now: Timestamp, unban: &Moderation) -> Result<bool> {
        moderation::unban(&self.db, now, unban).await
    }

    async fn banned(&self, mesh: &MeshId) -> Result<Vec<Member>> {
        moderation::revoked(&self.db, mesh).await
    }
}

#[async_trait]
impl Presences for PostgresStore {
    async fn open(&self, now: Timestamp, opened: &[OpenPresence]) -> Result<Vec<i64>> {
        presence::open(&self.db, now, opened).await
    }

    async fn reattach(
        &self,
        now: Timestamp,
        presence: &PresenceId,
        about: &ReattachPresence,
    ) -> Result<Option<i64>> {
        presence::reattach(&self.db, now, presence, about).await
    }

    async fn update(&self, _now: Timestamp, changes: &[PresenceChange]) -> Result<()> {
        presence::update(&self.db, changes).await
    }

    async fn touch(&self, now: Timestamp, presences: &[PresenceId]) -> Result<()> {
        presence::touch(&self.db, now, presences).await
    }

    async fn suspend(&self, now: Timestamp, closed: &SuspendPresence) -> Result<()> {
        departure::suspend(&self.db, now, closed).await
    }

    async fn end(&self, now: Timestamp, ended: &[EndPresence]) -> Result<Vec<PresenceId>> {
        departure::end(&self.db, now, ended).await
    }

    async fn ended(
        &self,
        presences: &[PresenceId],
    ) -> Result<Vec<(PresenceId, Option<Timestamp>)>> {
        departure::ended(&self.db, presences).await
    }
}

#[async_trait]
impl PresenceSearch for PostgresStore {
    async fn unheard(&self, before: Timestamp) -> Result<Vec<StoredPresence>> {
        presence::unheard(&self.db, before).await
    }

    async fn in_folder(&self, cwd: &str, pid: i32, limit: u32) -> Result<Vec<PresenceAt>> {
        presence::by_cwd(&self.db, cwd, pid, limit).await
    }

    async fn called(&self, session_id: &str, limit: u32) -> Result<Vec<PresenceAt>> {
        presence::by_session_id(&self.db, session_id, limit).await
    }
}

#[async_trait]
impl Envelopes for PostgresStore {
    async fn accept(&self, now: Timestamp, batch: &[NewEnvelope]) -> Result<Vec<Accepted>> {
        accept::accept(&self.db, now, batch).await
    }

    async fn waiting_load(&self, asked: &[(Holder, u64)]) -> Result<Vec<WaitingLoad>> {
        load::waiting(&self.db, asked).await
    }

    async fn repeats(&self, batch: &[NewEnvelope]) -> Result<Vec<Option<MessageId>>> {
        accept::repeats(&self.db, batch).await
    }
}

#[async_trait]
impl Mail for PostgresStore {
    async fn confirm(&self, now: Timestamp, batch: &[Confirm]) -> Result<()> {
        claims::confirm(&self.db, now, batch).await
    }

    async fn claim(&self, now: Timestamp, ask: &ClaimRequest) -> Result<Vec<StoredEnvelope>> {
        claims::claim(&self.db, now, ask).await
    }

    async fn unclaim(&self, presence: &PresenceId, messages: &[MessageId]) -> Result<()> {
        claims::unclaim(&self.db, presence, messages).await
    }

    async fn multicasts_after(
        &self,
        mesh: &MeshId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<StoredEnvelope>> {
        claims::multicasts_after(&self.db, mesh, after, limit).await
    }

    async fn newest_seq(&self, mesh: &MeshId) -> Result<i64> {
        claims::newest_place(&self.db, mesh).await
    }

    async fn seq_before(&self, mesh: &MeshId, before: Timestamp) -> Result<i64> {
        claims::place_before(&self.db, mesh, before).await
    }

    async fn waiting(
        &self,
        now: Timestamp,
        mailboxes: &[(MeshId, Key)],
    ) -> Result<Vec<(MeshId, Key)>> {
        claims::waiting(&self.db, now, mailboxes).await
    }

    async fn claimed(
        &self,
        mailboxes: &[(MeshId, Key, PresenceId)],
    ) -> Result<HashSet<PresenceId>> {
        claims::claimed(&self.db, mailboxes).await
    }

    async fn rewind(&self, mesh: &MeshId, newest: i64, place: i64) -> Result<()> {
        claims::rewind(&self.db, mesh, newest, place).await
    }
}

#[async_trait]
impl Messages for PostgresStore {
    async fn find<'a>(
        &self,
        mesh: &MeshId,
        id_prefix: &str,
        after: Option<&'a MessageId>,
    ) -> Result<Vec<MessageState>> {
        messages::find(&self.db, mesh, id_prefix, after).await
    }

    async fn expire(&self, now: Timestamp, limits: &Retention) -> Result<Expired> {
        retention::expire(&self.db, now, limits).await
    }

    async fn depth(&self) -> Result<i64> {
        messages::depth(&self.db).await
    }

    async fn queued(&self, mesh: &MeshId, limit: i64) -> Result<Vec<MessageState>> {
        messages::queued(&self.db, mesh, limit).await
    }
}

#[async_trait]
impl AuditTrail for PostgresStore {
    async fn append(&self, now: Timestamp, entries: &[AuditEntry]) -> Result<()> {
        audit::append(&self.db, now, entries).await
    }

    async fn page<'a>(
        &self,
        mesh: &MeshId,
        event_type: Option<&'a str>,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<AuditRecord>, i64)> {
        audit::page(&self.db, mesh, event_type, offset, limit).await
    }

    async fn before<'a>(
        &self,
        mesh: &MeshId,
        event_type: Option<&'a str>,
        before_id: i64,
        limit: i64,
    ) -> Result<Vec<AuditRecord>> {
        audit::before(&self.db, mesh, event_type, before_id, limit).await
    }

    async fn after(&self, mesh: &MeshId, after_id: i64, limit: i64) -> Result<Vec<AuditRecord>> {
        audit::after(&self.db, mesh, after_id, limit).await
    }
}

#[async_trait]
impl Meshes for PostgresStore {
    async fn get(&self, mesh: &MeshId) -> Result<Option<Mesh>> {
        admission::mesh(&self.db, mesh).await
    }

    async fn create(&self, now: Timestamp, mesh: &NewMesh) -> Result<()> {
        admin::create_mesh(&self.db, now, mesh).await
    }

    async fn all(&self) -> Result<Vec<MeshSummary>> {
        admin::meshes(&self.db).await
    }

    async fn find(&self, slug_or_id: &str) -> Result<Option<Mesh>> {
        admin::find_mesh(&self.db, slug_or_id).await
    }

    async fn archive(&self, now: Timestamp, mesh: &MeshId) -> Result<bool> {
        admin::archive_mesh(&self.db, now, mesh).await
    }
}

#[async_trait]
impl Invites for PostgresStore {
    async fn create(&self, now: Timestamp, invite: &NewInvite) -> Result<()> {
        invites::create(&self.db, now, invite).await
    }

    async fn of_mesh(&self, mesh: &MeshId) -> Result<Vec<Invite>> {
        invites::of_mesh(&self.db, mesh).await
    }

    async fn revoke(&self, now: Timestamp, id_or_token: &str) -> Result<bool> {
        invites::revoke(&self.db, now, id_or_token).await
    }

    async fn join(&self, now: Timestamp, join: &Join) -> Result<Joined> {
        invites::join(&self.db, now, join).await
    }
}
