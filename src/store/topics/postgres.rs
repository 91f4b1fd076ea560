//! Topics as their members see them, in Postgres.

use async_trait::async_trait;

use super::Found;
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{self, MemberId, MeshId, MessageId, TopicId};
use crate::protocol::{TopicRole, Visibility};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::change::Change;
use crate::store::postgres::row::{clean, clean_optional};
use crate::store::{
    Author, CreatedTopic, HistoryPost, Joining, Kind, NewTopic, Result, StoreError, TopicMember,
    TopicState, TopicSummary, Topics,
};

#[async_trait]
impl Topics for PostgresStore {
    async fn find(
        &self,
        mesh: &MeshId,
        named: &str,
        member: &MemberId,
    ) -> Result<Option<TopicState>> {
        let query = sqlx::query(
            "select t.id, t.name, t.visibility::text as visibility, (
                select tm.role::text from mesh.topic_member tm
                where tm.topic_id = t.id and tm.member_id = $3) as role
             from (
                select id, 0 as rank from mesh.topic where id = $2 and mesh_id = $1
                union all
                select id, 1 as rank from mesh.topic
                where mesh_id = $1 and name = $2 and archived_at is null
             ) found
             join mesh.topic t on t.id = found.id
             order by found.rank limit 1",
        )
        .bind(mesh.as_str())
        .bind(clean(named))
        .bind(member.as_str());
        self.pool.record(query, TopicState::read).await
    }

    async fn create(
        &self,
        now: Timestamp,
        author: &Author,
        new: &NewTopic,
    ) -> Result<CreatedTopic> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "select t.id, t.visibility::text as visibility, t.key_made_by,
                exists (select from mesh.topic_member tm
                    where tm.topic_id = t.id and tm.member_id = $3) as is_member,
                exists (select from mesh.topic_invite ti
                    where ti.topic_id = t.id and ti.member_id = $3) as is_invited
             from mesh.topic t where t.mesh_id = $1 and t.name = $2",
        )
        .bind(author.mesh.as_str())
        .bind(clean(&new.name))
        .bind(author.member.as_str());
        if let Some(found) = change.record(query, Found::read).await? {
            let joining = found.joining();
            if joining == Joining::Joined {
                let role = match found.visibility {
                    Visibility::Public => TopicRole::Lead,
                    _ => TopicRole::Member,
                };
                enter(&mut change, now, author, &found.id, role).await?;
                change.commit().await?;
            } else {
                change.give_up().await?;
            }
            let Found { id, visibility, key_maker, .. } = found;
            return Ok(CreatedTopic { id, visibility, is_new: false, key_maker, joining });
        }
        let query = sqlx::query(
            "insert into mesh.topic (id, mesh_id, name, description, visibility,
                created_by_member_id, encrypted_key_pubkey, key_made_by, created_at)
             values ($1, $2, $3, $4, $5::mesh.topic_visibility, $6, $7, $8, $9)",
        )
        .bind(new.id.as_str())
        .bind(author.mesh.as_str())
        .bind(clean(&new.name))
        .bind(clean_optional(new.description.as_deref()))
        .bind(new.visibility.as_str())
        .bind(author.member.as_str())
        .bind(&new.key_pubkey)
        .bind(new.key_maker.as_str())
        .bind(now.to_naive());
        change.execute(query).await?;
        let name = (new.visibility == Visibility::Public).then(|| new.name.clone());
        let event = AuditEvent::TopicCreated { topic: new.id.clone(), name };
        let seq = change.append(author, &event).await?;
        insert_member(&mut change, now, author, &new.id, TopicRole::Lead, seq).await?;
        insert_seals(&mut change, now, new).await?;
        change.within(&author.mesh, Kind::Topics).await?.commit().await?;
        Ok(CreatedTopic {
            id: new.id.clone(),
            visibility: new.visibility,
            is_new: true,
            key_maker: Some(new.key_maker),
            joining: Joining::Joined,
        })
    }

    async fn list<'a>(
        &self,
        mesh: &MeshId,
        member: &MemberId,
        after: Option<&'a str>,
        limit: i64,
    ) -> Result<Vec<TopicSummary>> {
        let query = sqlx::query(
            "select t.id, t.name, t.description, t.visibility::text as visibility, t.created_at,
                (select count(*) from mesh.topic_member tm where tm.topic_id = t.id) as members
             from mesh.topic t
             where t.mesh_id = $1 and t.name collate \"C\" > $3 and t.archived_at is null
                and (t.visibility = 'public' or exists (
                    select from mesh.topic_member tm
                    where tm.topic_id = t.id and tm.member_id = $2))
             order by t.name collate \"C\" limit $4",
        )
        .bind(mesh.as_str())
        .bind(member.as_str())
        .bind(clean(after.unwrap_or_default()))
        .bind(limit);
        self.pool.records(query, TopicSummary::read).await
    }

    async fn join(
        &self,
        now: Timestamp,
        author: &Author,
        topic: &TopicId,
        role: TopicRole,
    ) -> Result<Joining> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "select t.id, t.visibility::text as visibility, t.key_made_by,
                exists (select from mesh.topic_member tm
                    where tm.topic_id = t.id and tm.member_id = $3) as is_member,
                exists (select from mesh.topic_invite ti
                    where ti.topic_id = t.id and ti.member_id = $3) as is_invited
             from mesh.topic t where t.id = $2 and t.mesh_id = $1",
        )
        .bind(author.mesh.as_str())
        .bind(topic.as_str())
        .bind(author.member.as_str());
        let found = change.record(query, Found::read).await?.ok_or_else(no_topic)?;
        let joining = found.joining();
        if joining == Joining::Joined {
            enter(&mut change, now, author, topic, role).await?;
            change.commit().await?;
        } else {
            change.give_up().await?;
        }
        Ok(joining)
    }

    async fn leave(&self, now: Timestamp, author: &Author, topic: &TopicId) -> Result<bool> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query =
            sqlx::query("delete from mesh.topic_member where topic_id = $1 and member_id = $2")
                .bind(topic.as_str())
                .bind(author.member.as_str());
        let was_in_it = change.execute(query).await? > 0;
        if was_in_it {
            change.append(author, &AuditEvent::TopicLeft { topic: topic.clone() }).await?;
            change.commit().await?;
        } else {
            change.give_up().await?;
        }
        Ok(was_in_it)
    }

    async fn invite(
        &self,
        now: Timestamp,
        author: &Author,
        topic: &TopicId,
        member: &MemberId,
    ) -> Result<()> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "insert into mesh.topic_invite (topic_id, member_id, invited_by_member_id, created_at)
             values ($1, $2, $3, $4) on conflict do nothing",
        )
        .bind(topic.as_str())
        .bind(member.as_str())
        .bind(author.member.as_str())
        .bind(now.to_naive());
        if change.execute(query).await? > 0 {
            let (topic, member) = (topic.clone(), member.clone());
            change.append(author, &AuditEvent::TopicInvited { topic, member }).await?;
            change.commit().await?;
        } else {
            change.give_up().await?;
        }
        Ok(())
    }

    async fn mark_read(&self, now: Timestamp, topic: &TopicId, member: &MemberId) -> Result<()> {
        let query = sqlx::query(
            "update mesh.topic_member set last_read_at = $3 where topic_id = $1 and member_id = $2",
        )
        .bind(topic.as_str())
        .bind(member.as_str())
        .bind(now.to_naive());
        self.pool.execute(query).await?;
        Ok(())
    }

    async fn members<'a>(
        &self,
        topic: &TopicId,
        after: Option<&'a (String, MemberId)>,
        limit: i64,
    ) -> Result<Vec<TopicMember>> {
        let (name, id) = after.map_or(("", ""), |(name, id)| (name.as_str(), id.as_str()));
        let query = sqlx::query(
            "select tm.member_id, m.peer_pubkey, m.display_name, tm.role::text as role, tm.joined_at,
                tm.last_read_at
             from mesh.topic_member tm join mesh.member m on m.id = tm.member_id
             where tm.topic_id = $1 and (m.display_name collate \"C\", tm.member_id collate \"C\") > ($2, $3)
             order by m.display_name collate \"C\", tm.member_id collate \"C\" limit $4",
        )
        .bind(topic.as_str())
        .bind(name)
        .bind(id)
        .bind(limit);
        self.pool.records(query, TopicMember::read).await
    }

    async fn history<'a>(
        &self,
        topic: &TopicId,
        before: Option<&'a MessageId>,
        limit: i64,
    ) -> Result<Vec<HistoryPost>> {
        // What has no place yet comes last; what was there before there were places, first.
        let Some(before) = before else {
            let query = sqlx::query(
                "select p.id, p.sender_member_id, m.display_name as sender_name, p.nonce,
                    coalesce(p.sender_session_pubkey, m.peer_pubkey) as sender_key,
                    p.ciphertext, p.body_version::bigint as body_version, p.reply_to_id, p.created_at
                 from mesh.topic_message p join mesh.member m on m.id = p.sender_member_id
                 where p.topic_id = $1
                 order by coalesce(p.seq, 9223372036854775807) desc, p.created_at desc, p.id desc
                 limit $2",
            )
            .bind(topic.as_str())
            .bind(limit);
            return self.pool.records(query, HistoryPost::read).await;
        };
        // The place is looked up by itself: joined, every later post would be read.
        let query = sqlx::query(
            "select p.id, p.sender_member_id, m.display_name as sender_name, p.nonce,
                coalesce(p.sender_session_pubkey, m.peer_pubkey) as sender_key,
                p.ciphertext, p.body_version::bigint as body_version, p.reply_to_id, p.created_at
             from mesh.topic_message p
             join mesh.member m on m.id = p.sender_member_id
             where p.topic_id = $1
                and (coalesce(p.seq, 9223372036854775807), p.created_at, p.id) < (
                    select coalesce(b.seq, 9223372036854775807), b.created_at, b.id
                    from mesh.topic_message b
                    where b.id = $2 and b.topic_id = $1)
             order by coalesce(p.seq, 9223372036854775807) desc, p.created_at desc, p.id desc
             limit $3",
        )
        .bind(topic.as_str())
        .bind(before.as_str())
        .bind(limit);
        self.pool.records(query, HistoryPost::read).await
    }
}

