//! Memberships that were revoked.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::store::{Member, Result};

/// Memberships that were revoked.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Bans: Send + Sync + 'static {
    /// Revokes a membership, with its audit row. `false` if it was revoked
    /// already.
    async fn ban(&self, now: Timestamp, ban: &Moderation) -> Result<bool>;

    /// Restores a membership, with its audit row. `false` if it was active.
    async fn unban(&self, now: Timestamp, unban: &Moderation) -> Result<bool>;

    /// The revoked members.
    async fn banned(&self, mesh: &MeshId) -> Result<Vec<Member>>;
}

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
