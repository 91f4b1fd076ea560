//! A connection to Redis that comes back by itself.
//!
//! A [`Link`] answers at once when it is down, so that a node without Redis
//! does not wait for every call. It counts as down from the first call that
//! times out or fails on the transport until a new connection has loaded the
//! scripts.
//!
//! When another connection of this node had to be given up, a link opens a new
//! one too (see [`Moves`]), and serves by the old one until it is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::connection::{
    CALL_TIMEOUT, CONCURRENT_BATCH_MAX, CONCURRENT_CALLS_MAX, Connection, Opener, timed_out,
};
use super::moves::Moves;
use super::scripts;

/// The first pause between attempts, doubled by each that fails.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// The longest pause between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A connection that lived this long was not refused on sight: the next attempts
/// start with short pauses again.
pub(super) const STEADY_AFTER: Duration = Duration::from_secs(10);

/// A connection that is replaced when it fails.
pub(super) struct Link {
    opener: Arc<Opener>,
    moves: Arc<Moves>,
    purpose: &'static str,
    current: Mutex<Option<(u64, Connection)>>,
    failed: Notify,
    turns: Semaphore,
    /// The last call that got an answer got a good one.
    answers: AtomicBool,
    /// No write was refused since one was taken that is there to try it.
    takes_writes: AtomicBool,
}

impl Link {
    pub(super) fn new(opener: Arc<Opener>, moves: Arc<Moves>, purpose: &'static str) -> Self {
        Self {
            opener,
            moves,
            purpose,
            current: Mutex::new(None),
            failed: Notify::new(),
            turns: Semaphore::new(CONCURRENT_CALLS_MAX),
            answers: AtomicBool::new(true),
            takes_writes: AtomicBool::new(true),
        }
    }

    /// Whether there is a connection, and it does what it is asked.
    pub(super) fn is_up(&self) -> bool {
        self.answers.load(Ordering::Relaxed) && self.takes_writes() && self.is_connected()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.current.lock().is_some()
    }

    pub(super) fn takes_writes(&self) -> bool {
        self.takes_writes.load(Ordering::Relaxed)
    }

    /// A write that was to be tried was taken.
    pub(super) fn note_write(&self) {
        self.takes_writes.store(true, Ordering::Relaxed);
    }

