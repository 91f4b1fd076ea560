//! Topics: `topic_create`, `topic_list`, `topic_join`, `topic_leave`, `topic_invite`,
//! `topic_mark_read`, `topic_members`, `topic_history`. Posts are `send`s to `#topic`.

use serde::{Deserialize, Serialize};

use super::Ack;
use super::ask::{Answer, Ask, Unasked};
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MessageId, TopicId};

/// Who sees a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Everybody in the mesh, who may join it.
    #[default]
    Public,
    /// Its members; who joins needs an invitation.
    Private,
    /// As a private one: between few.
    Dm,
}

impl Visibility {
    /// The word in the tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Dm => "dm",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "public" => Some(Self::Public),
            "private" => Some(Self::Private),
            "dm" => Some(Self::Dm),
            _ => None,
        }
    }
}

/// As what a member is in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopicRole {
    /// May invite others.
    Lead,
    /// Reads and posts.
    #[default]
    Member,
    /// The same, and says that it mostly reads.
    Observer,
}

impl TopicRole {
    /// The word in the tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lead => "lead",
            Self::Member => "member",
            Self::Observer => "observer",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "lead" => Some(Self::Lead),
            "member" => Some(Self::Member),
            "observer" => Some(Self::Observer),
            _ => None,
        }
    }
}

/// Who made a topic's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyMaker {
    /// The client that made the topic: the broker never had it.
    Client,
    /// The broker, which sealed it for members and forgot it.
    Broker,
}

impl KeyMaker {
    /// The word in the tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Broker => "broker",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "client" => Some(Self::Client),
            "broker" => Some(Self::Broker),
            _ => None,
        }
    }
}

/// `topic_create`: makes a topic, or finds the one of that name.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicCreate {
    /// Its name.
    pub name: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who sees it.
    #[serde(default)]
    pub visibility: Option<Visibility>,
    /// Of a key that the client made: the public key that it is sealed with, 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_key_pubkey: Option<String>,
    /// The key, sealed for the client's own member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_key: Option<String>,
    /// The nonce that it is sealed under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

/// What is sealed is nobody's to read in a log.
impl std::fmt::Debug for TopicCreate {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TopicCreate").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Ask for TopicCreate {
    const TYPE: &'static str = "topic_create";
    type Answer = TopicCreated;
}

/// Answers `topic_create`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicCreated {
    /// The topic.
    pub topic: TopicNamed,
    /// Whether there was none of that name.
    pub created: bool,
    /// Who made the topic's key, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_made_by: Option<KeyMaker>,
}

impl Answer for TopicCreated {
    const TYPE: &'static str = "topic_created";
}

/// A topic, by its names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicNamed {
    /// Its id.
    pub id: TopicId,
    /// Its name, as sent.
    pub name: String,
    /// Who sees it.
    pub visibility: Visibility,
}

/// `topic_list`: the topics that the asker sees.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TopicList {
    /// From an answer that was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for TopicList {
    const TYPE: &'static str = "topic_list";
    type Answer = TopicListResponse;
}

/// Answers `topic_list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicListResponse {
    /// By name.
    pub topics: Vec<TopicListed>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for TopicListResponse {
    const TYPE: &'static str = "topic_list_response";
}

/// A topic in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicListed {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// Who sees it.
    pub visibility: Visibility,
    /// How many are in it.
    pub member_count: i64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// `topic_join`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TopicJoin {
    /// Its id or its name.
    pub topic: String,
    /// As what; `member` if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<TopicRole>,
}

impl Ask for TopicJoin {
    const TYPE: &'static str = "topic_join";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

/// `topic_leave`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TopicLeave {
    /// Its id or its name.
    pub topic: String,
}

impl Ask for TopicLeave {
    const TYPE: &'static str = "topic_leave";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

/// `topic_invite`: lets a member join a topic that is not public. For its leads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TopicInvite {
    /// Its id or its name.
    pub topic: String,
    /// The member's id, its key, or its name if nobody else has it.
    pub member: String,
}

impl Ask for TopicInvite {
    const TYPE: &'static str = "topic_invite";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

/// `topic_mark_read`: all up to now was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TopicMarkRead {
    /// Its id or its name.
    pub topic: String,
}

impl Ask for TopicMarkRead {
    const TYPE: &'static str = "topic_mark_read";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

/// `topic_members`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TopicMembers {
    /// Its id or its name.
    pub topic: String,
    /// From an answer that was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for TopicMembers {
    const TYPE: &'static str = "topic_members";
    type Answer = TopicMembersResponse;
}

/// Answers `topic_members`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicMembersResponse {
    /// The topic, as asked.
    pub topic: String,
    /// By name.
    pub members: Vec<TopicMemberListed>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for TopicMembersResponse {
    const TYPE: &'static str = "topic_members_response";
}

/// A member of a topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicMemberListed {
    /// Its id.
    pub member_id: MemberId,
    /// Its key.
    pub pubkey: Key,
    /// Its name.
    pub display_name: String,
    /// As what it is in it.
    pub role: TopicRole,
    /// Since when.
    pub joined_at: Timestamp,
    /// Up to when it has read.
    pub last_read_at: Option<Timestamp>,
}

/// `topic_history`: what was said, newest first. For its members.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicHistory {
    /// Its id or its name.
    pub topic: String,
    /// At most so many, 1 to 200; 50 if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// Only what was said before that post of the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_id: Option<MessageId>,
}

impl Ask for TopicHistory {
    const TYPE: &'static str = "topic_history";
    type Answer = TopicHistoryResponse;
}

/// Answers `topic_history`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TopicHistoryResponse {
    /// The topic, as asked.
    pub topic: String,
    /// Newest first.
    pub messages: Vec<TopicPosted>,
    /// Whether fewer came than were asked for and are there: the last one's id is the
    /// next `beforeId`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

impl Answer for TopicHistoryResponse {
    const TYPE: &'static str = "topic_history_response";
}

/// A post in a history.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicPosted {
    /// Its id.
    pub id: MessageId,
    /// The key whose secret sealed it: the session's, else the member's.
    pub sender_pubkey: Key,
    /// Who sent it.
    pub sender_member_id: MemberId,
    /// The sender's name.
    pub sender_name: String,
    /// As sent.
    pub nonce: String,
    /// As sent.
    pub ciphertext: String,
    /// 1: base64 of the text; 2: sealed with the topic's key.
    pub body_version: i64,
    /// What it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<MessageId>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Whether only members could read it: their client notes it when it opens it, no broker.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sealed: bool,
}

/// What was said is nobody's to read in a log.
impl std::fmt::Debug for TopicPosted {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TopicPosted").field("id", &self.id).finish_non_exhaustive()
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// The names that a post's text mentions: words of letters, digits, `_` and `-` after an `@`
/// that no such character precedes. Of a sealed post its client says them.
pub fn names_mentioned(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    text.match_indices('@').filter_map(move |(at, _)| {
        if at > 0 && is_of_name(bytes[at - 1]) {
            return None;
        }
        let rest = &text[at + 1..];
        let end = rest.bytes().position(|byte| !is_of_name(byte)).unwrap_or(rest.len());
        Some(&rest[..end]).filter(|name| !name.is_empty())
    })
}
