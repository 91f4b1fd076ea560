//! From the queue to a recipient: claiming, confirming, catching up.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;

use super::{Confirmed, Done, sealed_for};
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, MessageId, PresenceId};
use crate::store::columns::Columns as _;
use crate::store::sqlite::connection::{Tx, execute};
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::to_json;
use crate::store::sqlite::{SqliteStore, rows};
use crate::store::{ClaimRequest, Confirm, Mail, Result, StoredEnvelope};

/// Confirms by the message's id.
const BY_ID: &str = "with done (mesh_id, id, member_key, session_key) as (values (?, ?, ?, ?))
     update message_queue set delivered_at = ?
     where rowid in (
        select q.rowid from done
        cross join message_queue q on q.id = done.id
        where q.mesh_id = done.mesh_id and q.delivered_at is null and q.multicast = 0
           and q.target_spec in (done.member_key, done.session_key)
     )";

/// Confirms by the sender's own id.
const BY_CLIENT_ID: &str =
    "with done (mesh_id, client_id, member_key, session_key) as (values (?, ?, ?, ?))
     update message_queue set delivered_at = ?
     where rowid in (
        select q.rowid from done
        cross join message_queue q on q.mesh_id = done.mesh_id
           and q.client_message_id = done.client_id and q.seq is not null
        where q.delivered_at is null and q.multicast = 0
           and q.target_spec in (done.member_key, done.session_key)
     )";

