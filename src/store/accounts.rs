//! Accounts of people, and the sessions of their command lines.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::AccountId;
use crate::limits;
use crate::store::Result;
use crate::store::columns::Columns;

/// Accounts of people, and the sessions of their command lines.
///
/// Neither a sign-in key nor a token is kept: only what it hashes to.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// Makes an account; `Conflict` if there is one with that id.
    async fn create(&self, now: Timestamp, account: &NewAccount) -> Result<()>;

    /// The account with that id, made now if there is none, as another program knows
    /// it. One that was revoked stays so.
    async fn ensure(&self, now: Timestamp, account: &NewAccount) -> Result<Account>;

    /// The account with that id, revoked or not.
    async fn get(&self, account: &AccountId) -> Result<Option<Account>>;

    /// All accounts, oldest first.
    async fn all(&self) -> Result<Vec<Account>>;

    /// The account with that sign-in key, unless it was revoked.
    async fn of_key(&self, key_hash: &str) -> Result<Option<Account>>;

    /// Revokes an account and every session of it. `false` if it was revoked already.
    async fn revoke(&self, now: Timestamp, account: &AccountId) -> Result<bool>;

    /// What tokens are signed by; made by the first that asks.
    async fn signing_key(&self, now: Timestamp) -> Result<Vec<u8>>;

    /// Begins a session, and forgets those of the account whose tokens have run out.
    async fn open_session(&self, now: Timestamp, session: &NewCliSession) -> Result<()>;

    /// The account whose session has that token, unless either was revoked. Notes that
    /// the session was seen, once a minute at most.
    async fn of_token(&self, now: Timestamp, token_hash: &str) -> Result<Option<Account>>;

    /// Revokes the session with that token. `false` if there is none that goes on.
    async fn close_session(&self, now: Timestamp, token_hash: &str) -> Result<bool>;

    /// An account's sessions that go on, newest first, up to `limit`.
    async fn sessions(
        &self,
        now: Timestamp,
        account: &AccountId,
        limit: i64,
    ) -> Result<Vec<CliSession>>;
}

/// When the oldest sessions began whose tokens can still be good.
pub(in crate::store) const fn oldest_session(now: Timestamp) -> Timestamp {
    now.plus_ms(-limits::CLI_TOKEN_MS)
}

/// How long a session counts as seen without another write.
pub(in crate::store) const SEEN_MS: i64 = 60_000;

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// What its owner is called.
    pub name: String,
    /// Where its owner can be written to.
    pub email: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// An account to make.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// Its id.
    pub id: AccountId,
    /// What its owner is called.
    pub name: String,
    /// Where its owner can be written to.
    pub email: Option<String>,
    /// What its sign-in key hashes to; `None` if another program signs in for it.
    pub key_hash: Option<String>,
}

/// The machine that a command line runs on, as far as it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub hostname: Option<String>,
    /// Its operating system.
    pub platform: Option<String>,
    /// Its processor.
    pub arch: Option<String>,
}

/// A session to begin.
#[derive(Clone, Debug)]
pub struct NewCliSession {
    /// The session's id.
    pub id: String,
    /// Whose it is.
    pub account: AccountId,
    /// What its token hashes to.
    pub token_hash: String,
    /// Where its command line runs.
    pub machine: Machine,
}

/// A session that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliSession {
    /// The session's id.
    pub id: String,
    /// Where its command line runs.
    pub machine: Machine,
    /// When its token was last used, to the minute.
    pub last_seen_at: Option<Timestamp>,
    /// When it began.
    pub created_at: Timestamp,
}

impl Account {
    /// A row of `account`.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.id("id")?,
            name: row.text("name")?,
            email: row.optional_text("email")?,
            created_at: row.time("created_at")?,
            revoked_at: row.optional_time("revoked_at")?,
        })
    }
}

impl Machine {
    /// The columns that a session and a sign-in code have.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            hostname: row.optional_text("hostname")?,
            platform: row.optional_text("platform")?,
            arch: row.optional_text("arch")?,
        })
    }
}

impl CliSession {
    /// A row of `cli_session`.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.text("id")?,
            machine: Machine::read(row)?,
            last_seen_at: row.optional_time("last_seen_at")?,
            created_at: row.time("created_at")?,
        })
    }
}

/// An account by its session, and whether that is to be noted as seen.
pub(in crate::store) struct Seen {
    pub(in crate::store) account: Account,
    pub(in crate::store) session: String,
    pub(in crate::store) is_stale: bool,
}

impl Seen {
    /// A row of `account` with its session's id and last use.
    pub(in crate::store) fn read(row: &impl Columns, now: Timestamp) -> Result<Self> {
        let seen = row.optional_time("last_seen_at")?;
        Ok(Self {
            account: Account::read(row)?,
            session: row.text("session_id")?,
            is_stale: seen.is_none_or(|seen| seen.plus_ms(SEEN_MS) <= now),
        })
    }
}
