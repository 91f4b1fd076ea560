//! Rows to records, and records to the one JSON parameter of a set-based
//! statement.

use serde::Serialize;
use sqlx::sqlite::SqliteRow;

use super::error::refused;
use crate::clock::Timestamp;
use crate::store::columns::columns_of;

columns_of!(SqliteRow, refused, i64 => Timestamp::from_ms);

/// A JSON text to store, or the parameter that a statement reads with
/// `json_each`.
pub(in crate::store) fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("records of text, numbers and string-keyed maps")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use sqlx::Connection as _;

    use crate::store::columns::Columns as _;
    use crate::store::{Member, Role};

    #[tokio::test]
    async fn a_row_of_another_program_is_read_leniently_where_it_only_describes() {
        let mut file = sqlx::SqliteConnection::connect("sqlite::memory:").await.expect("memory");
        let row = sqlx::query(
            "select 'm' as id, 'k' as peer_pubkey, 'ada' as display_name, 'admin' as role,
                true as is_owner, null as role_tag, null as default_groups,
                null as message_mode, 'no JSON' as peer_grants, 1 as joined_at, 0 as opens_sealed,
                null as revoked_at, 'no JSON' as decides, 'chief' as word",
        )
        .fetch_one(&mut file)
        .await
        .expect("a row");
        let member = Member::read(&row).expect("readable");
        assert!(member.default_groups.is_empty() && member.grants.is_empty());
        assert_eq!(member.message_mode, "push");
        assert_eq!(member.revoked_at, None);
        for refused in [
            row.json::<Value>("decides").map(|_| ()),
            row.word("word", Role::parse).map(|_| ()),
            row.text("role_tag").map(|_| ()),
        ] {
            let error = refused.expect_err("it decides something");
            assert!(!error.is_retryable() && error.to_string().contains("column"), "{error}");
        }
    }
}
