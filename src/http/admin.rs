//! `/admin/v1/`: what operators see of the broker, and may do.
//!
//! Off unless `ADMIN_TOKEN` is set: then every path below is "not found". With
//! it, each call carries the token as a bearer header. Answers are JSON as
//! `docs/openapi.json` describes them. Metadata only: never a nonce or a
//! ciphertext, of a key its first [`KEY_CHARS`] characters.

mod audit;
mod events;
mod evict;
mod meshes;
mod overview;
mod series;
mod shared;
pub(crate) mod views;

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use tokio::sync::Semaphore;

use super::{HttpState, Table, bearer, routed};
use crate::config::any_matches;
use crate::limits;
use crate::socket::address::SocketPeer;
use crate::socket::listener::Entering;
use crate::store::StoreError;

use self::overview::Cache;

/// As much of a key as operators are shown.
const KEY_CHARS: usize = 12;

/// Where the API begins.
pub(crate) const PREFIX: &str = "/admin/v1";

pub(crate) struct Admin {
    cache: Cache,
    streams: Arc<Semaphore>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            cache: Cache::default(),
            streams: Arc::new(Semaphore::new(limits::ADMIN_STREAMS_MAX)),
        }
    }
}

/// Every route below [`PREFIX`].
pub(super) fn table() -> Table {
    vec![
        ("get", "/nodes", get(overview::nodes)),
        ("get", "/meshes", get(overview::meshes)),
        ("get", "/meshes/{id}", get(meshes::mesh)),
        ("get", "/meshes/{id}/shared", get(shared::shared)),
        ("post", "/meshes/{id}/presences/{presence}/evict", post(evict::evict)),
        ("get", "/meshes/{id}/audit", get(audit::rows)),
        ("post", "/meshes/{id}/audit/verify", post(audit::verify)),
        ("get", "/series", get(series::series)),
        ("get", "/events", get(events::events)),
        ("get", "/openapi.json", get(openapi)),
    ]
}

pub(super) fn routes(state: &Arc<HttpState>) -> Router<Arc<HttpState>> {
    let routes = routed(table())
        .fallback(no_such_route)
        .layer(middleware::from_fn_with_state(Arc::clone(state), authorize));
    Router::new().nest(PREFIX, routes)
}

/// Lets a call through that carries a token of `ADMIN_TOKEN`.
async fn authorize(
    State(state): State<Arc<HttpState>>,
    Extension(peer): Extension<SocketPeer>,
    Extension(entering): Extension<Entering>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    let tokens = &state.http.admin_tokens;
    if tokens.is_empty() {
        return super::not_found().await;
    }
    let address = state.addresses.client(&headers, peer);
    // As with the other limits, there everybody has the same address.
    if !address.is_loopback()
        && let Some(seconds) = state.rates.admin_blocked(address)
    {
        let text = "too many wrong tokens from this address: wait, then try again";
        let refused = Refused::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", text);
        return (retry_after(seconds), refused).into_response();
    }
    if !bearer(&headers).is_some_and(|given| any_matches(tokens, given)) {
        state.metrics.admin_refused.inc();
        state.rates.note_admin_failure(address);
        let text = "this call needs the header Authorization: Bearer <ADMIN_TOKEN>";
        let refused = Refused::new(StatusCode::UNAUTHORIZED, "unauthorized", text);
        return ([(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response();
    }
    // No stranger any more: it is not told to go when there are too many.
    entering.leave();
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn no_such_route() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "not_found", "the admin API has no such route")
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], super::OPENAPI).into_response()
}

fn retry_after(seconds: u64) -> [(header::HeaderName, String); 1] {
    [(header::RETRY_AFTER, seconds.to_string())]
}

/// Why a call was refused: a stable code and a sentence that says what to do.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
}

impl Refused {
    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message }
    }

    const fn no_mesh() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_mesh", "there is no mesh with this id or slug")
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        (self.status, Json(body)).into_response()
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "a call of the admin API could not be served");
        let text = "the database does not answer: try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text)
    }
}

impl From<crate::cluster::ClusterError> for Refused {
    fn from(error: crate::cluster::ClusterError) -> Self {
        tracing::warn!(%error, "a call of the admin API could not be served");
        let text = "the cluster's shared state does not answer: try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text)
    }
}

/// Runs a call's work to its end, and answers it.
async fn answer<T, F>(state: &Arc<HttpState>, work: impl FnOnce(Arc<HttpState>) -> F) -> Response
where
    T: serde::Serialize + Send + 'static,
    F: Future<Output = Result<T, Refused>> + Send + 'static,
{
    match super::to_its_end(state, work).await {
        Ok(Ok(body)) => Json(body).into_response(),
        Ok(Err(refused)) => refused.into_response(),
        Err(response) => response,
    }
}
