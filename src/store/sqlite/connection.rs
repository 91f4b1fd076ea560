//! The file and the connections to it: one that writes, a few that read.

use std::fmt;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rustix::fs::Access;
use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection, Sqlite, SqlitePool, Transaction};
use tracing::log::LevelFilter;

use super::error::{is_busy, refused};
use crate::store::{Result, StoreError};

/// How long a statement waits for another program that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call waits for a connection. The callers shed load long before.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Readers that may work at once; each is opened when it is first needed.
pub(in crate::store) const READERS_MAX: u32 = 3;

/// Tries to put a new file into WAL mode while another program does the same:
/// for that lock alone SQLite does not wait.
const OPEN_TRIES: u32 = 100;
const OPEN_RETRY: Duration = Duration::from_millis(20);

/// Pages of the file that the writer keeps in memory, in KiB (SQLite wants it
/// negative). All indexes of a busy queue fit.
const WRITER_CACHE: &str = "-16384";

/// Pages in the WAL before they are folded into the file: a page that many
/// commits touch is written there once.
const CHECKPOINT_PAGES: &str = "8000";

/// Bytes that the WAL's file keeps once it has been folded in and nobody reads
/// in it: a reader that stays for long makes it grow, and it would stay so.
pub(in crate::store) const WAL_KEPT_BYTES: &str = "67108864";

/// Begins a transaction whose commit waits until the disk has it. What a commit
/// waits for is set with each: nothing has to remember what the one before set.
const BEGIN: &str = "pragma synchronous = full; begin immediate";

/// Begins one whose commit waits only until the operating system has it; the disk
/// has it with the next commit that waits for the disk, or sooner. Only a crash of
/// the machine can lose it, and everything after it is lost then too.
const BEGIN_RELAXED: &str = "pragma synchronous = normal; begin immediate";

/// A transaction that holds the file's write lock from its start.
pub(in crate::store) type Tx = Transaction<'static, Sqlite>;

/// A statement and its parameters.
pub(in crate::store) type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// One statement of a transaction; says how many rows it touched.
pub(in crate::store) async fn execute(tx: &mut Tx, query: Statement<'_>) -> Result<u64> {
    let done = query.execute(&mut **tx).await.map_err(refused)?;
    Ok(done.rows_affected())
}

/// As [`execute`], for one that returns a row or none.
pub(in crate::store) async fn fetch_optional(
    tx: &mut Tx,
    query: Statement<'_>,
) -> Result<Option<SqliteRow>> {
    query.fetch_optional(&mut **tx).await.map_err(refused)
}

/// A store in one file: the connections to it.
pub struct SqliteStore {
    pub(in crate::store) writer: SqlitePool,
    pub(in crate::store) reader: SqlitePool,
    pub(in crate::store) path: PathBuf,
    /// Device and number of the file that was opened.
    opened: (u64, u64),
    /// The writer's `data_version` when its commits by others were last told.
    data_version: AtomicI64,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
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
        prepare(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            // The store's own times are measured, and a command's errors are its own.
            .log_statements(LevelFilter::Off)
            .log_slow_statements(LevelFilter::Off, Duration::ZERO)
            .thread_name(|n| format!("sqlite-{n}"));
        let writing = options
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("cache_size", WRITER_CACHE)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .pragma("journal_size_limit", WAL_KEPT_BYTES);
        let writer = open_writer(writing).await.map_err(|error| at_path(path, error))?;
        let reader = pool().max_connections(READERS_MAX).connect_lazy_with(
            // Not `read_only`: that cannot open a WAL that nobody has open.
            options.pragma("query_only", "on"),
        );
        let opened = identity(path)?;
        let store =
            Self { writer, reader, path: path.to_owned(), opened, data_version: AtomicI64::new(0) };
        store.data_version.store(store.read_data_version().await?, Ordering::Relaxed);
        Ok(store)
    }

    /// For statements that only read.
    pub(in crate::store) fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    /// Takes the file's write lock. Dropping the transaction rolls it back.
    pub(in crate::store) async fn begin(&self) -> Result<Tx> {
        self.writer.begin_with(BEGIN).await.map_err(refused)
    }

