//! Everything on the one port: the WebSocket upgrade and the HTTP routes.

pub mod admin;
pub mod dashboard;
pub mod health;
pub mod hook;
pub mod join;
pub mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use tokio::time::timeout;

use crate::http::admin::Admin;
use crate::limits;
use crate::node::Node;
use crate::socket::address::SocketPeer;

/// Headers that existing web clients may send.
const ALLOWED_HEADERS: &str = "Content-Type, Authorization, X-Mesh-Id, X-Member-Id";
/// Methods that the routes below have.
const ALLOWED_METHODS: &str = "GET, POST, OPTIONS";

/// Where Prometheus looks.
const METRICS: &str = "/metrics";

/// What the routes share.
#[derive(Clone)]
pub struct App {
    /// The node.
    pub node: Arc<Node>,
    /// Open sockets per address.
    pub addresses: upgrade::Addresses,
    /// What the admin API remembers.
    pub admin: Arc<Admin>,
}

/// Every route.
pub fn routes(app: App) -> Router {
    let body_max = app.node.config.message.message_bytes_max.max(limits::HELLO_BYTES_MAX_FLOOR);
    Router::new()
        .route("/ws", get(upgrade::upgrade))
        .route(health::HEALTH, get(health::health))
        .route(health::READY, get(health::ready))
        .route(METRICS, get(health::metrics))
        .route("/hook/set-status", post(hook::set_status))
        .route("/join", post(join::join))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(body_max))
        .layer(middleware::from_fn_with_state(app.clone(), cors))
        // Beside the layer above: pages of other origins have no business here.
        .merge(admin::routes(&app))
        .merge(dashboard::routes())
        .with_state(app)
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "not found").into_response()
}

/// A browser says which page asks. With `ALLOWED_ORIGINS` set, others than
/// those and the broker's own get nothing; programs that are no browsers send
/// no origin. How the broker does is no page's business: what says so is not
/// for reading by any.
async fn cors(State(app): State<App>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    if origin.as_ref().is_some_and(|origin| is_foreign(&app.node, &request, origin)) {
        let text = "this origin is not in ALLOWED_ORIGINS\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let path = request.uri().path();
    let is_for_pages = !health::PATHS.contains(&path) && path != METRICS;
    let is_preflight = request.method() == Method::OPTIONS;
    let mut response =
        if is_preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    if let Some(allowed) = allowed_origin(&app.node, origin).filter(|_| is_for_pages) {
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
fn is_foreign(node: &Node, request: &Request, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return true };
    let http = &node.config.http;
    if http.allows_origin(origin) {
        return false;
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let peer = request.extensions().get::<SocketPeer>();
    let is_local = peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    !http.is_own_origin(origin, host, is_local)
}

fn allowed_origin(node: &Node, origin: Option<HeaderValue>) -> Option<HeaderValue> {
    if node.config.http.allowed_origins.is_empty() {
        return Some(HeaderValue::from_static("*"));
    }
    origin
        .filter(|origin| origin.to_str().is_ok_and(|origin| node.config.http.allows_origin(origin)))
}

/// A body within the limit and the time for it, or the answer that it is not.
///
/// # Errors
///
/// The response to send instead.
pub async fn read_body(request: Request) -> Result<Bytes, Response> {
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
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim_start_matches(' '))
}

/// Runs work on the database to its end, whether or not the caller waits for
/// it: a request's future is dropped when its client goes away.
///
/// # Errors
///
/// 500, if the work panicked.
pub async fn to_its_end<T: Send + 'static>(
    node: &Node,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Response> {
    node.life.tasks.spawn(work).await.map_err(|_| {
        let body = json!({ "ok": false, "error": "internal" });
        (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(body)).into_response()
    })
}
