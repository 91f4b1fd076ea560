//! The arguments of a call, checked in the order in which its route takes them: the first
//! that is not as it must be refuses the call, in words that clients know.

use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::http::{Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

use super::argument;
use super::refused::Refused;
use crate::http::{HttpState, read_body};

/// The fields of a call's body. Those that a route does not take count as not given.
pub(super) struct Fields(Value);

impl FromRequest<Arc<HttpState>> for Fields {
    type Rejection = Response;

    async fn from_request(request: Request, _: &Arc<HttpState>) -> Result<Self, Self::Rejection> {
        let content = request.headers().get(header::CONTENT_TYPE);
        let is_json = content
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.to_ascii_lowercase().contains("json"));
        let body = read_body(request).await?;
        if !is_json {
            return Ok(Self(Value::Object(serde_json::Map::new())));
        }
        serde_json::from_slice(&body).map(Self).map_err(|_| Refused::no_json().into_response())
    }
}

impl Fields {
    /// A key: 64 hex digits, answered in lower case.
    pub(super) fn key(&self, name: &str) -> Result<String, Refused> {
        const DIGITS: usize = 64;
        let text = self.string(name)?;
        let units = text.encode_utf16().count();
        if units != DIGITS {
            let (code, bound) = match units < DIGITS {
                true => (
                    "validation:error.tooSmall.string.exact",
                    "Too small: expected string to have >=",
                ),
                false => {
                    ("validation:error.tooBig.string.exact", "Too big: expected string to have <=")
                }
            };
            return Err(Refused::argument(code, format!("{bound}{DIGITS} characters")));
        }
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let code = "validation:error.string.regex";
            return Err(Refused::argument(code, "Invalid format - ".to_owned()));
        }
        Ok(text.to_ascii_lowercase())
    }

    /// A text of so many characters.
    pub(super) fn text(&self, name: &str, chars: RangeInclusive<usize>) -> Result<String, Refused> {
        let text = self.string(name)?;
        in_bounds(name, text, chars)?;
        Ok(text.to_owned())
    }

    /// As above, if it is there at all.
    pub(super) fn optional_text(
        &self,
        name: &str,
        chars: RangeInclusive<usize>,
    ) -> Result<Option<String>, Refused> {
        self.field(name)?.map(|_| self.text(name, chars)).transpose()
    }

    /// One of a few words, if it is there at all.
    pub(super) fn optional_word(
        &self,
        name: &str,
        words: &[&str],
    ) -> Result<Option<String>, Refused> {
        let Some(value) = self.field(name)? else { return Ok(None) };
        if let Some(word) = value.as_str().filter(|word| words.contains(word)) {
            return Ok(Some(word.to_owned()));
        }
        let quoted = |mark: &str, between: &str| {
            let words = words.iter().map(|word| format!("{mark}{word}{mark}"));
            words.collect::<Vec<_>>().join(between)
        };
        let (values, expected) = (quoted("'", ", "), quoted("\"", ","));
        let message = format!("Invalid values: {values}, expected [{expected}]");
        Err(Refused::argument("validation:error.invalidValue", message))
    }

    /// One of a few numbers, if it is there at all.
    pub(super) fn optional_number(
        &self,
        name: &str,
        numbers: &[i32],
    ) -> Result<Option<i32>, Refused> {
        let Some(value) = self.field(name)? else { return Ok(None) };
        let found = numbers.iter().find(|number| value.as_f64() == Some(f64::from(**number)));
        found.copied().map(Some).ok_or_else(no_such_kind)
    }

    /// No more than so many texts of so many characters each, if they are there at all.
    pub(super) fn optional_texts(
        &self,
        name: &str,
        texts_max: usize,
        chars: RangeInclusive<usize>,
    ) -> Result<Option<Vec<String>>, Refused> {
        let Some(value) = self.field(name)? else { return Ok(None) };
        let values = value.as_array().ok_or_else(|| required(name))?;
        let mut texts = Vec::new();
        for (at, value) in values.iter().enumerate() {
            let path = format!("{name}.{at}");
            let text = value.as_str().ok_or_else(|| required(&path))?;
            in_bounds(&path, text, chars.clone())?;
            texts.push(text.to_owned());
        }
        if texts.len() > texts_max {
            let message = format!("Must contain at most {texts_max} elements");
            return Err(Refused::argument("validation:error.tooBig.array.inclusive", message));
        }
        Ok(Some(texts))
    }

    /// Whatever is given of that name.
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    fn string(&self, name: &str) -> Result<&str, Refused> {
        self.field(name)?.and_then(Value::as_str).ok_or_else(|| required(name))
    }

    /// What is given of that name, `null` too.
    fn field(&self, name: &str) -> Result<Option<&Value>, Refused> {
        let fields = self.0.as_object().ok_or_else(|| required(""))?;
        Ok(fields.get(name))
    }
}

