//! What members see of topics all at once, in a file.

use async_trait::async_trait;

use super::{AskedMentions, AskedPosts, MembersPost, MembersTopic, Mention, TopicReads};
use crate::clock::Timestamp;
use crate::id::MemberId;
use crate::store::Result;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::row::to_json;

#[async_trait]
impl TopicReads for SqliteStore {
    async fn mentions(&self, members: &[MemberId], ask: &AskedMentions) -> Result<Vec<Mention>> {
        let query = sqlx::query(
            "select n.id as notification_id, n.kind, n.read_at, p.id, p.topic_id,
                t.name as topic_name, t.mesh_id, p.sender_member_id,
                coalesce(p.sender_session_pubkey, m.peer_pubkey) as sender_key,
                m.display_name as sender_name, p.ciphertext, p.body_version, p.created_at
             from notification n
             cross join topic t on t.id = n.topic_id
             cross join topic_message p on p.id = n.message_id
             cross join member m on m.id = p.sender_member_id
             where n.recipient_member_id in (select value from json_each(?1)) and n.created_at > ?2
                and (not ?3 or n.read_at is null)
                and (?4 or t.archived_at is null)
                and (t.visibility = 'public' or exists (select 1 from topic_member tm
                    where tm.topic_id = t.id and tm.member_id = n.recipient_member_id))
             order by n.created_at desc, p.seq desc, n.id limit 0 + ?5",
        )
        .bind(to_json(members))
        .bind(ask.since.as_ms())
        .bind(ask.unread_only)
        .bind(ask.archived_too)
        .bind(ask.limit);
        self.records(query, Mention::read).await
    }

    async fn mark_mentions(&self, now: Timestamp, member: &MemberId, ids: &[String]) -> Result<()> {
        let query = sqlx::query(
            "update notification set read_at = ?1
             where id in (select value from json_each(?3)) and recipient_member_id = ?2 and read_at is null",
        )
        .bind(now.as_ms())
        .bind(member.as_str())
        .bind(to_json(ids));
        self.write(query).await?;
        Ok(())
    }

    async fn mark_mentions_until(
        &self,
        now: Timestamp,
        member: &MemberId,
        until: Timestamp,
    ) -> Result<()> {
        let query = sqlx::query(
            "update notification set read_at = ?1
             where recipient_member_id = ?2 and created_at <= ?3 and read_at is null",
        )
        .bind(now.as_ms())
        .bind(member.as_str())
        .bind(until.as_ms());
        self.write(query).await?;
        Ok(())
    }

    async fn topics(
        &self,
        members: &[MemberId],
        limit: i64,
        unread_max: i64,
    ) -> Result<Vec<MembersTopic>> {
        let query = sqlx::query(
            "select t.id, t.name, t.description, t.visibility, t.created_at, t.mesh_id,
                me.id as member_id, (
                    select max(p.created_at) from topic_message p where p.topic_id = t.id
                ) as last_post_at,
                case when tm.member_id is null then 0 else (
                    select count(*) from (
                        select 1 from topic_message p
                        where p.topic_id = t.id
                            and p.created_at > coalesce(tm.last_read_at, 0)
                            and p.sender_member_id not in (select value from json_each(?1))
                        limit 0 + ?3
                    ) few
                ) end as unread
             from member me
             cross join topic t on t.mesh_id = me.mesh_id
             left join topic_member tm on tm.topic_id = t.id and tm.member_id = me.id
             where me.id in (select value from json_each(?1)) and t.archived_at is null
                and (t.visibility = 'public' or tm.member_id is not null)
             order by t.name, t.id limit 0 + ?2",
        )
        .bind(to_json(members))
        .bind(limit)
        .bind(unread_max);
        self.records(query, MembersTopic::read).await
    }

    async fn posts(&self, members: &[MemberId], ask: &AskedPosts) -> Result<Vec<MembersPost>> {
        // The newest of each topic first, as many as may be wanted of all: what is older is
        // not looked at.
        let query = sqlx::query(
            "select p.id, p.topic_id, t.name as topic_name, t.mesh_id, p.sender_member_id,
                m.display_name as sender_name, p.body_version, p.created_at,
                case when ?4 is null then p.ciphertext
                    when p.body_version = 1 then substr(p.ciphertext, 1, ?4)
                    else '' end as ciphertext
             from (
                select i.id from topic_member tm
                cross join topic o on o.id = tm.topic_id and o.archived_at is null
                cross join topic_message i on i.id in (
                    select l.id from topic_message l
                    where l.topic_id = tm.topic_id and l.created_at > ?2
                        and (?3 or l.sender_member_id not in (select value from json_each(?1)))
                    order by l.created_at desc, l.seq desc limit 0 + ?5
                )
                where tm.member_id in (select value from json_each(?1))
                order by i.created_at desc, i.seq desc limit 0 + ?5
             ) place
             cross join topic_message p on p.id = place.id
             cross join topic t on t.id = p.topic_id
             cross join member m on m.id = p.sender_member_id
             order by p.created_at desc, p.seq desc",
        )
        .bind(to_json(members))
        .bind(ask.since.as_ms())
        .bind(ask.own_too)
        .bind(ask.plain_chars)
        .bind(ask.limit);
        self.records(query, MembersPost::read).await
    }
}
