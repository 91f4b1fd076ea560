//! What changes, as it changes: server-sent events.
//!
//! A `snapshot` first, then at most once a second a `change` with what is
//! different. A task of its own makes them, since it reads the database and a
//! request's future may be dropped at any point; the two are joined by a
//! channel of a few events. A reader that is slow gets fewer and larger
//! changes: each is the difference from what was sent last.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::super::to_its_end;
use super::views::{AuditView, MeshDetail};
use super::{HttpState, Refused, audit, meshes, overview};
use crate::limits;
use crate::store::Mesh;
use crate::vitals::series::Point;

/// Between two events.
const INTERVAL: Duration = Duration::from_secs(1);
/// After so much silence a comment is sent, so that the reader knows that the
/// stream lives.
const COMMENT_AFTER: Duration = Duration::from_secs(5);
/// Audit rows of a snapshot, and of one change.
const AUDIT_ROWS: i64 = 50;

#[derive(Deserialize)]
pub(super) struct Which {
    mesh: Option<String>,
}

/// `GET /events`, with one mesh in full if `?mesh=` names one.
pub(super) async fn events(
    State(state): State<Arc<HttpState>>,
    which: Result<Query<Which>, QueryRejection>,
) -> Response {
    let Ok(Query(which)) = which else {
        let text = "mesh is the id or slug of a mesh, named once";
        return Refused::new(StatusCode::BAD_REQUEST, "invalid", text).into_response();
    };
    let Ok(permit) = Arc::clone(&state.admin.streams).try_acquire_owned() else {
        let text = "this node has as many event streams open as it may: close one, or try again";
        return Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", text)
            .into_response();
    };
    let found = to_its_end(&state, |state| async move {
        match which.mesh {
            Some(id) => meshes::find(&state, &id).await.map(Some),
            None => Ok(None),
        }
    });
    let mesh = match found.await {
        Ok(Ok(mesh)) => mesh,
        Ok(Err(refused)) => return refused.into_response(),
        Err(response) => return response,
    };
    let (sender, receiver) = mpsc::channel(limits::ADMIN_STREAM_EVENTS_MAX);
    state.life.tasks.spawn(produce(Arc::clone(&state), mesh, sender, permit));
    let events = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|event: Event| (Ok::<_, Infallible>(event), receiver))
    });
    let no_buffering = [("x-accel-buffering", "no")];
    (no_buffering, Sse::new(events)).into_response()
}

/// Sends events until the reader or the node is gone.
async fn produce(
    state: Arc<HttpState>,
    mesh: Option<Mesh>,
    sender: mpsc::Sender<Event>,
    _permit: OwnedSemaphorePermit,
) {
    let stopped = state.life.stopped.clone();
    let mut shown = Shown { mesh, ..Shown::default() };
    let mut last_sent = Instant::now();
    loop {
        // Room first: what is sent is as it is then.
        let room = tokio::select! {
            room = sender.reserve() => room,
            () = stopped.cancelled() => return,
        };
        let Ok(room) = room else { return };
        match shown.next(&state).await {
            Ok(Some(event)) => {
                room.send(event);
                last_sent = Instant::now();
            }
            Ok(None) if last_sent.elapsed() >= COMMENT_AFTER => {
                room.send(Event::default().comment("nothing new"));
                last_sent = Instant::now();
            }
            Ok(None) => {}
            // Logged where it was made; the reader keeps what it has.
            Err(refused) => {
                let body = json!({ "code": refused.code, "message": refused.message });
                room.send(Event::default().event("problem").data(body.to_string()));
                last_sent = Instant::now();
            }
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = sender.closed() => return,
            () = stopped.cancelled() => return,
        }
    }
}

#[derive(Default)]
struct Shown {
    mesh: Option<Mesh>,
    began: bool,
    nodes: HashMap<String, Value>,
    meshes: HashMap<String, Value>,
    detail: Value,
    audit_after: i64,
    point: Option<Point>,
}

