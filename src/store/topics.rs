//! Topics, as their members see them: which there are, who is in them, what was said.
//!
//! How a post comes to its readers is in [`topic_mail`](super::topic_mail).

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, MessageId, TopicId};
use crate::protocol::{KeyMaker, TopicRole, Visibility};
use crate::store::columns::Columns;
use crate::store::{Author, Result};

/// Topics, as their members see them.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Topics: Send + Sync + 'static {
    /// The topic that a member names by id, archived or not, or by name.
    async fn find(
        &self,
        mesh: &MeshId,
        named: &str,
        member: &MemberId,
    ) -> Result<Option<TopicState>>;

    /// Makes a topic with its author as lead, or finds the one of that name. The author
    /// joins one that is there if it may.
    async fn create(&self, now: Timestamp, author: &Author, new: &NewTopic)
    -> Result<CreatedTopic>;

    /// Topics that the member sees and that are not archived, by name, those after
    /// `after`, at most `limit`.
    async fn list<'a>(
        &self,
        mesh: &MeshId,
        member: &MemberId,
        after: Option<&'a str>,
        limit: i64,
    ) -> Result<Vec<TopicSummary>>;

    /// The author joins; one that is in it stays as it is.
    async fn join(
        &self,
        now: Timestamp,
        author: &Author,
        topic: &TopicId,
        role: TopicRole,
    ) -> Result<Joining>;

    /// The author leaves; whether it was in it.
    async fn leave(&self, now: Timestamp, author: &Author, topic: &TopicId) -> Result<bool>;

    /// Lets a member join a topic that is not public.
    async fn invite(
        &self,
        now: Timestamp,
        author: &Author,
        topic: &TopicId,
        member: &MemberId,
    ) -> Result<()>;

    /// A member has read the topic up to now.
    async fn mark_read(&self, now: Timestamp, topic: &TopicId, member: &MemberId) -> Result<()>;

    /// Who is in a topic, by name and id, those after `after`, at most `limit`.
    async fn members<'a>(
        &self,
        topic: &TopicId,
        after: Option<&'a (String, MemberId)>,
        limit: i64,
    ) -> Result<Vec<TopicMember>>;

    /// What was said, newest first in the mesh's order, before a post of the topic, at most
    /// `limit`.
    async fn history<'a>(
        &self,
        topic: &TopicId,
        before: Option<&'a MessageId>,
        limit: i64,
    ) -> Result<Vec<HistoryPost>>;
}

/// A topic, and the asker in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// Who sees it.
    pub visibility: Visibility,
    /// As what the asker is in it, if it is.
    pub role: Option<TopicRole>,
}

/// A topic to make.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its id, if there is none of that name.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// Who sees it.
    pub visibility: Visibility,
    /// The public key that the topic's key is sealed with.
    pub key_pubkey: String,
    /// Who made the topic's key.
    pub key_maker: KeyMaker,
    /// The topic's key, sealed for members.
    pub seals: Vec<TopicSeal>,
}

/// A topic's key, sealed for one member.
#[derive(Clone, PartialEq, Eq)]
pub struct TopicSeal {
    /// For whom.
    pub member: MemberId,
    /// The sender's public key and the sealed key, base64.
    pub encrypted_key: String,
    /// Base64.
    pub nonce: String,
}

/// What is sealed is nobody's to read in a log.
impl std::fmt::Debug for TopicSeal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "[a key sealed for {}]", self.member)
    }
}

/// What [`Topics::create`] made or found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id.
    pub id: TopicId,
    /// Who sees it.
    pub visibility: Visibility,
    /// Whether it was made now.
    pub is_new: bool,
    /// Who made its key, if it has one and that is known.
    pub key_maker: Option<KeyMaker>,
    /// What became of the author's joining it.
    pub joining: Joining,
}

/// What became of joining a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    /// The member is in it now.
    Joined,
    /// The member was in it before.
    Already,
    /// The topic is not public, and no lead has invited the member.
    NotInvited,
}

/// A topic in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// Who sees it.
    pub visibility: Visibility,
    /// How many are in it.
    pub members: i64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A member of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMember {
    /// Its id.
    pub id: MemberId,
    /// Its key.
    pub key: Key,
    /// Its name.
    pub name: String,
    /// As what it is in it.
    pub role: TopicRole,
    /// Since when.
    pub joined_at: Timestamp,
    /// Up to when it has read.
    pub last_read_at: Option<Timestamp>,
}

/// A post in a topic's history.
#[derive(Clone, Debug)]
pub struct HistoryPost {
    /// Its id.
    pub id: MessageId,
    /// Who sent it.
    pub sender: MemberId,
    /// The key whose secret sealed it: the session's, else the member's.
    pub sender_key: Key,
    /// The sender's name.
    pub sender_name: String,
    /// As sent.
    pub nonce: String,
    /// As sent.
    pub ciphertext: String,
    /// 1: base64 of the text; 2: sealed with the topic's key.
    pub body_version: i64,
    /// What it answers.
    pub reply_to_id: Option<MessageId>,
    /// When it was accepted.
    pub created_at: Timestamp,
}

impl TopicState {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.id("id")?,
            name: row.text("name")?,
            visibility: row.word("visibility", Visibility::parse)?,
            role: row.optional_str("role")?.and_then(TopicRole::parse),
        })
    }
}

impl TopicSummary {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.id("id")?,
            name: row.text("name")?,
            description: row.optional_text("description")?,
            visibility: row.word("visibility", Visibility::parse)?,
            members: row.int("members")?,
            created_at: row.time("created_at")?,
        })
    }
}

impl TopicMember {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.id("member_id")?,
            key: row.id("peer_pubkey")?,
            name: row.text("display_name")?,
            role: row.word("role", TopicRole::parse)?,
            joined_at: row.time("joined_at")?,
            last_read_at: row.optional_time("last_read_at")?,
        })
    }
}

impl HistoryPost {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.id("id")?,
            sender: row.id("sender_member_id")?,
            sender_key: row.id("sender_key")?,
            sender_name: row.text("sender_name")?,
            nonce: row.text("nonce")?,
            ciphertext: row.text("ciphertext")?,
            body_version: row.int("body_version")?,
            reply_to_id: row.optional_id("reply_to_id")?,
            created_at: row.time("created_at")?,
        })
    }
}

/// What a change finds of the topic and its author's place in it.
pub(in crate::store) struct Found {
    pub(in crate::store) id: TopicId,
    pub(in crate::store) visibility: Visibility,
    pub(in crate::store) key_maker: Option<KeyMaker>,
    is_member: bool,
    is_invited: bool,
}

impl Found {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.id("id")?,
            visibility: row.word("visibility", Visibility::parse)?,
            key_maker: row.optional_str("key_made_by")?.and_then(KeyMaker::parse),
            is_member: row.flag("is_member")?,
            is_invited: row.flag("is_invited")?,
        })
    }

    /// What is to become of its joining.
    pub(in crate::store) fn joining(&self) -> Joining {
        match self {
            Self { is_member: true, .. } => Joining::Already,
            Self { visibility: Visibility::Public, .. } | Self { is_invited: true, .. } => {
                Joining::Joined
            }
            _ => Joining::NotInvited,
        }
    }
}
