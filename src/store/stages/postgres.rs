//! How far messages are with their recipients, in Postgres.
//!
//! Whatever writes audit rows takes the locks of their chains before it locks a message,
//! as sends do.

use std::collections::HashMap;

use async_trait::async_trait;

use super::{
    Answered, End, Ending, NOTICE, Progress, Sent, Surfaced, WISH, Wished, Withdrawal, mailboxes,
    notices,
};
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, MessageId, PresenceId};
use crate::store::columns::{Columns as _, unreadable};
use crate::store::envelopes::postgres::withdraw;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::chain::{Entries, locks};
use crate::store::postgres::error::refused;
use crate::store::postgres::row::clean;
use crate::store::{Result, Stages};

/// The columns of a direct message that ends.
macro_rules! select_endings {
    ($conditions:literal) => {
        concat!(
            "select q.id, q.mesh_id, q.sender_member_id, q.target_spec, q.client_message_id,
                coalesce(q.sender_name, m.display_name, '') as sender_name,
                case when m.told_of_ends and m.revoked_at is null
                    and q.subtype is distinct from 'system' then m.peer_pubkey end as told
             from mesh.message_queue q join mesh.member m on m.id = q.sender_member_id ",
            $conditions
        )
    };
}

#[async_trait]
impl Stages for PostgresStore {
    async fn answered(&self, mesh: &MeshId, id: &MessageId) -> Result<Option<Answered>> {
        let query = sqlx::query(
            "select sender_member_id, target_spec, hop::bigint as hop from mesh.message_queue
             where id = $2 and mesh_id = $1",
        )
        .bind(mesh.as_str())
        .bind(clean(id.as_str()));
        self.pool.record(query, Answered::read).await
    }

    async fn tell_of_ends(&self, member: &MemberId) -> Result<()> {
        let query = sqlx::query(
            "update mesh.member set told_of_ends = true where id = $1 and not told_of_ends",
        )
        .bind(member.as_str());
        self.pool.execute(query).await?;
        Ok(())
    }

    async fn surface(&self, now: Timestamp, surfaced: &Surfaced) -> Result<Vec<Wished>> {
        let messages: Vec<_> = surfaced.messages.iter().map(|id| clean(id)).collect();
        // What another session of the member has and never showed, this one may have shown.
        let query = sqlx::query(
            "with direct as (
                update mesh.message_queue q
                set surfaced_at = $5, delivered_at = coalesce(q.delivered_at, $5)
                where q.id = any ($1) and q.mesh_id = $2 and q.multicast is not true
                   and q.surfaced_at is null and (q.target_spec in ($3, $4)
                        or q.delivered_at is not null and q.ended is null and exists (
                            select 1 from mesh.presence own
                            join mesh.presence other on other.session_pubkey = q.target_spec
                            where own.id = $6 and other.member_id = own.member_id
                                and other.role = 'session'))
                returning q.id, q.sender_member_id, q.client_message_id, q.receipt
             ),
             many as (
                select q.id, q.sender_member_id, q.client_message_id, q.receipt, q.seq,
                    coalesce(p.surfaced_position, 0) as place
                from mesh.message_queue q join mesh.presence p on p.id = $6
                where q.id = any ($1) and q.mesh_id = $2 and q.multicast
             ),
             moved as (
                update mesh.presence p
                set surfaced_at = $5, surfaced_position = greatest(
                    coalesce(p.surfaced_position, 0), (select coalesce(max(seq), 0) from many))
                where p.id = $6
             )
             select id, sender_member_id, client_message_id, receipt = $7 as is_wished
             from direct
             union all
             select id, sender_member_id, client_message_id, receipt = $7 from many
             where seq > place",
        )
        .bind(messages)
        .bind(surfaced.mesh.as_str())
        .bind(surfaced.member_key.as_str())
        .bind(surfaced.session_key.as_ref().map(Key::as_str))
        .bind(now.to_naive())
        .bind(surfaced.presence.as_str())
        .bind(WISH);
        super::wished(&self.pool.fetch_all(query).await?)
    }

    async fn pushed(&self, now: Timestamp, messages: &[MessageId]) -> Result<()> {
        let messages: Vec<&str> = messages.iter().map(MessageId::as_str).collect();
        let query = sqlx::query(
            "update mesh.message_queue set pushed_at = $2
             where id = any ($1) and delivered_at is null and pushed_at is null",
        )
        .bind(messages)
        .bind(now.to_naive());
        self.pool.execute(query).await?;
        Ok(())
    }

    async fn withdraw(
        &self,
        now: Timestamp,
        mesh: &MeshId,
        sender: &MemberId,
        id: &MessageId,
    ) -> Result<Option<Withdrawal>> {
        let mut call = self.pool.begin().await?;
        let lock = sqlx::query("select mesh.broker_lock_v1($1)").bind(locks([mesh.as_str()]));
        call.execute(lock).await?;
        let query = sqlx::query(
            "select sender_name, target_spec, client_message_id,
                coalesce(multicast, false) as multicast, delivered_at, surfaced_at, ended
             from mesh.message_queue where id = $1 and mesh_id = $2 and sender_member_id = $3
             for update",
        )
        .bind(clean(id.as_str()))
        .bind(mesh.as_str())
        .bind(sender.as_str());
        let Some(row) = call.fetch_optional(query).await? else {
            call.rollback().await?;
            return Ok(None);
        };
        let sent = Sent::read(&row)?;
        let is_done = sent.can_be_withdrawn();
        if is_done {
            let of = (id.clone(), mesh.clone(), sender.clone(), sent.sender_name.clone());
            withdraw(&mut call, now, &[of]).await?;
        }
        call.commit().await?;
        Ok(Some(sent.withdrawal(is_done)))
    }

    async fn end_overdue(
        &self,
        now: Timestamp,
        accepted_before: Timestamp,
        limit: i64,
    ) -> Result<Vec<(MeshId, Key)>> {
        let query = sqlx::query(
            "(select id, mesh_id from mesh.message_queue
              where expires_at <= $1 and expires_at is not null and delivered_at is null
              order by expires_at limit $3)
             union
             (select id, mesh_id from mesh.message_queue
              where created_at < $2 and delivered_at is null and left(target_spec, 1) <> '#'
              order by created_at limit $3)",
        )
        .bind(now.to_naive())
        .bind(accepted_before.to_naive())
        .bind(limit);
        let rows = self.pool.fetch_all(query).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let (mut ids, mut meshes) = (Vec::new(), Vec::new());
        for row in &rows {
            ids.push(row.id("id")?);
            meshes.push(row.id("mesh_id")?);
        }
        self.end_messages(now, &meshes, &ids, End::Expired).await
    }

    async fn block(
        &self,
        now: Timestamp,
        mesh: &MeshId,
        messages: &[MessageId],
    ) -> Result<Vec<(MeshId, Key)>> {
        self.end_messages(now, std::slice::from_ref(mesh), messages, End::Blocked).await
    }

    async fn places(&self, presences: &[PresenceId]) -> Result<HashMap<PresenceId, Progress>> {
        let presences: Vec<&str> = presences.iter().map(PresenceId::as_str).collect();
        let query = sqlx::query(
            "select id, multicast_position, surfaced_position, surfaced_at from mesh.presence
             where id = any ($1)",
        )
        .bind(presences);
        self.pool.records(query, Progress::read).await
    }
}

