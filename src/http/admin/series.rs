//! Throughput and latency of the last hour, as this node saw them.

use axum::Json;
use axum::extract::State;

use super::App;
use super::views::Series;
use crate::vitals::series::POINT_INTERVAL_MS;

/// `GET /series`.
pub(super) async fn series(State(app): State<App>) -> Json<Series> {
    let node = &app.node;
    Json(Series {
        node: node.config.node.id.clone(),
        interval_ms: POINT_INTERVAL_MS,
        points: node.vitals.points(),
    })
}
