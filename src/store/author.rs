//! Who changes what a mesh shares.

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
