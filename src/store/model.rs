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
