//! The file and the connections to it: one that writes, a few that read.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rustix::fs::Access;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Sqlite, SqlitePool, Transaction};

use super::error::{is_busy, refused};
use crate::store::{Changes, PoolUse, Result, StoreError};

/// How long a statement waits for another program that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call waits for a connection. The callers shed load long before.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Readers that may work at once; each is opened when it is first needed.
const READERS_MAX: u32 = 3;

/// Tries to put a new file into WAL mode while another program does the same:
/// for that lock alone SQLite does not wait.
const OPEN_TRIES: u32 = 100;
const OPEN_RETRY: Duration = Duration::from_millis(20);

/// How often a watcher looks for other programs' commits, and how many times
/// before it says that there were none.
const WATCH_PERIOD: Duration = Duration::from_millis(500);
const WATCH_LOOKS: u32 = 2;

/// Pages of the file that the writer keeps in memory, in KiB (SQLite wants it
/// negative). All indexes of a busy queue fit.
const WRITER_CACHE: &str = "-16384";

/// Pages in the WAL before they are folded into the file: a page that many
/// commits touch is written there once.
const CHECKPOINT_PAGES: &str = "8000";

/// Bytes that the WAL's file keeps once it has been folded in and nobody reads
/// in it: a reader that stays for long makes it grow, and it would stay so.
pub(super) const WAL_KEPT_BYTES: &str = "67108864";

/// Begins a transaction whose commit waits until the disk has it. What a commit
/// waits for is set with each: nothing has to remember what the one before set.
const BEGIN: &str = "pragma synchronous = full; begin immediate";

/// Begins one whose commit waits only until the operating system has it; the disk
/// has it with the next commit that waits for the disk, or sooner. Only a crash of
/// the machine can lose it, and everything after it is lost then too.
const BEGIN_RELAXED: &str = "pragma synchronous = normal; begin immediate";

/// A transaction that holds the file's write lock from its start.
pub(super) type Tx = Transaction<'static, Sqlite>;

/// The connections to one file.
pub(super) struct Db {
    writer: SqlitePool,
    reader: SqlitePool,
    path: PathBuf,
    /// Device and number of the file that was opened.
    opened: (u64, u64),
    /// The writer's `data_version` when its commits by others were last told.
    data_version: AtomicI64,
}

impl Db {
    /// Opens the file; makes it, and its folder, if they are missing.
    pub(super) async fn open(path: &Path) -> Result<Self> {
        prepare(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
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
        let db =
            Self { writer, reader, path: path.to_owned(), opened, data_version: AtomicI64::new(0) };
        db.data_version.store(db.read_data_version().await?, Ordering::Relaxed);
        Ok(db)
    }

    /// For statements that only read.
    pub(super) fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    /// Takes the file's write lock. Dropping the transaction rolls it back.
    pub(super) async fn begin(&self) -> Result<Tx> {
        self.writer.begin_with(BEGIN).await.map_err(refused)
    }

    /// As [`Self::begin`], for what may be done again after a crash of the
    /// machine: the commit does not wait for the disk.
    pub(super) async fn begin_relaxed(&self) -> Result<Tx> {
        self.writer.begin_with(BEGIN_RELAXED).await.map_err(refused)
    }

    /// Whether another connection has committed since the last call; waits
    /// about a second for one that does.
    pub(super) async fn changes(&self) -> Result<Changes> {
        for look in 0..=WATCH_LOOKS {
            if look > 0 {
                tokio::time::sleep(WATCH_PERIOD).await;
            }
            let version = self.read_data_version().await?;
            if self.data_version.swap(version, Ordering::Relaxed) != version {
                return Ok(Changes::Unknown);
            }
        }
        Ok(Changes::None)
    }

    /// One look at the file, which must still be the one that was opened: what
    /// is written to one that was removed or replaced is gone at the end.
    pub(super) async fn ping(&self) -> Result<()> {
        if identity(&self.path).ok() != Some(self.opened) {
            return Err(StoreError::Unavailable(format!(
                "{} was removed or replaced while the broker runs: start the broker again with \
                 the file that is wanted",
                self.path.display()
            )));
        }
        sqlx::query("select 1 from sqlite_schema limit 1")
            .fetch_optional(&self.reader)
            .await
            .map_err(refused)?;
        Ok(())
    }

    /// Bytes of the file's free pages: they are written again before it grows.
    pub(super) async fn free_inside(&self) -> Result<u64> {
        let bytes: i64 = sqlx::query_scalar(
            "select freelist_count * page_size from pragma_freelist_count, pragma_page_size",
        )
        .fetch_one(&self.reader)
        .await
        .map_err(refused)?;
        Ok(bytes.unsigned_abs())
    }

    /// The writer counts as one of them.
    pub(super) fn pool(&self) -> PoolUse {
        let busy = |pool: &SqlitePool| pool.size().saturating_sub(idle_of(pool));
        PoolUse { in_use: busy(&self.writer) + busy(&self.reader), max: READERS_MAX + 1 }
    }

    /// Ends every connection. The writer is last: whoever closes the file last
    /// folds the WAL into it.
    pub(super) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// Changes whenever anyone but the writer itself commits.
    async fn read_data_version(&self) -> Result<i64> {
        sqlx::query_scalar("pragma data_version").fetch_one(&self.writer).await.map_err(refused)
    }
}

fn pool() -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .acquire_timeout(ACQUIRE_TIMEOUT)
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

/// Connections of a pool that nobody uses.
fn idle_of(pool: &SqlitePool) -> u32 {
    u32::try_from(pool.num_idle()).unwrap_or(u32::MAX)
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

/// Makes the file with mode 0600, so that nobody else can read the keys in it;
/// SQLite gives its side files the same mode.
fn prepare(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
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
