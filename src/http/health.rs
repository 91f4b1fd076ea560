//! `/health`, `/health/ready`, `/metrics`.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::App;
use crate::cluster::ClusterHealth;
use crate::config::Deployment;
use crate::metrics::{GIT_SHA, VERSION};
use crate::node::Node;

/// Liveness: 200 as long as the process serves.
pub async fn health(State(app): State<App>) -> Response {
    let node = &app.node;
    let mut body = json!({
        "status": if is_degraded(node) { "degraded" } else { "ok" },
        "db": if node.store_up.load(Ordering::Relaxed) { "up" } else { "down" },
        "redis": match node.cluster.health() {
            ClusterHealth::Single => "none",
            ClusterHealth::Up => "up",
            ClusterHealth::Degraded => "down",
        },
        "version": VERSION,
        "gitSha": GIT_SHA,
        "uptime": node.started.elapsed().as_secs(),
        "node": node.config.node.id,
        "region": node.config.node.region,
        "mode": mode(node),
    });
    if let Some(trouble) = node.cluster.trouble() {
        body["redisTrouble"] = trouble.into();
    }
    Json(body).into_response()
}

fn mode(node: &Node) -> &'static str {
    match node.config.deployment {
        Deployment::Single { .. } => "single",
        Deployment::Clustered { .. } => "clustered",
    }
}

fn is_degraded(node: &Node) -> bool {
    !node.store_up.load(Ordering::Relaxed) || node.cluster.health() == ClusterHealth::Degraded
}

/// Readiness: whether new sockets are welcome.
pub async fn ready(State(app): State<App>) -> Response {
    let node = &app.node;
    let uptime = node.started.elapsed().as_secs();
    let reason = if node.draining.is_cancelled() {
        Some("draining")
    } else if !node.store_up.load(Ordering::Relaxed) {
        Some("db_down")
    } else {
        None
    };
    match reason {
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

/// Prometheus.
pub async fn metrics(State(app): State<App>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.node.metrics.render()).into_response()
}
