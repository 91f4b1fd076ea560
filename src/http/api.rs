//! `/api/v1/`: what programs may ask that hold an API key.
//!
//! A call shows its key on every request, and everything that makes a key good is read
//! from the store each time: nothing here remembers a key, so one that is made on one
//! node works on all, and one that is revoked works nowhere. A secret never reaches a
//! log line or an answer. Checked are, in this order: that no page of a stranger sends
//! the call, the address's rate, the key, its rate, the arguments, what the key may do,
//! its topics, and who made it.
//!
//! - [`caller`]: who calls, and what that key may do
//! - [`fields`]: the arguments of a call, checked
//! - [`refused`]: the two shapes in which a call is refused
//! - [`people`]: members and peers of the key's mesh
//! - [`topics`], [`posting`], [`stream`]: topics, what was said in them, and what is said
//! - [`seals`]: keys of topics, [`mentions`]: who was mentioned
//! - [`workspace`]: all meshes of the user behind the key

mod caller;
mod fields;
mod mentions;
mod people;
mod posting;
mod refused;
mod seals;
mod stream;
mod topics;
mod workspace;

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, patch, post};
use serde::Serialize;
use serde_json::Value;

use self::refused::Refused;
pub(crate) use self::stream::Streams;
use super::{HttpState, Table, routed};
use crate::id::MeshId;
use crate::record::PresenceRecord;

/// Where the API begins.
pub(super) const PREFIX: &str = "/api/v1";

/// Every route below [`PREFIX`].
pub(super) fn table() -> Table {
    vec![
        ("get", "/members", get(people::members)),
        ("get", "/peers", get(people::peers)),
        ("post", "/messages", post(posting::post)),
        ("get", "/topics", get(topics::topics)),
        ("patch", "/topics/{name}/read", patch(topics::mark_read)),
        ("get", "/topics/{name}/messages", get(topics::history)),
        ("get", "/topics/{name}/stream", get(stream::posts)),
        ("get", "/topics/{name}/key", get(seals::key)),
        ("get", "/topics/{name}/pending-seals", get(seals::pending)),
        ("post", "/topics/{name}/seal", post(seals::seal)),
        ("post", "/topics/{name}/claim-key", post(seals::claim)),
        ("get", "/notifications", get(mentions::list)),
        ("post", "/notifications/read", post(mentions::mark)),
        ("get", "/me/workspace", get(workspace::overview)),
        ("get", "/me/state", get(workspace::state)),
        ("get", "/me/tasks", get(workspace::tasks::tasks)),
        ("get", "/me/memory", get(workspace::memory::memory)),
        ("get", "/me/topics", get(workspace::topics::topics)),
        ("get", "/me/notifications", get(workspace::posts::mentions)),
        ("get", "/me/activity", get(workspace::posts::activity)),
        ("get", "/me/search", get(workspace::posts::search)),
        ("post", "/me/peer-pubkey", post(people::replace_key)),
    ]
}

pub(super) fn routes(state: &Arc<HttpState>) -> Router<Arc<HttpState>> {
    Router::new()
        .nest(PREFIX, routed(table()))
        .method_not_allowed_fallback(no_such_route)
        .route(PREFIX, any(no_such_route))
        .route(&format!("{PREFIX}/{{*rest}}"), any(no_such_route))
        .route_layer(middleware::from_fn_with_state(Arc::clone(state), caller::authorize))
        .route_layer(middleware::from_fn_with_state(Arc::clone(state), refuse_forms))
        .route_layer(middleware::from_fn(refused::write))
}

/// Older brokers answered so, and only to good keys.
async fn no_such_route() -> Response {
    (StatusCode::NOT_FOUND, "404 Not Found").into_response()
}

/// Refuses what a page of a stranger can have a browser send without asking first: a
/// change in the shape of a form.
async fn refuse_forms(
    State(state): State<Arc<HttpState>>,
    request: Request,
    next: Next,
) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && is_form(request.headers()) && !is_of_own_page(&state, &request) {
        return Refused::form().into_response();
    }
    next.run(request).await
}

/// Whether a browser would send that content without asking the broker first.
fn is_form(headers: &HeaderMap) -> bool {
    const OF_FORMS: [&str; 3] =
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];
    let content = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(content) = content else { return true };
    let kind = content.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    OF_FORMS.contains(&kind.as_str())
}

/// Whether the headers say that a page of the broker's own, one that the operator named,
/// or an app on a phone sends it. No page can make these up.
fn is_of_own_page(state: &HttpState, request: &Request) -> bool {
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let is_named = |origin: &str| state.http.names_origin(origin);
    text("sec-fetch-site") == Some("same-origin")
        || text("origin").is_some_and(is_named)
        || text("x-client-platform").is_some_and(|platform| platform.starts_with("mobile"))
}

/// An argument of a request's query.
fn argument(uri: &Uri, name: &str) -> Option<String> {
    let query = uri.query()?.as_bytes();
    let found = url::form_urlencoded::parse(query).find(|(key, _)| key == name);
    found.map(|(_, value)| value.into_owned())
}

/// Runs a call's work to its end, and answers it.
async fn answer<T, F>(state: &Arc<HttpState>, work: impl FnOnce(Arc<HttpState>) -> F) -> Response
where
    T: Serialize + Send + 'static,
    F: Future<Output = Result<T, Refused>> + Send + 'static,
{
    match super::to_its_end(state, work).await {
        Ok(Ok(body)) => Json(body).into_response(),
        Ok(Err(refused)) => refused.into_response(),
        Err(_) => Refused::internal().into_response(),
    }
}

/// A list's answer, which says so where not all of the list fits into it.
fn cut_at(mut body: Value, is_cut: bool) -> Value {
    if is_cut {
        body["more"] = Value::Bool(true);
    }
    body
}

/// Who is in a mesh, on any node.
async fn presences(state: &HttpState, mesh: &MeshId) -> Result<Vec<Arc<PresenceRecord>>, Refused> {
    if let Some(room) = state.registry.room(mesh) {
        return Ok(room.records());
    }
    Ok(state.cluster.directory(mesh).await?.into_iter().map(Arc::new).collect())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn what_a_form_can_send_is_one() {
        let with = |content: &'static str| {
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content))])
        };
        for content in ["text/plain", "Multipart/Form-Data; boundary=x", "text/plain;charset=x"] {
            assert!(is_form(&with(content)), "{content}");
        }
        assert!(is_form(&HeaderMap::new()));
        assert!(!is_form(&with("application/json; charset=utf-8")));
    }

    #[test]
    fn an_argument_is_read_as_it_was_meant() {
        let uri: Uri = "/x?a=1&key=we%20ird%2F%C3%BC+x&key=2&empty=".parse().expect("an address");
        assert_eq!(argument(&uri, "key").as_deref(), Some("we ird/ü x"));
        assert_eq!(argument(&uri, "empty").as_deref(), Some(""));
        assert_eq!(argument(&uri, "none"), None);
    }
}
