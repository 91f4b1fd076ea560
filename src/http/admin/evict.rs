//! Ending a presence, as `kick` does.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::{HttpState, Refused, answer, meshes};
use crate::audit::AuditEvent;
use crate::id::PresenceId;
use crate::presence::changes::{Ending, remove};
use crate::protocol::CloseReason;
use crate::store::AuditEntry;

/// Who the audit chain says it was.
const ACTOR_NAME: &str = "operator";

/// `POST /meshes/{id}/presences/{presence}/evict`.
pub(super) async fn evict(
    State(state): State<Arc<HttpState>>,
    Path((id, presence)): Path<(String, String)>,
) -> Response {
    answer(&state, |state| async move {
        let mesh = meshes::find(&state, &id).await?;
        let presence = PresenceId::from(presence);
        let leases = state.cluster.leases(&mesh.id).await?;
        let lease = leases.into_iter().find(|lease| lease.record.id == presence);
        let Some(record) = lease.map(|lease| lease.record) else {
            let text = "there is no such presence in this mesh: it may have left meanwhile";
            return Err(Refused::new(StatusCode::NOT_FOUND, "no_presence", text));
        };
        let name = record.display_name.clone();
        let kicked = AuditEntry {
            mesh: mesh.id.clone(),
            actor: None,
            actor_name: Some(ACTOR_NAME.to_owned()),
            event: AuditEvent::PeerKicked {
                target: name.clone(),
                target_pubkey: record.routing_key().clone(),
            },
        };
        let ending = Ending { record, close: Some(CloseReason::KICKED), audit: vec![kicked] };
        let ended = remove(&state.presence, &mesh.id, std::slice::from_ref(&ending)).await?;
        tracing::info!(mesh = %mesh.id, %presence, "an operator evicted a presence");
        Ok(json!({ "presence": presence, "name": name, "evicted": ended.contains(&presence) }))
    })
    .await
}
