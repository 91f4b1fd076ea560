//! What nodes share: leases, the directory, the bus, simulation clocks, and the small
//! things that must hold across all of them.
//!
//! Two implementations: [`single`] (one node; all of it in this process's
//! memory) and [`redis`], over the same [`books`]. One conformance suite runs against both
//! (`tests/it/cluster/conformance.rs`).
//!
//! **A lease is the connection count.** Each presence has one, with an expiry
//! on the cluster's own clock; a mesh's count is the number of its live
//! leases. Nothing is counted up or down, so nothing can leak.

pub mod books;
pub(crate) mod bus;
mod clock;
pub mod redis;
pub(crate) mod sim_clock;
pub mod single;
mod view;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use books::buckets::{Draw, Drawn};
pub use bus::{BusDelivery, BusMessage, Multicast, MulticastSender, TopicNote};
pub use sim_clock::{ClockChange, ClockTurn, SimClock};
pub use view::{LeaseState, LeaseView, MeshLoad, NodeRecord, NodeState};

use crate::id::{MeshId, NodeId, PresenceId};
use crate::protocol::Status;
use crate::record::PresenceRecord;

/// What the cluster answers when it cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The shared state cannot be reached. The same call may succeed later.
    #[error("the cluster's shared state is not available: {0}")]
    Unavailable(String),
}

/// The result of a cluster call.
pub type Result<T> = std::result::Result<T, ClusterError>;

/// One holding of a lease. A reattach raises the epoch; whoever still holds
/// the old epoch has lost it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseRef {
    /// The mesh.
    pub mesh: MeshId,
    /// The presence.
    pub presence: PresenceId,
    /// The epoch of this holding.
    pub epoch: u64,
}

/// A lease with what the directory says of its presence.
#[derive(Clone, Debug)]
pub struct HeldLease {
    /// The lease.
    pub lease: LeaseRef,
    /// The record to restore if the shared state has lost it.
    pub record: Arc<PresenceRecord>,
}

/// What became of an attempt to enter a mesh.
#[derive(Clone, Debug)]
pub enum Acquired {
    /// A new presence, as the request named it.
    New {
        /// The lease of the new presence.
        lease: LeaseRef,
        /// Presences that gave up their place in grace for it: the caller
        /// ends them.
        yielded: Vec<PresenceRecord>,
    },
    /// The same session had a lease: it keeps its presence id, and whoever
    /// held it has lost it.
    Reattached {
        /// The lease, under the old presence id and a new epoch.
        lease: LeaseRef,
        /// The directory's record of it.
        record: Box<PresenceRecord>,
    },
    /// Every place is taken by an open socket.
    AtCapacity {
        /// How many places open sockets hold.
        current: u32,
        /// When the first lease can expire at the earliest.
        retry_after_ms: u64,
    },
}

/// How to let go of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The socket is gone; its session may come back within the grace window.
    Grace,
    /// The session will not come back.
    Now,
}

/// How the shared state does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterHealth {
    /// The node is alone and has nothing to reach.
    Single,
    /// The shared state is reached.
    Up,
    /// The shared state is not reached; local work goes on.
    Degraded,
}

/// What arrives from other nodes.
#[derive(Clone, Debug)]
pub enum ClusterEvent {
    /// A frame for a mesh that this node has joined.
    Message {
        /// The mesh.
        mesh: MeshId,
        /// The frame's message.
        message: Box<BusMessage>,
    },
    /// Frames for this mesh may have been missed: fetch its directory again
    /// and drain its sessions from the store.
    Gap {
        /// The mesh.
        mesh: MeshId,
    },
}

/// Events on their way from the cluster to the node. Bounded; when it is
/// full the implementation drops and tells of a [`ClusterEvent::Gap`].
pub type ClusterEvents = mpsc::Receiver<ClusterEvent>;

