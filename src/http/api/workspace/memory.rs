//! What all meshes of the user behind a key remember.

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
use crate::store::WorkspaceMemories;

#[derive(Serialize)]
struct Memories {
    query: String,
    memories: Vec<MemoryView>,
    totals: Totals,
    /// Whether there are more than fit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemoryView {
    id: String,
    mesh_id: MeshId,
    mesh_slug: String,
    content: String,
    tags: Vec<String>,
    remembered_by_name: Option<String>,
    remembered_at: Timestamp,
}

#[derive(Serialize)]
struct Totals {
    entries: usize,
}

/// `GET /me/memory`: what has a text in it, else what was remembered of late.
pub(in crate::http::api) async fn memory(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    let query = argument(&uri, "q").unwrap_or_default().trim().to_owned();
    answer(&state, |state| async move {
        let slugs = slugs_of(&state, &caller).await?;
        let meshes: Vec<MeshId> = slugs.keys().cloned().collect();
        let recent = Timestamp::now().plus_ms(-limits::API_RECENT_MS);
        let ask = match query.is_empty() {
            true => WorkspaceMemories { text: None, after: Some(recent) },
            false => WorkspaceMemories { text: Some(query.clone()), after: None },
        };
        let (workspaces, rows_max) = (&state.stores.workspaces, limits::API_MEMORIES_MAX);
        let found = workspaces.memories(&meshes, &ask, rows_max, bytes_max()).await?;
        let of = found.first().map(|first| first.of);
        let rows = found.into_iter().map(|memory| MemoryView {
            id: memory.id,
            mesh_slug: slugs.get(&memory.mesh).cloned().unwrap_or_default(),
            mesh_id: memory.mesh,
            content: memory.content,
            tags: memory.tags,
            remembered_by_name: memory.remembered_by,
            remembered_at: memory.remembered_at,
        });
        let (memories, _) = fitting(rows);
        let more = is_cut(memories.len(), of);
        let totals = Totals { entries: memories.len() };
        Ok(Memories { query, memories, totals, more })
    })
    .await
}
