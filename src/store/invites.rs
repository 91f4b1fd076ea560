//! Invites, and members that they enrol.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;
use serde::Deserialize;

use crate::clock::Timestamp;
use crate::id::{AccountId, Key, MemberId, MeshId};
use crate::limits;
use crate::protocol::Group;
use crate::store::columns::Columns;
use crate::store::{Mesh, Result, Role};

/// Invites, and members that they enrol.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Invites: Send + Sync + 'static {
    /// Writes an invite.
    async fn create(&self, now: Timestamp, invite: &NewInvite) -> Result<()>;

    /// A mesh's invites, newest first.
    async fn of_mesh(&self, mesh: &MeshId) -> Result<Vec<Invite>>;

    /// Invites of the meshes, archived ones excepted, that the account owns, newest
    /// first, up to `limit` after the first `skip`.
    async fn of_account(
        &self,
        account: &AccountId,
        limit: i64,
        skip: i64,
    ) -> Result<Vec<AccountInvite>>;

    /// Revokes the invite with that id or token. `false` if there is none
    /// that could be used.
    async fn revoke(&self, now: Timestamp, id_or_token: &str) -> Result<bool>;

    /// Enrols a member by invite, with its audit row; checks and use of the
    /// invite are one transaction. The signature has been checked.
    async fn join(&self, now: Timestamp, join: &Join) -> Result<Joined>;

    /// The invite with that short code, else with that token, and its mesh.
    async fn find(&self, code_or_token: &str) -> Result<Option<FoundInvite>>;

    /// Uses an invite for somebody who has no key yet: the first hello by that member
    /// id brings it, until then.
    async fn claim(&self, now: Timestamp, claim: &Claim) -> Result<Joined>;

    /// Whether a claim waits for a key.
    async fn is_claimed(&self, now: Timestamp, mesh: &MeshId, member: &MemberId) -> Result<bool>;

    /// A key, proven by its holder, becomes the member that a claim is kept for, with
    /// its audit row. `false` if there is no such claim any more, or the key was a
    /// member before.
    async fn bind(
        &self,
        now: Timestamp,
        mesh: &MeshId,
        member: &MemberId,
        key: &Key,
    ) -> Result<bool>;
}

/// An invite to write.
#[derive(Clone, Debug)]
pub struct NewInvite {
    /// The invite's id.
    pub id: String,
    /// The mesh that the invite leads to.
    pub mesh: MeshId,
    /// The token: base64url of the signed payload's JSON.
    pub token: String,
    /// The short code by which the invite is found too, and what the owner signed of
    /// it.
    pub code: Option<InviteCode>,
    /// The role it gives.
    pub role: Role,
    /// How often it may be used.
    pub max_uses: i32,
    /// Until when.
    pub expires_at: Timestamp,
    /// Who made it: a user id of the dashboard, or the owner's member id.
    pub created_by: String,
}

/// A short code, and what the mesh's owner signed of its invite.
#[derive(Clone, Debug)]
pub struct InviteCode {
    /// The code.
    pub code: String,
    /// The text that was signed.
    pub canonical: String,
    /// The text and its signature, as JSON.
    pub capability: String,
}

/// An invite by its code or token, and where it leads.
#[derive(Clone, Debug)]
pub struct FoundInvite {
    /// The invite.
    pub invite: Invite,
    /// The invite's token.
    pub token: String,
    /// What the owner signed of it, where it has a code.
    pub capability: Option<String>,
    /// The mesh, archived or not.
    pub mesh: Mesh,
    /// What the one is called who made it, where that is a member or an account.
    pub inviter: Option<String>,
    /// Members of the mesh, revoked ones too.
    pub members: i64,
}

impl FoundInvite {
    /// Why nobody can join by it at `now`.
    #[must_use]
    pub fn trouble(&self, now: Timestamp) -> Option<JoinRefusal> {
        let Invite { revoked_at, expires_at, used_count, max_uses, .. } = &self.invite;
        if revoked_at.is_some() {
            Some(JoinRefusal::Revoked)
        } else if self.mesh.archived_at.is_some() {
            Some(JoinRefusal::MeshNotFound)
        } else if *expires_at < now {
            Some(JoinRefusal::Expired)
        } else if used_count >= max_uses {
            Some(JoinRefusal::Exhausted)
        } else {
            None
        }
    }

    /// A row of `invite` with the columns of its mesh, which begin with `mesh_`.
    pub(in crate::store) fn read(row: &impl Columns, mesh: Mesh) -> Result<Self> {
        Ok(Self {
            invite: Invite::read(row)?,
            token: row.text("token")?,
            capability: row.optional_text("capability")?,
            mesh,
            inviter: row.optional_text("inviter")?,
            members: row.int("members")?,
        })
    }
}

