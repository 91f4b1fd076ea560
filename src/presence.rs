//! Presence: what peers are told of each other, and how a presence ends.
//!
//! A presence begins and ends once in the cluster, whichever nodes try; its peers
//! hear of each exactly once, and never of a hidden one. Called by hellos, by what peers
//! ask, by frames of other nodes and by jobs; nothing here knows a socket.
//!
//! - `changes`: announcements, ends and removals
//! - `members`: who is a member, read again when that changes
//! - `status`: idle, working, do not disturb, and what follows
//! - `said`: what a visitor on another node says for a session here
//! - `servers`: servers that presences host for their mesh
//! - `transcript`: the status that a session's own transcript shows

pub(crate) mod changes;
#[cfg(test)]
pub(crate) mod fakes;
pub(crate) mod members;
pub(crate) mod said;
pub(crate) mod servers;
pub(crate) mod status;
pub(crate) mod transcript;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::cluster::Cluster;
use crate::config::PresenceConfig;
use crate::delivery;
use crate::events::shared;
use crate::life::Life;
use crate::metrics::Metrics;
use crate::protocol::CloseReason;
use crate::record::PresenceRecord;
use crate::registry::Registry;
use crate::relay::Relay;
use crate::store::{McpServers, Members, Presences};
use crate::writers::presences::PresenceWriter;

pub(crate) struct Parts {
    pub config: PresenceConfig,
    pub members: Arc<dyn Members>,
    pub presences: Arc<dyn Presences>,
    /// The way to the other nodes, and the directory that they share.
    pub cluster: Arc<dyn Cluster>,
    /// Sessions here, and who is elsewhere.
    pub registry: Arc<Registry>,
    /// Rows of presences on their way to the store.
    pub writer: PresenceWriter,
    /// The way of mail to whom a change concerns.
    pub delivery: Arc<delivery::Parts>,
    /// Servers that outlive their hosts.
    pub mcp_servers: Arc<dyn McpServers>,
    /// What peers ask of each other, which ends with a socket.
    pub relay: Arc<Relay>,
    /// How changes of what a mesh shares are told.
    pub shared: Arc<shared::Parts>,
    pub metrics: Arc<Metrics>,
    pub life: Arc<Life>,
    /// Counts what changes about members: a hello that read them before looks
    /// again after.
    pub member_changes: AtomicU64,
    /// Presences of which nobody knows whether this node has ended them.
    pub unsettled_ends: Mutex<Vec<UnsettledEnd>>,
}

/// The end of a presence whose answer the store's connection lost. If the row ended
/// at that very instant, it was this call that ended it.
#[derive(Clone, Debug)]
pub(crate) struct UnsettledEnd {
    pub record: PresenceRecord,
    /// What to close its socket with, if one is open.
    pub close: Option<CloseReason>,
    pub at: Timestamp,
}

#[cfg(test)]
mod tests;
