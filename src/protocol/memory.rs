//! What a mesh remembers: `remember`, `recall`, `forget`.

use serde::{Deserialize, Serialize};

use super::Ack;
use super::ask::{Answer, Ask};

/// `remember`: keeps a text for the mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remember {
    /// The text.
    pub content: String,
    /// Words that it is found by, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
}

impl Ask for Remember {
    const TYPE: &'static str = "remember";
    type Answer = MemoryStored;
}

/// Answers `remember`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStored {
    /// The memory's id.
    pub id: String,
    /// The same: daemons look for this name.
    pub memory_id: String,
}

impl Answer for MemoryStored {
    const TYPE: &'static str = "memory_stored";
}

/// `recall`: the memories that have all words of the query, the best first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// Words, in whatever form.
    pub query: String,
    /// How many at most: 20, up to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// From an answer that was cut: the list goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for Recall {
    const TYPE: &'static str = "recall";
    type Answer = MemoryResults;
}

/// Answers `recall`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryResults {
    /// The memories.
    pub memories: Vec<Memory>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for MemoryResults {
    const TYPE: &'static str = "memory_results";
}

/// What daemons are answered instead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryRecallResult {
    /// The memories.
    pub matches: Vec<Memory>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for MemoryRecallResult {
    const TYPE: &'static str = "memory_recall_result";
}

/// Something that a mesh remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// The memory's id.
    pub id: String,
    /// The text.
    pub content: String,
    /// The tags that it was given.
    pub tags: Vec<String>,
    /// The name of the member that it comes from.
    pub remembered_by: String,
    /// What the member's session called itself, where that is another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remembered_by_session: Option<String>,
    /// When, in ISO 8601.
    pub remembered_at: String,
    /// Whether only members could read it: their client notes it when it opens it, no broker.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sealed: bool,
}

/// `forget`: removes a memory. Acked also where there is none such.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forget {
    /// The whole id.
    pub memory_id: String,
}

impl Ask for Forget {
    const TYPE: &'static str = "forget";
    type Answer = Ack;
}
