//! Looking at the queue without taking from it.

use sqlx::postgres::PgRow;

use super::pool::Db;
use super::row::{clean, get, id, optional_id, optional_time, time, word};
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
    // Ids are letters and digits: in every collation those that begin so lie in
    // this range, among few others.
    let rows = db
        .fetch_all(
            sqlx::query(
                "select id, seq, sender_member_id, target_spec, priority::text as priority,
                    coalesce(multicast, false) as multicast,
                    octet_length(ciphertext)::bigint as ciphertext_bytes, created_at,
                    delivered_at, claim_id
                 from mesh.message_queue
                 where id between $2 and $2 || repeat('z', 40)
                    and left(id, length($2)) = $2 and mesh_id = $1 and id > $3
                 order by id limit $4",
            )
            .bind(mesh.as_str())
            .bind(clean(id_prefix))
            .bind(after.map_or("", MessageId::as_str))
            .bind(i64::from(limits::FIND_MESSAGES_MAX)),
        )
        .await?;
    rows.iter().map(state).collect()
}

pub(super) async fn queued(db: &Db, mesh: &MeshId, limit: i64) -> Result<Vec<MessageState>> {
    let rows = db
        .fetch_all(
            sqlx::query(
                "select id, seq, sender_member_id, target_spec, priority::text as priority,
                    coalesce(multicast, false) as multicast,
                    octet_length(ciphertext)::bigint as ciphertext_bytes, created_at,
                    delivered_at, claim_id
                 from mesh.message_queue
                 where mesh_id = $1 and delivered_at is null and left(target_spec, 1) <> '#'
                 order by seq nulls first, created_at, id limit $2",
            )
            .bind(mesh.as_str())
            .bind(limit),
        )
        .await?;
    rows.iter().map(state).collect()
}

pub(super) async fn depth(db: &Db) -> Result<i64> {
    let row = db
        .fetch_one(sqlx::query(
            "select count(*) as depth from mesh.message_queue
             where delivered_at is null and left(target_spec, 1) <> '#'",
        ))
        .await?;
    get(&row, "depth")
}

fn state(row: &PgRow) -> Result<MessageState> {
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