    /// Keeps a connection open until `stop`; `on_up` is told of each new one.
    pub(super) async fn run(&self, stop: CancellationToken, on_up: impl Fn()) {
        let mut backoff = Backoff::default();
        for generation in 1.. {
            let seen = self.moves.now();
            let connection = tokio::select! {
                () = stop.cancelled() => return,
                connection = self.connect() => connection,
            };
            match connection {
                Ok(connection) => {
                    tracing::info!(purpose = self.purpose, "connected to Redis");
                    let opened = Instant::now();
                    *self.current.lock() = Some((generation, connection));
                    self.answers.store(true, Ordering::Relaxed);
                    on_up();
                    tokio::select! {
                        () = stop.cancelled() => *self.current.lock() = None,
                        () = self.until_failed(generation) => self.moves.note(seen),
                        () = self.moves.after(seen) => {
                            tracing::info!(purpose = self.purpose, "another connection is opened");
                        }
                    }
                    if opened.elapsed() >= STEADY_AFTER {
                        backoff = Backoff::default();
                    }
                }
                Err(error) if backoff.is_fresh() => {
                    tracing::warn!(%error, purpose = self.purpose, "Redis cannot be reached");
                }
                Err(error) => {
                    tracing::debug!(%error, purpose = self.purpose, "Redis cannot be reached yet");
                }
            }
            if stop.is_cancelled() {
                *self.current.lock() = None;
                return;
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// Runs one command.
    pub(super) async fn query<T: FromRedisValue>(&self, cmd: &Cmd) -> RedisResult<T> {
        let (generation, mut connection) = self.connection()?;
        let mut answer = self.limited(generation, cmd.query_async(&mut connection)).await;
        if answer.as_ref().is_err_and(is_no_script) {
            self.limited(generation, load_scripts(&mut connection)).await?;
            answer = self.limited(generation, cmd.query_async(&mut connection)).await;
        }
        answer
    }

    /// Runs commands that do not depend on each other, in one round trip where
    /// the deployment allows it; the answers are in their order.
    pub(super) async fn query_all<T>(&self, cmds: Vec<Cmd>) -> RedisResult<Vec<T>>
    where
        T: FromRedisValue + Send,
    {
        if cmds.is_empty() {
            return Ok(Vec::new());
        }
        let (generation, mut connection) = self.connection()?;
        if matches!(connection, Connection::Sharded(_)) {
            return stream::iter(cmds)
                .map(|cmd| async move { self.query(&cmd).await })
                .buffered(CONCURRENT_BATCH_MAX)
                .try_collect()
                .await;
        }
        let mut pipeline = Pipeline::with_capacity(cmds.len());
        for cmd in cmds {
            pipeline.add_command(cmd);
        }
        let mut answer = self.limited(generation, pipeline.query_async(&mut connection)).await;
        if answer.as_ref().is_err_and(is_no_script) {
            self.limited(generation, load_scripts(&mut connection)).await?;
            answer = self.limited(generation, pipeline.query_async(&mut connection)).await;
        }
        answer
    }

    /// The open connection with its generation.
    pub(super) fn connection(&self) -> RedisResult<(u64, Connection)> {
        self.current.lock().clone().ok_or_else(not_connected)
    }

    /// Notes that a call on that connection failed so; replaces the connection
    /// if a call on it cannot succeed.
    pub(super) fn note_failure(&self, generation: u64, error: &RedisError) {
        if refuses_writes(error) {
            self.takes_writes.store(false, Ordering::Relaxed);
        }
        let had_answers = self.answers.swap(false, Ordering::Relaxed);
        if had_answers && !needs_another_connection(error) {
            tracing::warn!(%error, purpose = self.purpose, "Redis refuses what it is asked");
        }
        if needs_another_connection(error) {
            let mut current = self.current.lock();
            if current.as_ref().is_some_and(|(live, _)| *live == generation) {
                tracing::warn!(%error, purpose = self.purpose, "the connection to Redis failed");
                *current = None;
                self.failed.notify_one();
            }
        }
    }

    async fn connect(&self) -> RedisResult<Connection> {
        let mut connection = self.opener.open().await?;
        let loading = load_scripts(&mut connection);
        tokio::time::timeout(CALL_TIMEOUT, loading).await.unwrap_or_else(|_| Err(timed_out()))?;
        Ok(connection)
    }

    async fn until_failed(&self, generation: u64) {
        while self.current.lock().as_ref().is_some_and(|(live, _)| *live == generation) {
            self.failed.notified().await;
        }
    }

    async fn limited<T>(
        &self,
        generation: u64,
        call: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        let in_turn = async {
            let _turn = self.turns.acquire().await;
            call.await
        };
        let answer = tokio::time::timeout(CALL_TIMEOUT, in_turn).await;
        let answer = answer.unwrap_or_else(|_| Err(timed_out()));
        match &answer {
            Ok(_) => self.answers.store(true, Ordering::Relaxed),
            Err(error) if is_no_script(error) => {}
            Err(error) => self.note_failure(generation, error),
        }
        answer
    }
}

/// Pauses between attempts: doubled up to a bound, and never two nodes in step.
#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(super) fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(rand::random_range(0.5..=1.0))
    }
}

/// In one round trip, or on every server of a Redis Cluster.
pub(super) async fn load_scripts(connection: &mut Connection) -> RedisResult<()> {
    let loads = scripts::load_commands();
    if matches!(connection, Connection::Sharded(_)) {
        for load in loads {
            load.query_async::<Value>(connection).await?;
        }
        return Ok(());
    }
    let mut pipeline = Pipeline::new();
    for load in loads {
        pipeline.add_command(load).ignore();
    }
    pipeline.query_async(connection).await
}

fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ServerErrorKind::NoScript.into() || error.code() == Some("NOSCRIPT")
}

/// The transport is broken, or this server does not take writes any more: after
/// a failover the name may lead elsewhere.
fn needs_another_connection(error: &RedisError) -> bool {
    error.is_timeout()
        || error.is_io_error()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || matches!(error.code(), Some("READONLY" | "MASTERDOWN" | "LOADING" | "UNBLOCKED"))
}

/// This server reads and writes nothing, or not for this user. Reads go on to
/// succeed, and say nothing about it.
fn refuses_writes(error: &RedisError) -> bool {
    let code = error.code();
    matches!(code, Some("MISCONF" | "OOM" | "NOREPLICAS" | "READONLY" | "NOPERM" | "CLUSTERDOWN"))
}

fn not_connected() -> RedisError {
    RedisError::from(std::io::Error::new(std::io::ErrorKind::NotConnected, "not connected"))
}