/// What nodes share.
///
/// Every method is idempotent: one that timed out may have run.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// Enters a mesh: reattaches the session that `record` identifies if it
    /// has a lease, else takes a place if one of `cap` is free, else the
    /// place of the oldest presence in grace. Atomic.
    async fn acquire(&self, record: &PresenceRecord, cap: u32) -> Result<Acquired>;

    /// Renews leases whose sockets are open, restoring those that the shared
    /// state has lost. Returns those taken over by another holder.
    async fn renew(&self, held: &[HeldLease]) -> Result<Vec<LeaseRef>>;

    /// Lets go of a lease, if this epoch still holds it; says whether it did.
    async fn release(&self, lease: &LeaseRef, how: Release) -> Result<bool>;

    /// Ends the lease of a presence whoever holds it: kick and ban.
    async fn revoke(&self, mesh: &MeshId, presence: &PresenceId) -> Result<()>;

    /// Takes presences out whose lease has expired, each handed to exactly
    /// one caller in the cluster.
    async fn reap(&self, limit: usize) -> Result<Vec<PresenceRecord>>;

    /// Puts presences that have no lease into grace: what the store still
    /// lists after the shared state was lost or the node restarted.
    async fn adopt(&self, records: &[PresenceRecord]) -> Result<()>;

    /// Replaces the directory's record of a presence, if the lease is held; whether
    /// it is.
    async fn write_record(&self, lease: &LeaseRef, record: &PresenceRecord) -> Result<bool>;

    /// Starts to receive a mesh's frames and returns its directory. Frames
    /// sent after this returns arrive.
    async fn join_mesh(&self, mesh: &MeshId) -> Result<Vec<PresenceRecord>>;

    /// A mesh's directory again, after a gap.
    async fn directory(&self, mesh: &MeshId) -> Result<Vec<PresenceRecord>>;

    /// Stops to receive a mesh's frames.
    async fn leave_mesh(&self, mesh: &MeshId);

    /// Hands a frame to the mesh's other nodes. Does not wait; what cannot be
    /// sent is lost, and the other nodes notice the gap.
    fn publish(&self, mesh: &MeshId, message: &BusMessage);

    /// Whether this digest is used for the first time within `ttl_ms`.
    async fn use_once(&self, digest: &[u8; 32], ttl_ms: u64) -> Result<bool>;

    /// Takes tokens from buckets of one owner, from each as many as are wanted or as there
    /// are; the answers are in the order of the draws.
    async fn take_tokens(&self, owner: &str, draws: &[Draw]) -> Result<Vec<Drawn>>;

    /// Keeps a hook's word for a session that has not connected yet, for ten
    /// seconds.
    async fn put_pending_status(&self, pid: i32, cwd: &str, status: Status) -> Result<()>;

    /// Takes the newest such word.
    async fn take_pending_status(&self, pid: i32, cwd: &str) -> Result<Option<Status>>;

    /// Changes a mesh's simulation clock, and says how it is then. `None`: the mesh has
    /// none, and that change makes none. In a mesh without a lease it stands.
    async fn change_clock(&self, mesh: &MeshId, change: ClockChange) -> Result<Option<SimClock>>;

    /// The simulation clocks of these meshes, in their order.
    async fn clocks(&self, meshes: &[MeshId]) -> Result<Vec<Option<SimClock>>>;

    /// Takes a turn at the simulation clocks of these meshes, in their order: each ticks
    /// if its next tick is due and this node is its ticker, or becomes it because no other
    /// node is. With each goes what this node knows of it: where the shared state has lost
    /// the clock, it goes on from there. A tick whose turn fails on its way back is lost,
    /// and its number is not given again.
    async fn tick_clocks(&self, known: &[(MeshId, SimClock)]) -> Result<Vec<ClockTurn>>;

    /// Says how this node does, for so long. Said again before that, it
    /// replaces what was said before; a node that dies is forgotten by itself.
    async fn announce_node(&self, record: &NodeRecord, ttl_ms: u64) -> Result<()>;

    /// What the nodes said last, by their id. Without the shared state: only
    /// what this one said.
    async fn nodes(&self) -> Result<Vec<NodeRecord>>;

    /// The nodes whose last word still holds. Unlike [`nodes`](Self::nodes) it is an error
    /// where that is not known, so that nobody is taken for silent who only cannot be
    /// asked for.
    async fn nodes_heard(&self) -> Result<BTreeSet<NodeId>>;

    /// Every lease of a mesh as it stands in the books, for those who look.
    async fn leases(&self, mesh: &MeshId) -> Result<Vec<LeaseView>>;

    /// How long a frame last took through the bus and back to this node.
    /// `None` if there is no bus, or if it is deaf.
    fn bus_lag(&self) -> Option<Duration>;

    /// How much was found in the shared state that no node of this cluster has
    /// signed.
    fn refused(&self) -> u64 {
        0
    }

    /// How the shared state does, as last seen.
    fn health(&self) -> ClusterHealth;

    /// What is wrong, if it is degraded.
    fn trouble(&self) -> Option<&'static str> {
        None
    }

    /// Cancelled when the background work has died, which only a defect does: the
    /// node cannot go on.
    fn failed(&self) -> CancellationToken {
        CancellationToken::new()
    }

    /// Stops the background work.
    async fn close(&self);
}
