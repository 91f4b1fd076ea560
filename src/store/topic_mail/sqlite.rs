//! Topics as delivery sees them, in a file.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId, TopicId};
use crate::store::columns::Columns as _;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::error::refused;
use crate::store::{AddressedTopic, Result, Roster, TopicMail, TopicPost};

#[async_trait]
impl TopicMail for SqliteStore {
    async fn addressed(
        &self,
        mesh: &MeshId,
        named: &str,
        member: &MemberId,
    ) -> Result<Option<AddressedTopic>> {
        let query = sqlx::query(
            "select t.id, t.name, t.visibility, t.roster, exists (
                select 1 from topic_member tm
                where tm.topic_id = t.id and tm.member_id = ?3) as is_member
             from (
                select id, 0 as rank from topic where id = ?2 and mesh_id = ?1
                union all
                select id, 1 as rank from topic where mesh_id = ?1 and name = ?2
             ) found
             cross join topic t on t.id = found.id
             where t.archived_at is null
             order by found.rank limit 1",
        )
        .bind(mesh.as_str())
        .bind(named)
        .bind(member.as_str());
        self.record(query, AddressedTopic::read).await
    }

    async fn roster(&self, mesh: &MeshId, topic: &TopicId) -> Result<Option<Roster>> {
        let query = sqlx::query(
            "select t.roster, tm.member_id, tm.joined_seq from topic t
             left join topic_member tm on tm.topic_id = t.id
             where t.id = ?2 and t.mesh_id = ?1",
        )
        .bind(mesh.as_str())
        .bind(topic.as_str());
        let rows = query.fetch_all(self.reader()).await.map_err(refused)?;
        Roster::read(&rows)
    }

    async fn posts_after(
        &self,
        mesh: &MeshId,
        member: &MemberId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<TopicPost>> {
        // The places first, as many of each topic as may be wanted of all: the end of a
        // long history is not looked at, and bodies are read of few.
        let query = sqlx::query(
            "select p.id, p.seq, p.sender_member_id, m.peer_pubkey as sender_key,
                coalesce(p.sender_name, m.display_name) as sender_name,
                p.sender_session_pubkey, '#' || p.topic_id as target_spec, p.priority, p.nonce,
                p.ciphertext, p.created_at, null as client_message_id,
                null as request_fingerprint, p.reply_to_id, null as subtype, null as late,
                q.thread_id, q.expects_reply, q.supersedes, q.receipt, q.hop, q.expires_at,
                q.claimed_at, t.name as topic_name, p.body_version
             from (
                select i.id, i.seq from topic_member tm
                cross join topic o on o.id = tm.topic_id and o.mesh_id = ?1
                cross join topic_message i on i.id in (
                    select l.id from topic_message l
                    where l.topic_id = tm.topic_id and l.seq > max(?3, tm.joined_seq)
                    order by l.seq limit 0 + ?4
                )
                where tm.member_id = ?2
                order by i.seq limit 0 + ?4
             ) place
             cross join topic_message p on p.id = place.id
             cross join topic t on t.id = p.topic_id
             cross join member m on m.id = p.sender_member_id
             left join message_queue q on q.id = p.id
             order by place.seq",
        )
        .bind(mesh.as_str())
        .bind(member.as_str())
        .bind(after)
        .bind(limit);
        self.records(query, |row| TopicPost::read(row, mesh)).await
    }

    async fn missed_since(&self, mesh: &MeshId, member: &MemberId) -> Result<Option<i64>> {
        let query = sqlx::query(
            "select min(max(tm.delivered_seq, tm.joined_seq)) as seq from topic_member tm
             cross join topic t on t.id = tm.topic_id and t.mesh_id = ?1
             where tm.member_id = ?2 and exists (
                select 1 from topic_message p
                where p.topic_id = tm.topic_id
                    and p.seq > max(tm.delivered_seq, tm.joined_seq)
             )",
        )
        .bind(mesh.as_str())
        .bind(member.as_str());
        Ok(self.record(query, |row| row.optional_int("seq")).await?.flatten())
    }

    /// Nothing but this program writes to the file.
    async fn adopt(&self, _: Timestamp, _: &MeshId, _: u32) -> Result<Option<i64>> {
        Ok(None)
    }

    async fn expire_posts(&self, before: Timestamp, limit: i64) -> Result<u64> {
        let query = sqlx::query(
            "delete from topic_message where id in (
                select id from topic_message where created_at < ?1
                order by created_at limit 0 + ?2)",
        )
        .bind(before.as_ms())
        .bind(limit);
        self.write(query).await
    }
}