/// A use of an invite by somebody who has no key yet.
#[derive(Clone, Debug)]
pub struct Claim {
    /// What would be joined, but for the key; it is that of nobody.
    pub join: Join,
    /// Until when the key can come.
    pub until: Timestamp,
}

/// An invite as it stands.
#[derive(Clone, Debug)]
pub struct Invite {
    /// The invite's id.
    pub id: String,
    /// The role it gives.
    pub role: Role,
    /// How often it may be used.
    pub max_uses: i32,
    /// How often it was.
    pub used_count: i32,
    /// Until when.
    pub expires_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// An invite to a mesh of an account, without what lets anybody in.
#[derive(Clone, Debug)]
pub struct AccountInvite {
    /// The invite.
    pub invite: Invite,
    /// Where it leads.
    pub mesh: MeshId,
    /// The slug of that mesh.
    pub slug: String,
    /// Whether the account made the invite.
    pub is_own: bool,
}

impl AccountInvite {
    /// A row of `invite` with its mesh's slug.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            invite: Invite::read(row)?,
            mesh: row.id("mesh_id")?,
            slug: row.text("slug")?,
            is_own: row.flag("is_own")?,
        })
    }
}

/// A request to enrol. What it gives is in the invite's row, and nowhere else: its
/// role, its expiry, its uses.
#[derive(Clone, Debug)]
pub struct Join {
    /// The invite's token.
    pub token: String,
    /// The mesh that the payload names.
    pub mesh: MeshId,
    /// The owner's key that the payload names.
    pub owner_key: String,
    /// The new member's id.
    pub member: MemberId,
    /// The new member's key.
    pub key: Key,
    /// The new member's name.
    pub display_name: String,
    /// The proof, checked, that the owner let this key in.
    pub certificate: Option<String>,
}

/// What became of a request to enrol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The key is a member now.
    New(MemberId),
    /// The key was a member already; the invite was not used.
    Already(MemberId),
    /// The key was not enrolled.
    Refused(JoinRefusal),
}

/// Why an invite did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinRefusal {
    /// No such mesh, or archived.
    MeshNotFound,
    /// The mesh has no key to check invites against.
    MeshMissingOwnerKey,
    /// The payload was signed by somebody else.
    OwnerMismatch,
    /// The mesh takes nobody without a certificate.
    CertificateRequired,
    /// No such invite.
    NotFound,
    /// The invite is another mesh's.
    MeshMismatch,
    /// The invite was revoked.
    Revoked,
    /// The invite's time is over.
    Expired,
    /// The invite was used as often as it may be.
    Exhausted,
    /// The key's membership was revoked, and the invite is older than that.
    Banned,
}

impl JoinRefusal {
    /// The code that `/join` answers.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::MeshNotFound => "mesh_not_found",
            Self::MeshMissingOwnerKey => "mesh_missing_owner_key",
            Self::OwnerMismatch => "invite_owner_mismatch",
            Self::CertificateRequired => "certificate_required",
            Self::NotFound => "invite_not_found",
            Self::MeshMismatch => "invite_mesh_mismatch",
            Self::Revoked => "invite_revoked",
            Self::Expired => "invite_expired",
            Self::Exhausted => "invite_exhausted",
            Self::Banned => "invite_banned",
        }
    }
}

/// What an invite that has neither expired nor been revoked can do still.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct OpenInvite {
    pub made_at: Timestamp,
    /// Whether it has uses left.
    pub has_uses: bool,
}

impl OpenInvite {
    /// What becomes of a key that comes with it; `None`: it is enrolled.
    pub(in crate::store) fn judge(
        self,
        now: Timestamp,
        standing: Option<Standing>,
    ) -> Option<Joined> {
        let exhausted = Joined::Refused(JoinRefusal::Exhausted);
        match standing {
            Some(Standing { member, joined_at, revoked_at: None }) => {
                // Whoever missed the answer may ask again. Later, an invite without
                // uses tells nobody which keys are members.
                let is_repeat =
                    joined_at >= self.made_at && joined_at.plus_ms(limits::JOIN_REPEAT_MS) >= now;
                Some(if self.has_uses || is_repeat { Joined::Already(member) } else { exhausted })
            }
            _ if !self.has_uses => Some(exhausted),
            Some(Standing { revoked_at: Some(at), .. }) if self.made_at <= at => {
                Some(Joined::Refused(JoinRefusal::Banned))
            }
            _ => None,
        }
    }
}

