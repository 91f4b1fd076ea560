//! The spool's file: how it is opened, by several programs at once, and what is in it.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, SqlitePool};
use tracing::log::LevelFilter;

use crate::private;

/// How long a statement waits for the other program that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Tries to open a new file while another program does the same: for that lock alone
/// SQLite does not wait.
const OPEN_TRIES: u32 = 100;
const OPEN_RETRY: Duration = Duration::from_millis(10);

/// The version of what [`SCHEMA`] makes.
const VERSION: i64 = 1;

/// A message's number is the order in which it came. A way is a bit: `offered_to` is the
/// one that was offered it last, `tried` has all that ever were. The one row of `turn` is what hooks tell the session's process.
const SCHEMA: &str = "
    begin immediate;
    create table if not exists message (
        id integer primary key autoincrement,
        identity text not null unique,
        message_id text not null unique,
        priority integer not null,
        content text not null,
        bytes integer not null,
        expects_reply integer not null,
        to_many integer not null default 0,
        received_at integer not null,
        expires_at integer,
        state text not null default 'stored'
            check (state in ('stored', 'offered', 'seen', 'expired', 'withdrawn')),
        offered_to integer not null default 0,
        offered_until integer not null default 0,
        tried integer not null default 0,
        seen_at integer,
        seen_by text,
        told_at integer,
        answered_at integer
    ) strict;
    create index if not exists message_waiting on message (priority, id)
        where state in ('stored', 'offered');
    create index if not exists message_untold on message (id)
        where state = 'seen' and told_at is null;
    create index if not exists message_to_many on message (id)
        where to_many = 1 and state in ('stored', 'offered');
    create table if not exists turn (
        id integer primary key check (id = 1),
        status text not null default 'idle',
        status_at integer not null default 0,
        prompt text,
        continuations integer not null default 0,
        rung_at integer not null default 0,
        progress_at integer not null default 0,
        waiter text
    ) strict;
    insert or ignore into turn (id) values (1);
    pragma user_version = 1;
    commit";

/// Opens the file; makes it, and its folder, for this user alone if they are missing.
pub(super) async fn open(path: &Path) -> anyhow::Result<SqlitePool> {
    private::make_file(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .journal_mode(SqliteJournalMode::Wal)
        // A crash of the machine may lose what was written last: the broker sends again
        // what was not confirmed, and a model forgets with its machine.
        .synchronous(SqliteSynchronous::Normal)
        .log_statements(LevelFilter::Off)
        .log_slow_statements(LevelFilter::Off, Duration::ZERO);
    let mut tries = 0;
    let pool = loop {
        tries += 1;
        // One connection: every change is one statement, and they do not wait long.
        match SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await {
            Ok(pool) => break pool,
            Err(error) if is_busy(&error) && tries < OPEN_TRIES => {
                tokio::time::sleep(OPEN_RETRY).await;
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot open {}", path.display()));
            }
        }
    };
    prepare(&pool).await.with_context(|| format!("cannot use {}", path.display()))?;
    Ok(pool)
}

async fn prepare(pool: &SqlitePool) -> anyhow::Result<()> {
    let version: i64 = sqlx::query_scalar("pragma user_version").fetch_one(pool).await?;
    if version == 0 {
        sqlx::raw_sql(SCHEMA).execute(pool).await?;
    } else if version > VERSION {
        anyhow::bail!("a newer release of this program wrote it (version {version})");
    }
    Ok(())
}

fn is_busy(error: &sqlx::Error) -> bool {
    // SQLITE_BUSY and SQLITE_LOCKED, without what the upper bits say of them.
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}
