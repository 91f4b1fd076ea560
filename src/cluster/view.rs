//! What operators are shown of the cluster: its nodes and its leases.

use serde::{Deserialize, Serialize};

use super::PresenceRecord;
use crate::clock::Timestamp;
use crate::id::{MeshId, NodeId};

/// Whether a node wants to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// The node serves.
    Ready,
    /// The node is stopping, and takes no new sockets.
    Draining,
    /// It serves without its database or without the cluster's shared state;
    /// also what a newer release calls by a name that is not known here.
    #[default]
    #[serde(other)]
    Degraded,
}

impl NodeState {
    /// The word that operators read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Degraded => "degraded",
        }
    }
}

/// What one node has of one mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeshLoad {
    /// The mesh.
    pub mesh: MeshId,
    /// Sockets open on the node.
    #[serde(default)]
    pub sockets: u32,
    /// Messages that the node accepted, per second.
    #[serde(default)]
    pub accepted_per_second: f64,
    /// Deliveries that the node wrote to sockets, per second.
    #[serde(default)]
    pub delivered_per_second: f64,
}

/// What a node says of itself.
///
/// It travels as a MessagePack map with named fields; unknown fields are
/// ignored and missing ones default, so that two releases can share a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The node's id.
    pub id: NodeId,
    /// Where it runs.
    #[serde(default)]
    pub region: Option<String>,
    /// The node's release.
    #[serde(default)]
    pub version: String,
    /// Whether it wants to be used.
    #[serde(default)]
    pub state: NodeState,
    /// When it said this, by its own clock.
    #[serde(default)]
    pub seen_at: Timestamp,
    /// For how long it has been running.
    #[serde(default)]
    pub uptime_seconds: u64,
    /// Sockets that are sessions.
    #[serde(default)]
    pub sockets: u64,
    /// Meshes that it serves.
    #[serde(default)]
    pub meshes: u64,
    /// How long the bus takes back to the node itself; `None` if there is no
    /// bus, or if it is deaf.
    #[serde(default)]
    pub bus_lag_ms: Option<f64>,
    /// Messages accepted, per second.
    #[serde(default)]
    pub accepted_per_second: f64,
    /// Deliveries written to sockets, per second.
    #[serde(default)]
    pub delivered_per_second: f64,
    /// What it has of single meshes; the busiest of them if there are many.
    #[serde(default)]
    pub loads: Vec<MeshLoad>,
}

/// How a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseState {
    /// The presence's socket is open.
    Online,
    /// The socket closed; the session may come back.
    Released,
    /// Its node went silent; the session may come back, or the node.
    Lost,
}

impl LeaseState {
    /// The word that operators read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Released => "released",
            Self::Lost => "lost",
        }
    }
}

/// A lease as it stands in the books.
#[derive(Clone, Debug)]
pub struct LeaseView {
    /// What the directory says of its presence.
    pub record: PresenceRecord,
    /// How the lease stands.
    pub state: LeaseState,
    /// When it ends unless it is renewed or its session comes back.
    pub expires_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_another_release_says_is_read_as_far_as_it_is_known() {
        let newer = json!({ "id": "a", "state": "hibernating", "moods": ["good"] });
        let packed = rmp_serde::to_vec_named(&newer).expect("packed");
        let record: NodeRecord = rmp_serde::from_slice(&packed).expect("read");
        assert_eq!((record.id.as_str(), record.state), ("a", NodeState::Degraded));
        assert_eq!((record.sockets, record.bus_lag_ms), (0, None));
    }
}
