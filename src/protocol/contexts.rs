//! What members say that they work on: `share_context`, `get_context`, `list_contexts`.
//! The others hear of it by `state_change`.

use serde::{Deserialize, Serialize};

use super::ask::{Answer, Ask};

/// What the key of a `state_change` begins with that tells of a context; the member's
/// name follows. Nothing is kept under such a key.
pub const CONTEXT_KEY: &str = "_context:";

/// `share_context`: what the member works on, in place of what it said before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareContext {
    /// What it is about.
    pub summary: String,
    /// Files that were read for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_read: Option<Vec<String>>,
    /// What was found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_findings: Option<Vec<String>>,
    /// Words that it is found by, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
}

impl Ask for ShareContext {
    const TYPE: &'static str = "share_context";
    type Answer = ContextShared;
}

/// Answers `share_context`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContextShared {
    /// The id of the member's context.
    pub id: String,
}

impl Answer for ContextShared {
    const TYPE: &'static str = "context_shared";
}

/// `get_context`: whose context has this in its summary, or as a tag; the newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GetContext {
    /// Some text.
    pub query: String,
    /// From an answer that was cut: the list goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for GetContext {
    const TYPE: &'static str = "get_context";
    type Answer = ContextResults;
}

/// Answers `get_context`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContextResults {
    /// The contexts.
    pub contexts: Vec<PeerContext>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for ContextResults {
    const TYPE: &'static str = "context_results";
}

/// What a member works on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerContext {
    /// The member's name.
    pub peer_name: String,
    /// What the member's session called itself, where that is another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_session: Option<String>,
    /// What it is about.
    pub summary: String,
    /// Files that were read for it.
    pub files_read: Vec<String>,
    /// What was found out.
    pub key_findings: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// When it was said, in ISO 8601.
    pub updated_at: String,
}

/// `list_contexts`: what all members work on, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListContexts {
    /// From an answer that was cut: the list goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for ListContexts {
    const TYPE: &'static str = "list_contexts";
    type Answer = ContextList;
}

/// Answers `list_contexts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContextList {
    /// The contexts.
    pub contexts: Vec<ContextEntry>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for ContextList {
    const TYPE: &'static str = "context_list";
}

/// A context as lists show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContextEntry {
    /// The member's name.
    pub peer_name: String,
    /// What the member's session called itself, where that is another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_session: Option<String>,
    /// What it is about.
    pub summary: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// When it was said, in ISO 8601.
    pub updated_at: String,
}
