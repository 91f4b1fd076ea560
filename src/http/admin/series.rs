//! Throughput and latency of the last hour, as this node saw them.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::App;
use crate::vitals::series::POINT_INTERVAL_MS;

/// `GET /series`.
pub(super) async fn series(State(app): State<App>) -> Response {
    let node = &app.node;
    Json(json!({
        "node": node.config.node.id,
        "intervalMs": POINT_INTERVAL_MS,
        "points": node.vitals.points(),
    }))
    .into_response()
}
