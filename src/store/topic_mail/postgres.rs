//! Topics as delivery sees them, in Postgres. Where another program made the rows of
//! members, some may have no positions: they are read as 0, where their posts are too.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId, TopicId};
use crate::store::columns::Columns as _;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::chain::locks;
use crate::store::postgres::row::clean;
use crate::store::{AddressedTopic, Result, Roster, TopicMail, TopicPost};

#[async_trait]
impl TopicMail for PostgresStore {
    async fn addressed(
        &self,
        mesh: &MeshId,
        named: &str,
        member: &MemberId,
    ) -> Result<Option<AddressedTopic>> {
        let query = sqlx::query(
            "select t.id, t.name, t.visibility::text as visibility, t.roster, exists (
                select from mesh.topic_member tm
                where tm.topic_id = t.id and tm.member_id = $3) as is_member
             from (
                select id, 0 as rank from mesh.topic where id = $2 and mesh_id = $1
                union all
                select id, 1 as rank from mesh.topic where mesh_id = $1 and name = $2
             ) found
             join mesh.topic t on t.id = found.id
             where t.archived_at is null
             order by found.rank limit 1",
        )
        .bind(mesh.as_str())
        .bind(clean(named))
        .bind(member.as_str());
        self.pool.record(query, AddressedTopic::read).await
    }

    async fn roster(&self, mesh: &MeshId, topic: &TopicId) -> Result<Option<Roster>> {
        let query = sqlx::query(
            "select t.roster, tm.member_id, tm.joined_seq from mesh.topic t
             left join mesh.topic_member tm on tm.topic_id = t.id
             where t.id = $2 and t.mesh_id = $1",
        )
        .bind(mesh.as_str())
        .bind(topic.as_str());
        Roster::read(&self.pool.fetch_all(query).await?)
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
                p.sender_session_pubkey, '#' || p.topic_id as target_spec,
                coalesce(p.priority::text, 'next') as priority, p.nonce, p.ciphertext,
                p.created_at, null::text as client_message_id,
                null::text as request_fingerprint, p.reply_to_id, null::text as subtype,
                null::boolean as late, q.thread_id, q.expects_reply, q.supersedes, q.receipt,
                q.hop::bigint as hop, q.expires_at, q.claimed_at, t.name as topic_name,
                p.body_version::bigint as body_version
             from (
                select i.id, i.seq from (
                    select distinct topic_id, coalesce(joined_seq, 0) as joined_seq
                    from mesh.topic_member where member_id = $2
                ) tm
                join mesh.topic o on o.id = tm.topic_id and o.mesh_id = $1
                cross join lateral (
                    select l.id, l.seq from mesh.topic_message l
                    where l.topic_id = tm.topic_id and l.seq > 0
                        and l.seq > greatest($3, tm.joined_seq)
                    order by l.seq limit $4
                ) i
                order by i.seq limit $4
             ) place
             join mesh.topic_message p on p.id = place.id
             join mesh.topic t on t.id = p.topic_id
             join mesh.member m on m.id = p.sender_member_id
             left join mesh.message_queue q on q.id = p.id
             order by place.seq",
        )
        .bind(mesh.as_str())
        .bind(member.as_str())
        .bind(after)
        .bind(i64::from(limit));
        self.pool.records(query, |row| TopicPost::read(row, mesh)).await
    }

    async fn missed_since(&self, mesh: &MeshId, member: &MemberId) -> Result<Option<i64>> {
        let query = sqlx::query(
            "select min(tm.position) as seq from (
                select topic_id, greatest(coalesce(delivered_seq, 0), coalesce(joined_seq, 0))
                    as position
                from mesh.topic_member where member_id = $2
             ) tm
             join mesh.topic t on t.id = tm.topic_id and t.mesh_id = $1
             where exists (
                select from mesh.topic_message p
                where p.topic_id = tm.topic_id and p.seq > 0 and p.seq > tm.position
             )",
        )
        .bind(mesh.as_str())
        .bind(member.as_str());
        Ok(self.pool.record(query, |row| row.optional_int("seq")).await?.flatten())
    }

    async fn adopt(&self, now: Timestamp, mesh: &MeshId, limit: u32) -> Result<Option<i64>> {
        let query = sqlx::query("select mesh.broker_adopt_posts_v1($1, $2, $3, $4, $5) as seq")
            .bind(now.to_naive())
            .bind(now.to_string())
            .bind(locks([mesh.as_str()]))
            .bind(mesh.as_str())
            .bind(i32::try_from(limit).unwrap_or(i32::MAX));
        self.pool.fetch_one(query).await?.optional_int("seq")
    }

    async fn expire_posts(&self, before: Timestamp, limit: i64) -> Result<u64> {
        let query = sqlx::query(
            "delete from mesh.topic_message where id = any (array(
                select id from mesh.topic_message where created_at < $1
                order by created_at limit $2))",
        )
        .bind(before.to_naive())
        .bind(limit);
        self.pool.execute(query).await
    }
}
