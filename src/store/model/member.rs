//! Meshes, their members, and how one becomes a member.

use std::collections::HashMap;

use serde_json::Value;

use super::PeerState;
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId};
use crate::limits;
use crate::protocol::Group;

/// What a member may do in its mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May moderate.
    Admin,
    /// May not.
    Member,
}

impl Role {
    /// As in the tables and in invites.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    /// The role with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "admin" => Some(Self::Admin),
            "member" => Some(Self::Member),
            _ => None,
        }
    }
}

/// A mesh.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Its id.
    pub id: MeshId,
    /// Its short name, as commands take it. Not unique among archived ones.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// The key that signs its invites.
    pub owner_key: Option<Key>,
    /// The secret of that key, where the mesh was made by a dashboard that
    /// keeps it (128 hex digits). Never printed.
    pub owner_secret_key: Option<String>,
    /// A shared secret that invites carry to clients. Never printed.
    pub root_key: Option<String>,
    /// Which of its own fields a member may edit.
    pub self_editable: Value,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was archived, if it was.
    pub archived_at: Option<Timestamp>,
}

/// A line of `mesh list`.
#[derive(Clone, Debug)]
pub struct MeshSummary {
    /// The mesh.
    pub mesh: Mesh,
    /// Active members.
    pub members: i64,
    /// Presences that are not ended.
    pub presences: i64,
    /// Undelivered envelopes.
    pub queued: i64,
}

/// Capabilities that a recipient gives to single senders, by the sender's key.
pub type Grants = HashMap<String, Vec<String>>;

/// The column `peer_grants`, which other programs write too. An entry that cannot
/// be read grants nothing; a column that is no object says nothing. Neither keeps a
/// whole mesh from being served.
#[must_use]
pub fn read_grants(column: &str) -> Grants {
    let entries: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(column).unwrap_or_default();
    let capabilities = |entry| serde_json::from_value(entry).unwrap_or_default();
    entries.into_iter().map(|(key, entry)| (key, capabilities(entry))).collect()
}

/// A member of a mesh.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its key. Members enrolled by a dashboard may have one that is no
    /// ed25519 key; those can be addressed and cannot connect.
    pub key: Key,
    /// Its name.
    pub display_name: String,
    /// What it may do.
    pub role: Role,
    /// Whether it owns the mesh: its key signs the invites, or its user owns
    /// the mesh in the dashboard.
    pub is_owner: bool,
    /// A label that admins give.
    pub role_tag: Option<String>,
    /// Groups that a new session starts in.
    pub default_groups: Vec<Group>,
    /// `push`, `inbox` or `off`.
    pub message_mode: String,
    /// Whom it lets do what.
    pub grants: Grants,
    /// When it joined.
    pub joined_at: Timestamp,
    /// When its membership was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// What a hello finds.
#[derive(Clone, Debug)]
pub enum Admission {
    /// An active member of a mesh that is not archived.
    Member(Box<AdmittedMember>),
    /// The key's membership was revoked; the mesh's name (else slug, else id)
    /// for the sentence that says so.
    Revoked {
        /// What to call the mesh.
        mesh_label: String,
    },
    /// No such mesh, or no such key in it, or the mesh is archived.
    Unknown,
}

/// An active member, with what its last session left.
#[derive(Clone, Debug)]
pub struct AdmittedMember {
    /// The member.
    pub member: Member,
    /// The mesh's policy.
    pub self_editable: Value,
    /// What an earlier session left.
    pub saved: Option<PeerState>,
}

/// A mesh to create.
#[derive(Clone, Debug)]
pub struct NewMesh {
    /// Its id.
    pub id: MeshId,
    /// Its short name.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// The owner's key.
    pub owner_key: Key,
    /// The shared secret that invites carry (base64url of 32 bytes).
    pub root_key: String,
    /// The owner's member id.
    pub owner_member: MemberId,
    /// The owner's name.
    pub owner_name: String,
}

/// An invite to write.
#[derive(Clone, Debug)]
pub struct NewInvite {
    /// Its id.
    pub id: String,
    /// Its mesh.
    pub mesh: MeshId,
    /// The token: base64url of the signed payload's JSON.
    pub token: String,
    /// The role it gives.
    pub role: Role,
    /// How often it may be used.
    pub max_uses: i32,
    /// Until when.
    pub expires_at: Timestamp,
    /// Who made it: a user id of the dashboard, or the owner's member id.
    pub created_by: String,
}

/// An invite as it stands.
#[derive(Clone, Debug)]
pub struct Invite {
    /// Its id.
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
}

/// What became of a request to enrol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined {
    /// A member now.
    New(MemberId),
    /// A member already; the invite was not used.
    Already(MemberId),
    /// No.
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
    /// No such invite.
    NotFound,
    /// It is another mesh's.
    MeshMismatch,
    /// It was revoked.
    Revoked,
    /// Its time is over.
    Expired,
    /// It was used as often as it may be.
    Exhausted,
    /// The key's membership was revoked, and the invite is older than that.
    Banned,
}

impl JoinRefusal {
    /// As `/join` answers it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::MeshNotFound => "mesh_not_found",
            Self::MeshMissingOwnerKey => "mesh_missing_owner_key",
            Self::OwnerMismatch => "invite_owner_mismatch",
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
    /// When it was made.
    pub made_at: Timestamp,
    /// Whether it has uses left.
    pub has_uses: bool,
}

/// How a key stands to the mesh that it wants to join: its active membership, else
/// the one that was revoked last.
#[derive(Clone, Debug)]
pub(in crate::store) struct Standing {
    pub member: MemberId,
    pub joined_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
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
