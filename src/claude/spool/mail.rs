//! The way of a message through the spool.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Counts, Incoming, Letter, Spool, Stored, Wanted, Way};
use crate::clock::Timestamp;
use crate::id::MessageId;
use crate::limits;

impl Spool {
    /// Keeps a message that came, unless it is known. What is older than its expiry goes
    /// at the same time.
    pub(crate) async fn store(&self, message: &Incoming, now: Timestamp) -> anyhow::Result<Stored> {
        self.tidy(now).await?;
        let bytes = i64::try_from(message.body.len())?;
        let insert = "insert into message (identity, message_id, priority, content, bytes, \
            expects_reply, received_at, expires_at, to_many) \
            select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?11 \
            where (select count(*) < ?9 and coalesce(sum(bytes), 0) + ?5 <= ?10 \
                from message where state in ('stored', 'offered')) \
            on conflict do nothing";
        let done = sqlx::query(insert)
            .bind(message.identity())
            .bind(message.message_id.as_str())
            .bind(message.priority as i64)
            .bind(serde_json::to_string(message)?)
            .bind(bytes)
            .bind(message.expects_reply == Some(true))
            .bind(now.as_ms())
            .bind(message.expires_at.map(Timestamp::as_ms))
            .bind(limits::SPOOL_WAITING_MAX)
            .bind(limits::SPOOL_BYTES_MAX)
            .bind(message.to_many != Some(false))
            .execute(&self.pool)
            .await?;
        if done.rows_affected() == 1 {
            return Ok(Stored::New);
        }
        let known = "select exists (select 1 from message where identity = ?1 or message_id = ?2)";
        let known: bool = sqlx::query_scalar(known)
            .bind(message.identity())
            .bind(message.message_id.as_str())
            .fetch_one(&self.pool)
            .await?;
        Ok(if known { Stored::Known } else { Stored::Full })
    }

    /// Those that wait and that no way holds: the urgent first, then as they came.
    pub(crate) async fn waiting(
        &self,
        wanted: Wanted,
        limit: u32,
        now: Timestamp,
    ) -> anyhow::Result<Vec<Letter>> {
        let select = "select id, received_at, tried, state, content from message \
            where state in ('stored', 'offered') \
            and (offered_until <= ?1 or offered_to & ?5 != 0) \
            and (expires_at is null or expires_at > ?1) \
            and (?2 is null or priority = 0 or received_at <= ?2) \
            and tried & ?3 = 0 order by priority, id limit ?4";
        let rows = sqlx::query(select)
            .bind(now.as_ms())
            .bind(wanted.urgent_or_before.map(Timestamp::as_ms))
            .bind(wanted.untried_by.map_or(0, Way::bit))
            .bind(i64::from(limit))
            .bind(if wanted.pushed_too { Way::ToolResult.takes_from() } else { 0 })
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(letter).collect()
    }

    /// The names of those who sent what is unread, the newest first.
    pub(crate) async fn senders(&self, limit: u32, now: Timestamp) -> anyhow::Result<Vec<String>> {
        let select = "select content ->> '$.senderName' from message \
            where state in ('stored', 'offered') and (expires_at is null or expires_at > ?1) \
            group by 1 order by max(id) desc limit ?2";
        let names = sqlx::query_scalar(select).bind(now.as_ms()).bind(i64::from(limit));
        Ok(names.fetch_all(&self.pool).await?)
    }

    /// Gives the messages to one way until an instant. Returns those that it got: what
    /// another way holds, or is seen, expired or withdrawn meanwhile, is not among them.
    pub(crate) async fn offer(
        &self,
        ids: &[i64],
        way: Way,
        until: Timestamp,
        now: Timestamp,
    ) -> anyhow::Result<Vec<i64>> {
        let update = "update message set state = 'offered', offered_until = ?3, \
            offered_to = ?4, tried = tried | ?4 where id in (select value from json_each(?1)) \
            and state in ('stored', 'offered') and (offered_until <= ?2 or offered_to & ?5 != 0) \
            and (expires_at is null or expires_at > ?2) returning id";
        let ids = sqlx::query_scalar(update)
            .bind(serde_json::to_string(ids)?)
            .bind(now.as_ms())
            .bind(until.as_ms())
            .bind(way.bit())
            .bind(way.takes_from())
            .fetch_all(&self.pool)
            .await?;
        Ok(ids)
    }

