//! Topics as programs see them that hold an API key, in Postgres.

use async_trait::async_trait;

use super::{CalledTopic, Claiming, Found, Sealing, SeenTopic, TopicCalls, Unsealed, read_post};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{self, MemberId, MeshId, MessageId, TopicId};
use crate::store::columns::Columns as _;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::change::Change;
use crate::store::postgres::row::clean;
use crate::store::{Author, HistoryPost, Result, TopicSeal};

#[async_trait]
impl TopicCalls for PostgresStore {
    async fn named<'a>(
        &self,
        mesh: &MeshId,
        name: &str,
        member: Option<&'a MemberId>,
    ) -> Result<Option<CalledTopic>> {
        let query = sqlx::query(
            "select t.id, t.name, t.visibility::text as visibility, t.encrypted_key_pubkey,
                exists (select from mesh.topic_member tm
                    where tm.topic_id = t.id and tm.member_id = $3) as is_member,
                k.encrypted_key, k.nonce, k.created_at as sealed_at
             from mesh.topic t
             left join mesh.topic_member_key k on k.topic_id = t.id and k.member_id = $3
             where t.mesh_id = $1 and t.name = $2 and t.archived_at is null",
        )
        .bind(mesh.as_str())
        .bind(clean(name))
        .bind(member.map(MemberId::as_str));
        self.pool.record(query, CalledTopic::read).await
    }

    async fn seen<'a>(
        &self,
        mesh: &MeshId,
        member: Option<&'a MemberId>,
        limit: i64,
        unread_max: i64,
    ) -> Result<Vec<SeenTopic>> {
        let query = sqlx::query(
            "select t.id, t.name, t.description, t.visibility::text as visibility, t.created_at,
                case when tm.member_id is null then 0 else (
                    select count(*) from (
                        select from mesh.topic_message p
                        where p.topic_id = t.id
                            and p.created_at > coalesce(tm.last_read_at, timestamp 'epoch')
                            and p.sender_member_id <> $2
                        limit $4
                    ) few
                ) end as unread
             from mesh.topic t
             left join mesh.topic_member tm on tm.topic_id = t.id and tm.member_id = $2
             where t.mesh_id = $1 and t.archived_at is null
                and (t.visibility = 'public' or tm.member_id is not null)
             order by t.name collate \"C\" limit $3",
        )
        .bind(mesh.as_str())
        .bind(member.map(MemberId::as_str))
        .bind(limit)
        .bind(unread_max);
        self.pool.records(query, SeenTopic::read).await
    }

    async fn is_post(&self, topic: &TopicId, post: &MessageId) -> Result<bool> {
        let query =
            sqlx::query("select id from mesh.topic_message where id = $2 and topic_id = $1")
                .bind(topic.as_str())
                .bind(clean(post.as_str()));
        Ok(self.pool.record(query, |row| row.text("id")).await?.is_some())
    }

    async fn posts_since(
        &self,
        topic: &TopicId,
        seq: i64,
        limit: i64,
    ) -> Result<Vec<(i64, HistoryPost)>> {
        let query = sqlx::query(
            "select p.seq, p.id, p.sender_member_id, m.display_name as sender_name, p.nonce,
                coalesce(p.sender_session_pubkey, m.peer_pubkey) as sender_key,
                p.ciphertext, p.body_version::bigint as body_version, p.reply_to_id, p.created_at
             from mesh.topic_message p join mesh.member m on m.id = p.sender_member_id
             where p.topic_id = $1 and p.seq > $2 and p.seq > 0
             order by p.seq limit $3",
        )
        .bind(topic.as_str())
        .bind(seq)
        .bind(limit);
        self.pool.records(query, read_post).await
    }

    async fn watched<'a>(
        &self,
        topic: &TopicId,
        key: &str,
        member: Option<&'a MemberId>,
    ) -> Result<Option<i64>> {
        let query = sqlx::query(
            "select coalesce((
                select max(p.seq) from mesh.topic_message p where p.topic_id = t.id and p.seq > 0
             ), 0) as seq
             from mesh.topic t join mesh.mesh on mesh.id = t.mesh_id
             where t.id = $1 and t.archived_at is null and mesh.archived_at is null
                and not exists (select from mesh.api_key k
                    where k.id = $2 and k.revoked_at is not null)
                and (($3::text is null and t.visibility = 'public') or exists (
                    select from mesh.topic_member tm
                    join mesh.member m on m.id = tm.member_id
                    where tm.topic_id = t.id and tm.member_id = $3 and m.revoked_at is null))",
        )
        .bind(topic.as_str())
        .bind(key)
        .bind(member.map(MemberId::as_str));
        self.pool.record(query, |row| row.int("seq")).await
    }

    async fn unsealed(&self, topic: &TopicId, limit: i64) -> Result<Vec<Unsealed>> {
        let query = sqlx::query(
            "select tm.member_id, m.peer_pubkey, m.display_name
             from mesh.topic_member tm join mesh.member m on m.id = tm.member_id
             where tm.topic_id = $1 and m.revoked_at is null
                and not exists (select from mesh.topic_member_key k
                    where k.topic_id = tm.topic_id and k.member_id = tm.member_id)
             order by m.display_name collate \"C\", tm.member_id limit $2",
        )
        .bind(topic.as_str())
        .bind(limit);
        self.pool.records(query, Unsealed::read).await
    }

    async fn seal(
        &self,
        now: Timestamp,
        author: &Author,
        topic: &TopicId,
        seal: &TopicSeal,
    ) -> Result<Sealing> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "select exists (select from mesh.topic_member_key k
                    where k.topic_id = tm.topic_id and k.member_id = tm.member_id) as has_copy,
                exists (select from mesh.topic_member_key k
                    where k.topic_id = tm.topic_id and k.member_id = $3) as author_has
             from mesh.topic_member tm join mesh.member m on m.id = tm.member_id
             where tm.topic_id = $1 and tm.member_id = $2 and m.revoked_at is null",
        )
        .bind(topic.as_str())
        .bind(seal.member.as_str())
        .bind(author.member.as_str());
        let found = change.record(query, Found::read).await?;
        if let Some(refused) = Found::refuses(found.as_ref(), seal.member == author.member) {
            change.give_up().await?;
            return Ok(refused);
        }
        put(&mut change, now, topic, seal).await?;
        let (topic, member) = (topic.clone(), seal.member.clone());
        change.append(author, &AuditEvent::TopicKeySealed { topic, member }).await?;
        change.commit().await?;
        Ok(Sealing::Sealed)
    }

    async fn claim(
        &self,
        now: Timestamp,
        author: &Author,
        topic: &TopicId,
        key_pubkey: &str,
        seal: &TopicSeal,
    ) -> Result<Claiming> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "update mesh.topic set encrypted_key_pubkey = $2, key_made_by = 'client'
             where id = $1 and encrypted_key_pubkey is null",
        )
        .bind(topic.as_str())
        .bind(key_pubkey);
        if change.execute(query).await? == 0 {
            let query = sqlx::query("select encrypted_key_pubkey from mesh.topic where id = $1")
                .bind(topic.as_str());
            let known = change.record(query, |row| row.optional_text("encrypted_key_pubkey"));
            let known = known.await?.flatten().unwrap_or_default();
            change.give_up().await?;
            return Ok(Claiming::Already(known));
        }
        put(&mut change, now, topic, seal).await?;
        let topic = topic.clone();
        change.append(author, &AuditEvent::TopicKeyClaimed { topic }).await?;
        change.commit().await?;
        Ok(Claiming::Claimed)
    }
}

async fn put(change: &mut Change, now: Timestamp, topic: &TopicId, seal: &TopicSeal) -> Result<()> {
    let query = sqlx::query(
        "insert into mesh.topic_member_key (id, topic_id, member_id, encrypted_key, nonce, created_at)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (topic_id, member_id) do update set encrypted_key = excluded.encrypted_key,
            nonce = excluded.nonce, rotated_at = excluded.created_at",
    )
    .bind(id::random())
    .bind(topic.as_str())
    .bind(seal.member.as_str())
    .bind(clean(&seal.encrypted_key))
    .bind(clean(&seal.nonce))
    .bind(now.to_naive());
    change.execute(query).await?;
    Ok(())
}
