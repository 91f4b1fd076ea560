//! Tasks: what is to be done in a mesh, and who does it.
//!
//! Any member may create, change and complete one; of those who claim one at the same
//! time, on whichever nodes, one has it. Told of are those sessions that have asked for
//! it.

use std::borrow::Cow;

use super::moderators::is_moderator;
use super::shapes::{filled, may_begin_an_id, named, no_larger_than, tags_within, the_one_of};
use super::{Context, Refusal};
use crate::clock::Timestamp;
use crate::events::shared;
use crate::id;
use crate::limits;
use crate::paging;
use crate::presence::changes;
use crate::protocol::{
    Ack, ClaimTask, CompleteTask, CreateTask, ListTasks, ReleaseTask, RenewTask, TaskCreated,
    TaskList, TaskRow, TaskStatus, UnwatchTasks, UpdateTask, WatchTasks,
};
use crate::record::{Shared, SharedChange};
use crate::store::{NewTask, Task, TaskChange, TaskChanged, TaskListing};

/// Something to do.
pub(super) async fn create(context: &Context<'_>, ask: CreateTask) -> Result<TaskCreated, Refusal> {
    let CreateTask { title, assignee, priority, tags } = ask;
    let task = NewTask {
        id: id::random(),
        title: titled(title)?,
        assignee: filled(assignee),
        priority: filled(priority).unwrap_or_else(|| "normal".to_owned()),
        tags: tags.unwrap_or_default(),
    };
    shaped(task.assignee.as_deref(), Some(&task.priority), Some(&task.tags))?;
    let author = context.author();
    let seq = context.parts.stores.tasks.create(Timestamp::now(), &author, &task).await?;
    tell(context, &task.id, seq, TaskStatus::Open);
    Ok(TaskCreated { id: task.id })
}

/// The caller does it.
pub(super) async fn claim(context: &Context<'_>, ask: ClaimTask) -> Result<TaskList, Refusal> {
    let claim = TaskChange::Claim { lease_ms: leased(ask.lease_ms)? };
    let refusal = || Refusal::new("task_not_claimable", "task is not open or does not exist");
    change(context, &ask.task_id, claim, refusal).await?;
    list(context, ListTasks::default()).await
}

/// The caller still does it.
pub(super) async fn renew(context: &Context<'_>, ask: RenewTask) -> Result<Ack, Refusal> {
    let renewal = TaskChange::Renew { lease_ms: leased(ask.lease_ms)? };
    change(context, &ask.task_id, renewal, not_held).await?;
    Ok(context.done())
}

/// The caller does it no more. An admin may say so for anybody.
pub(super) async fn release(context: &Context<'_>, ask: ReleaseTask) -> Result<Ack, Refusal> {
    let release = TaskChange::Release { of_anybody: is_moderator(context) };
    change(context, &ask.task_id, release, not_held).await?;
    Ok(context.done())
}

/// Changes what a task says.
pub(super) async fn update(context: &Context<'_>, ask: UpdateTask) -> Result<Ack, Refusal> {
    let UpdateTask { task_id, title, priority, tags, assignee } = ask;
    let title = title.map(titled).transpose()?;
    shaped(assignee.as_deref(), priority.as_deref(), tags.as_deref())?;
    let update = TaskChange::Update { title, priority: filled(priority), tags, assignee };
    change(context, &task_id, update, not_found).await?;
    Ok(context.done())
}

/// It is done.
pub(super) async fn complete(
    context: &Context<'_>,
    ask: CompleteTask,
) -> Result<TaskList, Refusal> {
    let bytes = ask.result.as_ref().map_or(0, String::len);
    no_larger_than("result", bytes, limits::VALUE_BYTES_MAX)?;
    let complete = TaskChange::Complete { result: ask.result };
    change(context, &ask.task_id, complete, not_found).await?;
    list(context, ListTasks::default()).await
}

fn not_found() -> Refusal {
    Refusal::new("task_not_found", "task not found in this mesh")
}

fn not_held() -> Refusal {
    let text = "your member does not hold a claim of that task that has not run out";
    Refusal::new("task_not_claimed", text)
}

fn titled(title: String) -> Result<String, Refusal> {
    if title.trim().is_empty() {
        return Err(Refusal::invalid("`title` is needed"));
    }
    no_larger_than("title", title.len(), limits::VALUE_BYTES_MAX)?;
    Ok(title)
}

fn shaped(
    assignee: Option<&str>,
    priority: Option<&str>,
    tags: Option<&[String]>,
) -> Result<(), Refusal> {
    for (field, text) in [("assignee", assignee), ("priority", priority)] {
        no_larger_than(field, text.map_or(0, str::len), limits::SHARED_NAME_BYTES_MAX)?;
    }
    tags_within(tags.unwrap_or_default())
}

