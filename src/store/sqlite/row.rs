//! Rows to records, and records to the one JSON parameter of a set-based
//! statement.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};

use super::error::{refused, unreadable};
use crate::clock::Timestamp;
use crate::store::Result;

/// A column as it is.
pub(in crate::store) fn get<'r, T>(row: &'r SqliteRow, column: &str) -> Result<T>
where
    T: Decode<'r, Sqlite> + Type<Sqlite>,
{
    row.try_get(column).map_err(refused)
}

/// An id.
pub(in crate::store) fn id<T>(row: &SqliteRow, column: &str) -> Result<T>
where
    T: for<'a> From<&'a str>,
{
    get::<&str>(row, column).map(T::from)
}

/// An id that may be missing.
pub(in crate::store) fn optional_id<T>(row: &SqliteRow, column: &str) -> Result<Option<T>>
where
    T: for<'a> From<&'a str>,
{
    Ok(get::<Option<&str>>(row, column)?.map(T::from))
}

/// An instant.
pub(in crate::store) fn time(row: &SqliteRow, column: &str) -> Result<Timestamp> {
    get(row, column).map(Timestamp::from_ms)
}

/// An instant that may be missing.
pub(in crate::store) fn optional_time(row: &SqliteRow, column: &str) -> Result<Option<Timestamp>> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp::from_ms))
}

/// A word of a closed list.
pub(in crate::store) fn word<T>(
    row: &SqliteRow,
    column: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T> {
    parse(get(row, column)?).ok_or_else(|| unreadable(column))
}

/// JSON that decides something: it is right or the call fails.
pub(in crate::store) fn json<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T> {
    serde_json::from_str(get(row, column)?).map_err(|_| unreadable(column))
}

/// JSON that only describes: what cannot be read counts as not said.
pub(in crate::store) fn described<T: DeserializeOwned + Default>(
    row: &SqliteRow,
    column: &str,
) -> Result<T> {
    Ok(serde_json::from_str(get(row, column)?).unwrap_or_default())
}

/// A JSON text to store, or the parameter that a statement reads with
/// `json_each`.
pub(in crate::store) fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("records of text, numbers and string-keyed maps")
}