impl PostgresStore {
    /// Ends those of the direct messages of these meshes that nobody has: the rows stay,
    /// for those who ask.
    async fn end_messages(
        &self,
        now: Timestamp,
        meshes: &[MeshId],
        messages: &[MessageId],
        end: End,
    ) -> Result<Vec<(MeshId, Key)>> {
        let mut call = self.pool.begin().await?;
        let lock = sqlx::query("select mesh.broker_lock_v1($1)")
            .bind(locks(meshes.iter().map(MeshId::as_str)));
        call.execute(lock).await?;
        let ids: Vec<&str> = messages.iter().map(MessageId::as_str).collect();
        let query = sqlx::query(select_endings!(
            "where q.id = any ($1) and q.delivered_at is null and q.multicast is not true
             order by q.mesh_id, q.id for update of q"
        ))
        .bind(ids);
        let rows = call.fetch_all(query).await?;
        let endings: Vec<Ending> = rows.iter().map(Ending::read).collect::<Result<_>>()?;
        if endings.is_empty() {
            call.rollback().await?;
            return Ok(Vec::new());
        }
        let mut entries = Entries::default();
        for one in &endings {
            let name = Some(one.sender_name.as_str());
            entries.push(&one.mesh, Some(&one.sender), name, &one.event(end));
        }
        let append = sqlx::query(
            "select mesh.broker_append_v2($1, $2, $3, $4, $5, $6, $7, $8, null) as seqs",
        );
        let appended = call.fetch_optional(entries.bind(append, now)).await?;
        let appended = appended.ok_or_else(|| unreadable("seqs"))?;
        let seqs: Vec<i64> = sqlx::Row::try_get(&appended, "seqs").map_err(refused)?;
        let ids: Vec<&str> = endings.iter().map(|one| one.id.as_str()).collect();
        let query = sqlx::query(
            "update mesh.message_queue set ended = $2, delivered_at = $3 where id = any ($1)",
        )
        .bind(ids)
        .bind(end.stage().as_str())
        .bind(now.to_naive());
        call.execute(query).await?;
        let notices = notices(&endings, end, seqs);
        if !notices.is_empty() {
            let column = |of: fn(&super::Notice<'_>) -> String| -> Vec<String> {
                notices.iter().map(of).collect()
            };
            let query = sqlx::query(
                "insert into mesh.message_queue (id, mesh_id, sender_member_id, sender_name,
                    target_spec, priority, nonce, ciphertext, created_at, seq, multicast, subtype)
                 select e.id, e.mesh, e.sender, e.name, e.mailbox, 'next', '', e.body, $8, e.seq,
                    false, $9
                 from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
                    $6::text[], $7::bigint[]) as e (id, mesh, sender, name, mailbox, body, seq)",
            )
            .bind(column(|notice| notice.id.to_string()))
            .bind(column(|notice| notice.about.mesh.to_string()))
            .bind(column(|notice| notice.about.sender.to_string()))
            .bind(column(|notice| clean(&notice.about.sender_name).into_owned()))
            .bind(column(|notice| notice.mailbox.to_string()))
            .bind(column(|notice| notice.body.clone()))
            .bind(notices.iter().map(|notice| notice.seq).collect::<Vec<i64>>())
            .bind(now.to_naive())
            .bind(NOTICE);
            call.execute(query).await?;
        }
        call.commit().await?;
        Ok(mailboxes(&notices))
    }
}