fn leased(lease_ms: Option<i64>) -> Result<Option<i64>, Refusal> {
    let known = limits::TASK_LEASE_MS;
    if lease_ms.is_some_and(|lease_ms| !known.contains(&lease_ms)) {
        let text = format!("`leaseMs` is {} to {}", known.start(), known.end());
        return Err(Refusal::invalid(text));
    }
    Ok(lease_ms)
}

async fn change(
    context: &Context<'_>,
    id: &str,
    change: TaskChange,
    refusal: impl FnOnce() -> Refusal,
) -> Result<(), Refusal> {
    named("taskId", id)?;
    let (author, tasks) = (context.author(), &context.parts.stores.tasks);
    let (now, mut id) = (Timestamp::now(), Cow::Borrowed(id));
    let mut changed = tasks.change(now, &author, &id, &change).await?;
    if changed == TaskChanged::Missing
        && let Some(whole) = listed_as(context, &id).await?
    {
        changed = tasks.change(now, &author, &whole, &change).await?;
        id = Cow::Owned(whole);
    }
    match changed {
        TaskChanged::Changed { seq, status } => {
            if let Some(seq) = seq {
                tell(context, &id, seq, status);
            }
            Ok(())
        }
        TaskChanged::Missing | TaskChanged::Declined => Err(refusal()),
    }
}

/// The task whose id begins so, among those that a list begins with: clients show people
/// the beginnings of ids.
async fn listed_as(context: &Context<'_>, beginning: &str) -> Result<Option<String>, Refusal> {
    if !may_begin_an_id(beginning) {
        return Ok(None);
    }
    let (tasks, mesh) = (&context.parts.stores.tasks, context.room.mesh());
    let limit = i64::try_from(limits::TASKS_LISTED).unwrap_or(i64::MAX);
    let found = tasks.list(Timestamp::now(), mesh, &TaskListing::default(), limit).await?;
    Ok(the_one_of(found.into_iter().map(|task| task.id), beginning))
}

fn tell(context: &Context<'_>, task_id: &str, seq: i64, status: TaskStatus) {
    let author = context.author();
    let (task_id, by) = (task_id.to_owned(), Some(author.member_name));
    let what = Shared::Task { task_id, status, by };
    let change = SharedChange { seq, by: Some(author.presence), what };
    shared::publish(&context.parts.presence.shared, context.room, change);
}

/// Tasks as they stand now, newest first.
pub(super) async fn list(context: &Context<'_>, ask: ListTasks) -> Result<TaskList, Refusal> {
    let after = paging::from_cursor::<(i64, String)>(ask.cursor.as_deref())?;
    let after = after.map(|(at, id)| (Timestamp::from_ms(at), id));
    let listing = TaskListing { status: filled(ask.status), assignee: filled(ask.assignee), after };
    let (tasks, mesh) = (&context.parts.stores.tasks, context.room.mesh());
    let rows_max = limits::TASKS_LISTED;
    let limit = i64::try_from(rows_max + 1).unwrap_or(i64::MAX);
    let found = tasks.list(Timestamp::now(), mesh, &listing, limit).await?;
    let position = |task: &Task| (task.created_at.as_ms(), task.id.clone());
    let last = found.get(rows_max).and(found.get(rows_max - 1)).map(position);
    let items = found.into_iter().take(rows_max);
    let page = paging::page(items, position, |task| shown(task.clone()));
    let cursor = page.cursor.or_else(|| last.as_ref().map(paging::to_cursor));
    Ok(TaskList { tasks: page.rows, more: cursor.is_some(), cursor })
}

fn shown(task: Task) -> TaskRow {
    let claim = task.claim.as_ref();
    let until = claim.filter(|_| task.status == TaskStatus::Claimed).and_then(|claim| claim.until);
    TaskRow {
        claimed_by: claim.map(|claim| claim.name.clone()),
        claim_expires_at: until.map(|until| until.to_string()),
        id: task.id,
        title: task.title,
        assignee: task.assignee,
        status: task.status,
        priority: task.priority,
        created_by: task.created_by,
        tags: task.tags,
        created_at: task.created_at.to_string(),
        completed_at: task.completed_at.map(|at| at.to_string()),
        result: task.result,
        sealed: false,
    }
}

/// The session is told of what becomes of tasks.
pub(super) async fn watch(context: &Context<'_>, _: WatchTasks) -> Result<Ack, Refusal> {
    watching(context, true).await
}

/// The session is told no more.
pub(super) async fn unwatch(context: &Context<'_>, _: UnwatchTasks) -> Result<Ack, Refusal> {
    watching(context, false).await
}

/// A part of the presence's record, so that the session that takes it over has it.
async fn watching(context: &Context<'_>, watches: bool) -> Result<Ack, Refusal> {
    let Context { parts, room, session, .. } = context;
    let edit = |record: &mut crate::record::PresenceRecord| {
        changes::replace(&mut record.watches_tasks, watches)
    };
    if let Some(record) = room.update(session, edit) {
        changes::tell_others(&parts.presence, &session.lease, &record, None).await;
    }
    Ok(context.done())
}
