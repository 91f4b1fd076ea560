//! All nodes and all meshes, at a glance.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use parking_lot::Mutex;

use super::views::{MeshView, Meshes, NodeView, Nodes};
use super::{HttpState, Refused, answer};
use crate::clock::Timestamp;
use crate::cluster::NodeRecord;
use crate::id::{MeshId, NodeId};
use crate::limits;
use crate::store::MeshSummary;

/// How old an overview may be that is shown.
const FRESH: Duration = Duration::from_millis(900);
/// How old the listing of the meshes in it may be: it costs the database more.
const MESHES_FRESH: Duration = Duration::from_secs(2);

/// Nodes and meshes as they were at one instant.
#[derive(Debug)]
pub(super) struct Overview {
    pub(super) at: Timestamp,
    pub(super) nodes: Vec<NodeView>,
    pub(super) meshes: Vec<MeshView>,
    /// How many meshes there are.
    pub(super) meshes_total: usize,
    made: Instant,
    summaries: Arc<Vec<MeshSummary>>,
    summaries_read: Instant,
}

/// The newest overview, so that many who look cost no more than one.
#[derive(Default)]
pub(super) struct Cache {
    newest: Mutex<Option<Arc<Overview>>>,
    refreshing: AtomicBool,
}

/// `GET /nodes`.
pub(super) async fn nodes(State(state): State<Arc<HttpState>>) -> Response {
    answer(&state, |state| async move {
        let overview = current(&state).await?;
        let node = state.node.id.clone();
        Ok(Nodes { at: overview.at, node, nodes: overview.nodes.clone() })
    })
    .await
}

/// `GET /meshes`.
pub(super) async fn meshes(State(state): State<Arc<HttpState>>) -> Response {
    answer(&state, |state| async move {
        let overview = current(&state).await?;
        let meshes = overview.meshes.clone();
        Ok(Meshes { at: overview.at, meshes, total: overview.meshes_total })
    })
    .await
}

/// An overview that is fresh enough. While one caller makes a new one, the
/// others get the last.
pub(super) async fn current(state: &Arc<HttpState>) -> Result<Arc<Overview>, Refused> {
    let cache = &state.admin.cache;
    let newest = cache.newest.lock().clone();
    if let Some(newest) = &newest {
        let is_fresh = newest.made.elapsed() < FRESH;
        if is_fresh || cache.refreshing.swap(true, Ordering::AcqRel) {
            return Ok(Arc::clone(newest));
        }
    }
    let made = make(state, newest.as_deref()).await;
    cache.refreshing.store(false, Ordering::Release);
    let made = Arc::new(made?);
    *cache.newest.lock() = Some(Arc::clone(&made));
    Ok(made)
}

async fn make(state: &HttpState, last: Option<&Overview>) -> Result<Overview, Refused> {
    let mut records = state.cluster.nodes().await?;
    // What this node knows of itself is never old.
    let own = state.sampler.record();
    match records.iter_mut().find(|record| record.id == own.id) {
        Some(record) => *record = own,
        None => records.push(own),
    }
    let known = last.filter(|last| last.summaries_read.elapsed() < MESHES_FRESH);
    let (summaries, summaries_read) = match known {
        Some(last) => (Arc::clone(&last.summaries), last.summaries_read),
        None => (Arc::new(state.stores.meshes.all().await?), Instant::now()),
    };
    let mut meshes =
        mesh_views(&summaries, &records, state.presence.config.connections_per_mesh_max);
    let meshes_total = meshes.len();
    meshes.truncate(limits::ADMIN_MESHES_MAX);
    Ok(Overview {
        at: Timestamp::now(),
        nodes: records.iter().map(NodeView::from).collect(),
        meshes,
        meshes_total,
        made: Instant::now(),
        summaries,
        summaries_read,
    })
}

#[derive(Default)]
struct Load {
    sockets: u64,
    accepted: f64,
    delivered: f64,
    nodes: Vec<NodeId>,
}

/// The busiest first, archived ones last.
fn mesh_views(summaries: &[MeshSummary], nodes: &[NodeRecord], cap: u32) -> Vec<MeshView> {
    let mut loads: HashMap<&MeshId, Load> = HashMap::new();
    for node in nodes {
        for load in &node.loads {
            let of_mesh = loads.entry(&load.mesh).or_default();
            of_mesh.sockets += u64::from(load.sockets);
            of_mesh.accepted += load.accepted_per_second;
            of_mesh.delivered += load.delivered_per_second;
            if load.sockets > 0 {
                of_mesh.nodes.push(node.id.clone());
            }
        }
    }
    let mut views: Vec<MeshView> = summaries
        .iter()
        .map(|summary| {
            let load = loads.remove(&summary.mesh.id).unwrap_or_default();
            MeshView {
                id: summary.mesh.id.clone(),
                slug: summary.mesh.slug.clone(),
                name: summary.mesh.name.clone(),
                archived_at: summary.mesh.archived_at,
                members: summary.members,
                sockets: load.sockets,
                places: summary.presences,
                cap,
                queued: summary.queued,
                accepted_per_second: load.accepted,
                delivered_per_second: load.delivered,
                nodes: load.nodes,
            }
        })
        .collect();
    // Stable: what is equally busy keeps the order of the store.
    views.sort_by_key(|mesh| {
        (mesh.archived_at.is_some(), std::cmp::Reverse((mesh.places, mesh.queued)))
    });
    views
}
