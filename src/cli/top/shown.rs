//! What `top` shows: the admin API's answers at one instant.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::http::admin::views::{MeshDetail, MeshView, Meshes, NodeView, Nodes, Series};
use crate::id::NodeId;
use crate::vitals::series::Point;

/// A broker as it is at one instant.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    pub(super) at: Timestamp,
    pub(super) node: NodeId,
    pub(super) nodes: Vec<NodeView>,
    pub(super) meshes: Vec<MeshView>,
    pub(super) meshes_total: usize,
    /// The newest point of that node's series.
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
            point: series.points.last().copied(),
            mesh,
            points: series.points,
        }
    }
}
