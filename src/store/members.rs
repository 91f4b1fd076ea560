//! Members of a mesh: who they are, and what each may do.

pub(super) mod postgres;
pub(super) mod sqlite;

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId};
use crate::protocol::{Group, Profile, RestoredStats, SealingPolicy};
use crate::store::Result;
use crate::store::StoreError;
use crate::store::columns::Columns;

/// Who belongs to a mesh, and what each may do.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Members: Send + Sync + 'static {
    /// The member behind a key, with what a hello needs. Nothing kept older
    /// brokers from enrolling a key twice: of several active memberships it is
    /// the one with the id `member`, else the oldest.
    async fn admit(&self, mesh: &MeshId, key: &str, member: &str) -> Result<Admission>;

    /// The active members of a mesh, as routing needs them.
    async fn active(&self, mesh: &MeshId) -> Result<Vec<Member>>;

    /// The member that a session key, seen in this mesh since `since`,
    /// belongs to.
    async fn of_session_key(
        &self,
        mesh: &MeshId,
        session_key: &str,
        since: Timestamp,
    ) -> Result<Option<MemberId>>;

    /// The member behind a session key to which a message can be sent that waits
    /// for it: as above, but not of a `hello` that has ended, since nobody comes
    /// back under a key that was only named there.
    async fn addressee_of_session_key(
        &self,
        mesh: &MeshId,
        session_key: &str,
        since: Timestamp,
    ) -> Result<Option<MemberId>>;

    /// Active members whose name or key is `target`, or whose key begins so.
    async fn find(&self, mesh: &MeshId, target: &str) -> Result<Vec<Member>>;

    /// Every member of a mesh, revoked ones included.
    async fn all(&self, mesh: &MeshId) -> Result<Vec<Member>>;

    /// What the mesh asks of messages to many.
    async fn sealing(&self, mesh: &MeshId) -> Result<SealingPolicy>;

    /// Active members whose newest client opens messages to many that are sealed.
    async fn open_sealed(&self, mesh: &MeshId) -> Result<HashSet<MemberId>>;

    /// The certificates of these members, as far as they have some.
    async fn certificates(
        &self,
        mesh: &MeshId,
        members: &[MemberId],
    ) -> Result<HashMap<MemberId, String>>;

    /// Whether nobody joins the mesh without a certificate.
    async fn requires_certificates(&self, mesh: &MeshId) -> Result<bool>;

    /// Notes whether a member's newest client opens messages to many that are sealed.
    async fn note_opens_sealed(&self, member: &MemberId, opens: bool) -> Result<()>;

    /// Changes a member's role, with its audit row.
    async fn set_role(&self, now: Timestamp, member: &MemberId, role: Role) -> Result<()>;

    /// Replaces one entry of a member's grants; `None` restores the defaults.
    async fn set_grant<'a>(
        &self,
        member: &MemberId,
        sender_key: &str,
        capabilities: Option<&'a [String]>,
    ) -> Result<()>;
}

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
    /// Whether its newest client opens messages to many that are sealed.
    pub opens_sealed: bool,
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

/// What a member's last session left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerState {
    /// Its groups.
    pub groups: Vec<Group>,
    /// What it said of itself.
    pub profile: Profile,
    /// Whether others saw it.
    pub visible: bool,
    /// What it said it was doing.
    pub last_summary: Option<String>,
    /// Its name.
    pub last_display_name: Option<String>,
    /// Counters over all sessions.
    pub stats: RestoredStats,
    /// When it was last here.
    pub last_seen_at: Option<Timestamp>,
}

impl Admission {
    /// A row of an admission, of the mesh asked for.
    pub(in crate::store) fn read(row: &impl Columns, mesh: &MeshId) -> Result<Self> {
        let member = Member::read(row)?;
        if member.revoked_at.is_some() {
            let names = [row.text("name")?, row.text("slug")?];
            let mesh_label = names.into_iter().find(|name| !name.is_empty());
            return Ok(Self::Revoked {
                mesh_label: mesh_label.unwrap_or_else(|| mesh.as_str().to_owned()),
            });
        }
        let saved = match row.optional_str("state_id")? {
            Some(_) => Some(PeerState::read(row)?),
            None => None,
        };
        let self_editable = row.json("self_editable")?;
        Ok(Self::Member(Box::new(AdmittedMember { member, self_editable, saved })))
    }
}

impl Member {
    /// A row of `member` with `is_owner`.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.id("id")?,
            key: row.id("peer_pubkey")?,
            display_name: row.text("display_name")?,
            role: row.word("role", Role::parse)?,
            is_owner: row.flag("is_owner")?,
            role_tag: row.optional_text("role_tag")?,
            default_groups: row.described("default_groups")?,
            message_mode: row.optional_text("message_mode")?.unwrap_or_else(|| "push".to_owned()),
            grants: read_grants(row.str("peer_grants")?),
            joined_at: row.time("joined_at")?,
            revoked_at: row.optional_time("revoked_at")?,
            opens_sealed: row.flag("opens_sealed")?,
        })
    }
}

impl PeerState {
    fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            groups: row.described("groups")?,
            profile: row.described("profile")?,
            visible: row.flag("visible")?,
            last_summary: row.optional_text("last_summary")?,
            last_display_name: row.optional_text("last_display_name")?,
            stats: row.described("cumulative_stats")?,
            last_seen_at: row.optional_time("last_seen_at")?,
        })
    }
}

pub(in crate::store) fn no_member() -> StoreError {
    StoreError::NotFound("there is no such member".to_owned())
}
