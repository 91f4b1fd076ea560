//! All meshes of the user behind a key: the only calls that look beyond its own mesh.
//!
//! A key that is good for some topics only is refused here. A mesh counts once, however
//! many members of it the user is.

pub(super) mod memory;
pub(super) mod posts;
pub(super) mod tasks;
pub(super) mod topics;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;

use super::caller::Caller;
use super::people::here;
use super::{Refused, answer, argument};
use crate::clock::Timestamp;
use crate::http::HttpState;
use crate::id::{MemberId, MeshId};
use crate::limits;
use crate::paging::fitting;
use crate::protocol::ApiCapability;
use crate::store::{Membership, Role, WorkspaceState};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Overview {
    user_id: String,
    meshes: Vec<MeshView>,
    totals: Totals,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MeshView {
    mesh_id: MeshId,
    slug: String,
    name: String,
    member_id: MemberId,
    my_role: Role,
    joined_at: Timestamp,
    peers: i64,
    online: i64,
    topics: i64,
    unread_mentions: i64,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Totals {
    meshes: i64,
    peers: i64,
    online: i64,
    topics: i64,
    unread_mentions: i64,
}

#[derive(Serialize)]
struct States {
    entries: Vec<StateView>,
    totals: StateTotals,
    /// Whether there are more than fit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StateView {
    mesh_id: MeshId,
    mesh_slug: String,
    key: String,
    value: Value,
    updated_by_name: Option<String>,
    updated_at: Timestamp,
}

#[derive(Serialize)]
struct StateTotals {
    entries: usize,
    meshes: usize,
}

/// The user behind a key: its id, and its membership in each mesh, by slug.
async fn meshes_of(
    state: &HttpState,
    caller: &Caller,
) -> Result<(String, Vec<Membership>), Refused> {
    caller.may(ApiCapability::Read)?;
    caller.is_for_all_topics()?;
    let issuer = &caller.needs_issuer()?.id;
    let mut memberships = state.stores.workspaces.memberships(issuer).await?;
    memberships.dedup_by(|later, first| later.mesh == first.mesh);
    let user = memberships.first().map_or_else(|| issuer.to_string(), |one| one.user.clone());
    Ok((user, memberships))
}

/// The meshes of the user behind a key, and its member in each.
struct Meshes {
    members: Vec<MemberId>,
    names: HashMap<MeshId, (String, String)>,
}

impl Meshes {
    async fn of(state: &HttpState, caller: &Caller) -> Result<Self, Refused> {
        let (_, memberships) = meshes_of(state, caller).await?;
        let members = memberships.iter().map(|one| one.member.clone()).collect();
        let names = memberships.into_iter().map(|one| (one.mesh, (one.slug, one.name))).collect();
        Ok(Self { members, names })
    }

    fn slug(&self, mesh: &MeshId) -> String {
        self.names.get(mesh).map(|(slug, _)| slug.clone()).unwrap_or_default()
    }

    fn name(&self, mesh: &MeshId) -> String {
        self.names.get(mesh).map(|(_, name)| name.clone()).unwrap_or_default()
    }
}

/// The meshes of the user behind a key, each with its slug.
async fn slugs_of(state: &HttpState, caller: &Caller) -> Result<HashMap<MeshId, String>, Refused> {
    let (_, memberships) = meshes_of(state, caller).await?;
    Ok(memberships.into_iter().map(|one| (one.mesh, one.slug)).collect())
}

/// The bytes that the rows of an answer may have.
fn bytes_max() -> i64 {
    i64::try_from(limits::ANSWER_BYTES_MAX).unwrap_or(i64::MAX)
}

/// Whether fewer are shown than there are.
fn is_cut(shown: usize, of: Option<i64>) -> bool {
    of.is_some_and(|of| i64::try_from(shown).is_ok_and(|shown| shown < of))
}

/// `GET /me/workspace`.
pub(super) async fn overview(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    answer(&state, |state| async move {
        let (user_id, memberships) = meshes_of(&state, &caller).await?;
        let mut meshes = Vec::with_capacity(memberships.len());
        for membership in memberships {
            let here = here(&state, &membership.mesh, Some(&membership.member)).await?;
            let online = i64::try_from(here.len()).unwrap_or(i64::MAX);
            meshes.push(MeshView {
                mesh_id: membership.mesh,
                slug: membership.slug,
                name: membership.name,
                member_id: membership.member,
                my_role: membership.role,
                joined_at: membership.joined_at,
                peers: membership.members,
                online,
                topics: membership.topics,
                unread_mentions: membership.unread_mentions,
            });
        }
        let totals = meshes.iter().fold(Totals::default(), |sum, mesh| Totals {
            meshes: sum.meshes + 1,
            peers: sum.peers + mesh.peers,
            online: sum.online + mesh.online,
            topics: sum.topics + mesh.topics,
            unread_mentions: sum.unread_mentions + mesh.unread_mentions,
        });
        Ok(Overview { user_id, meshes, totals })
    })
    .await
}

/// `GET /me/state`: shared values, those that were written last first.
pub(super) async fn state(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    let key = argument(&uri, "key").filter(|key| !key.is_empty());
    answer(&state, |state| async move {
        let slugs = slugs_of(&state, &caller).await?;
        let meshes: Vec<MeshId> = slugs.keys().cloned().collect();
        let rows_max = limits::API_STATES_MAX;
        let workspaces = &state.stores.workspaces;
        let found = workspaces.states(&meshes, key.as_deref(), rows_max, bytes_max()).await?;
        Ok(states(found, &slugs))
    })
    .await
}

fn states(found: Vec<WorkspaceState>, slugs: &HashMap<MeshId, String>) -> States {
    let of = found.first().map(|first| first.of);
    let rows = found.into_iter().map(|entry| StateView {
        mesh_slug: slugs.get(&entry.mesh).cloned().unwrap_or_default(),
        mesh_id: entry.mesh,
        key: entry.key,
        value: entry.value,
        updated_by_name: entry.updated_by,
        updated_at: entry.updated_at,
    });
    let (entries, _) = fitting(rows);
    let more = is_cut(entries.len(), of);
    let totals = StateTotals { entries: entries.len(), meshes: slugs.len() };
    States { entries, totals, more }
}