    /// As [`Self::begin`], for what may be done again after a crash of the
    /// machine: the commit does not wait for the disk.
    pub(in crate::store) async fn begin_relaxed(&self) -> Result<Tx> {
        self.writer.begin_with(BEGIN_RELAXED).await.map_err(refused)
    }

    /// What a statement reads, a record for each row.
    pub(in crate::store) async fn records<T, C: FromIterator<T>>(
        &self,
        query: Statement<'_>,
        read: impl Fn(&SqliteRow) -> Result<T> + Send,
    ) -> Result<C> {
        let rows = query.fetch_all(self.reader()).await.map_err(refused)?;
        rows.iter().map(read).collect()
    }

    /// What a statement reads, if it finds a row.
    pub(in crate::store) async fn record<T>(
        &self,
        query: Statement<'_>,
        read: impl Fn(&SqliteRow) -> Result<T> + Send,
    ) -> Result<Option<T>> {
        let row = query.fetch_optional(self.reader()).await.map_err(refused)?;
        row.as_ref().map(read).transpose()
    }

    /// A transaction of one statement; says how many rows it touched.
    pub(in crate::store) async fn write(&self, query: Statement<'_>) -> Result<u64> {
        let mut tx = self.begin().await?;
        let touched = execute(&mut tx, query).await?;
        tx.commit().await.map_err(refused)?;
        Ok(touched)
    }

    /// Whether another connection has committed since the last call.
    pub(in crate::store) async fn has_news(&self) -> Result<bool> {
        let version = self.read_data_version().await?;
        Ok(self.data_version.swap(version, Ordering::Relaxed) != version)
    }

    /// Whether the path still names the file that was opened.
    pub(in crate::store) fn is_in_place(&self) -> bool {
        identity(&self.path).ok() == Some(self.opened)
    }

    /// Changes whenever anyone but the writer itself commits.
    async fn read_data_version(&self) -> Result<i64> {
        sqlx::query_scalar("pragma data_version").fetch_one(&self.writer).await.map_err(refused)
    }
}

fn pool() -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .acquire_slow_level(LevelFilter::Off)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // SQLite ends a transaction by itself on some errors (disk full), and
        // the driver then goes on believing in it: such a connection is
        // replaced.
        .before_acquire(|connection, _| {
            let usable = !connection.is_in_transaction();
            Box::pin(async move { Ok(usable) })
        })
}

async fn open_writer(options: SqliteConnectOptions) -> sqlx::Result<SqlitePool> {
    let mut tries = 0;
    loop {
        tries += 1;
        match pool().max_connections(1).connect_with(options.clone()).await {
            Err(error) if is_busy(&error) && tries < OPEN_TRIES => {
                tokio::time::sleep(OPEN_RETRY).await;
            }
            result => return result,
        }
    }
}

/// The folder that a file is in.
pub(in crate::store) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes the file with mode 0600, so that nobody else can read the keys in it;
/// SQLite gives its side files the same mode.
fn prepare(path: &Path) -> Result<()> {
    let folder = folder_of(path);
    let cannot = |what: &str, error: std::io::Error| {
        StoreError::Unavailable(format!("cannot {what}: {error}"))
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| cannot(&format!("create the folder {}", folder.display()), error))?;
    // An existing file is left alone: closing a descriptor of it would drop
    // the locks that another store of this process holds.
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(cannot(&format!("create {}", path.display()), error));
        }
        _ => {}
    }
    for written in [path, folder] {
        rustix::fs::access(written, Access::READ_OK | Access::WRITE_OK).map_err(|error| {
            cannot(&format!("read and write {}", written.display()), error.into())
        })?;
    }
    Ok(())
}

/// Device and number of the file that has this name now.
fn identity(path: &Path) -> Result<(u64, u64)> {
    let found = fs::metadata(path).map_err(|error| {
        StoreError::Unavailable(format!("cannot find {}: {error}", path.display()))
    })?;
    Ok((found.dev(), found.ino()))
}

fn at_path(path: &Path, error: sqlx::Error) -> StoreError {
    let path = path.display();
    match refused(error) {
        StoreError::Unavailable(why) => StoreError::Unavailable(format!("{path}: {why}")),
        StoreError::Broken(why) => StoreError::Broken(format!("{path}: {why}")),
        other => other,
    }
}
