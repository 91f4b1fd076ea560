//! From the queue to a recipient: claiming, confirming, catching up.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use async_trait::async_trait;

use super::{Confirmed, Done, sealed_for};
use crate::clock::Timestamp;
use crate::id::{Key, MeshId, MessageId, PresenceId};
use crate::store::columns::Columns as _;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::row::clean;
use crate::store::{ClaimRequest, Confirm, Mail, Result, StoredEnvelope};

/// Direct envelopes to confirm, an array per column.
#[derive(Default)]
struct DoneColumns<'a> {
    id: Vec<Cow<'a, str>>,
    mesh: Vec<&'a str>,
    member_key: Vec<&'a str>,
    session_key: Vec<Option<&'a str>>,
}

impl<'a> FromIterator<Done<'a>> for DoneColumns<'a> {
    fn from_iter<I: IntoIterator<Item = Done<'a>>>(done: I) -> Self {
        let mut columns = Self::default();
        for (mesh, id, member, session) in done {
            columns.id.push(clean(id));
            columns.mesh.push(mesh.as_str());
            columns.member_key.push(member.as_str());
            columns.session_key.push(session.map(Key::as_str));
        }
        columns
    }
}

#[async_trait]
impl Mail for PostgresStore {
    async fn confirm(&self, now: Timestamp, batch: &[Confirm]) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let Confirmed { by_id, by_client_id, written_only, positions, posts } =
            batch.iter().collect();
        let [by_id, by_client_id]: [DoneColumns<'_>; 2] =
            [by_id, by_client_id].map(|done| done.into_iter().collect());
        let (presences, positions): (Vec<&str>, Vec<i64>) =
            positions.into_iter().map(|(presence, at)| (presence.as_str(), at)).unzip();
        let query = sqlx::query(
            "select mesh.broker_confirm_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(now.to_naive())
        .bind(by_id.id)
        .bind(by_id.mesh)
        .bind(by_id.member_key)
        .bind(by_id.session_key)
        .bind(by_client_id.id)
        .bind(by_client_id.mesh)
        .bind(by_client_id.member_key)
        .bind(by_client_id.session_key)
        .bind(presences)
        .bind(positions);
        self.pool.execute(query).await?;
        if !written_only.is_empty() {
            // Their clients never say that they have them.
            let query = sqlx::query(
                "update mesh.message_queue set ended = 'pushed'
                 where id = any ($1) and delivered_at = $2",
            )
            .bind(written_only)
            .bind(now.to_naive());
            self.pool.execute(query).await?;
        }
        if posts.is_empty() {
            return Ok(());
        }
        // By themselves: one that is lost brings posts again, as one on its way does.
        let (members, positions): (Vec<&str>, Vec<i64>) =
            posts.into_iter().map(|(member, at)| (member.as_str(), at)).unzip();
        let query = sqlx::query(
            "update mesh.topic_member tm set delivered_seq = moved.position
             from unnest($1::text[], $2::bigint[]) as moved (member, position)
             where tm.member_id = moved.member
                and coalesce(tm.delivered_seq, 0) < moved.position",
        )
        .bind(members)
        .bind(positions);
        self.pool.execute(query).await?;
        Ok(())
    }

    async fn claim(&self, now: Timestamp, ask: &ClaimRequest) -> Result<Vec<StoredEnvelope>> {
        let member_key = ask.member_key.as_ref();
        let session_key = ask.session_key.as_ref().filter(|key| Some(*key) != member_key);
        let in_flight: Vec<&str> = ask.in_flight.iter().map(MessageId::as_str).collect();
        // Two mailboxes, each in the order of its index, merged: the end of a long
        // queue is not looked at. A row that somebody else is taking is skipped.
        let query = sqlx::query(
            "with mail as materialized (
                select found.id, found.claimed_at from (values ($2::text), ($3)) as box (target)
                cross join lateral (
                    select q.id, q.seq, q.created_at, q.claimed_at from mesh.message_queue q
                    where hashtextextended(q.target_spec, 0)
                            = hashtextextended(box.target, 0)
                        and q.mesh_id = $1 and q.target_spec = box.target
                        and q.delivered_at is null
                        and (q.claim_id = $4 or q.claim_expires_at is null
                            or q.claim_expires_at <= $5)
                        and (q.expires_at is null or q.expires_at > $5)
                        and (not $6 or q.priority = 'now') and q.id <> all ($7)
                    order by q.seq nulls first, q.created_at, q.id limit $8
                    for update skip locked
                ) found
                order by found.seq nulls first, found.created_at, found.id limit $8
             ),
             taken as (
                update mesh.message_queue q
                set claimed_at = $5, claim_id = $4, claim_expires_at = $9
                from mail where q.id = mail.id
                returning q.id, q.seq, q.sender_member_id, q.sender_name,
                    q.sender_session_pubkey, q.target_spec, q.priority, q.nonce,
                    q.ciphertext, q.created_at, q.client_message_id,
                    q.request_fingerprint, q.reply_to_id, q.subtype, q.late, q.thread_id,
                    q.expects_reply, q.supersedes, q.receipt, q.hop, q.expires_at,
                    mail.claimed_at
             )
             select t.id, t.seq, t.sender_member_id, m.peer_pubkey as sender_key,
                coalesce(t.sender_name, m.display_name) as sender_name,
                t.sender_session_pubkey, t.target_spec, t.priority::text as priority,
                t.nonce, t.ciphertext, t.created_at, t.client_message_id,
                t.request_fingerprint, t.reply_to_id, t.subtype, t.late, t.thread_id,
                t.expects_reply, t.supersedes, t.receipt, t.hop::bigint as hop, t.expires_at,
                t.claimed_at
             from taken t join mesh.member m on m.id = t.sender_member_id
             order by t.seq nulls first, t.created_at, t.id",
        )
        .bind(ask.mesh.as_str())
        .bind(member_key.map(Key::as_str))
        .bind(session_key.map(Key::as_str))
        .bind(ask.presence.as_str())
        .bind(now.to_naive())
        .bind(ask.urgent_only)
        .bind(in_flight)
        .bind(i64::from(ask.limit))
        .bind(ask.until.to_naive());
        self.pool.records(query, |row| StoredEnvelope::read(row, &ask.mesh)).await
    }

