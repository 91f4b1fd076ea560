//! Throughput and latency of the last hour, as this node saw them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::HttpState;
use super::views::Series;
use crate::vitals::series::POINT_INTERVAL_MS;

/// `GET /series`.
pub(super) async fn series(State(state): State<Arc<HttpState>>) -> Json<Series> {
    Json(Series {
        node: state.node.id.clone(),
        interval_ms: POINT_INTERVAL_MS,
        points: state.sampler.vitals.points(),
    })
}
