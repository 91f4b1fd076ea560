//! `audit_query` and `audit_verify`: for admins and the owner.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::audit::{ChainRow, ChainVerifier};
use crate::id::MeshId;
use crate::limits;
use crate::node::Node;
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
    if !context.session.outbox.room().await {
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

/// `audit_verify`: walks the whole chain, in a task of its own. A long chain
/// takes minutes, in which the peer's pings and messages are to be read.
pub fn verify(context: &Context<'_>) {
    if !allowed(context) {
        return;
    }
    let Some(walking) = Walk::begin(context.node) else {
        let text = "this node verifies a chain already; try again when that is done";
        return context.refuse("busy", text);
    };
    let (node, room) = (Arc::clone(context.node), Arc::clone(context.room));
    let (session, req_id) = (Arc::clone(context.session), context.req_id.clone());
    context.node.tasks.spawn(async move {
        let wanted = || session.outbox.is_open() && !node.stopped.is_cancelled();
        let verdict = walk_while(&*node.store, room.mesh(), wanted).await;
        drop(walking);
        let context = Context { node: &node, room: &room, session: &session, req_id };
        match verdict {
            Ok(Some(verdict)) => context.reply(&ServerMessage::AuditVerifyResult(verdict)),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "an audit verification failed");
                let text = "the audit trail could not be read; try again";
                context.refuse("audit_verify_error", text);
            }
        }
    });
}

/// That a node walks a chain, for a peer or an operator: one at a time. Over
/// when it is dropped.
pub struct Walk(Arc<Node>);

impl Walk {
    /// Begins one, unless there is one.
    #[must_use]
    pub fn begin(node: &Arc<Node>) -> Option<Self> {
        let is_free = !node.verifying.swap(true, Ordering::AcqRel);
        is_free.then(|| Self(Arc::clone(node)))
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        self.0.verifying.store(false, Ordering::Release);
    }
}

/// Walks a mesh's chain, a page at a time.
///
/// # Errors
///
/// The store's.
pub async fn walk(store: &dyn Store, mesh: &MeshId) -> Result<AuditVerifyResult> {
    match walk_while(store, mesh, || true).await? {
        Some(verdict) => Ok(verdict),
        None => unreachable!("it is wanted to its end"),
    }
}

/// The same, given up between two pages when nobody wants it any more.
async fn walk_while(
    store: &dyn Store,
    mesh: &MeshId,
    wanted: impl Fn() -> bool,
) -> Result<Option<AuditVerifyResult>> {
    let mut verifier = ChainVerifier::new(mesh.as_str());
    let mut after = 0;
    loop {
        if !wanted() {
            return Ok(None);
        }
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
    Ok(Some(AuditVerifyResult {
        valid: verdict.valid,
        entries: i64::try_from(verdict.entries).unwrap_or(i64::MAX),
        broken_at: verdict.broken_at,
    }))
}
