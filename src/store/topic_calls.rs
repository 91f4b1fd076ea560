//! Topics as programs see them that hold an API key: by their exact names, and posts by
//! their place in the mesh's order.
//!
//! What members do in topics is in [`topics`](super::topics).

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, MessageId, TopicId};
use crate::protocol::Visibility;
use crate::store::columns::Columns;
use crate::store::{Author, HistoryPost, Result, TopicSeal};

/// Topics as programs see them that hold an API key.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait TopicCalls: Send + Sync + 'static {
    /// The topic of that very name that is not archived, and the member's place in it.
    async fn named<'a>(
        &self,
        mesh: &MeshId,
        name: &str,
        member: Option<&'a MemberId>,
    ) -> Result<Option<CalledTopic>>;

    /// Topics that the member sees and that are not archived, by name, at most `limit`;
    /// of what it has not read at most `unread_max` are counted.
    async fn seen<'a>(
        &self,
        mesh: &MeshId,
        member: Option<&'a MemberId>,
        limit: i64,
        unread_max: i64,
    ) -> Result<Vec<SeenTopic>>;

    /// Whether that is a post of the topic.
    async fn is_post(&self, topic: &TopicId, post: &MessageId) -> Result<bool>;

    /// Posts after that place, each with its own, oldest first, at most `limit`.
    async fn posts_since(
        &self,
        topic: &TopicId,
        seq: i64,
        limit: i64,
    ) -> Result<Vec<(i64, HistoryPost)>>;

    /// The place of the topic's newest post, for a reader that began with a key. `None`
    /// where it must not read on: the key was revoked, the topic or its mesh archived, or
    /// the member is not in the topic, or the mesh, any more. That the key runs out ends
    /// nothing.
    async fn watched<'a>(
        &self,
        topic: &TopicId,
        key: &str,
        member: Option<&'a MemberId>,
    ) -> Result<Option<i64>>;

    /// Active members of a topic for whom its key is not sealed, at most `limit`.
    async fn unsealed(&self, topic: &TopicId, limit: i64) -> Result<Vec<Unsealed>>;

    /// The author seals the topic's key for a member of the topic. What is sealed for
    /// somebody already stays, unless that is the author.
    async fn seal(
        &self,
        now: Timestamp,
        author: &Author,
        topic: &TopicId,
        seal: &TopicSeal,
    ) -> Result<Sealing>;

    /// The author gives a topic that has none a key, and has it sealed for itself.
    async fn claim(
        &self,
        now: Timestamp,
        author: &Author,
        topic: &TopicId,
        key_pubkey: &str,
        seal: &TopicSeal,
    ) -> Result<Claiming>;
}

/// Somebody for whom a topic's key is not sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsealed {
    /// The member.
    pub member: MemberId,
    /// Its key.
    pub key: Key,
    /// Its name.
    pub name: String,
}

/// What became of sealing a topic's key for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// It is sealed now.
    Sealed,
    /// It was sealed before, and that stays.
    Already,
    /// There is no such member in the topic.
    NotInTopic,
    /// The author has no copy of the key to seal.
    NoKey,
}

/// What became of giving a topic a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claiming {
    /// It is the topic's key now.
    Claimed,
    /// The topic has one, which was sealed with this.
    Already(String),
}

/// A topic, and the member behind a call in it.
#[derive(Clone, PartialEq, Eq)]
pub struct CalledTopic {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// Who sees it.
    pub visibility: Visibility,
    /// What its key was sealed with; `None`: it has no key.
    pub key_pubkey: Option<String>,
    /// Whether the member is in it.
    pub is_member: bool,
    /// The topic's key, sealed for the member.
    pub held: Option<HeldKey>,
}

impl CalledTopic {
    /// Whether the member sees that there is such a topic.
    #[must_use]
    pub fn is_seen(&self) -> bool {
        self.is_member || self.visibility == Visibility::Public
    }
}

/// A topic's key as it is kept for a member.
#[derive(Clone, PartialEq, Eq)]
pub struct HeldKey {
    /// The sender's public key and the sealed key, base64.
    pub encrypted_key: String,
    /// Base64.
    pub nonce: String,
    /// When it was sealed.
    pub created_at: Timestamp,
}

/// What is sealed is nobody's to read in a log.
impl std::fmt::Debug for CalledTopic {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "[the topic {}]", self.id)
    }
}

/// A topic in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenTopic {
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
    /// Posts of others that the member has not read; 0 where it is not in it.
    pub unread: i64,
}

impl CalledTopic {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        let held = match row.optional_text("encrypted_key")? {
            Some(encrypted_key) => Some(HeldKey {
                encrypted_key,
                nonce: row.text("nonce")?,
                created_at: row.time("sealed_at")?,
            }),
            None => None,
        };
        Ok(Self {
            id: row.id("id")?,
            name: row.text("name")?,
            visibility: row.word("visibility", Visibility::parse)?,
            key_pubkey: row.optional_text("encrypted_key_pubkey")?,
            is_member: row.flag("is_member")?,
            held,
        })
    }
}

impl SeenTopic {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            id: row.id("id")?,
            name: row.text("name")?,
            description: row.optional_text("description")?,
            visibility: row.word("visibility", Visibility::parse)?,
            created_at: row.time("created_at")?,
            unread: row.int("unread")?,
        })
    }
}

impl Unsealed {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            member: row.id("member_id")?,
            key: row.id("peer_pubkey")?,
            name: row.text("display_name")?,
        })
    }
}

/// What a sealing finds: whether the member has a copy, and whether the author does.
pub(in crate::store) struct Found {
    has_copy: bool,
    author_has: bool,
}

impl Found {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self { has_copy: row.flag("has_copy")?, author_has: row.flag("author_has")? })
    }

    /// What is to become of it; `None`: it is sealed.
    fn refuses(found: Option<&Self>, is_own: bool) -> Option<Sealing> {
        match found {
            None => Some(Sealing::NotInTopic),
            Some(found) if !found.author_has => Some(Sealing::NoKey),
            Some(found) if found.has_copy && !is_own => Some(Sealing::Already),
            Some(_) => None,
        }
    }
}

/// A post with its place.
fn read_post(row: &impl Columns) -> Result<(i64, HistoryPost)> {
    Ok((row.int("seq")?, HistoryPost::read(row)?))
}