impl Shown {
    async fn next(&mut self, state: &Arc<HttpState>) -> Result<Option<Event>, Refused> {
        let overview = overview::current(state).await?;
        let (detail, rows) = match &self.mesh {
            Some(mesh) => {
                (Some(meshes::detail(state, mesh).await?), self.new_rows(state, mesh).await?)
            }
            None => (None, Vec::new()),
        };
        let point = state.sampler.vitals.newest_point();
        if !self.began {
            self.began = true;
            self.keep(&overview.nodes, &overview.meshes, detail.as_ref(), &rows, point);
            let body = json!({
                "at": overview.at,
                "node": state.node.id,
                "nodes": overview.nodes,
                "meshes": overview.meshes,
                "meshesTotal": overview.meshes_total,
                "mesh": detail,
                "audit": rows,
            });
            return Ok(Some(Event::default().event("snapshot").data(body.to_string())));
        }
        let mut body = Map::new();
        let (nodes, meshes) = (by_id(&overview.nodes), by_id(&overview.meshes));
        put(&mut body, "nodes", difference(&self.nodes, &nodes));
        put(&mut body, "meshes", difference(&self.meshes, &meshes));
        let detail_value = detail.as_ref().map_or(Value::Null, to_value);
        put(&mut body, "mesh", (detail_value != self.detail).then_some(detail_value));
        put(&mut body, "audit", (!rows.is_empty()).then(|| to_value(&rows)));
        put(
            &mut body,
            "point",
            point.filter(|_| point != self.point).map(|point| to_value(&point)),
        );
        self.keep(&overview.nodes, &overview.meshes, detail.as_ref(), &rows, point);
        if body.is_empty() {
            return Ok(None);
        }
        body.insert("at".to_owned(), to_value(&overview.at));
        let text = Value::Object(body).to_string();
        Ok(Some(Event::default().event("change").data(text)))
    }

    /// Audit rows that were not told yet; of many, the newest.
    async fn new_rows(
        &self,
        state: &Arc<HttpState>,
        mesh: &Mesh,
    ) -> Result<Vec<AuditView>, Refused> {
        if !self.began {
            return audit::newest(state, &mesh.id, AUDIT_ROWS).await;
        }
        let rows = audit::after_row(state, &mesh.id, self.audit_after, AUDIT_ROWS).await?;
        if (rows.len() as i64) < AUDIT_ROWS {
            return Ok(rows);
        }
        audit::newest(state, &mesh.id, AUDIT_ROWS).await
    }

    fn keep(
        &mut self,
        nodes: &[impl Serialize],
        meshes: &[impl Serialize],
        detail: Option<&MeshDetail>,
        rows: &[AuditView],
        point: Option<Point>,
    ) {
        self.nodes = by_id(nodes);
        self.meshes = by_id(meshes);
        self.detail = detail.map_or(Value::Null, to_value);
        self.audit_after = rows.last().map_or(self.audit_after, |row| row.id);
        self.point = point;
    }
}

fn to_value(what: &impl Serialize) -> Value {
    // Our own shapes: no map with keys that are not text.
    serde_json::to_value(what).unwrap_or_default()
}

fn by_id(items: &[impl Serialize]) -> HashMap<String, Value> {
    let items = items.iter().map(to_value);
    items.filter_map(|item| Some((item["id"].as_str()?.to_owned(), item))).collect()
}

fn put(body: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        body.insert(name.to_owned(), value);
    }
}

/// What to set and what to forget.
fn difference(before: &HashMap<String, Value>, now: &HashMap<String, Value>) -> Option<Value> {
    let set: Vec<&Value> = now
        .iter()
        .filter(|(id, item)| before.get(*id) != Some(*item))
        .map(|(_, item)| item)
        .collect();
    let gone: Vec<&String> = before.keys().filter(|id| !now.contains_key(*id)).collect();
    (!set.is_empty() || !gone.is_empty()).then(|| json!({ "set": set, "gone": gone }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_what_is_new_and_what_is_gone() {
        let items = |items: &[(&str, u32)]| {
            let items: Vec<Value> =
                items.iter().map(|(id, n)| json!({ "id": id, "n": n })).collect();
            by_id(&items)
        };
        let before = items(&[("a", 1), ("b", 1), ("c", 1)]);
        assert_eq!(difference(&before, &before), None);
        let now = items(&[("a", 1), ("b", 2)]);
        let difference = difference(&before, &now).expect("something");
        assert_eq!(difference, json!({ "set": [{ "id": "b", "n": 2 }], "gone": ["c"] }));
    }
}
