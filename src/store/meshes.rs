//! Meshes.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId};
use crate::store::Result;

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

    /// Archives a mesh. `false` if it was archived already.
    async fn archive(&self, now: Timestamp, mesh: &MeshId) -> Result<bool>;
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
