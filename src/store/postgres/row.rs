//! Rows to records, and records to parameters.

use std::borrow::Cow;

use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::types::chrono::NaiveDateTime;

use super::error::refused;
use crate::clock::Timestamp;
use crate::store::columns::columns_of;

columns_of!(PgRow, refused, NaiveDateTime => Timestamp::from_naive);

/// A JSON text to store.
pub(in crate::store) fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    let text =
        serde_json::to_string(value).expect("records of text, numbers and string-keyed maps");
    clean_json(&text).into_owned()
}

/// Text that Postgres can hold: it knows no NUL. A peer may send one, and must
/// not make the batch fail that it is in.
pub(in crate::store) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// As [`clean`], for a text that may be missing.
pub(in crate::store) fn clean_optional(text: Option<&str>) -> Option<Cow<'_, str>> {
    text.map(clean)
}

/// As [`clean`], inside of JSON text, where a NUL is written `\u0000`.
pub(in crate::store) fn clean_json(json: &str) -> Cow<'_, str> {
    if !json.contains("\\u0000") {
        return json.into();
    }
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("\\u0000") {
            out.push('\u{fffd}');
            rest = after;
        } else {
            // An escape is a backslash and at least one ASCII character.
            let (escape, after) = rest.split_at(2);
            out.push_str(escape);
            rest = after;
        }
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_escaped_backslash_is_no_nul() {
        assert_eq!(clean_json(r#"["\\u0000"]"#), r#"["\\u0000"]"#);
        assert_eq!(clean_json(r#"["\\\u0000\n"]"#), "[\"\\\\\u{fffd}\\n\"]");
    }

    proptest! {
        #[test]
        fn json_keeps_all_but_nul(text in "[a\\\\\u{0}\"\nu0é]{0,12}") {
            let cleaned = to_json(&json!({"k": &text}));
            let back: Value = serde_json::from_str(&cleaned).expect("still JSON");
            prop_assert_eq!(back["k"].as_str(), Some(&*clean(&text)));
        }
    }
}
