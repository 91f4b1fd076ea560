//! Connections to Postgres: few, kept, bounded in time.
//!
//! Not the driver's pool: that one asks the server once more after every use
//! and waits for the answer without a limit, so that a server which stops
//! answering empties the pool. Here a connection goes back only after a call
//! that went well. One whose call failed, ran out of time or was dropped
//! half-way is closed: the server ends its transaction.

use std::collections::VecDeque;
use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::log::LevelFilter;

use super::chain::Query;
use super::error::{refused, unavailable};
use crate::store::{PoolUse, Result, StoreError};

/// Waiting for a connection that others use. Later: `Unavailable`.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Connecting, with TLS and authentication. Later: `Unavailable`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that rested longer is asked whether it is alive before use.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// That question. Later: the connection is replaced.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that rested longer is closed.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// A connection that is older is closed: load balancers and poolers in between
/// cut at ten minutes.
const AGE_MAX: Duration = Duration::from_secs(540);
/// One statement, from sending it to its answer. Later: `Unavailable`. Above
/// the server's own `statement_timeout`, which cancels cleanly.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(600);
/// Work under way when the store is closed. Later: it is cut off.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(12);

/// What each session is told when it begins. Not sent to a transaction-mode
/// PgBouncer, which refuses it: there, set them on the role.
const SESSION: [(&str, &str); 10] = [
    ("statement_timeout", "8s"),
    ("lock_timeout", "4s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("default_transaction_isolation", "read committed"),
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
    ("jit", "off"),
    // Plans are kept. One made while a table was small must not scan it once
    // it is not.
    ("enable_seqscan", "off"),
    ("client_min_messages", "warning"),
];

/// How to reach the database.
#[derive(Clone)]
pub struct PostgresSettings {
    /// `postgres://user:password@host/database`; `sslmode` and `sslrootcert` in
    /// its query decide about TLS.
    pub url: String,
    /// Connections at most, besides the one that listens for changes.
    pub pool_max: u32,
    /// Prepared statements kept per connection. 0 behind a PgBouncer in
    /// transaction mode.
    pub statement_cache_max: usize,
}

/// The connections of one store.
pub(in crate::store) struct Pool {
    options: PgConnectOptions,
    /// Whether a pooler in between may give each transaction another session.
    shared_sessions: bool,
    permits: Arc<Semaphore>,
    permits_max: u32,
    idle: Arc<Mutex<VecDeque<Idle>>>,
}

/// A connection that nobody uses.
struct Idle {
    connection: PgConnection,
    born: Instant,
    since: Instant,
}

impl Idle {
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < IDLE_MAX && self.born.elapsed() < AGE_MAX
    }
}

impl Pool {
    /// Connects to nothing yet. `application_name` is what other sessions see.
    pub(in crate::store) fn new(
        settings: &PostgresSettings,
        application_name: &str,
    ) -> Result<Self> {
        // The driver's reason may quote the password.
        let options = PgConnectOptions::from_str(&settings.url).map_err(|_| {
            StoreError::Broken(
                "DATABASE_URL is not understood: set \
                 postgres://user:password@host:port/database?sslmode=require"
                    .to_owned(),
            )
        })?;
        // The driver looks brackets up as a name.
        let address = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let options = match address.map(str::to_owned) {
            Some(address) => options.host(&address),
            None => options,
        };
        let mut options = options
            .application_name(application_name)
            .log_statements(LevelFilter::Off)
            .log_slow_statements(LevelFilter::Off, Duration::ZERO);
        options = options.statement_cache_capacity(settings.statement_cache_max);
        let shared_sessions = settings.statement_cache_max == 0;
        if !shared_sessions {
            options = options.options(SESSION);
        }
        Ok(Self {
            options,
            shared_sessions,
            permits: Arc::new(Semaphore::new(settings.pool_max as usize)),
            permits_max: settings.pool_max,
            idle: Arc::default(),
        })
    }

    /// Whether a pooler in between may give each transaction another session.
    pub(in crate::store) fn has_shared_sessions(&self) -> bool {
        self.shared_sessions
    }