    /// Lets go of messages that were offered and, as is known, not given to the model.
    pub(crate) async fn give_back(&self, ids: &[i64]) -> anyhow::Result<()> {
        let update = "update message set state = 'stored', offered_until = 0 \
            where id in (select value from json_each(?1)) and state = 'offered'";
        sqlx::query(update).bind(serde_json::to_string(ids)?).execute(&self.pool).await?;
        Ok(())
    }

    /// Marks messages as seen: there is evidence that the model was given them, by that
    /// way. Returns those of which that was not known.
    pub(crate) async fn seen(
        &self,
        ids: &[i64],
        by: Way,
        now: Timestamp,
    ) -> anyhow::Result<Vec<i64>> {
        let update = "update message set state = 'seen', seen_at = ?2, seen_by = ?3 \
            where id in (select value from json_each(?1)) and state != 'seen' returning id";
        let seen: Vec<i64> = sqlx::query_scalar(update)
            .bind(serde_json::to_string(ids)?)
            .bind(now.as_ms())
            .bind(by.as_str())
            .fetch_all(&self.pool)
            .await?;
        if !seen.is_empty() {
            let progress = "update turn set progress_at = max(progress_at, ?1)";
            sqlx::query(progress).bind(now.as_ms()).execute(&self.pool).await?;
        }
        Ok(seen)
    }

    /// The messages with these ids, whatever became of them, as far as they are known.
    pub(crate) async fn find(&self, ids: &[MessageId]) -> anyhow::Result<Vec<Letter>> {
        let select = "select id, received_at, tried, state, content from message \
            where message_id in (select value from json_each(?1)) order by id";
        let ids = serde_json::to_string(ids)?;
        let rows = sqlx::query(select).bind(ids).fetch_all(&self.pool).await?;
        rows.iter().map(letter).collect()
    }

    /// Those that were seen and that the broker was not told of yet, as they came. Of
    /// messages to many, to tell one speaks for all before it: one waits for those.
    pub(crate) async fn unsurfaced(&self, limit: u32) -> anyhow::Result<Vec<MessageId>> {
        let select = "select message_id from message \
            where state = 'seen' and told_at is null and not (to_many = 1 and exists ( \
                select 1 from message earlier where earlier.to_many = 1 \
                and earlier.state in ('stored', 'offered') and earlier.id < message.id)) \
            order by id limit ?1";
        let ids: Vec<String> =
            sqlx::query_scalar(select).bind(i64::from(limit)).fetch_all(&self.pool).await?;
        Ok(ids.into_iter().map(MessageId::from).collect())
    }

    /// The broker has been told that these were surfaced.
    pub(crate) async fn told(&self, ids: &[MessageId], now: Timestamp) -> anyhow::Result<()> {
        let update = "update message set told_at = ?2 \
            where message_id in (select value from json_each(?1)) and told_at is null";
        let ids = serde_json::to_string(ids)?;
        sqlx::query(update).bind(ids).bind(now.as_ms()).execute(&self.pool).await?;
        Ok(())
    }

    /// Drops messages that their sender took back, where they have not been seen.
    pub(crate) async fn withdrawn(&self, ids: &[MessageId]) -> anyhow::Result<u64> {
        let update = "update message set state = 'withdrawn', content = json_set(content, \
            '$.body', ''), bytes = 0 where message_id in (select value from json_each(?1)) \
            and state in ('stored', 'offered')";
        let ids = serde_json::to_string(ids)?;
        let done = sqlx::query(update).bind(ids).execute(&self.pool).await?;
        Ok(done.rows_affected())
    }

    /// Takes over what waits in the spool of a session that is no more, but for what was
    /// for its own key. Returns how many those are. One that is cut short leaves a message in
    /// both, where it is recognised by its id.
    pub(crate) async fn take_over(&self, other: &Self, now: Timestamp) -> anyhow::Result<usize> {
        let letters = other.waiting(Wanted::default(), u32::MAX, now).await?;
        let mut taken = Vec::new();
        for mut letter in letters {
            if letter.message.for_session {
                continue;
            }
            letter.message.redelivered |= letter.tried;
            if self.store(&letter.message, now).await? == Stored::Full {
                break;
            }
            taken.push(letter.message.message_id);
        }
        other.withdrawn(&taken).await?;
        Ok(taken.len())
    }

