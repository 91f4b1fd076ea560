//! Looking at the queue without taking from it.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId, MessageId};
use crate::limits;
use crate::protocol::Priority;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::chain::Chains;
use crate::store::sqlite::connection::Tx;
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::{get, id, optional_id, optional_time, time, to_json, word};
use crate::store::{Expired, MessageState, Messages, Result, Retention, is_topic_post};

#[async_trait]
impl Messages for SqliteStore {
    async fn find<'a>(
        &self,
        mesh: &MeshId,
        id_prefix: &str,
        after: Option<&'a MessageId>,
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
        .fetch_all(self.reader())
        .await
        .map_err(refused)?;
        rows.iter().map(state).collect()
    }

    async fn expire(&self, now: Timestamp, limits: &Retention) -> Result<Expired> {
        let mut tx = self.begin().await?;
        let delivered = delivered(&mut tx, limits).await?;
        let undelivered = undelivered(&mut tx, now, limits).await?;
        let keys = sqlx::query(
            "delete from send_key where (mesh_id, sender_member_id, client_message_id) in (
                select mesh_id, sender_member_id, client_message_id from send_key
                where created_at < ?1 order by created_at limit 0 + ?2
             )",
        )
        .bind(limits.keys_before.as_ms())
        .bind(limits.limit)
        .execute(&mut *tx)
        .await
        .map_err(refused)?
        .rows_affected();
        tx.commit().await.map_err(refused)?;
        Ok(Expired { delivered, undelivered, keys })
    }

    async fn depth(&self) -> Result<i64> {
        // No web application writes to this file: nothing was posted to topics.
        sqlx::query_scalar("select count(*) from message_queue where delivered_at is null")
            .fetch_one(self.reader())
            .await
            .map_err(refused)
    }

    async fn queued(&self, mesh: &MeshId, limit: i64) -> Result<Vec<MessageState>> {
        let rows = sqlx::query(
            "select id, seq, sender_member_id, target_spec, priority, multicast,
                octet_length(ciphertext) as ciphertext_bytes, created_at, delivered_at, claim_id
             from message_queue indexed by message_queue_mailbox_idx
             where mesh_id = ?1 and delivered_at is null and target_spec not like '#%'
             order by seq, created_at, id limit 0 + ?2",
        )
        .bind(mesh.as_str())
        .bind(limit)
        .fetch_all(self.reader())
        .await
        .map_err(refused)?;
        rows.iter().map(state).collect()
    }
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

async fn delivered(tx: &mut Tx, limits: &Retention) -> Result<u64> {
    let ids: Vec<String> = sqlx::query_scalar(
        "select id from message_queue where delivered_at < ?1 order by delivered_at limit 0 + ?2",
    )
    .bind(limits.delivered_before.as_ms())
    .bind(limits.limit)
    .fetch_all(&mut **tx)
    .await
    .map_err(refused)?;
    delete(tx, &to_json(&ids)).await
}

async fn undelivered(tx: &mut Tx, now: Timestamp, limits: &Retention) -> Result<u64> {
    let rows = sqlx::query(
        "select q.id, q.mesh_id, q.sender_member_id, q.target_spec,
            coalesce(q.sender_name, m.display_name) as sender_name
         from message_queue q left join member m on m.id = q.sender_member_id
         where q.delivered_at is null and q.created_at < ?1
         order by q.created_at limit 0 + ?2",
    )
    .bind(limits.undelivered_before.as_ms())
    .bind(limits.limit)
    .fetch_all(&mut **tx)
    .await
    .map_err(refused)?;
    let meshes: Vec<MeshId> = rows.iter().map(|row| id(row, "mesh_id")).collect::<Result<_>>()?;
    let mut chains = Chains::read(tx, now, &meshes).await?;
    let mut ids: Vec<MessageId> = Vec::with_capacity(rows.len());
    for (row, mesh) in rows.iter().zip(&meshes) {
        let message_id: MessageId = id(row, "id")?;
        let sender: MemberId = id(row, "sender_member_id")?;
        let name: Option<&str> = get(row, "sender_name")?;
        let target: String = get(row, "target_spec")?;
        ids.push(message_id.clone());
        if is_topic_post(&target) {
            continue;
        }
        chains.push(mesh, Some(&sender), name, &AuditEvent::Expired { message_id, target });
    }
    chains.write(tx).await?;
    delete(tx, &to_json(&ids)).await
}

/// Deletes queue rows and keeps their idempotence keys.
async fn delete(tx: &mut Tx, ids: &str) -> Result<u64> {
    sqlx::query(
        "insert or ignore into send_key
            (mesh_id, sender_member_id, client_message_id, message_id, created_at)
         select mesh_id, sender_member_id, client_message_id, id, created_at
         from message_queue
         where id in (select value from json_each(?1))
            and +client_message_id is not null and seq is not null",
    )
    .bind(ids)
    .execute(&mut **tx)
    .await
    .map_err(refused)?;
    let deleted =
        sqlx::query("delete from message_queue where id in (select value from json_each(?1))")
            .bind(ids)
            .execute(&mut **tx)
            .await
            .map_err(refused)?;
    Ok(deleted.rows_affected())
}
