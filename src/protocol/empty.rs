//! Questions that older brokers answered and this one has nothing to say to: it
//! keeps no shared state, memory, skills, tasks or topics. Clients wait seconds for
//! an answer, some of them at every start, and the truthful one is an empty list.
//!
//! What would *write* such things is no request here, so that no client takes
//! silence, or an `ack`, for success.

use serde::Deserialize;

/// One such question.
#[derive(Debug)]
pub struct EmptyRead {
    /// Its type; one of [`KINDS`].
    pub kind: &'static str,
    /// What it names.
    pub named: Named,
}

/// What a question names, and the answer repeats.
#[derive(Debug, Default, Deserialize)]
pub struct Named {
    /// `get_state`.
    #[serde(default)]
    pub key: serde_json::Value,
    /// `topic_members`, `topic_history`.
    #[serde(default)]
    pub topic: serde_json::Value,
}

/// All of them.
pub const KINDS: [&str; 24] = [
    "get_state",
    "list_state",
    "recall",
    "get_skill",
    "list_skills",
    "list_tasks",
    "get_context",
    "list_contexts",
    "list_streams",
    "list_scheduled",
    "topic_list",
    "topic_members",
    "topic_history",
    "apikey_list",
    "list_webhooks",
    "vault_list",
    "vault_get",
    "mcp_list",
    "mcp_catalog",
    "list_files",
    "list_collections",
    "mesh_schema",
    "watch_list",
    "get_clock",
];

impl EmptyRead {
    /// The type, if it is one of them.
    #[must_use]
    pub fn kind(kind: &str) -> Option<&'static str> {
        KINDS.into_iter().find(|known| *known == kind)
    }
}