    /// Drops the message whose place `by` takes, by the id that its sender gave it, where
    /// it has not been seen.
    pub(crate) async fn superseded(&self, by: &Incoming, earlier: &str) -> anyhow::Result<u64> {
        let update = "update message set state = 'withdrawn', content = json_set(content, \
            '$.body', ''), bytes = 0 where identity = ?1 and state in ('stored', 'offered')";
        let done = sqlx::query(update).bind(by.identity_of(earlier)).execute(&self.pool).await?;
        Ok(done.rows_affected())
    }

    /// The session has answered a message.
    pub(crate) async fn answered(&self, id: &MessageId, now: Timestamp) -> anyhow::Result<()> {
        let update = "update message set answered_at = ?2 where message_id = ?1";
        sqlx::query(update).bind(id.as_str()).bind(now.as_ms()).execute(&self.pool).await?;
        Ok(())
    }

    /// The newest of those that were seen, whose sender waits for an answer that this
    /// session has not given; oldest first.
    pub(crate) async fn unanswered(&self, limit: u32) -> anyhow::Result<Vec<Letter>> {
        let select = "select id, received_at, tried, state, content from message \
            where state = 'seen' and expects_reply = 1 and answered_at is null \
            order by id desc limit ?1";
        let rows = sqlx::query(select).bind(i64::from(limit)).fetch_all(&self.pool).await?;
        rows.iter().rev().map(letter).collect()
    }

    /// What is in the spool.
    pub(crate) async fn counts(&self, now: Timestamp) -> anyhow::Result<Counts> {
        let select = "select count(*), coalesce(sum(offered_until <= ?1), 0), \
            coalesce(sum(priority = 0), 0), min(received_at), \
            (select count(*) from message where state = 'seen' and told_at is null) \
            from message where state in ('stored', 'offered') \
            and (expires_at is null or expires_at > ?1)";
        let row = sqlx::query(select).bind(now.as_ms()).fetch_one(&self.pool).await?;
        Ok(Counts {
            unread: row.try_get(0)?,
            free: row.try_get(1)?,
            urgent: row.try_get(2)?,
            oldest: row.try_get::<Option<i64>, _>(3)?.map(Timestamp::from_ms),
            untold: row.try_get(4)?,
        })
    }

    /// Ends what is too old, and forgets what has been done for longest.
    async fn tidy(&self, now: Timestamp) -> anyhow::Result<()> {
        let expired = "update message set state = 'expired', \
            content = json_set(content, '$.body', ''), bytes = 0 \
            where state in ('stored', 'offered') and expires_at <= ?1 and offered_until <= ?1";
        sqlx::query(expired).bind(now.as_ms()).execute(&self.pool).await?;
        let forgotten = "delete from message where state not in ('stored', 'offered') \
            and id <= (select id from message where state not in ('stored', 'offered') \
            order by id desc limit 1 offset ?1)";
        sqlx::query(forgotten).bind(limits::SPOOL_DONE_MAX).execute(&self.pool).await?;
        let emptied = "update message set content = json_set(content, '$.body', ''), bytes = 0 \
            where state not in ('stored', 'offered') and bytes > 0 \
            and id <= (select id from message where state not in ('stored', 'offered') \
            order by id desc limit 1 offset ?1)";
        sqlx::query(emptied).bind(limits::SPOOL_READABLE_MAX).execute(&self.pool).await?;
        Ok(())
    }
}

fn letter(row: &SqliteRow) -> anyhow::Result<Letter> {
    Ok(Letter {
        id: row.try_get("id")?,
        received_at: Timestamp::from_ms(row.try_get("received_at")?),
        tried: row.try_get::<i64, _>("tried")? != 0,
        seen: row.try_get::<&str, _>("state")? == "seen",
        message: serde_json::from_str(row.try_get("content")?)?,
    })
}
