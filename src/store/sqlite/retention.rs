//! Deleting what is past its time.

use super::audit::Chains;
use super::connection::{Db, Tx};
use super::error::refused;
use super::row::{get, id, to_json};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId, MessageId};
use crate::store::{Expired, Result, Retention, is_topic_post};

pub(super) async fn expire(db: &Db, now: Timestamp, limits: &Retention) -> Result<Expired> {
    let mut tx = db.begin().await?;
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
