//! Tasks: `create_task`, `claim_task`, `renew_task`, `release_task`, `update_task`,
//! `complete_task`, `list_tasks`, `watch_tasks`, `unwatch_tasks`.

use serde::{Deserialize, Serialize};

use super::Ack;
use super::ask::{Answer, Ask, Unasked};

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Nobody does it.
    Open,
    /// Somebody does it.
    Claimed,
    /// It is done.
    Done,
}

impl TaskStatus {
    /// The word on the wire and in the tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Claimed => "claimed",
            Self::Done => "done",
        }
    }

    /// The status with that name; of other programs' words, what they come to.
    #[must_use]
    pub fn read(text: &str) -> Self {
        match text {
            "claimed" | "in_progress" => Self::Claimed,
            "done" | "completed" => Self::Done,
            _ => Self::Open,
        }
    }
}

/// `create_task`: something to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CreateTask {
    /// What is to be done.
    pub title: String,
    /// For whom it is meant; free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignee: Option<String>,
    /// Free text; `normal` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
}

impl Ask for CreateTask {
    const TYPE: &'static str = "create_task";
    type Answer = TaskCreated;
}

/// Answers `create_task`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskCreated {
    /// The task.
    pub id: String,
}

impl Answer for TaskCreated {
    const TYPE: &'static str = "task_created";
}

/// `claim_task`: the caller does it. Of any number of simultaneous callers one gets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimTask {
    /// The task.
    pub task_id: String,
    /// Unless it is renewed, the claim runs out after so long; left out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<i64>,
}

impl Ask for ClaimTask {
    const TYPE: &'static str = "claim_task";
    type Answer = TaskList;
}

/// `renew_task`: the caller still does it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenewTask {
    /// The task.
    pub task_id: String,
    /// How long the claim lasts from now; left out: as long as it was claimed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<i64>,
}

impl Ask for RenewTask {
    const TYPE: &'static str = "renew_task";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

/// `release_task`: the caller does it no more, and it is open again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseTask {
    /// The task.
    pub task_id: String,
}

impl Ask for ReleaseTask {
    const TYPE: &'static str = "release_task";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

/// `update_task`: what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateTask {
    /// The task.
    pub task_id: String,
    /// What is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// How urgent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// For whom; empty: for nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignee: Option<String>,
}

impl Ask for UpdateTask {
    const TYPE: &'static str = "update_task";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

/// `complete_task`: it is done, whoever did it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompleteTask {
    /// The task.
    pub task_id: String,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
}

impl Ask for CompleteTask {
    const TYPE: &'static str = "complete_task";
    type Answer = TaskList;
}

/// `list_tasks`: the newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListTasks {
    /// Only those of that status; empty or left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Only those for that assignee; empty or left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignee: Option<String>,
    /// From an answer that was cut: the list goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for ListTasks {
    const TYPE: &'static str = "list_tasks";
    type Answer = TaskList;
}

/// Answers `list_tasks`, `claim_task` and `complete_task`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskList {
    /// The tasks, the newest first.
    pub tasks: Vec<TaskRow>,
    /// Whether there are more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for TaskList {
    const TYPE: &'static str = "task_list";
}

/// A task as it stands now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRow {
    /// Its id.
    pub id: String,
    /// What is to be done.
    pub title: String,
    /// For whom.
    pub assignee: Option<String>,
    /// Who does it, or has done it.
    pub claimed_by: Option<String>,
    /// How far it is.
    pub status: TaskStatus,
    /// How urgent.
    pub priority: String,
    /// Who wants it.
    pub created_by: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Since when, in ISO 8601.
    pub created_at: String,
    /// When the claim runs out, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_expires_at: Option<String>,
    /// When it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Whether only members could read it: their client notes it when it opens it, no broker.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sealed: bool,
}

/// `watch_tasks`: the session is told of what becomes of tasks, until it ends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WatchTasks {}

impl Ask for WatchTasks {
    const TYPE: &'static str = "watch_tasks";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

/// `unwatch_tasks`: no more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnwatchTasks {}

impl Ask for UnwatchTasks {
    const TYPE: &'static str = "unwatch_tasks";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}
