//! What is written down.

use serde_json::Value;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};

/// A ban or its end.
#[derive(Clone, Debug)]
pub struct Moderation {
    /// The mesh.
    pub mesh: MeshId,
    /// Whose membership.
    pub member: MemberId,
    /// Who did it; `None` for an operator at the command line.
    pub actor: Option<MemberId>,
    /// The actor's name.
    pub actor_name: Option<String>,
    /// The audit row.
    pub audit: AuditEvent,
}

/// An audit row to append.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// The mesh.
    pub mesh: MeshId,
    /// Who did it.
    pub actor: Option<MemberId>,
    /// The actor's name.
    pub actor_name: Option<String>,
    /// What.
    pub event: AuditEvent,
}

/// An audit row as it stands.
#[derive(Clone, Debug)]
pub struct AuditRecord {
    /// Its place.
    pub id: i64,
    /// The mesh.
    pub mesh: MeshId,
    /// What happened.
    pub event_type: String,
    /// Who did it.
    pub actor: Option<String>,
    /// The actor's name.
    pub actor_name: Option<String>,
    /// To what.
    pub payload: Value,
    /// The hash of the row before.
    pub prev_hash: String,
    /// This row's hash.
    pub hash: String,
    /// When.
    pub created_at: Timestamp,
}
