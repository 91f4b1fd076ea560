//! What is shown: as much of the admin API's answers as is needed here.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// All nodes.
#[derive(Debug, Deserialize)]
pub(super) struct Nodes {
    at: Timestamp,
    node: String,
    nodes: Vec<Node>,
}

/// A node.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) region: Option<String>,
    pub(super) version: String,
    pub(super) state: String,
    pub(super) uptime_seconds: u64,
    pub(super) sockets: u64,
    pub(super) meshes: u64,
    pub(super) bus_lag_ms: Option<f64>,
    pub(super) accepted_per_second: f64,
    pub(super) delivered_per_second: f64,
}

/// All meshes.
#[derive(Debug, Deserialize)]
pub(super) struct Meshes {
    meshes: Vec<Mesh>,
    total: u64,
}

/// A mesh in the listing.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mesh {
    pub(super) id: String,
    pub(super) slug: String,
    pub(super) archived_at: Option<Timestamp>,
    pub(super) members: u64,
    pub(super) sockets: u64,
    pub(super) places: u64,
    pub(super) cap: u64,
    pub(super) queued: u64,
    pub(super) accepted_per_second: f64,
    pub(super) delivered_per_second: f64,
}

/// The last hour of the node that answers.
#[derive(Debug, Deserialize)]
pub(super) struct Series {
    points: Vec<Point>,
}

/// A point of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Point {
    pub(super) at: Timestamp,
    pub(super) accepted_per_second: f64,
    pub(super) delivered_per_second: f64,
    pub(super) sockets: u64,
    pub(super) accept_p50_ms: f64,
    pub(super) accept_p99_ms: f64,
    pub(super) deliver_p50_ms: f64,
    pub(super) deliver_p99_ms: f64,
}

/// One mesh in full.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MeshDetail {
    pub(super) id: String,
    pub(super) slug: String,
    pub(super) peers: Vec<Peer>,
    pub(super) held: Vec<Held>,
    pub(super) leases: Vec<Lease>,
}

/// A presence.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Peer {
    pub(super) presence: String,
    pub(super) name: String,
    pub(super) key: String,
    pub(super) role: String,
    pub(super) status: String,
    pub(super) status_since: Timestamp,
    pub(super) groups: Vec<String>,
    pub(super) node: String,
    pub(super) online: bool,
    pub(super) since: Timestamp,
}

/// What waits for one recipient.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Held {
    pub(super) target: String,
    pub(super) name: Option<String>,
    pub(super) messages: u64,
    pub(super) oldest_at: Timestamp,
}

/// A lease.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lease {
    pub(super) presence: String,
    pub(super) state: String,
    pub(super) expires_at: Timestamp,
}

/// How it is at one instant.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    pub(super) at: Timestamp,
    /// The node that answers.
    pub(super) node: String,
    pub(super) nodes: Vec<Node>,
    pub(super) meshes: Vec<Mesh>,
    pub(super) meshes_total: u64,
    /// The newest point of its series.
    pub(super) point: Option<Point>,
    pub(super) mesh: Option<MeshDetail>,
    #[serde(skip)]
    pub(super) points: Vec<Point>,
}

impl Shown {
    pub(super) fn new(
        nodes: Nodes,
        meshes: Meshes,
        series: Series,
        mesh: Option<MeshDetail>,
    ) -> Self {
        Self {
            at: nodes.at,
            node: nodes.node,
            nodes: nodes.nodes,
            meshes: meshes.meshes,
            meshes_total: meshes.total,
            point: series.points.last().cloned(),
            mesh,
            points: series.points,
        }
    }
}
