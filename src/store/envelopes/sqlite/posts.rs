//! The posts of a batch: what their topics keep of them, and whom they mention.

use sqlx::Row as _;

use crate::clock::Timestamp;
use crate::id::{self, Key, MemberId};
use crate::store::sqlite::connection::Tx;
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::to_json;
use crate::store::sqlite::rows;
use crate::store::{Accepted, NewEnvelope, Post, Reach, Result, StoreError};

/// A post that was taken, with its seq.
type Row<'a> = (&'a NewEnvelope, &'a Post, i64);

/// Writes the posts that were taken, and tells the answers of their topics' rosters.
/// Nothing where the batch has no post.
pub(super) async fn insert(
    tx: &mut Tx,
    now: Timestamp,
    batch: &[NewEnvelope],
    answers: &mut [Accepted],
) -> Result<()> {
    let mut posts: Vec<Row<'_>> = Vec::new();
    for (envelope, answer) in batch.iter().zip(answers.iter()) {
        if let (Reach::Topic(post), Accepted::New { seq, .. }) = (&envelope.reach, answer) {
            posts.push((envelope, post, *seq));
        }
    }
    if posts.is_empty() {
        return Ok(());
    }
    let mut rosters = rosters(tx, &posts).await?.into_iter();
    for (envelope, answer) in batch.iter().zip(answers) {
        if let (Reach::Topic(_), Accepted::New { roster, .. }) = (&envelope.reach, answer) {
            *roster = rosters.next().unwrap_or_default();
        }
    }
    write(tx, now, &posts).await?;
    mention(tx, now, &posts).await
}

/// The versions of the rosters, one for each post.
async fn rosters(tx: &mut Tx, posts: &[Row<'_>]) -> Result<Vec<i64>> {
    let asked: Vec<_> = posts.iter().map(|(e, post, _)| (&post.topic, &e.mesh)).collect();
    let rows = sqlx::query(
        "select t.roster from json_each(?1) post
         cross join topic t on t.id = post.value ->> 0 and t.mesh_id = post.value ->> 1
         order by post.key",
    )
    .bind(to_json(&asked))
    .fetch_all(&mut **tx)
    .await
    .map_err(refused)?;
    if rows.len() != posts.len() {
        return Err(StoreError::Broken("the topic does not exist".to_owned()));
    }
    rows.iter().map(|row| row.try_get(0).map_err(refused)).collect()
}

async fn write(tx: &mut Tx, now: Timestamp, posts: &[Row<'_>]) -> Result<()> {
    let bind = |mut query: rows::Statement, group: &[Row<'_>]| {
        for (envelope, post, seq) in group {
            query = query
                .bind(envelope.id.shared())
                .bind(post.topic.shared())
                .bind(envelope.sender_member.shared())
                .bind(envelope.sender_name.as_str())
                .bind(envelope.sender_session_key.as_ref().map(Key::shared))
                .bind(envelope.nonce.as_str())
                .bind(envelope.ciphertext.as_str())
                .bind(post.body_version)
                .bind(envelope.reply_to_id.as_deref())
                .bind(now.as_ms())
                .bind(envelope.priority.as_str())
                .bind(*seq);
        }
        query
    };
    // What a post answers is one of the same topic, or nothing.
    rows::execute(
        tx,
        "with post (id, topic_id, sender_member_id, sender_name, session_key, nonce,
            ciphertext, body_version, reply_to_id, created_at, priority, seq)
            as (values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
         insert into topic_message (id, topic_id, sender_member_id, sender_name,
            sender_session_pubkey, nonce, ciphertext, body_version, reply_to_id, created_at,
            priority, seq)
         select p.id, p.topic_id, p.sender_member_id, p.sender_name, p.session_key, p.nonce,
            p.ciphertext, p.body_version,
            (select r.id from topic_message r where r.id = p.reply_to_id
                and r.topic_id = p.topic_id),
            p.created_at, p.priority, p.seq
         from post p",
        posts,
        bind,
    )
    .await
}

/// A mention of a member: its id, the post, who is mentioned.
type Mention<'a> = (String, &'a Row<'a>, &'a MemberId);

async fn mention(tx: &mut Tx, now: Timestamp, posts: &[Row<'_>]) -> Result<()> {
    let mentions: Vec<Mention<'_>> = posts
        .iter()
        .flat_map(|row| row.1.mentions.iter().map(move |member| (id::random(), row, member)))
        .collect();
    let bind = |mut query: rows::Statement, group: &[Mention<'_>]| {
        for (id, (envelope, post, _), member) in group {
            query = query
                .bind(id.clone())
                .bind(post.topic.shared())
                .bind(envelope.id.shared())
                .bind(member.shared())
                .bind(envelope.sender_member.shared())
                .bind(now.as_ms());
        }
        query
    };
    rows::execute(
        tx,
        "with mention (id, topic_id, message_id, recipient, sender, created_at)
            as (values (?, ?, ?, ?, ?, ?))
         insert or ignore into notification (id, mesh_id, topic_id, message_id,
            recipient_member_id, sender_member_id, kind, created_at)
         select n.id, t.mesh_id, t.id, n.message_id, m.id, n.sender, 'mention', n.created_at
         from mention n
         cross join topic t on t.id = n.topic_id
         cross join member m on m.id = n.recipient
         where m.mesh_id = t.mesh_id and m.revoked_at is null
            and (t.visibility = 'public' or exists (
                select 1 from topic_member tm where tm.topic_id = t.id
                    and tm.member_id = m.id))",
        &mentions,
        bind,
    )
    .await
}