/// How a key stands to the mesh that it wants to join: its active membership, else
/// the one that was revoked last.
#[derive(Clone, Debug)]
pub(in crate::store) struct Standing {
    pub member: MemberId,
    pub joined_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// What an invite fixes about whoever uses it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Preset {
    pub(super) display_name: Option<String>,
    pub(super) role_tag: Option<String>,
    pub(super) groups: Option<Vec<Group>>,
    pub(super) message_mode: Option<String>,
}

impl Invite {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.text("id")?,
            role: row.word("role", Role::parse)?,
            max_uses: row.short("max_uses")?,
            used_count: row.short("used_count")?,
            expires_at: row.time("expires_at")?,
            created_at: row.time("created_at")?,
            revoked_at: row.optional_time("revoked_at")?,
        })
    }
}

impl OpenInvite {
    /// A row of `invite` that says whether it is `usable`.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self { made_at: row.time("created_at")?, has_uses: row.flag("usable")? })
    }
}

impl Standing {
    /// A row of `member`.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            member: row.id("id")?,
            joined_at: row.time("joined_at")?,
            revoked_at: row.optional_time("revoked_at")?,
        })
    }
}

impl Join {
    /// That of somebody whose invite was used when it was claimed.
    pub(in crate::store) fn bound(
        mesh: &MeshId,
        member: &MemberId,
        key: &Key,
        display_name: String,
    ) -> Self {
        Self {
            token: String::new(),
            mesh: mesh.clone(),
            owner_key: String::new(),
            member: member.clone(),
            key: key.clone(),
            display_name,
            certificate: None,
        }
    }

    /// Why the mesh does not let it in, by its row if it has one.
    pub(in crate::store) fn refused_by_mesh(
        &self,
        row: Option<&impl Columns>,
    ) -> Result<Option<JoinRefusal>> {
        let Some(row) = row else { return Ok(Some(JoinRefusal::MeshNotFound)) };
        Ok(match row.optional_str("owner_pubkey")? {
            None => Some(JoinRefusal::MeshMissingOwnerKey),
            Some(owner_key) if owner_key != self.owner_key => Some(JoinRefusal::OwnerMismatch),
            Some(_) if self.certificate.is_none() && row.flag("certified_required")? => {
                Some(JoinRefusal::CertificateRequired)
            }
            Some(_) => None,
        })
    }

    /// Why the invite is not for it, or not any more, by the row of `invite`.
    pub(in crate::store) fn refused_by_invite(
        &self,
        row: &impl Columns,
        now: Timestamp,
    ) -> Result<Option<JoinRefusal>> {
        Ok(if row.id::<MeshId>("mesh_id")? != self.mesh {
            Some(JoinRefusal::MeshMismatch)
        } else if row.optional_time("revoked_at")?.is_some() {
            Some(JoinRefusal::Revoked)
        } else if row.time("expires_at")? < now {
            Some(JoinRefusal::Expired)
        } else {
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_invite_does_what_the_keys_standing_allows() {
        let at = |hours: i64| Timestamp::from_ms(hours * 3_600_000);
        let member = MemberId::generate();
        let active = |joined_at| Standing { member: member.clone(), joined_at, revoked_at: None };
        let banned = |revoked_at| Standing { revoked_at: Some(revoked_at), ..active(at(1)) };
        let already = || Some(Joined::Already(member.clone()));
        let refused = |refusal| Some(Joined::Refused(refusal));
        let (fresh, used) = (
            OpenInvite { made_at: at(10), has_uses: true },
            OpenInvite { made_at: at(10), has_uses: false },
        );
        for (invite, now, standing, expected) in [
            (fresh, at(11), None, None),
            (used, at(11), None, refused(JoinRefusal::Exhausted)),
            (fresh, at(11), Some(active(at(1))), already()),
            (used, at(11), Some(active(at(10))), already()),
            (used, at(11), Some(active(at(9))), refused(JoinRefusal::Exhausted)),
            (used, at(100), Some(active(at(11))), refused(JoinRefusal::Exhausted)),
            (fresh, at(11), Some(banned(at(9))), None),
            (fresh, at(11), Some(banned(at(10))), refused(JoinRefusal::Banned)),
            (used, at(11), Some(banned(at(10))), refused(JoinRefusal::Exhausted)),
        ] {
            let what = format!("{invite:?} at {now}: {standing:?}");
            assert_eq!(invite.judge(now, standing), expected, "{what}");
        }
    }
}
