//! Everything on the one port: the WebSocket upgrade and the HTTP routes.
//!
//! A request's future is dropped when its client goes away, so work on the database
//! runs in a task of its own ([`to_its_end`]). An upgraded socket is handed on and
//! never served here. [`app`](crate::app) makes the routes, the listener serves them.

pub(crate) mod accounts;
pub mod admin;
pub(crate) mod api;
mod dashboard;
mod elsewhere;
pub(crate) mod health;
mod hook;
mod join;
mod upgrade;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::admin::Admin;
use crate::accounts::Keys;
use crate::cluster::Cluster;
use crate::config::{AccountsConfig, HttpConfig, NodeConfig};
use crate::jobs::sample::Sampler;
use crate::life::Life;
use crate::limits;
use crate::metrics::Metrics;
use crate::presence;
use crate::rates::Rates;
use crate::registry::Registry;
use crate::socket::address::{Addresses, SocketPeer};
use crate::socket::connection::Sockets;
use crate::store::Stores;
use crate::webhooks;

/// Headers that existing web clients may send.
const ALLOWED_HEADERS: &str = "Content-Type, Authorization, X-Mesh-Id, X-Member-Id";
/// Methods that the routes below have.
const ALLOWED_METHODS: &str = "GET, POST, PATCH, DELETE, OPTIONS";

/// The description of every route for programs.
pub const OPENAPI: &str = include_str!("../docs/openapi.json");

/// Where Prometheus looks.
const METRICS: &str = "/metrics";

/// What the routes share.
pub struct HttpState {
    pub(crate) http: HttpConfig,
    pub(crate) accounts: AccountsConfig,
    /// Whether people sign in here.
    pub(crate) has_accounts: bool,
    pub(crate) node: NodeConfig,
    /// `single` or `clustered`.
    pub(crate) mode: &'static str,
    /// The largest body of a request, and frame of a socket.
    pub(crate) body_bytes_max: usize,
    pub(crate) stores: Stores,
    /// What accounts prove themselves by.
    pub(crate) keys: Arc<Keys>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) presence: Arc<presence::Parts>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) sampler: Arc<Sampler>,
    pub(crate) webhooks: Arc<webhooks::Parts>,
    pub(crate) life: Arc<Life>,
    /// The turn to walk an audit chain, of which there is one.
    pub(crate) verifying: Arc<Semaphore>,
    /// Open sockets per address.
    pub(crate) addresses: Addresses,
    /// What serves a socket after its upgrade.
    pub(crate) sockets: Sockets,
    /// What was counted for anybody last.
    pub(crate) stats: accounts::Stats,
    /// Streams of topics that are open.
    pub(crate) topic_streams: api::Streams,
    /// What the admin API remembers.
    pub(crate) admin: Admin,
}

/// Routes: each with its method in lower case, its path, and what serves it.
type Table = Vec<(&'static str, &'static str, MethodRouter<Arc<HttpState>>)>;

/// What is here for programs besides the two APIs and what needs accounts.
fn table() -> Table {
    let hook = post(webhook::receive).layer(DefaultBodyLimit::max(limits::WEBHOOK_BODY_BYTES_MAX));
    vec![
        ("get", health::HEALTH, get(health::health)),
        ("get", health::READY, get(health::ready)),
        ("get", METRICS, get(health::metrics)),
        ("post", "/hook/set-status", post(hook::set_status)),
        ("post", "/hook/{mesh}/{secret}", hook),
        ("post", "/join", post(join::join)),
    ]
}

fn routed(table: Table) -> Router<Arc<HttpState>> {
    table.into_iter().fold(Router::new(), |router, (_, path, handler)| router.route(path, handler))
}

