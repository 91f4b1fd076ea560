//! `audit_query` and `audit_verify`: for admins and the owner.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::paging::{Budget, from_cursor, to_cursor};
use super::{Asker, Context, moderation};
use crate::audit::ChainVerifier;
use crate::id::MeshId;
use crate::limits;
use crate::node::Node;
use crate::protocol::budget::{cut, value_bytes};
use crate::protocol::{
    AUDIT_ROWS_DEFAULT, AuditQuery, AuditResult, AuditRow, AuditVerifyResult, ServerMessage,
};
use crate::store::{AuditRecord, Result, Store};

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
    let Ok(before) = from_cursor::<i64>(context, ask.cursor.as_deref()) else { return };
    let store = &*context.node.store;
    match gather(store, context.room.mesh(), &ask, before).await {
        Ok(result) => context.reply(&ServerMessage::AuditResult(result)),
        Err(error) => {
            tracing::warn!(%error, "an audit query failed");
            context.refuse("audit_query_error", "the audit trail could not be read; try again");
        }
    }
}

/// The rows asked for, as many as an answer holds. A few are read at a time: what
/// is held meanwhile is bounded too.
async fn gather(
    store: &dyn Store,
    mesh: &MeshId,
    ask: &AuditQuery,
    before: Option<i64>,
) -> Result<AuditResult> {
    let max = i64::try_from(limits::AUDIT_QUERY_ROWS_MAX).unwrap_or(i64::MAX);
    let read_max = i64::try_from(limits::AUDIT_QUERY_READ_ROWS_MAX).unwrap_or(i64::MAX);
    let limit = ask.limit.unwrap_or(AUDIT_ROWS_DEFAULT).clamp(0, max);
    let event_type = ask.event_type.as_deref().filter(|name| !name.is_empty());
    let offset = ask.offset.unwrap_or(0).max(0);
    let mut left = limit;
    let (mut records, total) = match before {
        None => store.audit_page(mesh, event_type, offset, left.min(read_max)).await?,
        Some(id) => {
            let (_, total) = store.audit_page(mesh, event_type, 0, 0).await?;
            (store.audit_before(mesh, event_type, id, left.min(read_max)).await?, total)
        }
    };
    let (mut budget, mut entries) = (Budget::default(), Vec::new());
    while let Some(last) = records.last() {
        let last = last.id;
        left -= records.len() as i64;
        for record in records {
            let row = row(record);
            if !budget.takes(value_bytes(&row)) {
                let cursor = entries.last().map(|row: &AuditRow| to_cursor(&row.id));
                return Ok(AuditResult { entries, total, more: cursor.is_some(), cursor });
            }
            entries.push(row);
        }
        if left <= 0 {
            break;
        }
        records = store.audit_before(mesh, event_type, last, left.min(read_max)).await?;
    }
    Ok(AuditResult { entries, total, more: false, cursor: None })
}

/// Attribution is by the key: a session's own name stands beside the enrolled one,
/// never for it.
fn row(record: AuditRecord) -> AuditRow {
    let name = |name: &str| cut(name, limits::DISPLAY_NAME_BYTES_MAX).to_owned();
    let actor = name(record.actor_label());
    let session_name = record.session_name().map(name);
    let payload_bytes = value_bytes(&record.payload);
    AuditRow {
        id: record.id,
        event_type: record.event_type,
        actor,
        actor_id: record.actor,
        actor_pubkey: record.member_key,
        session_name,
        payload: if payload_bytes > limits::AUDIT_PAYLOAD_BYTES_MAX {
            json!({ "leftOutBytes": payload_bytes })
        } else {
            record.payload
        },
        hash: record.hash,
        created_at: record.created_at,
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
        let asker = Asker::Itself;
        let context = Context { node: &node, room: &room, session: &session, req_id, asker };
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
    let mut after = i64::MIN;
    loop {
        if !wanted() {
            return Ok(None);
        }
        let page = store.audit_after(mesh, after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for record in &page {
            verifier.push(record.as_link());
        }
    }
    let verdict = verifier.finish();
    Ok(Some(AuditVerifyResult {
        valid: verdict.valid,
        entries: i64::try_from(verdict.entries).unwrap_or(i64::MAX),
        broken_at: verdict.broken_at,
    }))
}
