//! `/health`, `/health/ready`, `/metrics`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::HttpState;
use crate::cluster::ClusterHealth;
use crate::metrics::{GIT_SHA, VERSION};

/// Where the process says that it lives.
pub(super) const HEALTH: &str = "/health";
/// Where the process says whether it welcomes new sockets.
pub(super) const READY: &str = "/health/ready";

/// Both paths, for whoever must let them through.
pub(crate) const PATHS: &[&str] = &[HEALTH, READY];

/// Liveness: 200 as long as the process serves.
pub(super) async fn health(State(state): State<Arc<HttpState>>) -> Response {
    let mut body = json!({
        "status": if state.sampler.is_degraded() { "degraded" } else { "ok" },
        "db": if state.life.store_up.load(Ordering::Relaxed) { "up" } else { "down" },
        "redis": match state.cluster.health() {
            ClusterHealth::Single => "none",
            ClusterHealth::Up => "up",
            ClusterHealth::Degraded => "down",
        },
        "version": VERSION,
        "gitSha": GIT_SHA,
        "uptime": state.life.started.elapsed().as_secs(),
        "node": state.node.id,
        "region": state.node.region,
        "mode": state.mode,
    });
    if let Some(trouble) = state.cluster.trouble() {
        body["redisTrouble"] = trouble.into();
    }
    Json(body).into_response()
}

/// Readiness: whether new sockets are welcome.
pub(super) async fn ready(State(state): State<Arc<HttpState>>) -> Response {
    let uptime = state.life.started.elapsed().as_secs();
    match state.life.unready_because() {
        None => Json(json!({
            "status": "ready", "version": VERSION, "gitSha": GIT_SHA, "uptime": uptime,
        }))
        .into_response(),
        Some(reason) => {
            let body = json!({
                "status": "not_ready", "reason": reason, "version": VERSION, "gitSha": GIT_SHA,
                "uptime": uptime,
            });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

pub(super) async fn metrics(State(state): State<Arc<HttpState>>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let accepted = accepted.collect::<Vec<_>>().join(",");
    let (kind, text) = match wants_plain_text(&accepted) {
        true => ("text/plain; version=0.0.4; charset=utf-8", state.metrics.render_plain()),
        false => {
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", state.metrics.render())
        }
    };
    ([(header::CONTENT_TYPE, kind), (header::VARY, "accept")], text).into_response()
}

/// Whether an `Accept` header prefers the older text format. Who does not care
/// gets OpenMetrics.
fn wants_plain_text(accepted: &str) -> bool {
    let weight = |own: &str| {
        let family = own.split('/').next().unwrap_or_default();
        let mut best: Option<(u8, f32)> = None;
        for item in accepted.split(',') {
            let mut parts = item.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let closeness = match kind.as_str() {
                kind if kind == own => 3,
                "*/*" => 1,
                kind if kind.strip_suffix("/*") == Some(family) => 2,
                _ => continue,
            };
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.trim().parse().ok());
            let found = (closeness, weight.unwrap_or(1.0_f32));
            if best.is_none_or(|best| found > best) {
                best = Some(found);
            }
        }
        best.map_or(0.0, |(_, weight)| weight)
    };
    weight("text/plain") > weight("application/openmetrics-text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_is_for_those_who_prefer_it() {
        for plain in [
            "text/plain",
            "TEXT/PLAIN;version=0.0.4",
            "text/*",
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;q=0.1,text/plain;q=0.2",
        ] {
            assert!(wants_plain_text(plain), "{plain}");
        }
        for open in [
            "",
            "*/*",
            "application/json",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1",
            "text/plain;q=0,application/openmetrics-text",
        ] {
            assert!(!wants_plain_text(open), "{open}");
        }
    }
}
