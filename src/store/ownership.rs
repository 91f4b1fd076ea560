//! Meshes as the accounts of their members and owners see and change them.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::Timestamp;
use crate::id::{AccountId, MemberId, MeshId};
use crate::store::columns::Columns;
use crate::store::{AuditEntry, Mesh, Result, Role, StoreError};

/// Meshes as the accounts of their members and owners see and change them.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Ownership: Send + Sync + 'static {
    /// The meshes, archived ones excepted, that the account owns or is in, by slug.
    async fn meshes_of(&self, account: &AccountId) -> Result<Vec<AccountMesh>>;

    /// Gives the mesh of the audit row another slug, which is its name, too. `Conflict`
    /// if another mesh has that slug.
    async fn rename(&self, now: Timestamp, audit: &AuditEntry, slug: &str) -> Result<()>;

    /// Says which of its own fields a member may edit, in the mesh of the audit row.
    async fn set_self_editable(
        &self,
        now: Timestamp,
        audit: &AuditEntry,
        policy: &Value,
    ) -> Result<()>;

    /// What was said of single members' permissions.
    async fn permissions(&self, mesh: &MeshId) -> Result<Vec<(MemberId, Permissions)>>;

    /// Says what a member may do in the mesh of the audit row.
    async fn set_permissions(
        &self,
        now: Timestamp,
        audit: &AuditEntry,
        member: &MemberId,
        permissions: &Permissions,
    ) -> Result<()>;
}

/// A mesh of an account.
#[derive(Clone, Debug)]
pub struct AccountMesh {
    /// The mesh.
    pub mesh: Mesh,
    /// Whether the account owns it.
    pub is_owner: bool,
    /// The most that one of its memberships may do; an owner without one is an admin.
    pub role: Role,
    /// When the first of its memberships began.
    pub joined_at: Option<Timestamp>,
    /// Active members of the mesh.
    pub members: i64,
    /// Presences of the mesh that are not ended.
    pub presences: i64,
}

impl AccountMesh {
    /// A row of `mesh` with what it is to the account.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        let is_owner = row.flag("is_owner")?;
        let is_admin = row.flag("is_admin")? || is_owner;
        Ok(Self {
            mesh: Mesh::read(row)?,
            is_owner,
            role: if is_admin { Role::Admin } else { Role::Member },
            joined_at: row.optional_time("first_joined_at")?,
            members: row.int("members")?,
            presences: row.int("presences")?,
        })
    }
}

/// What a member may do besides talking, as dashboards show and set it. Nothing on the
/// wire looks at it.
#[expect(clippy::struct_excessive_bools, reason = "a row of flags that other programs share")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each says itself")]
pub struct Permissions {
    pub can_invite: bool,
    pub can_deploy_mcp: bool,
    pub can_manage_files: bool,
    pub can_manage_vault: bool,
    pub can_manage_watches: bool,
    pub can_manage_webhooks: bool,
    pub can_write_state: bool,
    pub can_send: bool,
    pub can_use_tools: bool,
    pub can_delete_mesh: bool,
    pub can_manage_permissions: bool,
}

impl Permissions {
    /// What holds for whoever nothing was said of.
    #[must_use]
    pub const fn of(role: Role, is_owner: bool) -> Self {
        let manages = is_owner || matches!(role, Role::Admin);
        Self {
            can_invite: manages,
            can_deploy_mcp: manages,
            can_manage_files: manages,
            can_manage_vault: manages,
            can_manage_watches: manages,
            can_manage_webhooks: manages,
            can_write_state: true,
            can_send: true,
            can_use_tools: true,
            can_delete_mesh: is_owner,
            can_manage_permissions: manages,
        }
    }

    /// In the order of the columns.
    pub(in crate::store) const fn flags(self) -> [bool; 11] {
        [
            self.can_invite,
            self.can_deploy_mcp,
            self.can_manage_files,
            self.can_manage_vault,
            self.can_manage_watches,
            self.can_manage_webhooks,
            self.can_write_state,
            self.can_send,
            self.can_use_tools,
            self.can_delete_mesh,
            self.can_manage_permissions,
        ]
    }

    pub(in crate::store) fn read(row: &impl Columns) -> Result<(MemberId, Self)> {
        let permissions = Self {
            can_invite: row.flag("can_invite")?,
            can_deploy_mcp: row.flag("can_deploy_mcp")?,
            can_manage_files: row.flag("can_manage_files")?,
            can_manage_vault: row.flag("can_manage_vault")?,
            can_manage_watches: row.flag("can_manage_watches")?,
            can_manage_webhooks: row.flag("can_manage_webhooks")?,
            can_write_state: row.flag("can_write_state")?,
            can_send: row.flag("can_send")?,
            can_use_tools: row.flag("can_use_tools")?,
            can_delete_mesh: row.flag("can_delete_mesh")?,
            can_manage_permissions: row.flag("can_manage_permissions")?,
        };
        Ok((row.id("member_id")?, permissions))
    }
}

fn slug_taken(slug: &str) -> StoreError {
    StoreError::Conflict(format!("slug \"{slug}\" is already taken"))
}