    async fn unclaim(&self, presence: &PresenceId, messages: &[MessageId]) -> Result<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let messages: Vec<&str> = messages.iter().map(MessageId::as_str).collect();
        let query = sqlx::query(
            "update mesh.message_queue
             set claimed_at = null, claim_id = null, claim_expires_at = null
             where id = any ($1) and claim_id = $2 and delivered_at is null",
        )
        .bind(messages)
        .bind(presence.as_str());
        self.pool.execute(query).await?;
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
                coalesce(q.sender_name, m.display_name) as sender_name,
                q.sender_session_pubkey, q.target_spec, q.priority::text as priority,
                q.nonce, q.ciphertext, q.created_at, q.client_message_id,
                q.request_fingerprint, q.reply_to_id, q.subtype, q.late, q.thread_id,
                q.expects_reply, q.supersedes, q.receipt, q.hop::bigint as hop, q.expires_at,
                q.claimed_at, q.signature
             from mesh.message_queue q join mesh.member m on m.id = q.sender_member_id
             where q.mesh_id = $1 and q.multicast and q.seq > $2 and q.ended is null
             order by q.seq limit $3",
        )
        .bind(mesh.as_str())
        .bind(after)
        .bind(i64::from(limit));
        self.pool.records(query, |row| StoredEnvelope::read_multicast(row, mesh)).await
    }

    async fn sealed_keys(
        &self,
        member_key: &Key,
        messages: &[MessageId],
    ) -> Result<HashMap<MessageId, String>> {
        let ids: Vec<&str> = messages.iter().map(MessageId::as_str).collect();
        let query = sqlx::query(
            "select q.id, q.sealed_keys ->> $2 as sealed_key
             from unnest($1::text[]) as asked (id) join mesh.message_queue q on q.id = asked.id
             where q.sealed_keys ->> $2 is not null",
        )
        .bind(ids)
        .bind(member_key.as_str());
        self.pool.records(query, |row| Ok((row.id("id")?, row.text("sealed_key")?))).await
    }

    async fn sealed_for(&self, message: &MessageId) -> Result<Option<HashSet<Key>>> {
        let query = sqlx::query(
            "select q.sealed_keys::text as sealed_keys from mesh.message_queue q where q.id = $1",
        )
        .bind(clean(message.as_str()));
        let found = self.pool.record(query, |row| row.optional_text("sealed_keys")).await?;
        sealed_for(found.flatten())
    }

    /// Sequence numbers are the ids of audit rows, which a mesh gives away in the order of
    /// its commits.
    async fn newest_seq(&self, mesh: &MeshId) -> Result<i64> {
        let query = sqlx::query(
            "select coalesce(max(id), 0)::bigint as seq from mesh.audit_log
             where mesh_id = $1",
        )
        .bind(mesh.as_str());
        let row = self.pool.fetch_one(query).await?;
        row.int("seq")
    }

    async fn seq_before(&self, mesh: &MeshId, before: Timestamp) -> Result<i64> {
        let query = sqlx::query(
            "select id::bigint as seq from mesh.audit_log
             where mesh_id = $1 and created_at < $2 order by id desc limit 1",
        )
        .bind(mesh.as_str())
        .bind(before.to_naive());
        let row = self.pool.fetch_optional(query).await?;
        row.map_or(Ok(0), |row| row.int("seq"))
    }

    async fn waiting(
        &self,
        now: Timestamp,
        mailboxes: &[(MeshId, Key)],
    ) -> Result<Vec<(MeshId, Key)>> {
        if mailboxes.is_empty() {
            return Ok(Vec::new());
        }
        let meshes: Vec<&str> = mailboxes.iter().map(|(mesh, _)| mesh.as_str()).collect();
        let keys: Vec<&str> = mailboxes.iter().map(|(_, key)| key.as_str()).collect();
        // `limit 1` keeps it a look into each mailbox.
        let query = sqlx::query(
            "select box.at from unnest($1::text[], $2::text[])
                with ordinality as box (mesh, target, at)
             cross join lateral (
                select 1 from mesh.message_queue q
                where hashtextextended(q.target_spec, 0) = hashtextextended(box.target, 0)
                   and q.mesh_id = box.mesh and q.target_spec = box.target
                   and q.delivered_at is null
                   and (q.claim_expires_at is null or q.claim_expires_at <= $3)
                   and (q.expires_at is null or q.expires_at > $3)
                limit 1
             ) as found
             order by box.at",
        )
        .bind(meshes)
        .bind(keys)
        .bind(now.to_naive());
        let rows = self.pool.fetch_all(query).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let at: i64 = row.int("at")?;
            let at = usize::try_from(at - 1).ok();
            found.extend(at.and_then(|at| mailboxes.get(at)).cloned());
        }
        Ok(found)
    }

    async fn claimed(
        &self,
        mailboxes: &[(MeshId, Key, PresenceId)],
    ) -> Result<HashSet<PresenceId>> {
        if mailboxes.is_empty() {
            return Ok(HashSet::new());
        }
        let meshes: Vec<&str> = mailboxes.iter().map(|(mesh, _, _)| mesh.as_str()).collect();
        let keys: Vec<&str> = mailboxes.iter().map(|(_, key, _)| key.as_str()).collect();
        let presences: Vec<&str> = mailboxes.iter().map(|(_, _, id)| id.as_str()).collect();
        let query = sqlx::query(
            "select distinct box.presence from unnest($1::text[], $2::text[], $3::text[])
                as box (mesh, target, presence)
             cross join lateral (
                select 1 from mesh.message_queue q
                where hashtextextended(q.target_spec, 0) = hashtextextended(box.target, 0)
                   and q.mesh_id = box.mesh and q.target_spec = box.target
                   and q.delivered_at is null and q.claim_id = box.presence
                limit 1
             ) as found",
        )
        .bind(meshes)
        .bind(keys)
        .bind(presences);
        self.pool.records(query, |row| row.id("presence")).await
    }

    async fn rewind(&self, mesh: &MeshId, newest: i64, seq: i64) -> Result<()> {
        let query = sqlx::query(
            "update mesh.topic_member tm set delivered_seq = $3
             from mesh.topic t
             where t.id = tm.topic_id and t.mesh_id = $1 and tm.delivered_seq > $2",
        )
        .bind(mesh.as_str())
        .bind(newest)
        .bind(seq);
        self.pool.execute(query).await?;
        let query = sqlx::query(
            "update mesh.presence p set multicast_position = $3
             from mesh.member m
             where m.id = p.member_id and m.mesh_id = $1 and p.disconnected_at is null
                and p.multicast_position > $2",
        )
        .bind(mesh.as_str())
        .bind(newest)
        .bind(seq);
        self.pool.execute(query).await?;
        Ok(())
    }
}