    /// How to connect, for whoever needs a connection of its own.
    pub(in crate::store) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// How many connections are in use, without the one that listens for changes.
    pub(in crate::store) fn in_use(&self) -> PoolUse {
        let free = u32::try_from(self.permits.available_permits()).unwrap_or(u32::MAX);
        PoolUse { in_use: self.permits_max.saturating_sub(free), max: self.permits_max }
    }

    /// A connection for one call.
    pub(in crate::store) async fn call(&self) -> Result<Call> {
        let permit = timeout(ACQUIRE_TIMEOUT, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| {
                unavailable(
                    "every connection is in use: raise DATABASE_POOL_MAX, or see why Postgres \
                     is slow",
                )
            })?
            .map_err(|_| unavailable("the store is closed"))?;
        let (connection, born) = match self.take_idle().await {
            Some(idle) => (idle.connection, idle.born),
            None => (self.connect().await?, Instant::now()),
        };
        Ok(Call {
            in_transaction: false,
            connection: Some(connection),
            born,
            limit: CALL_TIMEOUT,
            shared_sessions: self.shared_sessions,
            idle: Arc::clone(&self.idle),
            _permit: permit,
        })
    }

    /// As [`Self::call`], for migrations: no time limits but a generous one.
    pub(in crate::store) async fn long_call(&self) -> Result<Call> {
        let mut call = self.call().await?;
        call.limit = MIGRATION_TIMEOUT;
        Ok(call)
    }

    /// One statement that returns rows.
    pub(in crate::store) async fn fetch_all(&self, query: Query<'_>) -> Result<Vec<PgRow>> {
        let mut call = self.statement().await?;
        let rows = call.fetch_all(query).await?;
        self.end_statement(call).await?;
        Ok(rows)
    }

    /// What a statement returns, a record for each row.
    pub(in crate::store) async fn records<T, C: FromIterator<T>>(
        &self,
        query: Query<'_>,
        read: impl Fn(&PgRow) -> Result<T> + Send,
    ) -> Result<C> {
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// What a statement returns, if it finds a row.
    pub(in crate::store) async fn record<T>(
        &self,
        query: Query<'_>,
        read: impl Fn(&PgRow) -> Result<T> + Send,
    ) -> Result<Option<T>> {
        self.fetch_optional(query).await?.as_ref().map(read).transpose()
    }

    /// One statement that returns a row or none.
    pub(in crate::store) async fn fetch_optional(&self, query: Query<'_>) -> Result<Option<PgRow>> {
        let mut call = self.statement().await?;
        let row = call.fetch_optional(query).await?;
        self.end_statement(call).await?;
        Ok(row)
    }

    /// One statement that returns one row.
    pub(in crate::store) async fn fetch_one(&self, query: Query<'_>) -> Result<PgRow> {
        self.fetch_optional(query).await?.ok_or_else(|| refused(sqlx::Error::RowNotFound))
    }

    /// One statement; says how many rows it touched.
    pub(in crate::store) async fn execute(&self, query: Query<'_>) -> Result<u64> {
        let mut call = self.statement().await?;
        let touched = call.execute(query).await?;
        self.end_statement(call).await?;
        Ok(touched)
    }

    /// A connection in a transaction.
    pub(in crate::store) async fn begin(&self) -> Result<Call> {
        let mut call = self.call().await?;
        // Until it commits, whatever is lost was not done.
        call.in_transaction = true;
        call.batch("begin isolation level read committed").await?;
        Ok(call)
    }

    /// A connection for one statement. The driver prepares it and runs it in
    /// two steps, which must meet one session: a transaction sees to that.
    async fn statement(&self) -> Result<Call> {
        if self.shared_sessions { self.begin().await } else { self.call().await }
    }

    async fn end_statement(&self, call: Call) -> Result<()> {
        if self.shared_sessions {
            return call.commit().await;
        }
        call.finish();
        Ok(())
    }

    /// Lets nobody begin, waits for those that have, and ends the connections.
    pub(in crate::store) async fn close(&self) {
        let work = Arc::clone(&self.permits).acquire_many_owned(self.permits_max);
        let all = timeout(CLOSE_TIMEOUT, work).await;
        self.permits.close();
        let idle: Vec<Idle> = self.idle.lock().drain(..).collect();
        for Idle { connection, .. } in idle {
            // The server notices a closed socket anyway.
            let _ = timeout(PING_TIMEOUT, connection.close()).await;
        }
        drop(all);
    }

    async fn take_idle(&self) -> Option<Idle> {
        loop {
            let mut idle = {
                let mut idle = self.idle.lock();
                idle.retain(Idle::is_fresh);
                idle.pop_back()?
            };
            if idle.since.elapsed() < TRUSTED_IDLE {
                return Some(idle);
            }
            if let Ok(Ok(())) = timeout(PING_TIMEOUT, idle.connection.ping()).await {
                return Some(idle);
            }
        }
    }

    async fn connect(&self) -> Result<PgConnection> {
        match timeout(CONNECT_TIMEOUT, self.options.connect()).await {
            Ok(connected) => connected.map_err(refused),
            Err(_) => Err(unavailable(
                "Postgres did not answer in time: see whether it runs and can be reached",
            )),
        }
    }
}

/// A connection in use. [`Call::finish`] or [`Call::commit`] gives it back;
/// anything else closes it.
pub(in crate::store) struct Call {
    connection: Option<PgConnection>,
    in_transaction: bool,
    born: Instant,
    limit: Duration,
    shared_sessions: bool,
    idle: Arc<Mutex<VecDeque<Idle>>>,
    _permit: OwnedSemaphorePermit,
}

impl Call {
    pub(in crate::store) async fn fetch_all(&mut self, query: Query<'_>) -> Result<Vec<PgRow>> {
        let (call, query) = (self.terms(), query.persistent(!self.shared_sessions));
        call.within(query.fetch_all(self.connection())).await
    }

