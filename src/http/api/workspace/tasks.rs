//! Tasks of all meshes of the user behind a key.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;

use super::{bytes_max, is_cut, slugs_of};
use crate::clock::Timestamp;
use crate::http::HttpState;
use crate::http::api::caller::Caller;
use crate::http::api::{answer, argument};
use crate::id::MeshId;
use crate::limits;
use crate::paging::fitting;
use crate::protocol::TaskStatus;
use crate::store::{WorkspaceTask, WorkspaceTasks};

#[derive(Serialize)]
struct Tasks {
    tasks: Vec<TaskView>,
    totals: Totals,
    /// Whether there are more than fit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TaskView {
    id: String,
    mesh_id: MeshId,
    mesh_slug: String,
    title: String,
    assignee: Option<String>,
    claimed_by_name: Option<String>,
    priority: String,
    status: &'static str,
    tags: Vec<String>,
    result: Option<String>,
    created_by_name: Option<String>,
    created_at: Timestamp,
    claimed_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
}

/// Of the tasks that are shown.
#[derive(Default, Serialize)]
struct Totals {
    open: usize,
    claimed: usize,
    completed: usize,
}

/// `GET /me/tasks`: what is to be done first, then what is being done.
pub(in crate::http::api) async fn tasks(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    let asked = argument(&uri, "status").unwrap_or_default();
    answer(&state, |state| async move {
        let slugs = slugs_of(&state, &caller).await?;
        let meshes: Vec<MeshId> = slugs.keys().cloned().collect();
        let now = Timestamp::now();
        let (ask, rows_max) = (asked_for(&asked, now), limits::API_TASKS_MAX);
        let workspaces = &state.stores.workspaces;
        let found = workspaces.tasks(now, &meshes, &ask, rows_max, bytes_max()).await?;
        Ok(shown(found, &slugs))
    })
    .await
}

/// `active`, `all`, or words with commas between them. What was done long ago is shown to
/// those only who ask for all.
fn asked_for(asked: &str, now: Timestamp) -> WorkspaceTasks {
    let words = match asked {
        "all" => return WorkspaceTasks::default(),
        "" | "active" => "open,claimed",
        words => words,
    };
    let status = |word: &str| match word.trim() {
        "open" => Some(TaskStatus::Open),
        "claimed" => Some(TaskStatus::Claimed),
        // Older clients say the second.
        "done" | "completed" => Some(TaskStatus::Done),
        _ => None,
    };
    WorkspaceTasks {
        statuses: Some(words.split(',').filter_map(status).collect()),
        done_after: Some(now.plus_ms(-limits::API_RECENT_MS)),
    }
}

fn shown(found: Vec<WorkspaceTask>, slugs: &HashMap<MeshId, String>) -> Tasks {
    let of = found.first().map(|first| first.of);
    let (tasks, _) = fitting(found.into_iter().map(|found| view(found, slugs)));
    let count =
        |status: TaskStatus| tasks.iter().filter(|task| task.status == status.as_str()).count();
    let totals = Totals {
        open: count(TaskStatus::Open),
        claimed: count(TaskStatus::Claimed),
        completed: count(TaskStatus::Done),
    };
    Tasks { more: is_cut(tasks.len(), of), tasks, totals }
}

fn view(
    WorkspaceTask { mesh, task, .. }: WorkspaceTask,
    slugs: &HashMap<MeshId, String>,
) -> TaskView {
    let claimed_at = task.claim.as_ref().map(|claim| claim.at);
    TaskView {
        id: task.id,
        mesh_slug: slugs.get(&mesh).cloned().unwrap_or_default(),
        mesh_id: mesh,
        title: task.title,
        assignee: task.assignee,
        claimed_by_name: task.claim.map(|claim| claim.name),
        priority: task.priority,
        status: task.status.as_str(),
        tags: task.tags,
        result: task.result,
        created_by_name: task.created_by,
        created_at: task.created_at,
        claimed_at,
        completed_at: task.completed_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_asked_for_by_words_of_old_clients_and_new_ones() {
        use TaskStatus::{Claimed, Done, Open};
        let now = Timestamp::from_ms(limits::API_RECENT_MS);
        let statuses = |asked| asked_for(asked, now).statuses;
        assert_eq!(statuses(""), Some(vec![Open, Claimed]));
        assert_eq!(statuses("active"), Some(vec![Open, Claimed]));
        assert_eq!(statuses("completed, open"), Some(vec![Done, Open]));
        assert_eq!(statuses("done"), Some(vec![Done]));
        assert_eq!(statuses("nonsense"), Some(vec![]));
        assert_eq!(statuses("all"), None);
        assert_eq!(asked_for("all", now).done_after, None);
        assert_eq!(asked_for("done", now).done_after, Some(Timestamp::from_ms(0)));
    }
}
