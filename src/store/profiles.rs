//! Members as they and their admins describe them, and as accounts have them.

pub(super) mod postgres;
pub(super) mod sqlite;

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{AccountId, Key, MemberId, MeshId};
use crate::protocol::Group;
use crate::store::columns::Columns;
use crate::store::{Grants, Member, Result, Role};

/// Members as they and their admins describe them, and as accounts have them.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Profiles: Send + Sync + 'static {
    /// The account's active membership of a mesh: of several the owner's, else an
    /// admin's, else the oldest.
    async fn of_account(&self, mesh: &MeshId, account: &AccountId) -> Result<Option<Member>>;

    /// The account's memberships of all meshes, ended ones too, newest first, up to
    /// `limit`.
    async fn memberships(&self, account: &AccountId, limit: i64) -> Result<Vec<AccountMembership>>;

    /// Whether the account has that active membership.
    async fn is_of_account(&self, member: &MemberId, account: &AccountId) -> Result<bool>;

    /// Changes what is named of a member, with an audit row for what it says of
    /// itself and one for its role.
    async fn edit(&self, now: Timestamp, edit: &ProfileEdit) -> Result<()>;

    /// Replaces entries of a member's grants; `None` restores the defaults. Returns
    /// all of them as they are then.
    async fn merge_grants(&self, member: &MemberId, entries: &GrantEntries) -> Result<Grants>;

    /// A key of an account becomes a member of a mesh, with its audit row.
    async fn enrol(&self, now: Timestamp, enrolment: &AccountEnrolment) -> Result<Enrolled>;
}

/// What an account is in a mesh.
#[derive(Clone, Debug)]
pub struct AccountMembership {
    /// The member's id.
    pub member: MemberId,
    /// The mesh.
    pub mesh: MeshId,
    /// The slug of that mesh.
    pub slug: String,
    /// The member's key.
    pub key: Key,
    /// What the member is called.
    pub display_name: String,
    /// What it may do.
    pub role: Role,
    /// When it began.
    pub joined_at: Timestamp,
    /// When it ended, if it did.
    pub revoked_at: Option<Timestamp>,
}

impl AccountMembership {
    /// A row of `member` with its mesh's slug.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            member: row.id("id")?,
            mesh: row.id("mesh_id")?,
            slug: row.text("slug")?,
            key: row.id("peer_pubkey")?,
            display_name: row.text("display_name")?,
            role: row.word("role", Role::parse)?,
            joined_at: row.time("joined_at")?,
            revoked_at: row.optional_time("revoked_at")?,
        })
    }
}

/// Entries of grants to replace, by the sender's key.
pub type GrantEntries = BTreeMap<String, Option<Vec<String>>>;

/// What changes about a member, and who changes it.
#[derive(Clone, Debug)]
pub struct ProfileEdit {
    /// The mesh.
    pub mesh: MeshId,
    /// Whose profile.
    pub member: MemberId,
    /// The member's key, which the audit row names.
    pub key: Key,
    /// Who changes it.
    pub actor: MemberId,
    /// What that one is called.
    pub actor_name: String,
    /// A new name.
    pub display_name: Option<String>,
    /// A new label; `Some(None)` takes it away.
    pub role_tag: Option<Option<String>>,
    /// New groups for new sessions.
    pub groups: Option<Vec<Group>>,
    /// `push`, `inbox` or `off`.
    pub message_mode: Option<String>,
    /// A new role.
    pub role: Option<Role>,
}

impl ProfileEdit {
    /// The fields of the profile that change, by their names on the wire.
    #[must_use]
    pub fn fields(&self) -> Vec<&'static str> {
        let named = [
            (self.display_name.is_some(), "displayName"),
            (self.role_tag.is_some(), "roleTag"),
            (self.groups.is_some(), "groups"),
            (self.message_mode.is_some(), "messageMode"),
        ];
        named.into_iter().filter(|(given, _)| *given).map(|(_, name)| name).collect()
    }

    /// The audit rows of the change: names of fields, no values.
    pub(in crate::store) fn events(&self) -> Vec<AuditEvent> {
        let target_pubkey = self.key.clone();
        let fields = self.fields();
        let profile = (!fields.is_empty()).then(|| AuditEvent::MemberProfileChanged {
            target_pubkey: target_pubkey.clone(),
            fields,
        });
        let role = self
            .role
            .map(|role| AuditEvent::MemberRoleChanged { target_pubkey, role: role.as_str() });
        profile.into_iter().chain(role).collect()
    }
}

/// A key of an account that becomes a member.
#[derive(Clone, Debug)]
pub struct AccountEnrolment {
    /// The mesh.
    pub mesh: MeshId,
    /// The new member's id, if it becomes one.
    pub member: MemberId,
    /// Whose key it is.
    pub account: AccountId,
    /// The key.
    pub key: Key,
    /// What the member is called.
    pub display_name: String,
    /// What it may do.
    pub role: Role,
}

/// What became of an account's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enrolled {
    /// The key is a member now.
    New(MemberId),
    /// The key was a member already, and stays whose it was.
    Already(MemberId, Role),
    /// The key's membership was revoked, or it is another account's.
    Refused,
}

impl Enrolled {
    /// A row of `member` with the key, which says whether it is the account's own or
    /// nobody's.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        if row.optional_time("revoked_at")?.is_some() || !row.flag("is_own")? {
            return Ok(Self::Refused);
        }
        Ok(Self::Already(row.id("id")?, row.word("role", Role::parse)?))
    }
}
