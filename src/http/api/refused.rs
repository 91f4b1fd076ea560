//! Why a call is refused, in the two shapes that clients know.
//!
//! `{code, message, status, timestamp, path}` where what the call goes through refused
//! it, `{error, ..}` where its route did. A handler returns the reason; the body is
//! written in one place, which knows the path. Nothing of what went wrong inside is told.

use std::borrow::Cow;

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::clock::Timestamp;
use crate::cluster::ClusterError;
use crate::store::StoreError;

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    status: StatusCode,
    shape: Shape,
    /// When a retry may help, in seconds.
    retry_after: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    /// What the call goes through refused it.
    Framed { code: Option<&'static str>, message: Cow<'static, str> },
    /// The route did: a word, and what goes with it.
    Word(&'static str, Map<String, Value>),
}

impl Refused {
    /// Older brokers had no sentence for these codes, and gave the code in its place.
    fn coded(status: StatusCode, code: &'static str) -> Self {
        Self::said(status, code, code)
    }

    fn said(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        let shape = Shape::Framed { code: Some(code), message: Cow::Borrowed(message) };
        Self { status, shape, retry_after: None }
    }

    /// The route refuses, in one word.
    pub(super) fn word(status: StatusCode, word: &'static str) -> Self {
        Self { status, shape: Shape::Word(word, Map::new()), retry_after: None }
    }

    /// And says that with it.
    pub(super) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        if let Shape::Word(_, more) = &mut self.shape {
            more.insert(field.to_owned(), value.into());
        }
        self
    }

    /// An argument is not as it must be.
    pub(super) fn argument(code: &'static str, message: String) -> Self {
        let shape = Shape::Framed { code: Some(code), message: Cow::Owned(message) };
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, shape, retry_after: None }
    }

    pub(super) fn no_json() -> Self {
        let message = Cow::Borrowed("Malformed JSON in request body");
        let shape = Shape::Framed { code: None, message };
        Self { status: StatusCode::BAD_REQUEST, shape, retry_after: None }
    }

    pub(super) fn key_missing() -> Self {
        Self::coded(StatusCode::UNAUTHORIZED, "error.api_key_missing")
    }

    pub(super) fn key_invalid() -> Self {
        Self::coded(StatusCode::UNAUTHORIZED, "error.api_key_invalid")
    }

    pub(super) fn missing_capability() -> Self {
        Self::coded(StatusCode::FORBIDDEN, "error.api_key_missing_capability")
    }

    pub(super) fn out_of_scope() -> Self {
        Self::coded(StatusCode::FORBIDDEN, "error.api_key_topic_out_of_scope")
    }

    pub(super) fn no_issuer() -> Self {
        Self::word(StatusCode::BAD_REQUEST, "api_key_has_no_issuer")
    }

    /// A page of a stranger may have sent it.
    pub(super) fn form() -> Self {
        let message = Cow::Borrowed("Something went wrong, please try again.");
        let shape = Shape::Framed { code: None, message };
        Self { status: StatusCode::FORBIDDEN, shape, retry_after: None }
    }

    pub(super) fn too_many(seconds: u64) -> Self {
        let text = "too many calls: wait, then try again";
        let mut refused = Self::said(StatusCode::TOO_MANY_REQUESTS, "error.rate_limit", text);
        refused.retry_after = Some(seconds);
        refused
    }

    pub(super) fn internal() -> Self {
        let text = "the broker could not serve this call";
        Self::said(StatusCode::INTERNAL_SERVER_ERROR, "error.internal", text)
    }

    pub(super) fn unavailable() -> Self {
        let text = "the broker's database or shared state did not answer; try again";
        let mut refused = Self::said(StatusCode::SERVICE_UNAVAILABLE, "error.unavailable", text);
        refused.retry_after = Some(2);
        refused
    }

    fn body(self, path: &str) -> Response {
        let Self { status, shape, retry_after } = self;
        let body = match shape {
            Shape::Word(word, more) => {
                let mut body = json!({ "error": word });
                if let Value::Object(fields) = &mut body {
                    fields.extend(more);
                }
                body
            }
            Shape::Framed { code, message } => {
                let mut body = json!({
                    "message": message,
                    "status": status.as_u16(),
                    "timestamp": Timestamp::now(),
                    "path": path,
                });
                if let Some(code) = code {
                    body["code"] = json!(code);
                }
                body
            }
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The reason goes to [`write()`], which knows the path.
impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "a call of the API could not be served");
        if error.is_retryable() { Self::unavailable() } else { Self::internal() }
    }
}

impl From<ClusterError> for Refused {
    fn from(error: ClusterError) -> Self {
        tracing::warn!(%error, "a call of the API could not be served");
        Self::unavailable()
    }
}

/// Writes the bodies of refusals. No answer of the API is for keeping.
pub(super) async fn write(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if let Some(refused) = response.extensions_mut().remove::<Refused>() {
        response = refused.body(&path);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
