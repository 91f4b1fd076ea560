//! The store in one SQLite file: what a single node runs on when nothing else
//! is configured.
//!
//! WAL with `synchronous=FULL`: a commit is on disk. One connection writes;
//! every business transaction takes the file's write lock at its start
//! (`begin immediate`), so that the command line can write to the same file
//! while the broker runs. A few connections read.
//!
//! Times are whole milliseconds. Statements over many rows repeat a group of
//! parameters for each (`rows`), or, off the hot path, take them as one JSON
//! parameter (`json_each`): their number hardly grows with a batch.
//!
//! A limit that is a parameter is written `0 + ?`. SQLite looks at the value of
//! a bare one to plan, so it would prepare the statement again for each binding,
//! which costs more than to run it (`sqlite3ExprIsInteger` in its source).

mod accept;
mod admin;
mod admission;
mod audit;
mod claim;
mod claims;
mod connection;
mod departure;
mod error;
mod identity;
mod invites;
mod load;
mod messages;
mod migrations;
mod moderation;
mod presence;
mod retention;
mod row;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

pub use self::claim::Claim;
use self::connection::Db;
use super::*;

/// A store in one file.
pub struct SqliteStore {
    db: Db,
    path: PathBuf,
}

impl SqliteStore {
    /// Opens the file; makes it (mode 0600), and its folder, if they are
    /// missing. Runs no migration. Another process that has the file open is
    /// no error.
    ///
    /// # Errors
    ///
    /// `Unavailable` with a sentence that names the path if it cannot be read
    /// and written; `Broken` if it is no SQLite database.
    pub async fn open(path: &Path) -> Result<Self> {
        Ok(Self { db: Db::open(path).await?, path: path.to_owned() })
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl Database for SqliteStore {
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
        self.db.ping().await
    }

    async fn changes(&self) -> Result<Changes> {
        self.db.changes().await
    }

    async fn room(&self) -> Result<Option<u64>> {
        let inside = self.db.free_inside().await?;
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let disk = rustix::fs::statvfs(folder).map_err(|error| {
            StoreError::Unavailable(format!("the disk does not answer: {error}"))
        })?;
        Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize).saturating_add(inside)))
    }

    fn pool(&self) -> PoolUse {
        self.db.pool()
    }

    async fn close(&self) {
        self.db.close().await
    }
}

#[async_trait]
impl Members for SqliteStore {
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
impl Bans for SqliteStore {
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
impl Presences for SqliteStore {
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
impl PresenceSearch for SqliteStore {
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
impl Envelopes for SqliteStore {
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
impl Mail for SqliteStore {
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
impl Messages for SqliteStore {
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
impl AuditTrail for SqliteStore {
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
impl Meshes for SqliteStore {
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
impl Invites for SqliteStore {
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
