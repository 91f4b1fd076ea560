//! What the store takes and gives: domain records, not rows.

mod audit;
pub(in crate::store) mod member;
mod message;
mod presence;

pub use audit::{AuditEntry, AuditRecord, Moderation};
pub use member::{
    Admission, AdmittedMember, Grants, Invite, Join, JoinRefusal, Joined, Member, Mesh,
    MeshSummary, NewInvite, NewMesh, Role, read_grants,
};
pub use message::{
    Accepted, ClaimRequest, Confirm, Expired, Holder, MessageState, NewEnvelope, Reach, Retention,
    StoredEnvelope, WaitingLoad, is_topic_post,
};
pub use presence::{
    EndPresence, OpenPresence, OpenPresenceState, PeerState, PresenceAt, PresenceChange,
    ReattachPresence, StoredPresence, SuspendPresence,
};

use crate::id::MeshId;

/// Who the cluster is that keeps its messages in a database.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterIdentity {
    /// Part of every name that it uses elsewhere.
    pub id: String,
    /// What its nodes know and nobody else: random bytes.
    pub secret: Vec<u8>,
}

/// Without the secret.
impl std::fmt::Debug for ClusterIdentity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ClusterIdentity").field("id", &self.id).finish_non_exhaustive()
    }
}

impl ClusterIdentity {
    /// One that nobody had before.
    #[must_use]
    pub fn generate() -> Self {
        let (id, secret): ([u8; 8], [u8; 32]) = (rand::random(), rand::random());
        Self { id: hex::encode(id), secret: secret.to_vec() }
    }
}

/// Connections to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// In use now.
    pub in_use: u32,
    /// At most.
    pub max: u32,
}

/// What another program changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Nothing.
    None,
    /// These meshes.
    Meshes(Vec<MeshId>),
    /// Something; the store cannot tell what.
    Unknown,
}
