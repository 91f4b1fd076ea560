//! `audit_query` and `audit_verify`, for admins and the owner; `audit_row`, for everybody.

use serde_json::json;

use super::moderators::only_moderators;
use super::{Context, Refusal};
use crate::audit::{ChainVerifier, Verdict};
use crate::id::MeshId;
use crate::limits;
use crate::paging::{Budget, from_cursor, to_cursor};
use crate::protocol::budget::{cut, value_bytes};
use crate::protocol::{
    AUDIT_ROWS_DEFAULT, AuditQuery, AuditResult, AuditRow, AuditRowQuery, AuditRowResult,
    AuditVerify, AuditVerifyResult,
};
use crate::store::{self, AuditRecord, AuditTrail, StoreError, chain};

const READING: &str = "read the audit trail";

/// `audit_query`: newest first.
pub(super) async fn query(context: &Context<'_>, ask: AuditQuery) -> Result<AuditResult, Refusal> {
    only_moderators(context, READING)?;
    let before = from_cursor::<i64>(ask.cursor.as_deref())?;
    let store = &*context.parts.stores.audit;
    let gathered = gather(store, context.room.mesh(), &ask, before).await;
    gathered.map_err(|error| {
        let text = "the audit trail could not be read; try again";
        Refusal::new("audit_query_error", text).because(error)
    })
}

/// The rows asked for, as many as an answer holds. A few are read at a time: what
/// is held meanwhile is bounded too.
async fn gather(
    store: &dyn AuditTrail,
    mesh: &MeshId,
    ask: &AuditQuery,
    before: Option<i64>,
) -> store::Result<AuditResult> {
    let max = i64::try_from(limits::AUDIT_QUERY_ROWS_MAX).unwrap_or(i64::MAX);
    let read_max = i64::try_from(limits::AUDIT_QUERY_READ_ROWS_MAX).unwrap_or(i64::MAX);
    let limit = ask.limit.unwrap_or(AUDIT_ROWS_DEFAULT).clamp(0, max);
    let event_type = ask.event_type.as_deref().filter(|name| !name.is_empty());
    let offset = ask.offset.unwrap_or(0).max(0);
    let mut left = limit;
    let (mut records, total) = match before {
        None => store.page(mesh, event_type, offset, left.min(read_max)).await?,
        Some(id) => {
            let (_, total) = store.page(mesh, event_type, 0, 0).await?;
            (store.before(mesh, event_type, id, left.min(read_max)).await?, total)
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
        records = store.before(mesh, event_type, last, left.min(read_max)).await?;
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

/// `audit_row`: the hashes of one row, by which a member sees whether what it was shown at an
/// earlier hello is in the chain still. They tell nothing of what the row says.
pub(super) async fn row_of(
    context: &Context<'_>,
    ask: AuditRowQuery,
) -> Result<AuditRowResult, Refusal> {
    let (store, mesh) = (&*context.parts.stores.audit, context.room.mesh());
    let found = store.before(mesh, None, ask.row_id.saturating_add(1), 1).await?;
    let row = found.into_iter().next().filter(|row| row.id == ask.row_id);
    let (hash, name_hash) = row.map(|row| (row.hash, row.name_hash)).unzip();
    let name_hash = name_hash.flatten().map(hex::encode);
    Ok(AuditRowResult { row_id: ask.row_id, hash, name_hash })
}

/// `audit_verify`: walks the whole chain, which may be long.
pub(super) async fn verify(
    context: &Context<'_>,
    _: AuditVerify,
) -> Result<AuditVerifyResult, Refusal> {
    only_moderators(context, READING)?;
    let Context { parts, room, session, .. } = context;
    let Ok(_walking) = parts.verifying.try_acquire() else {
        let text = "this node verifies a chain already; try again when that is done";
        return Err(Refusal::new("busy", text));
    };
    let wanted = || session.outbox.is_open() && !parts.life.stopped.is_cancelled();
    let mut chain = ChainVerifier::new(room.mesh().as_str());
    let walked = chain::walk(&*parts.stores.audit, room.mesh(), i64::MIN, |page| {
        page.iter().for_each(|row| _ = chain.push(row.as_link()));
        Ok::<_, StoreError>(wanted())
    });
    match walked.await {
        Ok(true) => Ok(answer(chain.finish())),
        Ok(false) => {
            let text = "nobody waits for it any more, or the node stops";
            Err(Refusal::new("unavailable", text).only_for_asked())
        }
        Err(error) => {
            let text = "the audit trail could not be read; try again";
            Err(Refusal::new("audit_verify_error", text).because(error))
        }
    }
}

fn answer(verdict: Verdict) -> AuditVerifyResult {
    AuditVerifyResult {
        valid: verdict.valid,
        entries: i64::try_from(verdict.entries).unwrap_or(i64::MAX),
        broken_at: verdict.first_bad(),
    }
}