/// Every route for programs, by its method in lower case and its path: what the routers
/// are made from. Pages for people and the sockets' own route are not among them.
#[must_use]
pub fn served() -> Vec<(&'static str, String)> {
    let named = |prefix: &str, table: Table| -> Vec<_> {
        table.iter().map(|(method, path, _)| (*method, format!("{prefix}{path}"))).collect()
    };
    let mut served = named("", table());
    served.extend(named("", elsewhere::table()));
    served.extend(named("", accounts::table()));
    served.extend(named("", accounts::profile_table()));
    served.extend(named(api::PREFIX, api::table()));
    served.extend(named(admin::PREFIX, admin::table()));
    served
}

pub(crate) fn routes(state: Arc<HttpState>) -> Router {
    let body_max = state.body_bytes_max;
    routed(table())
        .route("/ws", get(upgrade::upgrade))
        .merge(routed(elsewhere::table()))
        .merge(accounts::routes(&state))
        .merge(routed(accounts::profile_table()))
        .merge(api::routes(&state))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(body_max))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), cors))
        // Beside the layer above: pages of other origins have no business here.
        .merge(admin::routes(&state))
        .merge(dashboard::routes())
        .merge(accounts::page_routes(&state))
        .with_state(state)
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "not found").into_response()
}

/// A browser says which page asks. With `ALLOWED_ORIGINS` set, others than
/// those and the broker's own get nothing; programs that are no browsers send
/// no origin. How the broker does is no page's business: what says so is not
/// for reading by any.
async fn cors(State(state): State<Arc<HttpState>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    if origin.as_ref().is_some_and(|origin| is_foreign(&state.http, &request, origin)) {
        let text = "this origin is not in ALLOWED_ORIGINS\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let path = request.uri().path();
    let is_for_pages = !health::PATHS.contains(&path) && path != METRICS;
    let is_preflight = request.method() == Method::OPTIONS;
    let mut response =
        if is_preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    if let Some(allowed) = allowed_origin(&state.http, origin).filter(|_| is_for_pages) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static(ALLOWED_METHODS),
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(ALLOWED_HEADERS),
        );
    }
    response
}

/// Neither named nor the broker's own. What a page calls the broker, its `Host`,
/// proves nothing by itself: any name may lead here.
fn is_foreign(http: &HttpConfig, request: &Request, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return true };
    if http.allows_origin(origin) {
        return false;
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let peer = request.extensions().get::<SocketPeer>();
    let is_local = peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    !http.is_own_origin(origin, host, is_local)
}

fn allowed_origin(http: &HttpConfig, origin: Option<HeaderValue>) -> Option<HeaderValue> {
    if http.allowed_origins.is_empty() {
        return Some(HeaderValue::from_static("*"));
    }
    origin.filter(|origin| origin.to_str().is_ok_and(|origin| http.allows_origin(origin)))
}

/// A body within the limit and the time for it, or the answer that it is not.
///
/// # Errors
///
/// The response to send instead.
pub(crate) async fn read_body(request: Request) -> Result<Bytes, Response> {
    use axum::extract::FromRequest;
    let deadline = Duration::from_millis(limits::HTTP_BODY_DEADLINE_MS);
    let (status, error) = match timeout(deadline, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => return Ok(body),
        Ok(Err(_)) => (StatusCode::PAYLOAD_TOO_LARGE, "payload too large"),
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
    };
    let body = axum::Json(json!({ "ok": false, "error": error }));
    Err((status, [(header::CONNECTION, "close")], body).into_response())
}

/// The bearer token of a request. The scheme is written in any case (RFC 9110,
/// 11.1).
#[must_use]
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim_start_matches(' '))
}

/// Runs work on the database to its end, whether or not the caller waits for
/// it: a request's future is dropped when its client goes away.
///
/// # Errors
///
/// 500, if the work panicked.
pub(crate) async fn to_its_end<T, F>(
    state: &Arc<HttpState>,
    work: impl FnOnce(Arc<HttpState>) -> F,
) -> Result<T, Response>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    state.life.tasks.spawn(work(Arc::clone(state))).await.map_err(|_| {
        let body = json!({ "ok": false, "error": "internal" });
        (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(body)).into_response()
    })
}
