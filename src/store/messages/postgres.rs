//! Looking at the queue without taking from it, and deleting what is past its time.
//! Nodes may delete at once: each row goes, and is counted, once.

use async_trait::async_trait;

use super::Overdue;
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MeshId, MessageId};
use crate::limits;
use crate::store::columns::Columns as _;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::chain::{Entries, appended_for};
use crate::store::postgres::pool::Pool;
use crate::store::postgres::row::clean;
use crate::store::{Expired, MessageState, Messages, Result, Retention, is_topic_post};

/// A `select` of queued messages without what is in them.
macro_rules! select_states {
    ($conditions:literal) => {
        concat!(
            "select id, seq, sender_member_id, target_spec, priority::text as priority,
                coalesce(multicast, false) as multicast,
                octet_length(ciphertext)::bigint as ciphertext_bytes, created_at,
                delivered_at, claim_id,
                pushed_at, surfaced_at, expires_at, ended
             from mesh.message_queue ",
            $conditions
        )
    };
}

/// Deletes what is past its time, each row once however many nodes try.
const DELETE_OVERDUE: &str = concat!(
    "with locked as materialized (select mesh.broker_lock_v1($3)),
     gone as (
        delete from mesh.message_queue q
        using locked cross join unnest($10::text[]) as e (id)
        where q.id = e.id and q.delivered_at is null
        returning q.id, q.mesh_id, q.sender_member_id, q.client_message_id,
            q.created_at, q.seq
     ),
     kept as (
        insert into mesh.send_key
            (mesh_id, sender_member_id, client_message_id, message_id, created_at)
        select mesh_id, sender_member_id, client_message_id, id, created_at
        from gone where client_message_id is not null and seq is not null
     ), ",
    appended_for!(
        "gone",
        "$4::text[], $5::text[], $6::text[],
         $7::text[], $8::text[], $9::text[]"
    ),
    "select count(*) as gone, (select count(*) from appended) as appended from gone"
);

#[async_trait]
impl Messages for PostgresStore {
    async fn find<'a>(
        &self,
        mesh: &MeshId,
        id_prefix: &str,
        after: Option<&'a MessageId>,
    ) -> Result<Vec<MessageState>> {
        if id_prefix.is_empty() {
            return Ok(Vec::new());
        }
        // Ids are letters and digits: in every collation those that begin so lie in
        // this range, among few others.
        let query = sqlx::query(select_states!(
            "where id between $2 and $2 || repeat('z', 40)
                and left(id, length($2)) = $2 and mesh_id = $1 and id > $3
             order by id limit $4"
        ))
        .bind(mesh.as_str())
        .bind(clean(id_prefix))
        .bind(after.map_or("", MessageId::as_str))
        .bind(i64::from(limits::FIND_MESSAGES_MAX));
        self.pool.records(query, MessageState::read).await
    }

    async fn expire(&self, now: Timestamp, limits: &Retention) -> Result<Expired> {
        Ok(Expired {
            delivered: delivered(&self.pool, limits).await?,
            undelivered: undelivered(&self.pool, now, limits).await?,
            keys: keys(&self.pool, limits).await?,
        })
    }

    async fn depth(&self) -> Result<i64> {
        let row = self
            .pool
            .fetch_one(sqlx::query(
                "select count(*) as depth from mesh.message_queue
                 where delivered_at is null and left(target_spec, 1) <> '#'",
            ))
            .await?;
        row.int("depth")
    }

    async fn queued(&self, mesh: &MeshId, limit: i64) -> Result<Vec<MessageState>> {
        let query = sqlx::query(select_states!(
            "where mesh_id = $1 and delivered_at is null and left(target_spec, 1) <> '#'
             order by seq nulls first, created_at, id limit $2"
        ))
        .bind(mesh.as_str())
        .bind(limit);
        self.pool.records(query, MessageState::read).await
    }
}

async fn delivered(pool: &Pool, limits: &Retention) -> Result<u64> {
    let query = sqlx::query(
        "with gone as (
            delete from mesh.message_queue
            where id in (
                select id from mesh.message_queue where delivered_at < $1
                order by delivered_at limit $2 for update skip locked
            )
            returning id, mesh_id, sender_member_id, client_message_id, created_at, seq
         ),
         kept as (
            insert into mesh.send_key
                (mesh_id, sender_member_id, client_message_id, message_id, created_at)
            select mesh_id, sender_member_id, client_message_id, id, created_at
            from gone where client_message_id is not null and seq is not null
         )
         select count(*) as gone from gone",
    )
    .bind(limits.delivered_before.to_naive())
    .bind(limits.limit);
    let row = pool.fetch_one(query).await?;
    Ok(row.int("gone")?.unsigned_abs())
}

async fn undelivered(pool: &Pool, now: Timestamp, limits: &Retention) -> Result<u64> {
    let overdue = overdue(pool, limits).await?;
    if overdue.is_empty() {
        return Ok(0);
    }
    let ids: Vec<&str> = overdue.iter().map(|row| row.id.as_str()).collect();
    let told = || overdue.iter().filter(|row| !is_topic_post(&row.target));
    let told_ids: Vec<&str> = told().map(|row| row.id.as_str()).collect();
    let mut entries = Entries::default();
    for Overdue { id, mesh, sender, sender_name, target } in told() {
        let event = AuditEvent::Expired { message_id: id.clone(), target: target.clone() };
        entries.push(mesh, Some(sender), sender_name.as_deref(), &event);
    }
    let locks = entries.locks();
    let query = entries
        .bind_rows(
            sqlx::query(DELETE_OVERDUE)
                .bind(now.to_naive())
                .bind(now.to_string())
                .bind(locks)
                .bind(told_ids),
        )
        .bind(ids);
    let row = pool.fetch_one(query).await?;
    Ok(row.int("gone")?.unsigned_abs())
}

async fn overdue(pool: &Pool, limits: &Retention) -> Result<Vec<Overdue>> {
    let query = sqlx::query(
        "select q.id, q.mesh_id, q.sender_member_id, q.target_spec,
            coalesce(q.sender_name, m.display_name) as sender_name
         from mesh.message_queue q
         left join mesh.member m on m.id = q.sender_member_id
         where q.delivered_at is null and q.created_at < $1
         order by q.created_at, q.id limit $2",
    )
    .bind(limits.undelivered_before.to_naive())
    .bind(limits.limit);
    pool.records(query, Overdue::read).await
}

async fn keys(pool: &Pool, limits: &Retention) -> Result<u64> {
    let query = sqlx::query(
        "delete from mesh.send_key where ctid = any (array(
            select ctid from mesh.send_key where created_at < $1
            order by created_at limit $2))",
    )
    .bind(limits.keys_before.to_naive())
    .bind(limits.limit);
    pool.execute(query).await
}
