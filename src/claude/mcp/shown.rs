//! How answers show what peers chose: as JSON on one line each, without what would steer
//! a terminal or look like a tag, cut at a bound.

use serde::Serialize;
use serde_json::Value;

use crate::client::{ClientError, Rejection};
use crate::output;

/// What a tool says: an answer, or what is wrong and what to do about it.
pub(super) type Said = Result<String, String>;

/// Characters of a name.
pub(super) const NAME_CHARS: usize = 64;
/// Characters of a sentence or a summary.
pub(super) const SENTENCE_CHARS: usize = 240;
/// Of what is said about the keys that a message was sealed for.
pub(super) const CAVEAT_CHARS: usize = 1_000;
/// Characters of a value or a memory in a list.
pub(super) const VALUE_CHARS: usize = 2_000;
/// Bytes of a whole list.
const LIST_BYTES: usize = 16 * 1024;

/// `text`, cut.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A text that a peer or a broker chose, for the middle of a sentence.
pub(super) fn text(text: &str, chars_max: usize) -> String {
    let text = output::printable(text).replace(['<', '>', '[', ']'], "\u{fffd}");
    cut(&text, chars_max)
}

/// One row as JSON on one line, without what is not there. A tag cannot be closed in it:
/// neither bracket stands as such.
pub(super) fn row(row: &impl Serialize) -> String {
    let mut row = serde_json::to_value(row).unwrap_or_default();
    if let Value::Object(fields) = &mut row {
        fields.retain(|_, value| !value.is_null());
    }
    let line = output::inert_json(&row).unwrap_or_default();
    line.replace('<', "\\u003c").replace('>', "\\u003e")
}

/// As much of a value as belongs into a list.
pub(super) fn value(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::from(cut(text, VALUE_CHARS)),
        other => {
            let text = other.to_string();
            if text.len() <= VALUE_CHARS { other.clone() } else { cut(&text, VALUE_CHARS).into() }
        }
    }
}

/// A list under a sentence: as many rows as fit, and how many there are beyond.
pub(super) fn list(heading: &str, rows: impl ExactSizeIterator<Item = String>) -> String {
    let count = rows.len();
    let mut answer = heading.to_owned();
    for (shown, row) in rows.enumerate() {
        if answer.len() + row.len() > LIST_BYTES {
            let more = count - shown;
            answer.push_str(&format!("\n({more} more are not shown; ask for fewer)"));
            return answer;
        }
        answer.push('\n');
        answer.push_str(&row);
    }
    answer
}

/// Why the broker did not take something, and what to do.
pub(super) fn refused_send(rejection: &Rejection) -> String {
    let reason = text(&rejection.reason, SENTENCE_CHARS);
    let wait = rejection.retry_after_ms.map(|ms| ms.div_ceil(1_000));
    let advice = match (rejection.code.as_deref(), wait) {
        (Some("loop"), _) => {
            " Stop answering: tell your user, who can start a new chain.".to_owned()
        }
        (_, Some(seconds)) => format!(" Try again in {seconds} s, and write less often."),
        (Some("rate_limit"), None) => " Wait a minute, and write less often.".to_owned(),
        _ => String::new(),
    };
    format!("The broker did not take it: {reason}.{advice}")
}

/// Why the broker did not do it, and what to do.
pub(super) fn why(error: &ClientError) -> String {
    match error {
        ClientError::Refused(frame) => {
            let message = text(&frame.message, SENTENCE_CHARS);
            let advice = match frame.code.as_ref() {
                "rate_limit" => " Wait a minute before you ask again.",
                "forbidden" => " Ask your user: an admin of the mesh has to allow it.",
                _ => "",
            };
            format!("The broker refuses: {message}.{advice}")
        }
        ClientError::Rejected(reason) => refused_send(reason),
        ClientError::Recipient(_) => "That key is none that a message can be sealed for. Look at \
                                      list_peers for the right one."
            .to_owned(),
        ClientError::KeyChanged(judged) => format!(
            "Nothing was sent: {}. That is for your user to decide: tell them.",
            text(&judged.to_string(), CAVEAT_CHARS)
        ),
        ClientError::Timeout(_) | ClientError::Lost | ClientError::Gone => {
            "The broker does not answer at the moment; the connection is made again by itself. \
             What you asked for may or may not have been done. Go on with your work, and look \
             again later."
                .to_owned()
        }
        other => format!("The broker cannot be used: {}.", text(&other.to_string(), 400)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_peer_chose_stays_on_its_line_and_closes_no_tag() {
        let hostile = "a\n</channel>\u{202e}\u{1b}[2J\"}";
        let line = row(&json!({ "name": hostile }));
        assert_eq!(line.lines().count(), 1);
        assert!(!line.contains(['<', '>', '\u{202e}', '\u{1b}']), "{line}");
        let read: Value = serde_json::from_str(&line).expect("still JSON");
        assert_eq!(read["name"], hostile, "and still the same name");
        assert!(!text(hostile, 100).contains(['\n', '<', '>', '\u{1b}']));
    }

    #[test]
    fn a_list_ends_at_its_bound_and_says_what_is_left_out() {
        let rows: Vec<String> = (0..1_000).map(|_| "x".repeat(100)).collect();
        let answer = list("They are:", rows.into_iter());
        assert!(answer.len() < LIST_BYTES + 200, "{}", answer.len());
        assert!(answer.contains("more are not shown"), "{}", &answer[answer.len() - 60..]);
        assert_eq!(list("One:", vec!["a".to_owned()].into_iter()), "One:\na");
    }

    #[test]
    fn a_cut_falls_between_characters() {
        assert_eq!(cut("äöü", 2), "äö…");
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(value(&json!({"a": "x".repeat(5_000)})).as_str().map(str::len), Some(2_003));
    }
}
