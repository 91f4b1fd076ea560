//! Topics of all meshes of the user behind a key.

use std::cmp::Reverse;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use serde::Serialize;

use super::{Meshes, is_cut};
use crate::clock::Timestamp;
use crate::http::HttpState;
use crate::http::api::answer;
use crate::http::api::caller::Caller;
use crate::id::{MemberId, MeshId, TopicId};
use crate::limits;
use crate::paging::fitting;
use crate::protocol::Visibility;

#[derive(Serialize)]
struct Topics {
    topics: Vec<TopicView>,
    totals: Totals,
    /// Whether there are more than fit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TopicView {
    topic_id: TopicId,
    name: String,
    description: Option<String>,
    visibility: Visibility,
    created_at: Timestamp,
    mesh_id: MeshId,
    mesh_slug: String,
    mesh_name: String,
    member_id: MemberId,
    unread: i64,
    last_message_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct Totals {
    topics: usize,
    unread: i64,
}

/// `GET /me/topics`: where something was said last first, then the others by name.
pub(in crate::http::api) async fn topics(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    answer(&state, |state| async move {
        let meshes = Meshes::of(&state, &caller).await?;
        let (reads, limit) = (&state.stores.topic_reads, limits::API_TOPICS_MAX);
        let mut found = reads.topics(&meshes.members, limit + 1, limits::API_UNREAD_MAX).await?;
        let of = i64::try_from(found.len()).ok();
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        // By name already; those that were never posted to stay so.
        found.sort_by_key(|topic| Reverse(topic.last_post_at));
        let rows = found.into_iter().map(|topic| TopicView {
            mesh_slug: meshes.slug(&topic.mesh),
            mesh_name: meshes.name(&topic.mesh),
            topic_id: topic.id,
            name: topic.name,
            description: topic.description,
            visibility: topic.visibility,
            created_at: topic.created_at,
            mesh_id: topic.mesh,
            member_id: topic.member,
            unread: topic.unread,
            last_message_at: topic.last_post_at,
        });
        let (topics, _) = fitting(rows);
        let more = is_cut(topics.len(), of);
        let unread = topics.iter().map(|topic| topic.unread).sum();
        Ok(Topics { totals: Totals { topics: topics.len(), unread }, topics, more })
    })
    .await
}
