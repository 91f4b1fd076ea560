//! One way to read a row of either database. What a row means is written once for
//! each record, beside the record, so the two stores cannot differ on it.
//!
//! Columns of lists, of JSON and of closed words are selected as text.

use serde::de::DeserializeOwned;

use crate::clock::Timestamp;
use crate::store::{Result, StoreError};

/// A row, by the names of its columns.
pub(in crate::store) trait Columns {
    /// A text that may be missing.
    fn optional_str(&self, column: &str) -> Result<Option<&str>>;
    /// A number that may be missing.
    fn optional_int(&self, column: &str) -> Result<Option<i64>>;
    /// A number of a narrow column, which Postgres does not widen.
    fn optional_short(&self, column: &str) -> Result<Option<i32>>;
    /// A truth that may be missing.
    fn optional_flag(&self, column: &str) -> Result<Option<bool>>;
    /// Bytes that may be missing.
    fn optional_bytes(&self, column: &str) -> Result<Option<Vec<u8>>>;
    /// An instant that may be missing.
    fn optional_time(&self, column: &str) -> Result<Option<Timestamp>>;

    /// A text, borrowed from the row.
    fn str(&self, column: &str) -> Result<&str> {
        there(self.optional_str(column), column)
    }

    fn text(&self, column: &str) -> Result<String> {
        self.str(column).map(str::to_owned)
    }

    /// A text that may be missing.
    fn optional_text(&self, column: &str) -> Result<Option<String>> {
        Ok(self.optional_str(column)?.map(str::to_owned))
    }

    /// An id or a key.
    fn id<T: for<'a> From<&'a str>>(&self, column: &str) -> Result<T> {
        self.str(column).map(T::from)
    }

    /// An id or a key that may be missing.
    fn optional_id<T: for<'a> From<&'a str>>(&self, column: &str) -> Result<Option<T>> {
        Ok(self.optional_str(column)?.map(T::from))
    }

    /// A number.
    fn int(&self, column: &str) -> Result<i64> {
        there(self.optional_int(column), column)
    }

    /// A number of a narrow column.
    fn short(&self, column: &str) -> Result<i32> {
        there(self.optional_short(column), column)
    }

    /// A truth.
    fn flag(&self, column: &str) -> Result<bool> {
        there(self.optional_flag(column), column)
    }

    fn bytes(&self, column: &str) -> Result<Vec<u8>> {
        there(self.optional_bytes(column), column)
    }

    /// An instant.
    fn time(&self, column: &str) -> Result<Timestamp> {
        there(self.optional_time(column), column)
    }

    /// A word of a closed list.
    fn word<T>(&self, column: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T> {
        parse(self.str(column)?).ok_or_else(|| unreadable(column))
    }

    /// JSON that decides something: it is right or the call fails.
    fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T> {
        serde_json::from_str(self.str(column)?).map_err(|_| unreadable(column))
    }

    /// JSON that only describes: what is missing or cannot be read counts as not said.
    fn described<T: DeserializeOwned + Default>(&self, column: &str) -> Result<T> {
        let text = self.optional_str(column)?;
        Ok(text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
    }
}

/// Reads the rows of a driver, each of which keeps instants in its own way.
macro_rules! columns_of {
    ($row:ty, $refused:path, $instant:ty => $time:path) => {
        impl $crate::store::columns::Columns for $row {
            columns_of!(@get $refused, optional_str: &str);
            columns_of!(@get $refused, optional_int: i64);
            columns_of!(@get $refused, optional_short: i32);
            columns_of!(@get $refused, optional_flag: bool);
            columns_of!(@get $refused, optional_bytes: Vec<u8>);

            fn optional_time(&self, column: &str) -> $crate::store::Result<Option<Timestamp>> {
                let time: Option<$instant> =
                    sqlx::Row::try_get(self, column).map_err($refused)?;
                Ok(time.map($time))
            }
        }
    };
    (@get $refused:path, $name:ident: $value:ty) => {
        fn $name(&self, column: &str) -> $crate::store::Result<Option<$value>> {
            sqlx::Row::try_get(self, column).map_err($refused)
        }
    };
}
pub(in crate::store) use columns_of;

/// A column that holds what it must not.
pub(in crate::store) fn unreadable(column: &str) -> StoreError {
    StoreError::Broken(format!("column `{column}` holds what this release cannot read"))
}

fn there<T>(value: Result<Option<T>>, column: &str) -> Result<T> {
    value?.ok_or_else(|| unreadable(column))
}
