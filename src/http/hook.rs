//! `/hook/set-status`: a hook on a peer's machine says what the peer does.
//!
//! It changes other people's view of a peer, so from anywhere but this
//! machine it wants `HOOK_TOKEN`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::upgrade::client_address;
use super::{App, SocketPeer, bearer, read_body, to_its_end};
use crate::clock::Timestamp;
use crate::cluster::{BusMessage, PresenceRecord};
use crate::config::any_matches;
use crate::node::Node;
use crate::protocol::Status;
use crate::router::status;
use crate::store::PresenceAt;

#[derive(Deserialize)]
struct Call {
    #[serde(default)]
    cwd: Option<String>,
    #[serde(default)]
    pid: Option<serde_json::Value>,
    #[serde(default)]
    status: Option<Status>,
}

/// `POST /hook/set-status`.
pub async fn set_status(
    State(app): State<App>,
    Extension(peer): Extension<SocketPeer>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let node = Arc::clone(&app.node);
    node.metrics.hook_requests.inc();
    if let Err(refused) = authorize(&node, &headers, peer) {
        return *refused;
    }
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let call: Call = match serde_json::from_slice(&body) {
        Ok(call) => call,
        Err(_) => {
            // Not 400: deployed hooks know 500 for a body that is no JSON.
            let text = "the body is JSON {cwd, pid?, status: idle|working|dnd}";
            return failed(StatusCode::INTERNAL_SERVER_ERROR, text);
        }
    };
    let pid = call.pid.as_ref().and_then(serde_json::Value::as_i64);
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
    let cwd = call.cwd.unwrap_or_default();
    if !node.rates.may_hook(pid, &cwd) {
        node.metrics.hook_requests_rate_limited.inc();
        return failed(StatusCode::TOO_MANY_REQUESTS, "rate limited");
    }
    let Some(status) = call.status.filter(|_| !cwd.is_empty()) else {
        return failed(StatusCode::OK, "cwd and status required");
    };
    let work = {
        let node = Arc::clone(&node);
        async move { apply(&node, pid, &cwd, status).await }
    };
    match to_its_end(&node, work).await {
        Ok(response) | Err(response) => response,
    }
}

fn authorize(node: &Node, headers: &HeaderMap, peer: SocketPeer) -> Result<(), Box<Response>> {
    // A proxy on this machine forwards strangers: what it says counts.
    let forwarded = ["x-forwarded-for", "fly-client-ip", "forwarded"]
        .iter()
        .any(|name| headers.contains_key(*name));
    // A page in a browser on this machine is a stranger, too, unless it is one
    // that the operator has named.
    let is_page = headers
        .get(header::ORIGIN)
        .is_some_and(|it| !it.to_str().is_ok_and(|it| node.config.http.names_origin(it)));
    let is_local = client_address(&node.config, headers, peer).is_loopback();
    if is_local && !forwarded && !is_page {
        return Ok(());
    }
    let tokens = &node.config.http.hook_tokens;
    if tokens.is_empty() {
        let text = "status hooks are taken from this machine only; set HOOK_TOKEN on the broker \
                    to take them from elsewhere";
        return Err(Box::new(failed(StatusCode::FORBIDDEN, text)));
    }
    if bearer(headers).is_some_and(|given| any_matches(tokens, given)) {
        return Ok(());
    }
    let text = "this call needs the header Authorization: Bearer <HOOK_TOKEN>";
    Err(Box::new(failed(StatusCode::UNAUTHORIZED, text)))
}

fn failed(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "ok": false, "error": error }))).into_response()
}

async fn apply(node: &Arc<Node>, pid: i32, cwd: &str, status: Status) -> Response {
    let found = match node.store.presence_by_cwd(cwd, pid).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "a status hook could not be served");
            return failed(StatusCode::SERVICE_UNAVAILABLE, "the database did not answer");
        }
    };
    let Some(at) = found else {
        if let Err(error) = node.cluster.put_pending_status(pid, cwd, status).await {
            tracing::debug!(%error, "a pending status was lost");
        }
        return Json(json!({ "ok": true, "pending": true })).into_response();
    };
    let id = at.id.clone();
    tell(node, &at, status).await;
    Json(json!({ "ok": true, "presence_id": id })).into_response()
}

/// The node that holds the socket applies it; that of one in grace is written
/// here, for when its session is back. The row's own status may be behind.
async fn tell(node: &Arc<Node>, at: &PresenceAt, status: Status) {
    let now = Timestamp::now();
    let room = node.registry.room(&at.mesh);
    let record = match &room {
        Some(room) if room.session(&at.id).is_some() => {
            return status::apply_hook(node, room, &at.id, status, now).await;
        }
        Some(room) => room.record(&at.id).map(|record| PresenceRecord::clone(&record)),
        None => find(node, at).await,
    };
    match record {
        Some(record) if !record.online => {
            status::apply_hook_in_grace(node, record, status, now).await;
        }
        _ => {
            let message = BusMessage::HookStatus { presence: at.id.clone(), status, at: now };
            node.cluster.publish(&at.mesh, &message);
        }
    }
}

/// A presence of a mesh that this node does not serve.
async fn find(node: &Node, at: &PresenceAt) -> Option<PresenceRecord> {
    match node.cluster.directory(&at.mesh).await {
        Ok(records) => records.into_iter().find(|record| record.id == at.id),
        Err(error) => {
            tracing::debug!(%error, "a presence could not be looked up");
            None
        }
    }
}
