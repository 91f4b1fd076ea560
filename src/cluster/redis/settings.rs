//! What a node must know to share Redis with others.

use std::path::PathBuf;

use super::seals::ClusterKey;
use crate::config::SecretUrl;
use crate::id::NodeId;

/// Where Redis is, and who this node is in it.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// `redis://` or `rediss://` (TLS).
    pub url: SecretUrl,
    /// Whether it is a Redis Cluster.
    pub cluster_mode: bool,
    /// The authorities to trust instead of the well-known ones (PEM).
    pub ca_file: Option<PathBuf>,
    /// This node.
    pub node: NodeId,
    /// Where it runs; shown in `CLIENT LIST`.
    pub region: Option<String>,
    /// How many milliseconds a session without a socket keeps its place.
    pub lease_grace_ms: u64,
    /// After how many milliseconds without renewal a lease counts as lost.
    pub lease_ttl_ms: u64,
    /// What every key and channel begins with, before the cluster's id.
    pub key_prefix: String,
    /// The cluster's id, and what its nodes sign by.
    pub cluster_key: ClusterKey,
}
