//! What a mesh shares, by name and time: never a value, a message, an address or a secret.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;

use super::meshes::find;
use super::views::short_key;
use super::{HttpState, Refused, answer};
use crate::clock::Timestamp;
use crate::limits;
use crate::protocol::TaskCounts;
use crate::store::{Kind, Mesh, ScheduledLine, StateLine, Task, TaskListing, TopicLine, Webhook};

/// What is counted: a line for each kind.
const COUNTED: [Kind; 12] = [
    Kind::State,
    Kind::Topics,
    Kind::Task,
    Kind::Schedule,
    Kind::Memory,
    Kind::Skill,
    Kind::Context,
    Kind::Stream,
    Kind::Webhook,
    Kind::McpServer,
    Kind::Vault,
    Kind::ApiKey,
];

/// What a mesh shares.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shared {
    at: Timestamp,
    kept: Vec<KeptView>,
    task_counts: TaskCounts,
    tasks: Listed<TaskView>,
    schedules: Listed<ScheduleView>,
    state: Listed<StateView>,
    topics: Listed<TopicView>,
    webhooks: Listed<WebhookView>,
}

/// How much of one kind there is.
#[derive(Serialize)]
struct KeptView {
    kind: &'static str,
    rows: i64,
    bytes: i64,
}

/// The first rows of a list.
#[derive(Serialize)]
struct Listed<T> {
    rows: Vec<T>,
    /// Whether there are more.
    more: bool,
}

impl<T> Listed<T> {
    /// As far as one answer goes; one more was asked for.
    fn of<R>(mut found: Vec<R>, view: impl Fn(R) -> T) -> Self {
        let most = usize::try_from(limits::ADMIN_SHARED_ROWS_MAX).unwrap_or(usize::MAX);
        let more = found.len() > most;
        found.truncate(most);
        Self { rows: found.into_iter().map(view).collect(), more }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TaskView {
    id: String,
    title: String,
    status: &'static str,
    claimed_by: Option<String>,
    claim_expires_at: Option<Timestamp>,
    assignee: Option<String>,
    created_by: Option<String>,
    created_at: Timestamp,
    completed_at: Option<Timestamp>,
}

impl From<Task> for TaskView {
    fn from(task: Task) -> Self {
        Self {
            status: task.status.as_str(),
            claimed_by: task.claim.as_ref().map(|claim| claim.name.clone()),
            claim_expires_at: task.claim.as_ref().and_then(|claim| claim.until),
            id: task.id,
            title: task.title,
            assignee: task.assignee,
            created_by: task.created_by,
            created_at: task.created_at,
            completed_at: task.completed_at,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ScheduleView {
    id: String,
    by: Option<String>,
    target: String,
    sealed: bool,
    due_at: Timestamp,
    cron: Option<String>,
    timezone: Option<String>,
    created_at: Timestamp,
}

impl From<ScheduledLine> for ScheduleView {
    fn from(line: ScheduledLine) -> Self {
        let ScheduledLine { id, by, target, sealed, due_at, cron, timezone, created_at } = line;
        Self { target: short_key(&target), id, by, sealed, due_at, cron, timezone, created_at }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StateView {
    key: String,
    version: i64,
    updated_by: Option<String>,
    updated_at: Timestamp,
}

impl From<StateLine> for StateView {
    fn from(line: StateLine) -> Self {
        let StateLine { key, version, updated_by, updated_at } = line;
        Self { key, version, updated_by, updated_at }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TopicView {
    name: String,
    visibility: String,
    members: i64,
    created_at: Timestamp,
    archived_at: Option<Timestamp>,
}

impl From<TopicLine> for TopicView {
    fn from(line: TopicLine) -> Self {
        let TopicLine { name, visibility, members, created_at, archived_at } = line;
        Self { name, visibility, members, created_at, archived_at }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WebhookView {
    name: String,
    /// `in`: others call it; `out`: the broker calls.
    direction: &'static str,
    events: Vec<&'static str>,
    waiting: i64,
    dead_letters: i64,
    created_at: Timestamp,
    delivered_at: Option<Timestamp>,
}

impl From<Webhook> for WebhookView {
    fn from(hook: Webhook) -> Self {
        Self {
            name: hook.name,
            direction: if hook.url.is_some() { "out" } else { "in" },
            events: hook.events.iter().map(|event| event.as_str()).collect(),
            waiting: hook.waiting,
            dead_letters: hook.dead_letters,
            created_at: hook.created_at,
            delivered_at: hook.delivered_at,
        }
    }
}

/// `GET /meshes/{id}/shared`.
pub(super) async fn shared(
    State(state): State<Arc<HttpState>>,
    Path(id): Path<String>,
) -> Response {
    answer(&state, |state| async move {
        let mesh = find(&state, &id).await?;
        read(&state, &mesh).await
    })
    .await
}

async fn read(state: &HttpState, Mesh { id: mesh, .. }: &Mesh) -> Result<Shared, Refused> {
    let (stores, now) = (&state.stores, Timestamp::now());
    let limit = limits::ADMIN_SHARED_ROWS_MAX + 1;
    let usage = stores.inventory.usage(mesh, &COUNTED).await?;
    let kept = COUNTED.iter().map(|kind| {
        let usage = usage.get(kind).copied().unwrap_or_default();
        KeptView { kind: kind.as_str(), rows: usage.rows, bytes: usage.bytes }
    });
    let tasks = stores.tasks.list(now, mesh, &TaskListing::default(), limit).await?;
    let webhooks = stores.webhooks.list(mesh, None, limit).await?;
    Ok(Shared {
        at: now,
        kept: kept.collect(),
        task_counts: stores.inventory.task_counts(now, mesh).await?,
        tasks: Listed::of(tasks, TaskView::from),
        schedules: Listed::of(stores.inventory.scheduled(mesh, limit).await?, ScheduleView::from),
        state: Listed::of(stores.inventory.states(mesh, limit).await?, StateView::from),
        topics: Listed::of(stores.inventory.topics(mesh, limit).await?, TopicView::from),
        webhooks: Listed::of(webhooks, WebhookView::from),
    })
}