    pub(in crate::store) async fn fetch_optional(
        &mut self,
        query: Query<'_>,
    ) -> Result<Option<PgRow>> {
        let (call, query) = (self.terms(), query.persistent(!self.shared_sessions));
        call.within(query.fetch_optional(self.connection())).await
    }

    pub(in crate::store) async fn execute(&mut self, query: Query<'_>) -> Result<u64> {
        let (call, query) = (self.terms(), query.persistent(!self.shared_sessions));
        Ok(call.within(query.execute(self.connection())).await?.rows_affected())
    }

    /// Statements without parameters, separated by semicolons.
    pub(in crate::store) async fn batch(&mut self, sql: &'static str) -> Result<()> {
        let call = self.terms();
        call.within(sqlx::raw_sql(sql).execute(self.connection())).await?;
        Ok(())
    }

    pub(in crate::store) async fn commit(mut self) -> Result<()> {
        self.in_transaction = false;
        self.batch("commit").await?;
        self.finish();
        Ok(())
    }

    pub(in crate::store) async fn rollback(mut self) -> Result<()> {
        self.batch("rollback").await?;
        self.finish();
        Ok(())
    }

    /// The call went well and left no transaction.
    pub(in crate::store) fn finish(mut self) {
        if let Some(connection) = self.connection.take() {
            let idle = Idle { connection, born: self.born, since: Instant::now() };
            self.idle.lock().push_back(idle);
        }
    }

    fn terms(&self) -> Terms {
        Terms { limit: self.limit, may_be_done: !self.in_transaction }
    }

    fn connection(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it is taken only when the call ends")
    }
}

/// How one statement is waited for.
#[derive(Clone, Copy)]
struct Terms {
    limit: Duration,
    /// It stands for itself, or commits: without its answer nobody knows whether it
    /// was done.
    may_be_done: bool,
}

impl Terms {
    async fn within<T>(self, work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
        let (error, is_lost) = match timeout(self.limit, work).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => {
                let is_lost = matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_));
                (refused(error), is_lost)
            }
            Err(_) => {
                let sentence =
                    "Postgres did not answer in time: see whether it runs, and what it waits for";
                (unavailable(sentence), true)
            }
        };
        Err(match error {
            StoreError::Unavailable(sentence) if is_lost && self.may_be_done => {
                StoreError::Unknown(sentence)
            }
            error => error,
        })
    }
}
