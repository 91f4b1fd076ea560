//! A mesh's audit chain: its rows, and whether it holds.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::views::AuditView;
use super::{HttpState, Refused, answer, meshes};
use crate::id::MeshId;
use crate::limits;
use crate::store::chain;

/// Rows of an answer that was not asked for a number.
const ROWS_DEFAULT: i64 = 50;

#[derive(Deserialize)]
pub(super) struct Which {
    after: Option<i64>,
    limit: Option<i64>,
}

/// `GET /meshes/{id}/audit`: the newest rows, or those after one, oldest first.
pub(super) async fn rows(
    State(state): State<Arc<HttpState>>,
    Path(id): Path<String>,
    which: Result<Query<Which>, QueryRejection>,
) -> Response {
    answer(&state, |state| async move {
        let Ok(Query(which)) = which else {
            let text = "after and limit are whole numbers";
            return Err(Refused::new(StatusCode::BAD_REQUEST, "invalid", text));
        };
        let mesh = meshes::find(&state, &id).await?;
        let limit = which.limit.unwrap_or(ROWS_DEFAULT).clamp(1, limits::ADMIN_AUDIT_ROWS_MAX);
        let rows = match which.after {
            Some(after) => after_row(&state, &mesh.id, after, limit).await?,
            None => newest(&state, &mesh.id, limit).await?,
        };
        Ok(json!({ "rows": rows }))
    })
    .await
}

/// The newest rows, oldest first.
pub(super) async fn newest(
    state: &HttpState,
    mesh: &MeshId,
    limit: i64,
) -> Result<Vec<AuditView>, Refused> {
    let records = state.stores.audit.before(mesh, None, i64::MAX, limit).await?;
    Ok(records.into_iter().rev().map(AuditView::from).collect())
}

/// Rows after that one, oldest first.
pub(super) async fn after_row(
    state: &HttpState,
    mesh: &MeshId,
    after: i64,
    limit: i64,
) -> Result<Vec<AuditView>, Refused> {
    let records = state.stores.audit.after(mesh, after, limit).await?;
    Ok(records.into_iter().map(AuditView::from).collect())
}

/// `POST /meshes/{id}/audit/verify`: walks the whole chain, one at a time.
pub(super) async fn verify(
    State(state): State<Arc<HttpState>>,
    Path(id): Path<String>,
) -> Response {
    answer(&state, |state| async move {
        let mesh = meshes::find(&state, &id).await?;
        let Ok(_walking) = state.verifying.try_acquire() else {
            let text = "this node verifies a chain already: try again when that is done";
            return Err(Refused::new(StatusCode::CONFLICT, "busy", text));
        };
        let verdict = chain::verify(&*state.stores.audit, &mesh.id).await?;
        Ok(json!({
            "valid": verdict.valid, "rows": verdict.entries, "brokenAt": verdict.first_bad(),
        }))
    })
    .await
}
