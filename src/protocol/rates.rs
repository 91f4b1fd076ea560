//! `budget`: what its member has left of each limit.

use serde::{Deserialize, Serialize};

use super::ask::{Answer, Ask};

/// `budget`: what may still be sent and asked. Takes nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Budget {
    /// A `targetSpec`: of a key, the answer says what is left for the member behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

impl Ask for Budget {
    const TYPE: &'static str = "budget";
    type Answer = BudgetResult;
}

/// Answers `budget`. A limit that is turned off is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BudgetResult {
    /// What the member may send, to whomever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<Allowed>,
    /// What it may send to the member that `to` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<Allowed>,
    /// What it may send to groups, topics and everyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multicast: Option<Allowed>,
    /// What it may send to admins as `now` when another limit is used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urgent: Option<Allowed>,
    /// What it may ask, in units of cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Allowed>,
    /// What waits of its messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Whether these are the part of one node only: it cannot ask the others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

impl Answer for BudgetResult {
    const TYPE: &'static str = "budget_result";
}

/// How much of a limit is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allowed {
    /// What comes back in a minute.
    pub per_minute: u32,
    /// What may be done at once when all of it is there.
    pub burst: u32,
    /// What may be done now.
    pub left: u32,
    /// When there is one more; only where none is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_in_ms: Option<u64>,
    /// When all of it is there.
    pub full_in_ms: u64,
}

/// What waits of a member's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Bytes of direct messages that wait for their recipients.
    pub bytes: u64,
    /// How many may.
    pub bytes_max: u64,
}
