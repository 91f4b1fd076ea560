//! Looking at the queue without taking from it.

use async_trait::async_trait;
use sqlx::postgres::PgRow;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId, MessageId};
use crate::limits;
use crate::protocol::Priority;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::chain::Entries;
use crate::store::postgres::pool::Pool;
use crate::store::postgres::row::{clean, get, id, optional_id, optional_time, time, word};
use crate::store::{Expired, MessageState, Messages, Result, Retention, is_topic_post};

/// What is to go, as it was read a moment ago.
struct Overdue {
    id: MessageId,
    mesh: MeshId,
    sender: MemberId,
    sender_name: Option<String>,
    target: String,
}

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
        let rows = self
            .pool
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
        get(&row, "depth")
    }

    async fn queued(&self, mesh: &MeshId, limit: i64) -> Result<Vec<MessageState>> {
        let rows = self
            .pool
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

async fn delivered(pool: &Pool, limits: &Retention) -> Result<u64> {
    let row = pool
        .fetch_one(
            sqlx::query(
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
            .bind(limits.limit),
        )
        .await?;
    Ok(get::<i64>(&row, "gone")?.unsigned_abs())
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
    let row = pool
        .fetch_one(
            sqlx::query(
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
                 ),
                 appended as materialized (
                    select mesh.broker_append_v2($1, $2, $3, a.mesh, a.actor, a.name, a.event,
                        a.payload, null)
                    from (
                        select array_agg(e.mesh order by e.mesh, e.at) as mesh,
                            array_agg(e.actor order by e.mesh, e.at) as actor,
                            array_agg(e.name order by e.mesh, e.at) as name,
                            array_agg(e.event order by e.mesh, e.at) as event,
                            array_agg(e.payload order by e.mesh, e.at) as payload
                        from unnest($4::text[], $5::text[], $6::text[], $7::text[],
                                $8::text[], $9::text[])
                            with ordinality as e (id, mesh, actor, name, event, payload, at)
                        join gone on gone.id = e.id
                    ) a
                    where a.mesh is not null
                 )
                 select count(*) as gone, (select count(*) from appended) as appended
                 from gone",
            )
            .bind(now.to_naive())
            .bind(now.to_string())
            .bind(entries.locks())
            .bind(told_ids)
            .bind(entries.mesh)
            .bind(entries.actor)
            .bind(entries.name)
            .bind(entries.event)
            .bind(entries.payload)
            .bind(ids),
        )
        .await?;
    Ok(get::<i64>(&row, "gone")?.unsigned_abs())
}

async fn overdue(pool: &Pool, limits: &Retention) -> Result<Vec<Overdue>> {
    let rows = pool
        .fetch_all(
            sqlx::query(
                "select q.id, q.mesh_id, q.sender_member_id, q.target_spec,
                    coalesce(q.sender_name, m.display_name) as sender_name
                 from mesh.message_queue q
                 left join mesh.member m on m.id = q.sender_member_id
                 where q.delivered_at is null and q.created_at < $1
                 order by q.created_at, q.id limit $2",
            )
            .bind(limits.undelivered_before.to_naive())
            .bind(limits.limit),
        )
        .await?;
    let overdue = |row| {
        Ok(Overdue {
            id: id(row, "id")?,
            mesh: id(row, "mesh_id")?,
            sender: id(row, "sender_member_id")?,
            sender_name: get(row, "sender_name")?,
            target: get(row, "target_spec")?,
        })
    };
    rows.iter().map(overdue).collect()
}

async fn keys(pool: &Pool, limits: &Retention) -> Result<u64> {
    pool.execute(
        sqlx::query(
            "delete from mesh.send_key where ctid = any (array(
                select ctid from mesh.send_key where created_at < $1
                order by created_at limit $2))",
        )
        .bind(limits.keys_before.to_naive())
        .bind(limits.limit),
    )
    .await
}
