//! Shared state: `set_state`, `get_state`, `list_state`, `delete_state`, `state_change`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Ack;
use super::ask::{Answer, Ask, Unasked};

/// `set_state`: writes a value under a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetState {
    /// The key.
    pub key: String,
    /// The value, any JSON; one that is left out is null.
    #[serde(default)]
    pub value: Value,
    /// Only if the value has this version; 0: only if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<i64>,
}

impl Ask for SetState {
    const TYPE: &'static str = "set_state";
    /// Older brokers say nothing, and what answers no request is taken by old clients
    /// for the answer to another.
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

/// `delete_state`: removes what is under a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteState {
    /// The key.
    pub key: String,
    /// Only if the value has this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<i64>,
}

impl Ask for DeleteState {
    const TYPE: &'static str = "delete_state";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

/// `get_state`: the value under a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetState {
    /// The key.
    pub key: String,
}

impl Ask for GetState {
    const TYPE: &'static str = "get_state";
    type Answer = StateResult;
}

/// Answers `get_state`. Where there is no such value: null, and empty texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateResult(pub StateEntry);

impl Answer for StateResult {
    const TYPE: &'static str = "state_result";
}

/// What daemons are answered instead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateValue {
    /// The value, if there is one.
    pub state: Option<StateEntry>,
}

impl Answer for StateValue {
    const TYPE: &'static str = "state_value";
}

/// A value as it stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateEntry {
    /// Its key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// How often it was written since it last came to be; none: there is no such value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// The name of the member that wrote it.
    pub updated_by: String,
    /// What the member's session called itself, where that is another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_by_session: Option<String>,
    /// When, in ISO 8601.
    pub updated_at: String,
    /// Whether only members could read it: their client notes it when it opens it, no broker.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sealed: bool,
}

/// `list_state`: all values, by key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListState {
    /// From an answer that was cut: the list goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for ListState {
    const TYPE: &'static str = "list_state";
    type Answer = StateList;
}

/// Answers `list_state`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateList {
    /// The values.
    pub entries: Vec<StateEntry>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for StateList {
    const TYPE: &'static str = "state_list";
}

/// `state_change`: a value is otherwise now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateChange {
    /// Its key.
    pub key: String,
    /// The value; null also for one that was removed.
    pub value: Value,
    /// The value's version; none for one that was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// The name of the member that changed it.
    pub updated_by: String,
}
