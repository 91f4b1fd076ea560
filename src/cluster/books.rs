//! The books that a node keeps by itself: leases, simulation clocks, token buckets, used
//! digests and hooks' words. Pure: whoever calls says what time it is, and nothing here waits,
//! logs or knows of other nodes.
//!
//! [`single`](super::single) keeps nothing else; over [`redis`](super::redis) they
//! are what a node goes by while Redis is away.

pub(crate) mod buckets;
mod mesh;
pub(super) mod once;
pub(super) mod pending;
mod tombstones;

pub use self::mesh::{Line, MeshBooks, Renewal};

use super::{BusMessage, ClusterEvent, LeaseRef};
use crate::protocol::CloseReason;

/// How long leases live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How many milliseconds a session without a socket keeps its place.
    pub grace_ms: u64,
    /// After how many milliseconds without renewal a lease counts as lost; its
    /// session then has the grace window to come back.
    pub ttl_ms: u64,
}

/// Tells this node to close a socket whose presence has ended meanwhile: its
/// peers were told so. The client comes back as a new presence.
pub(super) fn close_ended(lease: &LeaseRef) -> ClusterEvent {
    ClusterEvent::Message {
        mesh: lease.mesh.clone(),
        message: Box::new(BusMessage::Close {
            presence: lease.presence.clone(),
            close: CloseReason::TRY_AGAIN_LATER.reason.to_owned(),
        }),
    }
}
