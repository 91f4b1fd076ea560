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

pub(super) mod chain;
pub(super) mod change;
mod claim;
pub(super) mod connection;
pub(super) mod error;
pub(super) mod migrations;
pub(super) mod row;
pub(super) mod rows;
#[cfg(test)]
mod tests;

pub use self::claim::Claim;
pub use self::connection::SqliteStore;