fn no_topic() -> StoreError {
    StoreError::NotFound("there is no such topic".to_owned())
}

/// The author comes into a topic that it may join.
async fn enter(
    change: &mut Change,
    now: Timestamp,
    author: &Author,
    topic: &TopicId,
    role: TopicRole,
) -> Result<()> {
    let seq = change.append(author, &AuditEvent::TopicJoined { topic: topic.clone() }).await?;
    insert_member(change, now, author, topic, role, seq).await?;
    let query = sqlx::query("delete from mesh.topic_invite where topic_id = $1 and member_id = $2")
        .bind(topic.as_str())
        .bind(author.member.as_str());
    change.execute(query).await?;
    Ok(())
}

async fn insert_member(
    change: &mut Change,
    now: Timestamp,
    author: &Author,
    topic: &TopicId,
    role: TopicRole,
    seq: i64,
) -> Result<()> {
    let query = sqlx::query(
        "insert into mesh.topic_member (topic_id, member_id, role, joined_at, joined_seq,
            delivered_seq)
         values ($1, $2, $3::mesh.topic_member_role, $4, $5, $5)",
    )
    .bind(topic.as_str())
    .bind(author.member.as_str())
    .bind(role.as_str())
    .bind(now.to_naive())
    .bind(seq);
    change.execute(query).await?;
    Ok(())
}

async fn insert_seals(change: &mut Change, now: Timestamp, new: &NewTopic) -> Result<()> {
    let (ids, members): (Vec<String>, Vec<&str>) =
        new.seals.iter().map(|seal| (id::random(), seal.member.as_str())).unzip();
    let (keys, nonces): (Vec<&str>, Vec<&str>) =
        new.seals.iter().map(|seal| (seal.encrypted_key.as_str(), seal.nonce.as_str())).unzip();
    let query = sqlx::query(
        "insert into mesh.topic_member_key
            (id, topic_id, member_id, encrypted_key, nonce, created_at)
         select e.id, $1, e.member, e.encrypted_key, e.nonce, $2
         from unnest($3::text[], $4::text[], $5::text[], $6::text[])
            as e (id, member, encrypted_key, nonce)",
    )
    .bind(new.id.as_str())
    .bind(now.to_naive())
    .bind(ids)
    .bind(members)
    .bind(keys)
    .bind(nonces);
    change.execute(query).await?;
    Ok(())
}
