//! `audit_query` and `audit_verify`: for admins and the owner.

use std::sync::Arc;

use serde_json::json;

use super::paging::{Budget, from_cursor, to_cursor};
use super::{Asker, Context, moderation};
use crate::audit::{ChainVerifier, Verdict};
use crate::id::MeshId;
use crate::limits;
use crate::protocol::budget::{cut, value_bytes};
use crate::protocol::{
    AUDIT_ROWS_DEFAULT, AuditQuery, AuditResult, AuditRow, AuditVerifyResult, ServerMessage,
};
use crate::store::{AuditRecord, Result, StoreError, Stores, chain};

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
    let store = &context.node.stores;
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
    store: &Stores,
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
        None => store.audit.page(mesh, event_type, offset, left.min(read_max)).await?,
        Some(id) => {
            let (_, total) = store.audit.page(mesh, event_type, 0, 0).await?;
            (store.audit.before(mesh, event_type, id, left.min(read_max)).await?, total)
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
        records = store.audit.before(mesh, event_type, last, left.min(read_max)).await?;
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
    let Ok(walking) = Arc::clone(&context.node.verifying).try_acquire_owned() else {
        let text = "this node verifies a chain already; try again when that is done";
        return context.refuse("busy", text);
    };
    let (node, room) = (Arc::clone(context.node), Arc::clone(context.room));
    let (session, req_id) = (Arc::clone(context.session), context.req_id.clone());
    context.node.life.tasks.spawn(async move {
        let wanted = || session.outbox.is_open() && !node.life.stopped.is_cancelled();
        let mut chain = ChainVerifier::new(room.mesh().as_str());
        let walked = chain::walk(&*node.stores.audit, room.mesh(), i64::MIN, |page| {
            page.iter().for_each(|row| _ = chain.push(row.as_link()));
            Ok::<_, StoreError>(wanted())
        });
        let walked = walked.await;
        drop(walking);
        let asker = Asker::Itself;
        let context = Context { node: &node, room: &room, session: &session, req_id, asker };
        match walked {
            Ok(true) => context.reply(&ServerMessage::AuditVerifyResult(answer(chain.finish()))),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "an audit verification failed");
                let text = "the audit trail could not be read; try again";
                context.refuse("audit_verify_error", text);
            }
        }
    });
}

fn answer(verdict: Verdict) -> AuditVerifyResult {
    AuditVerifyResult {
        valid: verdict.valid,
        entries: i64::try_from(verdict.entries).unwrap_or(i64::MAX),
        broken_at: verdict.broken_at,
    }
}
