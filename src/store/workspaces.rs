//! What somebody with an API key sees of a mesh, and of all meshes of its user.
//!
//! Reads only, each one statement. A user is whom a dashboard or this broker's accounts
//! know behind members of several meshes; a member behind whom there is none is a user
//! by itself.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId};
use crate::protocol::TaskStatus;
use crate::store::columns::Columns;
use crate::store::{Result, Role, Task};

/// Reads across members and meshes.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Workspaces: Send + Sync + 'static {
    /// The active members of a mesh, those who joined first first.
    async fn roster(&self, mesh: &MeshId) -> Result<Vec<RosterLine>>;

    /// Members by whose keys, not revoked, somebody has called since then.
    async fn callers(&self, mesh: &MeshId, since: Timestamp) -> Result<Vec<MemberId>>;

    /// The memberships of the user behind a member, active ones in meshes that are not
    /// archived, by the mesh's slug.
    async fn memberships(&self, member: &MemberId) -> Result<Vec<Membership>>;

    /// Shared values of these meshes, the newest first: of one key or all, no more than
    /// so many rows and bytes of values.
    async fn states<'a>(
        &self,
        meshes: &[MeshId],
        key: Option<&'a str>,
        rows_max: i64,
        bytes_max: i64,
    ) -> Result<Vec<WorkspaceState>>;

    /// Tasks of these meshes as they stand now: open ones, claimed ones, then the rest,
    /// the newest first; no more than so many rows and bytes.
    async fn tasks(
        &self,
        now: Timestamp,
        meshes: &[MeshId],
        ask: &WorkspaceTasks,
        rows_max: i64,
        bytes_max: i64,
    ) -> Result<Vec<WorkspaceTask>>;

    /// What these meshes remember, the newest first: what has that text in its content
    /// or a tag, in either case; no more than so many rows and bytes.
    async fn memories(
        &self,
        meshes: &[MeshId],
        ask: &WorkspaceMemories,
        rows_max: i64,
        bytes_max: i64,
    ) -> Result<Vec<WorkspaceMemory>>;
}

/// A member as the roster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterLine {
    /// The member.
    pub member: MemberId,
    /// Its key.
    pub key: Key,
    /// Its name.
    pub display_name: String,
    /// What it may do.
    pub role: Role,
    /// Whether there is a user behind it.
    pub is_human: bool,
    /// When it joined.
    pub joined_at: Timestamp,
}

/// A user's membership in a mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The user; the member itself where there is none.
    pub user: String,
    /// The mesh.
    pub mesh: MeshId,
    /// The mesh's short name.
    pub slug: String,
    /// The mesh's name.
    pub name: String,
    /// The member.
    pub member: MemberId,
    /// What it may do.
    pub role: Role,
    /// When it joined.
    pub joined_at: Timestamp,
    /// Active members of the mesh.
    pub members: i64,
    /// Topics of the mesh that the member sees and that are not archived.
    pub topics: i64,
    /// Mentions of the member that it has not read.
    pub unread_mentions: i64,
}

/// A shared value of one of a user's meshes.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkspaceState {
    /// The mesh.
    pub mesh: MeshId,
    /// Its key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// The name of the member that wrote it; other programs may have left it out.
    pub updated_by: Option<String>,
    /// When.
    pub updated_at: Timestamp,
    /// How many values there are, those beyond the bounds too.
    pub of: i64,
}

/// Which tasks to list.
#[derive(Clone, Debug, Default)]
pub struct WorkspaceTasks {
    /// Only those of one of these statuses, as it is now.
    pub statuses: Option<Vec<TaskStatus>>,
    /// Only those that are not done, or were done after that.
    pub done_after: Option<Timestamp>,
}

/// A task of one of a user's meshes.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkspaceTask {
    /// The mesh.
    pub mesh: MeshId,
    /// The task.
    pub task: Task,
    /// How many tasks there are, those beyond the bounds too.
    pub of: i64,
}

/// Which memories to list.
#[derive(Clone, Debug, Default)]
pub struct WorkspaceMemories {
    /// Only those that have this in their content or a tag.
    pub text: Option<String>,
    /// Only those that were remembered after that.
    pub after: Option<Timestamp>,
}

/// What one of a user's meshes remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspaceMemory {
    /// The mesh.
    pub mesh: MeshId,
    /// Its id.
    pub id: String,
    /// The text.
    pub content: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// The name of the member that it comes from; other programs may have left it out.
    pub remembered_by: Option<String>,
    /// When.
    pub remembered_at: Timestamp,
    /// How many memories there are, those beyond the bounds too.
    pub of: i64,
}

impl RosterLine {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            member: row.id("id")?,
            key: row.id("peer_pubkey")?,
            display_name: row.text("display_name")?,
            role: row.word("role", Role::parse)?,
            is_human: row.flag("is_human")?,
            joined_at: row.time("joined_at")?,
        })
    }
}

impl Membership {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            user: row.text("user_id")?,
            mesh: row.id("mesh_id")?,
            slug: row.text("slug")?,
            name: row.text("name")?,
            member: row.id("id")?,
            role: row.word("role", Role::parse)?,
            joined_at: row.time("joined_at")?,
            members: row.int("members")?,
            topics: row.int("topics")?,
            unread_mentions: row.int("unread_mentions")?,
        })
    }
}

impl WorkspaceState {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            mesh: row.id("mesh_id")?,
            key: row.text("key")?,
            value: row.json("value")?,
            updated_by: row.optional_text("updated_by_name")?,
            updated_at: row.time("updated_at")?,
            of: row.int("of_all")?,
        })
    }
}

impl WorkspaceTasks {
    /// The words of the statuses.
    fn words(&self) -> Option<Vec<&'static str>> {
        let statuses = self.statuses.as_ref()?;
        Some(statuses.iter().map(|status| status.as_str()).collect())
    }
}

impl WorkspaceTask {
    pub(in crate::store) fn read(row: &impl Columns, now: Timestamp) -> Result<Self> {
        let task = Task::read(row)?.at(now);
        Ok(Self { mesh: row.id("mesh_id")?, task, of: row.int("of_all")? })
    }
}

impl WorkspaceMemory {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            mesh: row.id("mesh_id")?,
            id: row.text("id")?,
            content: row.text("content")?,
            tags: row.described("tags")?,
            remembered_by: row.optional_text("remembered_by_name")?,
            remembered_at: row.time("remembered_at")?,
            of: row.int("of_all")?,
        })
    }
}