/// A number of the query, if it is there at all.
pub(super) fn optional_number(
    uri: &Uri,
    name: &str,
    bounds: RangeInclusive<i64>,
) -> Result<Option<i64>, Refused> {
    let Some(text) = argument(uri, name) else { return Ok(None) };
    let text = text.trim();
    // Older brokers took no digits for none.
    let number = if text.is_empty() { Some(0.0) } else { text.parse::<f64>().ok() };
    let kind = |message: &str| {
        Refused::argument("validation:error.type", format!("{name} should be {message}"))
    };
    let number = number.filter(|number| number.is_finite());
    let number = number.ok_or_else(|| kind("number, but received undefined"))?;
    let (least, most) = (*bounds.start(), *bounds.end());
    #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
    let (below, above) = (number < least as f64, number > most as f64);
    if number.fract() != 0.0 {
        return Err(kind("int, but received number"));
    }
    if below || above {
        let (code, bound) = match below {
            true => ("tooSmall", format!("greater than or equal to {least}")),
            false => ("tooBig", format!("less than or equal to {most}")),
        };
        let code = match code {
            "tooSmall" => "validation:error.tooSmall.number.inclusive",
            _ => "validation:error.tooBig.number.inclusive",
        };
        return Err(Refused::argument(code, format!("{name} must be {bound}")));
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole, and within the bounds")]
    Ok(Some(number as i64))
}

/// Lengths are counted as clients count them.
fn in_bounds(path: &str, text: &str, chars: RangeInclusive<usize>) -> Result<(), Refused> {
    let units = text.encode_utf16().count();
    let (least, most) = (*chars.start(), *chars.end());
    let said = |code, bound: &str, count| {
        let characters = if count == 1 { "character" } else { "character(s)" };
        Err(Refused::argument(code, format!("{path} must contain {bound} {count} {characters}")))
    };
    if units < least {
        return said("validation:error.tooSmall.string.inclusive", "at least", least);
    }
    if units > most {
        return said("validation:error.tooBig.string.inclusive", "at most", most);
    }
    // No database keeps one.
    if text.contains('\0') {
        let code = "validation:error.string.regex";
        return Err(Refused::argument(code, "Invalid format - ".to_owned()));
    }
    Ok(())
}

/// None of what may stand there.
fn no_such_kind() -> Refused {
    Refused::argument("validation:error.union", "Invalid input".to_owned())
}

/// A field is missing, or is of another kind.
fn required(name: &str) -> Refused {
    Refused::argument("validation:error.undefined", format!("{name} is required"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(code: &'static str, message: &str) -> Option<Refused> {
        Some(Refused::argument(code, message.to_owned()))
    }

    #[test]
    fn a_key_has_64_hex_digits() {
        let key = |value: Value| Fields(value).key("pubkey");
        let good = "aB".repeat(32);
        assert_eq!(key(json!({ "pubkey": good, "more": 1 })).ok(), Some("ab".repeat(32)));
        for (value, message) in [
            (json!([]), " is required"),
            (json!({}), "pubkey is required"),
            (json!({ "pubkey": null }), "pubkey is required"),
            (json!({ "pubkey": 1 }), "pubkey is required"),
        ] {
            let refused = key(value.clone()).err();
            assert_eq!(refused, said("validation:error.undefined", message), "{value}");
        }
        let short = said(
            "validation:error.tooSmall.string.exact",
            "Too small: expected string to have >=64 characters",
        );
        assert_eq!(key(json!({ "pubkey": "ab" })).err(), short);
        let long = key(json!({ "pubkey": "a".repeat(65) })).err();
        assert_ne!(long, short);
        let other = said("validation:error.string.regex", "Invalid format - ");
        assert_eq!(key(json!({ "pubkey": "g".repeat(64) })).err(), other);
    }

    fn refusal<T>(checked: Result<T, Refused>) -> Refused {
        checked.err().expect("a refusal")
    }

    #[test]
    fn fields_of_a_post_are_refused_in_the_words_that_clients_know() {
        let of = |value: Value| Fields(value);
        let text = refusal(of(json!({ "a": "" })).text("a", 1..=9));
        let message = "a must contain at least 1 character";
        assert_eq!(Some(text), said("validation:error.tooSmall.string.inclusive", message));
        let text = refusal(of(json!({ "a": "\u{1f980}".repeat(5) })).text("a", 1..=9));
        let message = "a must contain at most 9 character(s)";
        assert_eq!(Some(text), said("validation:error.tooBig.string.inclusive", message));
        assert!(of(json!({ "a": "x\0" })).text("a", 1..=9).is_err());
        assert_eq!(of(json!({})).optional_text("a", 1..=9), Ok(None));
        assert!(of(json!({ "a": null })).optional_text("a", 1..=9).is_err());
        let word = |value: Value| of(json!({ "a": value })).optional_word("a", &["now", "next"]);
        assert_eq!(word(json!("next")), Ok(Some("next".to_owned())));
        let message = "Invalid values: 'now', 'next', expected [\"now\",\"next\"]";
        let expected = said("validation:error.invalidValue", message);
        assert_eq!(Some(refusal(word(json!(1)))), expected);
        let number = |value: Value| of(json!({ "a": value })).optional_number("a", &[1, 2]);
        assert_eq!(number(json!(2)), Ok(Some(2)));
        let expected = said("validation:error.union", "Invalid input");
        assert_eq!(Some(refusal(number(json!(3)))), expected);
        let texts = |value: Value| of(json!({ "a": value })).optional_texts("a", 2, 1..=3);
        assert_eq!(texts(json!(["x"])), Ok(Some(vec!["x".to_owned()])));
        let expected = said(
            "validation:error.tooSmall.string.inclusive",
            "a.1 must contain at least 1 character",
        );
        assert_eq!(Some(refusal(texts(json!(["x", "", "y"])))), expected);
        let expected =
            said("validation:error.tooBig.array.inclusive", "Must contain at most 2 elements");
        assert_eq!(Some(refusal(texts(json!(["x", "y", "z"])))), expected);
        assert!(texts(json!("x")).is_err() && texts(json!([1])).is_err());
    }

    #[test]
    fn a_number_of_the_query_is_within_its_bounds() {
        let number = |query: &str| {
            let uri: Uri = format!("/x?{query}").parse().expect("an address");
            optional_number(&uri, "limit", 1..=200)
        };
        assert_eq!(number("limit=200"), Ok(Some(200)));
        assert_eq!(number("other=1"), Ok(None));
        for (query, code, message) in [
            ("limit=abc", "type", "limit should be number, but received undefined"),
            ("limit=1.5", "type", "limit should be int, but received number"),
            ("limit=", "tooSmall.number.inclusive", "limit must be greater than or equal to 1"),
            ("limit=201", "tooBig.number.inclusive", "limit must be less than or equal to 200"),
        ] {
            let refused = format!("{:?}", refusal(number(query)));
            assert!(refused.contains(code) && refused.contains(message), "{refused}");
        }
    }
}
