//! Skills that meshes share: texts under names.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::columns::Columns;
use crate::store::{Author, Result};

/// Texts under names, with who shared each.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Skills: Send + Sync + 'static {
    /// Keeps a skill, in place of what was under its name, with an audit row.
    async fn share(&self, now: Timestamp, skill: &NewSkill) -> Result<()>;

    /// The skill of that name, with its text.
    async fn get(&self, mesh: &MeshId, name: &str) -> Result<Option<Skill>>;

    /// Skills by name, without their texts, those after `after`, at most `limit`; with a
    /// query only those that have it in their name, their description or a tag, in
    /// whatever case.
    async fn list<'a>(
        &self,
        mesh: &MeshId,
        query: Option<&'a str>,
        after: Option<&'a str>,
        limit: i64,
    ) -> Result<Vec<SkillEntry>>;

    /// Removes a skill, with an audit row: one that the author shared last, or anybody's.
    async fn remove(
        &self,
        now: Timestamp,
        author: &Author,
        name: &str,
        anybodys: bool,
    ) -> Result<SkillRemoved>;
}

/// A skill to share.
#[derive(Clone, Debug)]
pub struct NewSkill {
    /// By whom, where.
    pub author: Author,
    /// The name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// How it is done.
    pub instructions: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whatever else is known of it, as JSON text.
    pub manifest: Option<String>,
}

/// What became of a skill that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkillRemoved {
    /// It is gone.
    Removed,
    /// There was none of that name.
    NotFound,
    /// It is another member's.
    Anothers,
}

/// A skill with its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Skill {
    /// As lists show it.
    pub entry: SkillEntry,
    /// How it is done.
    pub instructions: String,
    /// Whatever else is known of it.
    pub manifest: Option<Value>,
}

/// A skill without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkillEntry {
    /// The name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// The name of the member that shared it last.
    pub author: String,
    /// What the member's session called itself, where that is another name.
    pub author_session: Option<String>,
    /// When it was first shared.
    pub created_at: Timestamp,
}

impl Skill {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        let manifest = row.optional_str("manifest")?;
        Ok(Self {
            entry: SkillEntry::read(row)?,
            instructions: row.text("instructions")?,
            manifest: manifest.and_then(|text| serde_json::from_str(text).ok()),
        })
    }
}

impl SkillEntry {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            name: row.text("name")?,
            description: row.text("description")?,
            tags: row.described("tags")?,
            // Another program may have left it out.
            author: row.optional_text("author_name")?.unwrap_or_else(|| "unknown".to_owned()),
            author_session: row.optional_text("author_session_name")?,
            created_at: row.time("created_at")?,
        })
    }
}

/// What becomes of a skill that is to be removed, by whose it is; `None`: there is none.
fn removed(owner: Option<Option<&str>>, author: &Author, anybodys: bool) -> SkillRemoved {
    match owner {
        None => SkillRemoved::NotFound,
        Some(_) if anybodys => SkillRemoved::Removed,
        Some(Some(owner)) if owner == author.member.as_str() => SkillRemoved::Removed,
        Some(_) => SkillRemoved::Anothers,
    }
}
