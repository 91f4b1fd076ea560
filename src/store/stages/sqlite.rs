//! How far messages are with their recipients, in SQLite.

use std::collections::HashMap;

use async_trait::async_trait;

use super::{
    Answered, End, Ending, NOTICE, Progress, Sent, Surfaced, WISH, Wished, Withdrawal, mailboxes,
    notices,
};
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, MessageId, PresenceId};
use crate::store::envelopes::sqlite::withdraw;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::chain::Chains;
use crate::store::sqlite::connection::{Tx, execute, fetch_optional};
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::to_json;
use crate::store::{Result, Stages};

/// A `select` of direct messages that end, with the conditions given.
macro_rules! select_endings {
    ($conditions:literal) => {
        concat!(
            "select q.id, q.mesh_id, q.sender_member_id, q.target_spec, q.client_message_id,
                coalesce(q.sender_name, m.display_name, '') as sender_name,
                case when m.told_of_ends = 1 and m.revoked_at is null
                    and q.subtype is not 'system' then m.peer_pubkey end as told
             from message_queue q cross join member m on m.id = q.sender_member_id ",
            $conditions
        )
    };
}

#[async_trait]
impl Stages for SqliteStore {
    async fn answered(&self, mesh: &MeshId, id: &MessageId) -> Result<Option<Answered>> {
        let query = sqlx::query(
            "select sender_member_id, target_spec, hop from message_queue
             where id = ?2 and +mesh_id = ?1",
        )
        .bind(mesh.as_str())
        .bind(id.as_str());
        self.record(query, Answered::read).await
    }

    async fn tell_of_ends(&self, member: &MemberId) -> Result<()> {
        let query =
            sqlx::query("update member set told_of_ends = 1 where id = ?1 and told_of_ends = 0")
                .bind(member.as_str());
        self.write(query).await?;
        Ok(())
    }

    async fn surface(&self, now: Timestamp, surfaced: &Surfaced) -> Result<Vec<Wished>> {
        let messages = to_json(&surfaced.messages);
        let mut tx = self.begin_relaxed().await?;
        // What another session of the member has and never showed, this one may have shown.
        let query = sqlx::query(
            "update message_queue
             set surfaced_at = ?5, delivered_at = coalesce(delivered_at, ?5)
             where id in (select value from json_each(?1)) and +mesh_id = ?2 and multicast = 0
                and surfaced_at is null and (target_spec in (?3, ?4)
                    or delivered_at is not null and ended is null and exists (
                        select 1 from presence own
                        cross join presence other on other.session_pubkey = target_spec
                        where own.id = ?7 and other.member_id = own.member_id
                            and other.role = 'session'))
             returning id, sender_member_id, client_message_id, receipt is ?6 as is_wished",
        )
        .bind(&messages)
        .bind(surfaced.mesh.as_str())
        .bind(surfaced.member_key.as_str())
        .bind(surfaced.session_key.as_ref().map(Key::as_str))
        .bind(now.as_ms())
        .bind(WISH)
        .bind(surfaced.presence.as_str());
        let mut rows = query.fetch_all(&mut *tx).await.map_err(refused)?;
        let query = sqlx::query(
            "select q.id, q.sender_member_id, q.client_message_id, q.receipt is ?4 as is_wished
             from json_each(?1) given
             cross join message_queue q on q.id = given.value and q.multicast = 1
             cross join presence p on p.id = ?3
             where q.mesh_id = ?2 and q.seq > p.surfaced_position",
        )
        .bind(&messages)
        .bind(surfaced.mesh.as_str())
        .bind(surfaced.presence.as_str())
        .bind(WISH);
        rows.extend(query.fetch_all(&mut *tx).await.map_err(refused)?);
        let query = sqlx::query(
            "update presence set surfaced_at = ?4, surfaced_position = max(surfaced_position, coalesce(
                (select max(q.seq) from json_each(?1) given
                 cross join message_queue q on q.id = given.value
                 where q.mesh_id = ?2 and q.multicast = 1), 0))
             where id = ?3",
        )
        .bind(&messages)
        .bind(surfaced.mesh.as_str())
        .bind(surfaced.presence.as_str())
        .bind(now.as_ms());
        execute(&mut tx, query).await?;
        tx.commit().await.map_err(refused)?;
        super::wished(&rows)
    }

    async fn pushed(&self, now: Timestamp, messages: &[MessageId]) -> Result<()> {
        let query = sqlx::query(
            "update message_queue set pushed_at = ?2
             where id in (select value from json_each(?1))
                and delivered_at is null and pushed_at is null",
        )
        .bind(to_json(messages))
        .bind(now.as_ms());
        self.write(query).await?;
        Ok(())
    }

    async fn withdraw(
        &self,
        now: Timestamp,
        mesh: &MeshId,
        sender: &MemberId,
        id: &MessageId,
    ) -> Result<Option<Withdrawal>> {
        let mut tx = self.begin().await?;
        let query = sqlx::query(
            "select sender_name, target_spec, client_message_id, multicast, delivered_at,
                surfaced_at, ended
             from message_queue where id = ?1 and +mesh_id = ?2 and +sender_member_id = ?3",
        )
        .bind(id.as_str())
        .bind(mesh.as_str())
        .bind(sender.as_str());
        let Some(row) = fetch_optional(&mut tx, query).await? else { return Ok(None) };
        let sent = Sent::read(&row)?;
        let is_done = sent.can_be_withdrawn();
        if is_done {
            let of = (id.clone(), mesh.clone(), sender.clone(), sent.sender_name.clone());
            withdraw(&mut tx, now, &[of]).await?;
        }
        tx.commit().await.map_err(refused)?;
        Ok(Some(sent.withdrawal(is_done)))
    }

    async fn end_overdue(
        &self,
        now: Timestamp,
        accepted_before: Timestamp,
        limit: i64,
    ) -> Result<Vec<(MeshId, Key)>> {
        let overdue: Vec<Ending> = self
            .records(
                sqlx::query(select_endings!(
                    "where q.id in (
                        select id from (
                            select id from message_queue indexed by message_queue_expiring_idx
                            where expires_at <= ?1 and delivered_at is null
                            order by expires_at limit 0 + ?3
                        )
                        union
                        select id from (
                            select id from message_queue indexed by message_queue_undelivered_idx
                            where created_at < ?2 and delivered_at is null
                               and target_spec not like '#%'
                            order by created_at limit 0 + ?3
                        )
                     )"
                ))
                .bind(now.as_ms())
                .bind(accepted_before.as_ms())
                .bind(limit),
                Ending::read,
            )
            .await?;
        if overdue.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<MessageId> = overdue.into_iter().map(|ending| ending.id).collect();
        self.end_messages(now, &ids, End::Expired).await
    }

    async fn block(
        &self,
        now: Timestamp,
        _mesh: &MeshId,
        messages: &[MessageId],
    ) -> Result<Vec<(MeshId, Key)>> {
        self.end_messages(now, messages, End::Blocked).await
    }

    async fn places(&self, presences: &[PresenceId]) -> Result<HashMap<PresenceId, Progress>> {
        let query = sqlx::query(
            "select id, multicast_position, surfaced_position, surfaced_at from presence
             where id in (select value from json_each(?1))",
        )
        .bind(to_json(presences));
        self.records(query, Progress::read).await
    }
}

