//! What other services of claudemesh answer and this broker does not do: each is refused
//! with a sentence and a code, so that a client says why and does not guess.
//!
//! Nothing is read, kept or forwarded for them, and no proof is asked for.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use serde_json::json;

use super::Table;

/// A kind of thing that is not done: its code, and why not.
type Reason = (&'static str, &'static str);

const MAIL: Reason = (
    "mail_not_supported",
    "this broker sends no mail: make an invite by POST /api/my/meshes/ID/invites, and pass its \
     link on",
);
const INCOMING: Reason = (
    "mail_not_supported",
    "this broker sends no mail, so no invite waits for an address: open the link of one",
);
const STREAM: Reason = (
    "stream_not_supported",
    "the live view of a mesh is the dashboard's: an API key reads topics by GET \
     /api/v1/topics/NAME/stream",
);
const APPROVAL: Reason = (
    "approval_not_supported",
    "approve a code by POST /api/auth/cli/device-code/approve-by-user-code, or on the page \
     /cli-auth",
);
const FILES: Reason = (
    "files_not_supported",
    "this broker keeps no files: peers hand them to each other while both are there, by \
     peer_file_request",
);
const TELEGRAM: Reason = (
    "telegram_not_supported",
    "this broker takes no member's secret key, which a bridge to Telegram would need",
);

/// Routes that other services have: method, path, and why they are refused.
const ROUTES: [(&str, &str, Reason); 8] = [
    ("post", "/api/my/meshes/{id}/invites/email", MAIL),
    ("get", "/api/my/invites/incoming", INCOMING),
    ("delete", "/api/my/invites/incoming/{id}", INCOMING),
    ("get", "/api/my/meshes/{id}/stream", STREAM),
    ("post", "/api/auth/cli/device-code/{code}/approve", APPROVAL),
    ("post", "/upload", FILES),
    ("get", "/download/{file}", FILES),
    ("post", "/tg/token", TELEGRAM),
];

pub(super) fn table() -> Table {
    let route = |(method, path, reason)| {
        let filter = match method {
            "get" => MethodFilter::GET,
            "delete" => MethodFilter::DELETE,
            _ => MethodFilter::POST,
        };
        (method, path, on(filter, move || async move { refuse(reason) }))
    };
    ROUTES.into_iter().map(route).collect()
}

/// Without reading a body, which may be large: the connection ends instead.
fn refuse((code, why): Reason) -> Response {
    let body = Json(json!({ "ok": false, "code": code, "error": why }));
    (StatusCode::NOT_IMPLEMENTED, [(header::CONNECTION, "close")], body).into_response()
}
