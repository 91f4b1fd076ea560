//! What members see of topics all at once: mentions of them, topics and posts of several
//! meshes. For programs that hold an API key.
//!
//! Each is asked for members, one for each mesh: what a member must not see is left out.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, MessageId, TopicId};
use crate::protocol::Visibility;
use crate::store::Result;
use crate::store::columns::Columns;

/// What members see of topics all at once.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait TopicReads: Send + Sync + 'static {
    /// Mentions of these members, the newest first.
    async fn mentions(&self, members: &[MemberId], ask: &AskedMentions) -> Result<Vec<Mention>>;

    /// A member has read those mentions of it.
    async fn mark_mentions(&self, now: Timestamp, member: &MemberId, ids: &[String]) -> Result<()>;

    /// A member has read all mentions of it up to then.
    async fn mark_mentions_until(
        &self,
        now: Timestamp,
        member: &MemberId,
        until: Timestamp,
    ) -> Result<()>;

    /// Topics that these members see and that are not archived, by name, at most `limit`;
    /// of what is not read at most `unread_max` posts of each are counted.
    async fn topics(
        &self,
        members: &[MemberId],
        limit: i64,
        unread_max: i64,
    ) -> Result<Vec<MembersTopic>>;

    /// Posts of others in topics that these members are in and that are not archived, the
    /// newest first.
    async fn posts(&self, members: &[MemberId], ask: &AskedPosts) -> Result<Vec<MembersPost>>;
}

/// Which mentions are asked for.
#[derive(Clone, Debug)]
pub struct AskedMentions {
    /// Only those after that.
    pub since: Timestamp,
    /// Only those that are not read.
    pub unread_only: bool,
    /// Those in archived topics too.
    pub archived_too: bool,
    /// At most so many.
    pub limit: i64,
}

/// A member is mentioned in a post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Its id.
    pub id: String,
    /// What kind of mention it is.
    pub kind: String,
    /// When it was read, if it was.
    pub read_at: Option<Timestamp>,
    /// The key of who mentions.
    pub sender_key: Key,
    /// The post.
    pub post: MembersPost,
}

/// A topic that a member sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembersTopic {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// Who sees it.
    pub visibility: Visibility,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its mesh.
    pub mesh: MeshId,
    /// The member that sees it.
    pub member: MemberId,
    /// Posts of others that the member has not read; 0 where it is not in it.
    pub unread: i64,
    /// When something was said last.
    pub last_post_at: Option<Timestamp>,
}

/// Which posts are asked for.
#[derive(Clone, Debug)]
pub struct AskedPosts {
    /// Only those after that.
    pub since: Timestamp,
    /// Those of the members themselves too.
    pub own_too: bool,
    /// Of what is said, so many characters of plain text, and nothing that is sealed.
    pub plain_chars: Option<i64>,
    /// At most so many.
    pub limit: i64,
}

/// A post in one of several topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembersPost {
    /// Its id.
    pub id: MessageId,
    /// Its topic.
    pub topic: TopicId,
    /// The topic's name.
    pub topic_name: String,
    /// Its mesh.
    pub mesh: MeshId,
    /// Who sent it.
    pub sender: MemberId,
    /// The sender's name.
    pub sender_name: String,
    /// As sent, as far as was asked for.
    pub ciphertext: String,
    /// 1: base64 of the text; 2: sealed with the topic's key.
    pub body_version: i64,
    /// When it was accepted.
    pub created_at: Timestamp,
}

impl MembersPost {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.id("id")?,
            topic: row.id("topic_id")?,
            topic_name: row.text("topic_name")?,
            mesh: row.id("mesh_id")?,
            sender: row.id("sender_member_id")?,
            sender_name: row.text("sender_name")?,
            ciphertext: row.text("ciphertext")?,
            body_version: row.int("body_version")?,
            created_at: row.time("created_at")?,
        })
    }
}

impl Mention {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.text("notification_id")?,
            kind: row.text("kind")?,
            read_at: row.optional_time("read_at")?,
            sender_key: row.id("sender_key")?,
            post: MembersPost::read(row)?,
        })
    }
}

impl MembersTopic {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.id("id")?,
            name: row.text("name")?,
            description: row.optional_text("description")?,
            visibility: row.word("visibility", Visibility::parse)?,
            created_at: row.time("created_at")?,
            mesh: row.id("mesh_id")?,
            member: row.id("member_id")?,
            unread: row.int("unread")?,
            last_post_at: row.optional_time("last_post_at")?,
        })
    }
}
