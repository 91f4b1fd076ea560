//! Looking at the queue without taking from it.

use sqlx::sqlite::SqliteRow;

use super::connection::Db;
use super::error::refused;
use super::row::{get, id, optional_id, optional_time, time, word};
use crate::id::{MeshId, MessageId};
use crate::limits;
use crate::protocol::Priority;
use crate::store::{MessageState, Result};

pub(super) async fn find(
    db: &Db,
    mesh: &MeshId,
    id_prefix: &str,
    after: Option<&MessageId>,
) -> Result<Vec<MessageState>> {
    if id_prefix.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "select id, seq, sender_member_id, target_spec, priority, multicast,
            octet_length(ciphertext) as ciphertext_bytes, created_at, delivered_at, claim_id
         from message_queue
         where mesh_id = ?1 and id >= ?2 and id < ?2 || char(0x10ffff) and id > ?3
         order by id limit 0 + ?4",
    )
    .bind(mesh.as_str())
    .bind(id_prefix)
    .bind(after.map_or("", MessageId::as_str))
    .bind(i64::from(limits::FIND_MESSAGES_MAX))
    .fetch_all(db.reader())
    .await
    .map_err(refused)?;
    rows.iter().map(state).collect()
}

pub(super) async fn queued(db: &Db, mesh: &MeshId, limit: i64) -> Result<Vec<MessageState>> {
    let rows = sqlx::query(
        "select id, seq, sender_member_id, target_spec, priority, multicast,
            octet_length(ciphertext) as ciphertext_bytes, created_at, delivered_at, claim_id
         from message_queue indexed by message_queue_mailbox_idx
         where mesh_id = ?1 and delivered_at is null and target_spec not like '#%'
         order by seq, created_at, id limit 0 + ?2",
    )
    .bind(mesh.as_str())
    .bind(limit)
    .fetch_all(db.reader())
    .await
    .map_err(refused)?;
    rows.iter().map(state).collect()
}

pub(super) async fn depth(db: &Db) -> Result<i64> {
    // No web application writes to this file: nothing was posted to topics.
    sqlx::query_scalar("select count(*) from message_queue where delivered_at is null")
        .fetch_one(db.reader())
        .await
        .map_err(refused)
}

fn state(row: &SqliteRow) -> Result<MessageState> {
    let delivered_at = optional_time(row, "delivered_at")?;
    Ok(MessageState {
        id: id(row, "id")?,
        seq: get::<Option<i64>>(row, "seq")?.unwrap_or_default(),
        sender_member: id(row, "sender_member_id")?,
        target_spec: get(row, "target_spec")?,
        priority: word(row, "priority", Priority::parse)?,
        multicast: get(row, "multicast")?,
        ciphertext_bytes: get(row, "ciphertext_bytes")?,
        created_at: time(row, "created_at")?,
        delivered_at,
        // A delivered row keeps its last claim: who got it, no longer a claim.
        claimed_by: if delivered_at.is_none() { optional_id(row, "claim_id")? } else { None },
    })
}