#[async_trait]
impl Mail for SqliteStore {
    async fn confirm(&self, now: Timestamp, batch: &[Confirm]) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let confirmed: Confirmed<'_> = batch.iter().collect();
        // A confirmation that is lost with the machine costs a second delivery, as
        // one that was still on its way does.
        let mut tx = self.begin_relaxed().await?;
        confirm_rows(&mut tx, now, BY_ID, &confirmed.by_id).await?;
        confirm_rows(&mut tx, now, BY_CLIENT_ID, &confirmed.by_client_id).await?;
        end_as_pushed(&mut tx, now, &confirmed.written_only).await?;
        move_positions(&mut tx, confirmed.positions).await?;
        move_posts(&mut tx, confirmed.posts).await?;
        tx.commit().await.map_err(refused)
    }

    async fn claim(&self, now: Timestamp, ask: &ClaimRequest) -> Result<Vec<StoredEnvelope>> {
        let member_key = ask.member_key.as_ref();
        let session_key = ask.session_key.as_ref().filter(|key| Some(*key) != member_key);
        let mut tx = self.begin().await?;
        // Two mailboxes, each in the order of its index, merged: the end of a long
        // queue is not looked at.
        let rows = sqlx::query(
            "select q.id, q.seq, q.sender_member_id, m.peer_pubkey as sender_key,
                coalesce(q.sender_name, m.display_name) as sender_name, q.sender_session_pubkey,
                q.target_spec, q.priority, q.nonce, q.ciphertext, q.created_at,
                q.client_message_id, q.request_fingerprint, q.reply_to_id, q.subtype, q.late,
                q.thread_id, q.expects_reply, q.supersedes, q.receipt, q.hop, q.expires_at,
                q.claimed_at
             from (
                select id, seq, created_at from message_queue
                where mesh_id = ?1 and target_spec = ?2 and delivered_at is null
                   and (claim_id = ?4 or claim_expires_at is null or claim_expires_at <= ?5)
                   and (expires_at is null or expires_at > ?5)
                   and (not ?6 or priority = 'now')
                   and id not in (select value from json_each(?7))
                union all
                select id, seq, created_at from message_queue
                where mesh_id = ?1 and target_spec = ?3 and delivered_at is null
                   and (claim_id = ?4 or claim_expires_at is null or claim_expires_at <= ?5)
                   and (expires_at is null or expires_at > ?5)
                   and (not ?6 or priority = 'now')
                   and id not in (select value from json_each(?7))
                order by seq, created_at, id limit 0 + ?8
             ) mail
             cross join message_queue q on q.id = mail.id
             cross join member m on m.id = q.sender_member_id
             order by mail.seq, mail.created_at, mail.id",
        )
        .bind(ask.mesh.as_str())
        .bind(member_key.map(Key::as_str))
        .bind(session_key.map(Key::as_str))
        .bind(ask.presence.as_str())
        .bind(now.as_ms())
        .bind(ask.urgent_only)
        .bind(to_json(&ask.in_flight))
        .bind(ask.limit)
        .fetch_all(&mut *tx)
        .await
        .map_err(refused)?;
        let given: Vec<StoredEnvelope> =
            rows.iter().map(|row| StoredEnvelope::read(row, &ask.mesh)).collect::<Result<_>>()?;
        if !given.is_empty() {
            mark(&mut tx, now, ask, &given).await?;
        }
        tx.commit().await.map_err(refused)?;
        Ok(given)
    }

    async fn unclaim(&self, presence: &PresenceId, messages: &[MessageId]) -> Result<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let query = sqlx::query(
            "update message_queue set claimed_at = null, claim_id = null, claim_expires_at = null
             where id in (select value from json_each(?1)) and +claim_id = ?2
                and delivered_at is null",
        )
        .bind(to_json(messages))
        .bind(presence.as_str());
        self.write(query).await?;
        Ok(())
    }

    async fn multicasts_after(
        &self,
        mesh: &MeshId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<StoredEnvelope>> {
        let query = sqlx::query(
            "select q.id, q.seq, q.sender_member_id, m.peer_pubkey as sender_key,
                coalesce(q.sender_name, m.display_name) as sender_name, q.sender_session_pubkey,
                q.target_spec, q.priority, q.nonce, q.ciphertext, q.created_at,
                q.client_message_id, q.request_fingerprint, q.reply_to_id, q.subtype, q.late,
                q.thread_id, q.expects_reply, q.supersedes, q.receipt, q.hop, q.expires_at,
                q.claimed_at, q.signature
             from message_queue q
             cross join member m on m.id = q.sender_member_id
             where q.mesh_id = ?1 and q.multicast = 1 and q.seq > ?2 and q.ended is null
             order by q.seq limit 0 + ?3",
        )
        .bind(mesh.as_str())
        .bind(after)
        .bind(limit);
        self.records(query, |row| StoredEnvelope::read_multicast(row, mesh)).await
    }

    async fn sealed_keys(
        &self,
        member_key: &Key,
        messages: &[MessageId],
    ) -> Result<HashMap<MessageId, String>> {
        let query = sqlx::query(
            "select q.id, q.sealed_keys ->> ?2 as sealed_key
             from json_each(?1) asked cross join message_queue q on q.id = asked.value
             where q.sealed_keys ->> ?2 is not null",
        )
        .bind(to_json(messages))
        .bind(member_key.as_str());
        self.records(query, |row| Ok((row.id("id")?, row.text("sealed_key")?))).await
    }

    async fn sealed_for(&self, message: &MessageId) -> Result<Option<HashSet<Key>>> {
        let query = sqlx::query("select sealed_keys from message_queue where id = ?1")
            .bind(message.as_str());
        let found = self.record(query, |row| row.optional_text("sealed_keys")).await?;
        sealed_for(found.flatten())
    }

    /// Sequence numbers are the ids of audit rows.
    async fn newest_seq(&self, mesh: &MeshId) -> Result<i64> {
        let query = sqlx::query("select max(id) as seq from audit_log where mesh_id = ?1")
            .bind(mesh.as_str());
        let newest = self.record(query, |row| row.optional_int("seq")).await?;
        Ok(newest.flatten().unwrap_or(0))
    }

    async fn seq_before(&self, mesh: &MeshId, before: Timestamp) -> Result<i64> {
        let query = sqlx::query(
            "select id from audit_log where mesh_id = ?1 and created_at < ?2
             order by id desc limit 1",
        )
        .bind(mesh.as_str())
        .bind(before.as_ms());
        Ok(self.record(query, |row| row.int("id")).await?.unwrap_or(0))
    }

    async fn waiting(
        &self,
        now: Timestamp,
        mailboxes: &[(MeshId, Key)],
    ) -> Result<Vec<(MeshId, Key)>> {
        if mailboxes.is_empty() {
            return Ok(Vec::new());
        }
        let query = sqlx::query(
            "select box.key from json_each(?1) box
             where exists (
                select 1 from message_queue
                where mesh_id = box.value ->> 0 and target_spec = box.value ->> 1
                   and delivered_at is null
                   and (claim_expires_at is null or claim_expires_at <= ?2)
                   and (expires_at is null or expires_at > ?2)
             )
             order by box.key",
        )
        .bind(to_json(mailboxes))
        .bind(now.as_ms());
        let found: Vec<i64> = self.records(query, |row| row.int("key")).await?;
        let found = found.into_iter();
        Ok(found.filter_map(|at| mailboxes.get(usize::try_from(at).ok()?).cloned()).collect())
    }

    async fn claimed(
        &self,
        mailboxes: &[(MeshId, Key, PresenceId)],
    ) -> Result<HashSet<PresenceId>> {
        if mailboxes.is_empty() {
            return Ok(HashSet::new());
        }
        let query = sqlx::query(
            "select box.key from json_each(?1) box
             where exists (
                select 1 from message_queue
                where mesh_id = box.value ->> 0 and target_spec = box.value ->> 1
                   and delivered_at is null and +claim_id = box.value ->> 2
             )",
        )
        .bind(to_json(mailboxes));
        let found: Vec<i64> = self.records(query, |row| row.int("key")).await?;
        let at = |at: i64| Some(mailboxes.get(usize::try_from(at).ok()?)?.2.clone());
        Ok(found.into_iter().filter_map(at).collect())
    }

    async fn rewind(&self, mesh: &MeshId, newest: i64, seq: i64) -> Result<()> {
        let query = sqlx::query(
            "update topic_member set delivered_seq = ?3
             where delivered_seq > ?2 and topic_id in (select id from topic where mesh_id = ?1)",
        )
        .bind(mesh.as_str())
        .bind(newest)
        .bind(seq);
        self.write(query).await?;
        let query = sqlx::query(
            "update presence set multicast_position = ?3
             where disconnected_at is null and multicast_position > ?2
                and member_id in (select id from member where mesh_id = ?1)",
        )
        .bind(mesh.as_str())
        .bind(newest)
        .bind(seq);
        self.write(query).await?;
        Ok(())
    }
}

