//! One mesh: who is there, what waits, and the leases behind it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;

use super::views::{HeldView, LeaseRow, MeshDetail, PeerView, short_key};
use super::{HttpState, Refused, answer};
use crate::clock::Timestamp;
use crate::cluster::LeaseView;
use crate::limits;
use crate::protocol::Priority;
use crate::store::{Member, Mesh, MessageState};

/// With the instant at which it was so: for whoever computes ages.
#[derive(Serialize)]
struct Answer {
    at: Timestamp,
    #[serde(flatten)]
    mesh: MeshDetail,
}

/// `GET /meshes/{id}`.
pub(super) async fn mesh(State(state): State<Arc<HttpState>>, Path(id): Path<String>) -> Response {
    answer(&state, |state| async move {
        let mesh = find(&state, &id).await?;
        Ok(Answer { at: Timestamp::now(), mesh: detail(&state, &mesh).await? })
    })
    .await
}

pub(super) async fn find(state: &HttpState, id_or_slug: &str) -> Result<Mesh, Refused> {
    // No text in Postgres holds it, so nothing is called so.
    if id_or_slug.contains('\0') {
        return Err(Refused::no_mesh());
    }
    state.stores.meshes.find(id_or_slug).await?.ok_or_else(Refused::no_mesh)
}

/// Its leases: open sockets first, then in the order in which they began.
pub(super) async fn leases(state: &HttpState, mesh: &Mesh) -> Result<Vec<LeaseView>, Refused> {
    let mut leases = state.cluster.leases(&mesh.id).await?;
    leases.sort_by(|a, b| {
        let order = |lease: &LeaseView| (!lease.record.online, lease.record.connected_at);
        order(a).cmp(&order(b)).then_with(|| a.record.id.cmp(&b.record.id))
    });
    Ok(leases)
}

pub(super) async fn detail(state: &HttpState, mesh: &Mesh) -> Result<MeshDetail, Refused> {
    let leases = leases(state, mesh).await?;
    let queued = state.stores.messages.queued(&mesh.id, limits::ADMIN_QUEUED_MAX).await?;
    let held_truncated = queued.len() as i64 >= limits::ADMIN_QUEUED_MAX;
    let held = if queued.is_empty() {
        Vec::new()
    } else {
        let members = state.stores.members.all(&mesh.id).await?;
        held(&queued, &names(&members, &leases))
    };
    Ok(MeshDetail {
        id: mesh.id.clone(),
        slug: mesh.slug.clone(),
        name: mesh.name.clone(),
        archived_at: mesh.archived_at,
        sealing: mesh.sealing,
        cap: state.presence.config.connections_per_mesh_max,
        peers: leases.iter().map(PeerView::from).collect(),
        leases: leases.iter().map(LeaseRow::from).collect(),
        held,
        held_truncated,
    })
}

/// Whose keys these are.
fn names<'a>(members: &'a [Member], leases: &'a [LeaseView]) -> HashMap<&'a str, &'a str> {
    let sessions = leases.iter().filter_map(|lease| {
        let key = lease.record.session_key.as_ref()?;
        Some((key.as_str(), lease.record.display_name.as_str()))
    });
    let members = members.iter().map(|member| (member.key.as_str(), member.display_name.as_str()));
    sessions.chain(members).collect()
}

/// By recipient; whoever has waited longest comes first.
fn held(queued: &[MessageState], names: &HashMap<&str, &str>) -> Vec<HeldView> {
    let mut by_target: BTreeMap<&str, HeldView> = BTreeMap::new();
    for message in queued {
        let target = message.target_spec.as_str();
        let held = by_target.entry(target).or_insert_with(|| HeldView {
            target: short_key(target),
            name: names.get(target).map(|name| (*name).to_owned()),
            messages: 0,
            ciphertext_bytes: 0,
            now: 0,
            next: 0,
            low: 0,
            claimed: 0,
            oldest_at: message.created_at,
        });
        held.messages += 1;
        held.ciphertext_bytes += message.ciphertext_bytes;
        held.claimed += u64::from(message.claimed_by.is_some());
        held.oldest_at = held.oldest_at.min(message.created_at);
        match message.priority {
            Priority::Now => held.now += 1,
            Priority::Next => held.next += 1,
            Priority::Low => held.low += 1,
        }
    }
    let mut held: Vec<HeldView> = by_target.into_values().collect();
    held.sort_by_key(|held| held.oldest_at);
    held
}
