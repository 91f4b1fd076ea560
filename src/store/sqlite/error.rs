//! What SQLite and the driver answer, as the store's errors. No value that a
//! statement was given ever gets into a sentence.

use sqlx::error::DatabaseError;

use crate::store::StoreError;

// https://www.sqlite.org/rescode.html
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const CONSTRAINT: i32 = 19;
const NOTADB: i32 = 26;

const CONSTRAINT_FOREIGNKEY: i32 = CONSTRAINT | (3 << 8);
const CONSTRAINT_PRIMARYKEY: i32 = CONSTRAINT | (6 << 8);
const CONSTRAINT_UNIQUE: i32 = CONSTRAINT | (8 << 8);

/// A statement that did not work.
pub(in crate::store) fn refused(error: sqlx::Error) -> StoreError {
    use sqlx::Error;
    let unavailable = |sentence: &str| StoreError::Unavailable(sentence.to_owned());
    match error {
        Error::Database(error) => by_code(error.as_ref()),
        Error::PoolTimedOut => unavailable("every connection is in use"),
        Error::PoolClosed | Error::WorkerCrashed => unavailable("the store is closed"),
        Error::Io(error) => StoreError::Unavailable(error.kind().to_string()),
        Error::BeginFailed | Error::InvalidSavePointStatement => {
            unavailable("the connection is inside another transaction")
        }
        // The cause may quote the value.
        Error::ColumnDecode { index, .. } => unreadable(&index),
        Error::ColumnNotFound(column) => unreadable(&column),
        Error::RowNotFound => StoreError::NotFound("there is no such row".to_owned()),
        _ => StoreError::Broken("the driver failed".to_owned()),
    }
}

/// Whether another program holds the file and the call may be tried again.
pub(in crate::store) fn is_busy(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| matches!(extended_code(error) & 0xff, BUSY | LOCKED))
}

/// A column that holds what it must not.
pub(in crate::store) fn unreadable(column: &str) -> StoreError {
    StoreError::Broken(format!("column `{column}` holds what this release cannot read"))
}

fn by_code(error: &dyn DatabaseError) -> StoreError {
    let unavailable = |sentence: &str| StoreError::Unavailable(sentence.to_owned());
    let code = extended_code(error);
    match code {
        // SQLite names the columns here, not their values.
        CONSTRAINT_UNIQUE | CONSTRAINT_PRIMARYKEY => {
            return StoreError::Conflict(format!("already there: {}", error.message()));
        }
        CONSTRAINT_FOREIGNKEY => {
            return StoreError::NotFound("the mesh or the member does not exist".to_owned());
        }
        _ => {}
    }
    match code & 0xff {
        BUSY | LOCKED => unavailable("another program is writing to the database file"),
        READONLY => unavailable("the database file or its folder is read-only"),
        IOERR => StoreError::Unavailable(format!("reading or writing the file failed ({code})")),
        FULL => unavailable("the disk is full"),
        CANTOPEN => unavailable("the database file or its folder cannot be opened"),
        CORRUPT => StoreError::Broken("the database file is damaged: restore it".to_owned()),
        NOTADB => StoreError::Broken("the file is not a SQLite database".to_owned()),
        _ => StoreError::Broken(format!("{} ({code})", error.message())),
    }
}

fn extended_code(error: &dyn DatabaseError) -> i32 {
    error.code().and_then(|code| code.parse().ok()).unwrap_or_default()
}
