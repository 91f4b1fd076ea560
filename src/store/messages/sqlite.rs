//! Looking at the queue without taking from it, and deleting what is past its time.

use async_trait::async_trait;

use super::Overdue;
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MeshId, MessageId};
use crate::limits;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::chain::Chains;
use crate::store::sqlite::connection::{Tx, execute};
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::to_json;
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
        let query = sqlx::query(
            "select id, seq, sender_member_id, target_spec, priority, multicast,
                octet_length(ciphertext) as ciphertext_bytes, created_at, delivered_at, claim_id,
                pushed_at, surfaced_at, expires_at, ended
             from message_queue
             where mesh_id = ?1 and id >= ?2 and id < ?2 || char(0x10ffff) and id > ?3
             order by id limit 0 + ?4",
        )
        .bind(mesh.as_str())
        .bind(id_prefix)
        .bind(after.map_or("", MessageId::as_str))
        .bind(i64::from(limits::FIND_MESSAGES_MAX));
        self.records(query, MessageState::read).await
    }

    async fn expire(&self, now: Timestamp, limits: &Retention) -> Result<Expired> {
        let mut tx = self.begin().await?;
        let delivered = delivered(&mut tx, limits).await?;
        let undelivered = undelivered(&mut tx, now, limits).await?;
        let query = sqlx::query(
            "delete from send_key where (mesh_id, sender_member_id, client_message_id) in (
                select mesh_id, sender_member_id, client_message_id from send_key
                where created_at < ?1 order by created_at limit 0 + ?2
             )",
        )
        .bind(limits.keys_before.as_ms())
        .bind(limits.limit);
        let keys = execute(&mut tx, query).await?;
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
        let query = sqlx::query(
            "select id, seq, sender_member_id, target_spec, priority, multicast,
                octet_length(ciphertext) as ciphertext_bytes, created_at, delivered_at, claim_id,
                pushed_at, surfaced_at, expires_at, ended
             from message_queue indexed by message_queue_mailbox_idx
             where mesh_id = ?1 and delivered_at is null and target_spec not like '#%'
             order by seq, created_at, id limit 0 + ?2",
        )
        .bind(mesh.as_str())
        .bind(limit);
        self.records(query, MessageState::read).await
    }
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
    let overdue: Vec<Overdue> = rows.iter().map(Overdue::read).collect::<Result<_>>()?;
    let mut chains = Chains::read(tx, now, overdue.iter().map(|row| &row.mesh)).await?;
    for Overdue { id, mesh, sender, sender_name, target } in &overdue {
        if !is_topic_post(target) {
            let event = AuditEvent::Expired { message_id: id.clone(), target: target.clone() };
            chains.push(mesh, Some(sender), sender_name.as_deref(), &event);
        }
    }
    let ids: Vec<&MessageId> = overdue.iter().map(|row| &row.id).collect();
    chains.write(tx).await?;
    delete(tx, &to_json(&ids)).await
}

/// Deletes queue rows and keeps their idempotence keys.
async fn delete(tx: &mut Tx, ids: &str) -> Result<u64> {
    let query = sqlx::query(
        "insert or ignore into send_key
            (mesh_id, sender_member_id, client_message_id, message_id, created_at)
         select mesh_id, sender_member_id, client_message_id, id, created_at
         from message_queue
         where id in (select value from json_each(?1))
            and +client_message_id is not null and seq is not null",
    )
    .bind(ids);
    execute(tx, query).await?;
    let query =
        sqlx::query("delete from message_queue where id in (select value from json_each(?1))")
            .bind(ids);
    execute(tx, query).await
}