impl SqliteStore {
    /// Ends those of the direct messages that nobody has: the rows stay, for those who ask.
    async fn end_messages(
        &self,
        now: Timestamp,
        messages: &[MessageId],
        end: End,
    ) -> Result<Vec<(MeshId, Key)>> {
        let mut tx = self.begin().await?;
        let query = sqlx::query(select_endings!(
            "where q.id in (select value from json_each(?1)) and q.delivered_at is null
                and q.multicast = 0"
        ))
        .bind(to_json(messages));
        let rows = query.fetch_all(&mut *tx).await.map_err(refused)?;
        let endings: Vec<Ending> = rows.iter().map(Ending::read).collect::<Result<_>>()?;
        if endings.is_empty() {
            return Ok(Vec::new());
        }
        let mut chains = Chains::read(&mut tx, now, endings.iter().map(|one| &one.mesh)).await?;
        let seqs = endings
            .iter()
            .map(|one| {
                let name = Some(one.sender_name.as_str());
                chains.push(&one.mesh, Some(&one.sender), name, &one.event(end))
            })
            .collect();
        chains.write(&mut tx).await?;
        let ids: Vec<&MessageId> = endings.iter().map(|one| &one.id).collect();
        let query = sqlx::query(
            "update message_queue set ended = ?2, delivered_at = ?3
             where id in (select value from json_each(?1))",
        )
        .bind(to_json(&ids))
        .bind(end.stage().as_str())
        .bind(now.as_ms());
        execute(&mut tx, query).await?;
        let notices = notices(&endings, end, seqs);
        for notice in &notices {
            put(&mut tx, now, notice).await?;
        }
        tx.commit().await.map_err(refused)?;
        Ok(mailboxes(&notices))
    }
}

async fn put(tx: &mut Tx, now: Timestamp, notice: &super::Notice<'_>) -> Result<()> {
    let query = sqlx::query(
        "insert into message_queue (id, mesh_id, sender_member_id, sender_name, target_spec,
            priority, nonce, ciphertext, created_at, seq, multicast, subtype)
         values (?1, ?2, ?3, ?4, ?5, 'next', '', ?6, ?7, ?8, 0, ?9)",
    )
    .bind(notice.id.as_str())
    .bind(notice.about.mesh.as_str())
    .bind(notice.about.sender.as_str())
    .bind(notice.about.sender_name.as_str())
    .bind(notice.mailbox.as_str())
    .bind(notice.body.as_str())
    .bind(now.as_ms())
    .bind(notice.seq)
    .bind(NOTICE);
    execute(tx, query).await?;
    Ok(())
}
