//! `/dashboard`: the admin API for people, one page that lies in the program.
//!
//! The page itself knows nothing: it asks for the token and then calls the API
//! with it. It loads nothing from elsewhere, and its policy forbids it to.
//! Without `ADMIN_TOKEN` it is not there.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderName};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::HttpState;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Path, kind, content.
const FILES: [(&str, &str, &str); 10] = [
    ("/dashboard", HTML, include_str!("dashboard/index.html")),
    ("/dashboard/dashboard.css", CSS, include_str!("dashboard/dashboard.css")),
    ("/dashboard/icon.svg", SVG, include_str!("dashboard/icon.svg")),
    ("/dashboard/app.js", JS, include_str!("dashboard/app.js")),
    ("/dashboard/api.js", JS, include_str!("dashboard/api.js")),
    ("/dashboard/dom.js", JS, include_str!("dashboard/dom.js")),
    ("/dashboard/home.js", JS, include_str!("dashboard/home.js")),
    ("/dashboard/mesh.js", JS, include_str!("dashboard/mesh.js")),
    ("/dashboard/shared.js", JS, include_str!("dashboard/shared.js")),
    ("/dashboard/plot.js", JS, include_str!("dashboard/plot.js")),
];

/// Only files of this origin, and nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    // Another release may answer the next time.
    (header::CACHE_CONTROL, "no-cache"),
];

/// The page and its files.
pub(super) fn routes() -> Router<Arc<HttpState>> {
    let router = Router::new().route("/dashboard/", get(without_slash));
    FILES.into_iter().fold(router, |router, (path, kind, content)| {
        router.route(path, get(move |state| file(state, kind, content)))
    })
}

/// The page names its files from where it stands.
async fn without_slash(State(state): State<Arc<HttpState>>) -> Response {
    if state.http.admin_tokens.is_empty() {
        return super::not_found().await;
    }
    (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, "../dashboard")]).into_response()
}

async fn file(
    State(state): State<Arc<HttpState>>,
    kind: &'static str,
    content: &'static str,
) -> Response {
    if state.http.admin_tokens.is_empty() {
        return super::not_found().await;
    }
    (HEADERS, [(header::CONTENT_TYPE, kind)], content).into_response()
}
