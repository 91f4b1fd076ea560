//! `audit_query` and `audit_verify`: for admins and the owner.

use crate::audit::{ChainRow, ChainVerifier};
use crate::id::MeshId;
use crate::limits;
use crate::protocol::{AuditQuery, AuditResult, AuditRow, AuditVerifyResult, ServerMessage};
use crate::store::{Result, Store};

use super::{Context, moderation};

/// Rows read at once while a chain is walked.
const PAGE_ROWS: i64 = 1000;

fn allowed(context: &Context<'_>) -> bool {
    let allowed = moderation::is_moderator(context);
    if !allowed {
        context.refuse("forbidden", "only owner or admin can read the audit trail");
    }
    allowed
}

/// `audit_query`: newest first.
pub async fn query(context: &Context<'_>, ask: AuditQuery) {
    if !allowed(context) {
        return;
    }
    // A large answer waits for what the peer has not read yet.
    if !context.session.outbox.has_room().await {
        return;
    }
    let max = i64::try_from(limits::AUDIT_QUERY_ROWS_MAX).unwrap_or(i64::MAX);
    let limit = ask.limit.unwrap_or(50).clamp(0, max);
    let offset = ask.offset.unwrap_or(0).max(0);
    let event_type = ask.event_type.as_deref().filter(|name| !name.is_empty());
    let page = context.node.store.audit_page(context.room.mesh(), event_type, offset, limit).await;
    match page {
        Ok((records, total)) => {
            let entries = records
                .into_iter()
                .map(|record| AuditRow {
                    id: record.id,
                    event_type: record.event_type,
                    actor: record
                        .actor_name
                        .or(record.actor)
                        .unwrap_or_else(|| "system".to_owned()),
                    payload: record.payload,
                    hash: record.hash,
                    created_at: record.created_at,
                })
                .collect();
            context.reply(&ServerMessage::AuditResult(AuditResult { entries, total }));
        }
        Err(error) => {
            tracing::warn!(%error, "an audit query failed");
            context.refuse("audit_query_error", "the audit trail could not be read; try again");
        }
    }
}

/// `audit_verify`: walks the whole chain.
pub async fn verify(context: &Context<'_>) {
    if !allowed(context) {
        return;
    }
    match walk(&*context.node.store, context.room.mesh()).await {
        Ok(verdict) => context.reply(&ServerMessage::AuditVerifyResult(verdict)),
        Err(error) => {
            tracing::warn!(%error, "an audit verification failed");
            context.refuse("audit_verify_error", "the audit trail could not be read; try again");
        }
    }
}

/// Walks a mesh's chain, a page at a time.
///
/// # Errors
///
/// The store's.
pub async fn walk(store: &dyn Store, mesh: &MeshId) -> Result<AuditVerifyResult> {
    let mut verifier = ChainVerifier::new(mesh.as_str());
    let mut after = 0;
    loop {
        let page = store.audit_after(mesh, after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for record in &page {
            verifier.push(ChainRow {
                id: record.id,
                prev_hash: &record.prev_hash,
                event_type: &record.event_type,
                actor: record.actor.as_deref(),
                payload: &record.payload,
                created_at: record.created_at,
                hash: &record.hash,
            });
        }
    }
    let verdict = verifier.finish();
    Ok(AuditVerifyResult {
        valid: verdict.valid,
        entries: i64::try_from(verdict.entries).unwrap_or(i64::MAX),
        broken_at: verdict.broken_at,
    })
}
