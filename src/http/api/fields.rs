//! The arguments of a call, checked in the order in which its route takes them: the first
//! that is not as it must be refuses the call, in words that clients know.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

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

    fn string(&self, name: &str) -> Result<&str, Refused> {
        self.field(name)?.and_then(Value::as_str).ok_or_else(|| required(name))
    }

    /// What is given of that name, `null` too.
    fn field(&self, name: &str) -> Result<Option<&Value>, Refused> {
        let fields = self.0.as_object().ok_or_else(|| required(""))?;
        Ok(fields.get(name))
    }
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
}
