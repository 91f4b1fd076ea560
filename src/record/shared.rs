//! A change of what a mesh shares, as nodes tell each other of it.
//!
//! The seq of its audit row puts changes of one thing in order wherever they are heard,
//! and is what a node that missed some asks the store from.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{MemberId, PresenceId};
use crate::protocol::TaskStatus;

/// A change of something that a mesh shares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharedChange {
    /// The seq of the change in the mesh.
    pub seq: i64,
    /// The session that made it, which is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<PresenceId>,
    /// What is otherwise now.
    pub what: Shared,
}

/// What is otherwise. A kind that a node does not know is not told there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Shared {
    /// A value of the shared state.
    State {
        /// Its key.
        key: String,
        /// The value; null also for one that was removed.
        value: Value,
        /// The value's version; none for one that was removed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<i64>,
        /// The name of the member that changed it.
        updated_by: String,
    },
    /// A task, for those who have asked to be told.
    Task {
        /// The task.
        task_id: String,
        /// How far it is.
        status: TaskStatus,
        /// The name of the member that changed it; none: its claim ran out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// What a member works on.
    Context {
        /// The member.
        member: MemberId,
        /// The member's name.
        name: String,
        /// What it works on.
        summary: String,
    },
}

impl Shared {
    /// The thing: of two changes of one, the later is what counts.
    #[must_use]
    pub fn thing(&self) -> Cow<'_, str> {
        match self {
            Self::State { key, .. } => Cow::Owned(format!("state {key}")),
            Self::Task { task_id, .. } => Cow::Owned(format!("task {task_id}")),
            Self::Context { member, .. } => Cow::Owned(format!("context {member}")),
        }
    }
}