async fn mark(
    tx: &mut Tx,
    now: Timestamp,
    ask: &ClaimRequest,
    given: &[StoredEnvelope],
) -> Result<()> {
    let ids: Vec<&MessageId> = given.iter().map(|envelope| &envelope.id).collect();
    let query = sqlx::query(
        "update message_queue set claimed_at = ?2, claim_id = ?3, claim_expires_at = ?4
         where id in (select value from json_each(?1))",
    )
    .bind(to_json(&ids))
    .bind(now.as_ms())
    .bind(ask.presence.as_str())
    .bind(ask.until.as_ms());
    execute(tx, query).await?;
    Ok(())
}

async fn confirm_rows(
    tx: &mut Tx,
    now: Timestamp,
    statement: &'static str,
    done: &[Done<'_>],
) -> Result<()> {
    let bind = |mut query: rows::Statement, group: &[Done<'_>]| {
        for (mesh, id, member_key, session_key) in group {
            query = query
                .bind(mesh.shared())
                .bind(*id)
                .bind(member_key.shared())
                .bind(session_key.map(Key::shared));
        }
        query.bind(now.as_ms())
    };
    rows::execute(tx, statement, done, bind).await
}

/// Their clients never say that they have them.
async fn end_as_pushed(tx: &mut Tx, now: Timestamp, written: &[&str]) -> Result<()> {
    if written.is_empty() {
        return Ok(());
    }
    let query = sqlx::query(
        "update message_queue set ended = 'pushed'
         where id in (select value from json_each(?1)) and +delivered_at = ?2",
    )
    .bind(to_json(written))
    .bind(now.as_ms());
    execute(tx, query).await?;
    Ok(())
}

async fn move_positions(tx: &mut Tx, positions: BTreeMap<&PresenceId, i64>) -> Result<()> {
    if positions.is_empty() {
        return Ok(());
    }
    let positions: Vec<(&PresenceId, i64)> = positions.into_iter().collect();
    let query = sqlx::query(
        "update presence set multicast_position = moved.value ->> 1
         from json_each(?1) moved
         where presence.id = moved.value ->> 0
            and presence.multicast_position < moved.value ->> 1",
    )
    .bind(to_json(&positions));
    execute(tx, query).await?;
    Ok(())
}

async fn move_posts(tx: &mut Tx, posts: BTreeMap<&MemberId, i64>) -> Result<()> {
    if posts.is_empty() {
        return Ok(());
    }
    let posts: Vec<(&MemberId, i64)> = posts.into_iter().collect();
    let query = sqlx::query(
        "update topic_member set delivered_seq = moved.value ->> 1
         from json_each(?1) moved
         where topic_member.member_id = moved.value ->> 0
            and topic_member.delivered_seq < moved.value ->> 1",
    )
    .bind(to_json(&posts));
    execute(tx, query).await?;
    Ok(())
}
