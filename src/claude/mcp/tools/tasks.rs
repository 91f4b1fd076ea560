//! `create_task`, `list_tasks`, `claim_task`, `complete_task`: what is to be done in the
//! mesh, and who does it.

use rmcp::schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::super::shown::{self, NAME_CHARS, SENTENCE_CHARS};
use super::{At, Call, Effect, Said};
use crate::client::how_kept;
use crate::protocol::{self, Ask, TaskRow};

/// Says what is to be done.
#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct CreateTask {
    /// What is to be done, so that somebody else can do it.
    title: String,
    /// For whom it is meant: a peer's name.
    assignee: Option<String>,
    /// How urgent it is: low, normal, high.
    priority: Option<String>,
    /// Words to find it by.
    tags: Option<Vec<String>>,
}

impl Call for CreateTask {
    const NAME: &'static str = <protocol::CreateTask as Ask>::TYPE;
    const ABOUT: &'static str =
        "Put a task on the mesh's list, for whoever takes it or for one peer.";
    const EFFECT: Effect = Effect::Adds;

    async fn run(self, at: &At) -> Said {
        let Self { title, assignee, priority, tags } = self;
        let asked = protocol::CreateTask { title, assignee, priority, tags };
        let (made, how) = at.keep(asked).await?;
        Ok(format!(
            "This is task {}, {how}. Nobody is told by that alone: write to whoever should do it.",
            made.id
        ))
    }
}

/// Shows what is to be done.
#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct ListTasks {
    /// Only those of that status: open, claimed, done.
    status: Option<String>,
    /// Only those for that peer.
    assignee: Option<String>,
    /// Where an earlier list goes on.
    cursor: Option<String>,
}

impl Call for ListTasks {
    const NAME: &'static str = <protocol::ListTasks as Ask>::TYPE;
    const ABOUT: &'static str = "List the tasks of the mesh, the newest first.";
    const EFFECT: Effect = Effect::Reads;

    async fn run(self, at: &At) -> Said {
        let Self { status, assignee, cursor } = self;
        let page = at.ask_opened(&protocol::ListTasks { status, assignee, cursor }).await?;
        if page.tasks.is_empty() {
            return Ok("There are no such tasks; create_task makes one.".to_owned());
        }
        let heading = super::page_heading("tasks, as peers wrote them", page.cursor.as_deref());
        Ok(shown::list(&heading, page.tasks.iter().map(row)))
    }
}

/// Takes a task.
#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct ClaimTask {
    /// The task's id, as list_tasks shows it.
    id: String,
    /// How long the claim lasts; without it, as long as the broker says.
    minutes: Option<i64>,
}

impl Call for ClaimTask {
    const NAME: &'static str = <protocol::ClaimTask as Ask>::TYPE;
    const ABOUT: &'static str = "Take a task: of several peers who do, one has it. The claim runs out; claim again to \
                                 keep it.";
    const EFFECT: Effect = Effect::Changes;

    async fn run(self, at: &At) -> Said {
        let lease_ms = self.minutes.map(|minutes| minutes.saturating_mul(60_000));
        let id = shown::text(&self.id, NAME_CHARS);
        let page = at.ask(&protocol::ClaimTask { task_id: self.id, lease_ms }).await?;
        let until = page.tasks.first().and_then(|task| task.claim_expires_at.clone());
        let until = until.map(|at| format!(" until {at}")).unwrap_or_default();
        Ok(format!("Task {id} is yours{until}; complete_task says that it is done."))
    }
}

/// Says that a task is done.
#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct CompleteTask {
    /// The task's id.
    id: String,
    /// What came of it, in a sentence or two.
    result: Option<String>,
}

impl Call for CompleteTask {
    const NAME: &'static str = <protocol::CompleteTask as Ask>::TYPE;
    const ABOUT: &'static str = "Say that a task is done, and what came of it.";
    const EFFECT: Effect = Effect::Changes;

    async fn run(self, at: &At) -> Said {
        let Self { id, result } = self;
        let named = shown::text(&id, NAME_CHARS);
        let (_, how) = at.keep(protocol::CompleteTask { task_id: id, result }).await?;
        Ok(format!("Task {named} is done; that is kept {how}."))
    }
}

fn row(task: &TaskRow) -> String {
    let cut = |text: &Option<String>, chars| text.as_deref().map(|text| shown::cut(text, chars));
    shown::row(&json!({
        "id": task.id,
        "title": shown::cut(&task.title, SENTENCE_CHARS),
        "kept": how_kept(task.sealed),
        "status": task.status,
        "claimedBy": cut(&task.claimed_by, NAME_CHARS),
        "claimedUntil": task.claim_expires_at,
        "assignee": cut(&task.assignee, NAME_CHARS),
        "priority": task.priority,
        "tags": task.tags,
        "createdBy": cut(&task.created_by, NAME_CHARS),
        "result": cut(&task.result, SENTENCE_CHARS),
    }))
}
