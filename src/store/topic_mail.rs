//! Topics as delivery sees them: who may post, for whom a post is, what was missed.
//!
//! What members see of them is in [`topics`](super::topics).

pub(super) mod postgres;
pub(super) mod sqlite;

use std::collections::HashMap;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId, TopicId};
use crate::store::columns::Columns;
use crate::store::{Result, StoredEnvelope};

/// Topics as delivery sees them.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait TopicMail: Send + Sync + 'static {
    /// The topic of the mesh that a member names, by id or by name, to post to it.
    async fn addressed(
        &self,
        mesh: &MeshId,
        named: &str,
        member: &MemberId,
    ) -> Result<Option<AddressedTopic>>;

    /// Who is in a topic.
    async fn roster(&self, mesh: &MeshId, topic: &TopicId) -> Result<Option<Roster>>;

    /// Posts after that position in the topics that a member is in, its own ones too,
    /// oldest first.
    async fn posts_after(
        &self,
        mesh: &MeshId,
        member: &MemberId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<TopicPost>>;

    /// From where a member that was away goes on: a position before the oldest post that
    /// none of its connections has had. `None` if there is no such post.
    async fn missed_since(&self, mesh: &MeshId, member: &MemberId) -> Result<Option<i64>>;

    /// Gives posts that other programs wrote their place in the mesh's order, each with
    /// its audit row, at most so many; and marks as done what those programs queued for
    /// topics. The last of their seqs, if there was a post.
    async fn adopt(&self, now: Timestamp, mesh: &MeshId, limit: u32) -> Result<Option<i64>>;

    /// Deletes posts that are older than that, at most so many; says how many.
    async fn expire_posts(&self, before: Timestamp, limit: i64) -> Result<u64>;
}

/// A topic that somebody posts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressedTopic {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// Whether everybody in the mesh sees it.
    pub is_public: bool,
    /// Whether the asker is in it.
    pub is_member: bool,
    /// The version of its roster.
    pub roster: i64,
}

/// Who is in a topic, as of a version that grows with every change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// The version.
    pub version: i64,
    /// Each member with the seq after which posts are for it.
    pub members: HashMap<MemberId, i64>,
}

impl Roster {
    /// Whether the post with that seq is for that member.
    #[must_use]
    pub fn includes(&self, member: &MemberId, seq: i64) -> bool {
        self.members.get(member).is_some_and(|joined| seq > *joined)
    }
}

/// A post as a topic keeps it.
#[derive(Clone, Debug)]
pub struct TopicPost {
    /// The envelope, with what it says.
    pub envelope: StoredEnvelope,
    /// The topic's name.
    pub topic: String,
    /// 1: base64 of the text; 2: sealed with the topic's key.
    pub body_version: i32,
}

impl AddressedTopic {
    /// A row of `topic` with `is_member`.
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.id("id")?,
            name: row.text("name")?,
            is_public: row.str("visibility")? == "public",
            is_member: row.flag("is_member")?,
            roster: row.int("roster")?,
        })
    }
}

impl Roster {
    /// The rows of a topic with its members; a topic without any has one row of none.
    pub(in crate::store) fn read(rows: &[impl Columns]) -> Result<Option<Self>> {
        let Some(first) = rows.first() else { return Ok(None) };
        let mut roster = Self { version: first.int("roster")?, members: HashMap::new() };
        for row in rows {
            if let Some(member) = row.optional_id("member_id")? {
                let joined = row.optional_int("joined_seq")?.unwrap_or_default();
                roster.members.insert(member, joined);
            }
        }
        Ok(Some(roster))
    }
}

impl TopicPost {
    /// A row of `topic_message` in the shape of the queue's, with `topic_name`.
    pub(in crate::store) fn read(row: &impl Columns, mesh: &MeshId) -> Result<Self> {
        Ok(Self {
            envelope: StoredEnvelope::read(row, mesh)?,
            topic: row.text("topic_name")?,
            body_version: i32::try_from(row.int("body_version")?).unwrap_or(1),
        })
    }
}
