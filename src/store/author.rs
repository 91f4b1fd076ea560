//! Who changes what a mesh shares.

use crate::audit::AuditEvent;
use crate::id::{MemberId, MeshId, PresenceId};

/// A member at work, with the session that it does it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The mesh.
    pub mesh: MeshId,
    /// The member.
    pub member: MemberId,
    /// The name that the member is enrolled under: what others are shown.
    pub member_name: String,
    /// What the session calls itself.
    pub session_name: String,
    /// The session.
    pub presence: PresenceId,
}

impl Author {
    /// The session's own name, where it is another than the member's.
    #[must_use]
    pub fn other_name(&self) -> Option<&str> {
        (self.session_name != self.member_name).then_some(self.session_name.as_str())
    }
}

/// The member that did something without a session; an operator is none.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The member.
    pub id: MemberId,
    /// The name that the member is enrolled under.
    pub name: String,
}

impl Actor {
    /// The audit row of what it did, or of what an operator did.
    #[must_use]
    pub fn entry(by: Option<Self>, mesh: &MeshId, event: AuditEvent) -> AuditEntry {
        let (actor, actor_name) = by.map(|Self { id, name }| (id, name)).unzip();
        AuditEntry { mesh: mesh.clone(), actor, actor_name, event }
    }
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
