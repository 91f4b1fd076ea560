//! Meshes.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;
use serde_json::Value;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{AccountId, Key, MemberId, MeshId};
use crate::protocol::SealingPolicy;
use crate::store::columns::Columns;
use crate::store::{Actor, AuditEntry, Result, StoreError};

/// Meshes.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Meshes: Send + Sync + 'static {
    /// The mesh, archived or not.
    async fn get(&self, mesh: &MeshId) -> Result<Option<Mesh>>;

    /// Creates a mesh with its owner as first member.
    async fn create(&self, now: Timestamp, mesh: &NewMesh) -> Result<()>;

    /// All meshes, archived ones last.
    async fn all(&self) -> Result<Vec<MeshSummary>>;

    /// The newest mesh with that slug that is not archived, else one with
    /// that id.
    async fn find(&self, slug_or_id: &str) -> Result<Option<Mesh>>;

    /// Says whether anybody joins the mesh without a certificate from now on. `false` if it
    /// was so before.
    async fn require_certificates(&self, mesh: &MeshId, required: bool) -> Result<bool>;

    /// Archives a mesh, with its audit row. `false` if it was archived already.
    async fn archive(&self, now: Timestamp, mesh: &MeshId, by: Option<Actor>) -> Result<bool>;

    /// Sets what the mesh asks of messages to many, with its audit row. `false` if it asked
    /// that already.
    async fn set_sealing(
        &self,
        now: Timestamp,
        mesh: &MeshId,
        policy: SealingPolicy,
        by: Option<Actor>,
    ) -> Result<bool>;
}

/// A mesh.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// The mesh's id.
    pub id: MeshId,
    /// The short name that commands take, not unique among archived meshes.
    pub slug: String,
    /// The mesh's name.
    pub name: String,
    /// The key that signs its invites.
    pub owner_key: Option<Key>,
    /// The secret of that key, where the mesh was made by a dashboard that
    /// keeps it (128 hex digits). Never printed.
    pub owner_secret_key: Option<String>,
    /// A shared secret that invites carry to clients. Never printed.
    pub root_key: Option<String>,
    /// The own fields that a member may edit.
    pub self_editable: Value,
    /// What it asks of messages to many.
    pub sealing: SealingPolicy,
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

/// A mesh to create.
#[derive(Clone, Debug)]
pub struct NewMesh {
    /// The mesh's id.
    pub id: MeshId,
    /// The mesh's short name.
    pub slug: String,
    /// The mesh's name.
    pub name: String,
    /// The owner's key.
    pub owner_key: Key,
    /// The shared secret that invites carry (base64url of 32 bytes).
    pub root_key: String,
    /// The owner's member id.
    pub owner_member: MemberId,
    /// The owner's name.
    pub owner_name: String,
    /// The account that makes it, if one does.
    pub founder: Option<Founder>,
}

/// The topic that a mesh of an account has from its beginning, without a key of its own:
/// whoever joins it reads it.
pub(in crate::store) const GENERAL: (&str, &str) =
    ("general", "Default mesh-wide channel. Every member can read and post.");

/// An account that makes a mesh: its member has a key of its own, and the broker keeps
/// the owner's, to sign invites for the account.
#[derive(Clone)]
pub struct Founder {
    /// The account.
    pub account: AccountId,
    /// The key of its member.
    pub member_key: Key,
    /// The owner's secret key: 128 hex digits.
    pub owner_secret_key: String,
}

/// Without the secret.
impl std::fmt::Debug for Founder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Founder").field("account", &self.account).finish_non_exhaustive()
    }
}

impl NewMesh {
    /// The account that owns it, the owner's secret to keep, and the key of its first
    /// member.
    pub(in crate::store) fn owning(&self) -> (Option<&AccountId>, Option<&str>, &Key) {
        match &self.founder {
            Some(founder) => {
                (Some(&founder.account), Some(&founder.owner_secret_key), &founder.member_key)
            }
            None => (None, None, &self.owner_key),
        }
    }

    /// The row that begins its audit chain.
    pub(in crate::store) fn genesis(&self) -> AuditEntry {
        AuditEntry {
            mesh: self.id.clone(),
            actor: Some(self.owner_member.clone()),
            actor_name: Some(self.owner_name.clone()),
            event: AuditEvent::Genesis { owner: self.owner_key.clone() },
        }
    }
}

impl Mesh {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.id("id")?,
            slug: row.text("slug")?,
            name: row.text("name")?,
            owner_key: row.optional_id("owner_pubkey")?,
            owner_secret_key: row.optional_text("owner_secret_key")?,
            root_key: row.optional_text("root_key")?,
            self_editable: row.json("self_editable")?,
            sealing: read_policy(row)?,
            created_at: row.time("created_at")?,
            archived_at: row.optional_time("archived_at")?,
        })
    }
}

/// The column `sealing`. A word that a later release wrote asks for what is strictest.
pub(in crate::store) fn read_policy(row: &impl Columns) -> Result<SealingPolicy> {
    Ok(SealingPolicy::parse(row.str("sealing")?).unwrap_or(SealingPolicy::Required))
}

/// Whether a mesh that asks for what was read is to ask for something else.
fn differs(was: Option<SealingPolicy>, policy: SealingPolicy) -> Result<bool> {
    let was = was.ok_or_else(|| StoreError::NotFound("there is no such mesh".to_owned()))?;
    Ok(was != policy)
}

impl MeshSummary {
    /// A row of `mesh` with its counts.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            mesh: Mesh::read(row)?,
            members: row.int("members")?,
            presences: row.int("presences")?,
            queued: row.int("queued")?,
        })
    }
}
