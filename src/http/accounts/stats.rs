//! `/api/public/stats`: a few numbers for anybody, a minute old at most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::response::IntoResponse as _;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Answer, Call};
use crate::clock::Timestamp;

/// How long an answer is given again: many ask, and meshes are counted for it.
const KEPT: Duration = Duration::from_secs(60);

/// The last answer, and when it was made.
#[derive(Default)]
pub(crate) struct Stats(Mutex<Option<(Instant, Value)>>);

/// `GET /api/public/stats`. Messages are those that this node has accepted since it
/// started: rows are deleted, and counting all of them takes long.
pub(super) async fn stats(call: Arc<Call>) -> Answer {
    let kept = call.state.stats.0.lock().clone();
    if let Some((_, body)) = kept.filter(|(made, _)| made.elapsed() < KEPT) {
        return Ok(([("x-cache", "HIT")], Json(body)).into_response());
    }
    let meshes = call.state.stores.meshes.all().await?;
    let open = || meshes.iter().filter(|summary| summary.mesh.archived_at.is_none());
    let body = json!({
        "messagesRouted": call.state.metrics.accepted(),
        "meshesCreated": open().count(),
        "peersActive": open().map(|summary| summary.presences).sum::<i64>(),
        "lastUpdated": Timestamp::now(),
    });
    *call.state.stats.0.lock() = Some((Instant::now(), body.clone()));
    Ok(([("x-cache", "MISS")], Json(body)).into_response())
}
