//! Webhooks in SQLite.

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use super::{
    Call, Deleted, NewWebhook, Note, OutClaim, Told, Waiting, WaitingEvent, Webhook, Webhooks,
    read_asked,
};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::protocol::{WebhookEvent, WebhookSigning};
use crate::store::columns::Columns as _;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::connection::{Tx, execute, fetch_optional};
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::to_json;
use crate::store::{Author, Kind, Result};

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

#[async_trait]
impl Webhooks for SqliteStore {
    async fn create(&self, now: Timestamp, hook: &NewWebhook) -> Result<bool> {
        let author = &hook.author;
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "insert into webhook (id, mesh_id, name, secret, secret_digest, created_by, created_at,
                signing, signing_secret, url, events, durable, noted)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             on conflict (mesh_id, name) do nothing",
        )
        .bind(&hook.id)
        .bind(author.mesh.as_str())
        .bind(&hook.name)
        .bind(&hook.secret)
        .bind(digest(&hook.secret))
        .bind(author.member.as_str())
        .bind(now.as_ms())
        .bind(hook.signing.map(WebhookSigning::as_str))
        .bind(&hook.signing_secret)
        .bind(&hook.url)
        .bind(to_json(&hook.events))
        .bind(hook.durable)
        .bind(hook.is_noted());
        if change.execute(query).await? == 0 {
            change.give_up().await?;
            return Ok(false);
        }
        change.append(author, &AuditEvent::WebhookCreated { name: hook.name.clone() }).await?;
        change.within(&author.mesh, Kind::Webhook).await?.commit().await?;
        Ok(true)
    }

    async fn list<'a>(
        &self,
        mesh: &MeshId,
        after: Option<&'a str>,
        limit: i64,
    ) -> Result<Vec<Webhook>> {
        // No name is empty.
        let query = sqlx::query(
            "select w.*, (select count(*) from webhook_outbox o where o.webhook_id = w.id) as waiting
             from webhook w where w.mesh_id = ?1 and w.name > ?2 and w.active = 1
             order by w.name limit 0 + ?3",
        )
        .bind(mesh.as_str())
        .bind(after.unwrap_or_default())
        .bind(limit);
        self.records(query, Webhook::read).await
    }

    async fn delete<'a>(
        &self,
        now: Timestamp,
        author: &Author,
        name: &str,
        only_of: Option<&'a MemberId>,
    ) -> Result<Deleted> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "select id, created_by from webhook where mesh_id = ?1 and name = ?2 and active = 1",
        )
        .bind(author.mesh.as_str())
        .bind(name);
        let found: Option<(String, MemberId)> =
            change.record(query, |row| Ok((row.text("id")?, row.id("created_by")?))).await?;
        let Some((id, maker)) = found else {
            change.give_up().await?;
            return Ok(Deleted::Absent);
        };
        if only_of.is_some_and(|member| *member != maker) {
            change.give_up().await?;
            return Ok(Deleted::Foreign);
        }
        let query = sqlx::query(
            "update webhook set active = 0, secret = '', secret_digest = '', signing_secret = null,
                url = null, events = '[]', noted = 0, claim_id = null, claim_expires_at = null
             where id = ?1",
        )
        .bind(&id);
        change.execute(query).await?;
        let query = sqlx::query("delete from webhook_outbox where webhook_id = ?1").bind(&id);
        change.execute(query).await?;
        change.append(author, &AuditEvent::WebhookDeleted { name: name.to_owned() }).await?;
        change.commit().await?;
        Ok(Deleted::Done)
    }

    async fn by_secret(&self, mesh: &MeshId, secret: &str) -> Result<Vec<Webhook>> {
        let query = sqlx::query(
            "select w.*, 0 as waiting
             from webhook w join member m on m.id = w.created_by and m.revoked_at is null
             join mesh on mesh.id = w.mesh_id and mesh.archived_at is null
             where w.mesh_id = ?1 and w.secret_digest = ?2 and w.active = 1 and w.url is null",
        )
        .bind(mesh.as_str())
        .bind(digest(secret));
        self.records(query, Webhook::read).await
    }

    async fn answered(&self, webhook: &str, key: &str, since: Timestamp) -> Result<Option<i64>> {
        let query = sqlx::query(
            "select delivered from webhook_call
             where webhook_id = ?1 and key_digest = ?2 and created_at >= ?3",
        )
        .bind(webhook)
        .bind(digest(key))
        .bind(since.as_ms());
        self.record(query, |row| row.int("delivered")).await
    }

    async fn receive(&self, now: Timestamp, call: &Call) -> Result<Option<i64>> {
        let mut change = self.begin_change(now, &[&call.author.mesh]).await?;
        if let Some(key) = &call.key {
            let query = sqlx::query(
                "insert into webhook_call as c (webhook_id, key_digest, delivered, created_at)
                 values (?1, ?2, ?3, ?4)
                 on conflict (webhook_id, key_digest) do update
                 set delivered = excluded.delivered, created_at = excluded.created_at
                 where c.created_at < ?5",
            )
            .bind(&call.webhook)
            .bind(digest(key))
            .bind(call.delivered)
            .bind(now.as_ms())
            .bind(call.since.as_ms());
            if change.execute(query).await? == 0 {
                let query = sqlx::query(
                    "select delivered from webhook_call where webhook_id = ?1 and key_digest = ?2",
                )
                .bind(&call.webhook)
                .bind(digest(key));
                let before = change.record(query, |row| row.int("delivered")).await?;
                change.give_up().await?;
                return Ok(Some(before.unwrap_or_default()));
            }
        }
        change.append(&call.author, &call.event()).await?;
        change.commit().await?;
        Ok(None)
    }

    async fn asked(&self) -> Result<Vec<(MeshId, WebhookEvent)>> {
        let query = sqlx::query(
            "select w.mesh_id, wanted.value as event
             from webhook w indexed by webhook_noted_idx, json_each(w.events) wanted
             where w.noted = 1 and wanted.value in ('mail_waiting', 'capacity')
             group by w.mesh_id, wanted.value",
        );
        let asked: Vec<_> = self.records(query, read_asked).await?;
        Ok(asked.into_iter().flatten().collect())
    }

    async fn note(&self, now: Timestamp, notes: &[Note]) -> Result<()> {
        if notes.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        for note in notes {
            put(&mut tx, now, note).await?;
        }
        tx.commit().await.map_err(refused)
    }

    async fn claim(&self, now: Timestamp, claim: &OutClaim) -> Result<Vec<Waiting>> {
        // Most of the time there is nothing: then nobody waits for the writer.
        let due = self.due(now, claim.limit).await?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let mut change = self.begin_change(now, &[]).await?;
        // What was deleted, put off or claimed since is left.
        let query = sqlx::query(
            "update webhook set claim_id = ?2, claim_expires_at = ?3
             where id in (select due.value from json_each(?4) due)
                and active = 1 and url is not null and next_at <= ?1
                and (claim_expires_at is null or claim_expires_at <= ?1)
             returning id, mesh_id, name, url, signing_secret, attempts",
        )
        .bind(now.as_ms())
        .bind(&claim.id)
        .bind(claim.until.as_ms())
        .bind(to_json(&due));
        let mut claimed: Vec<Waiting> = change.records(query, Waiting::read).await?;
        for waiting in &mut claimed {
            let query = sqlx::query(
                "select id, event, data, created_at from webhook_outbox
                 where webhook_id = ?1 order by id limit 0 + ?2",
            )
            .bind(waiting.webhook.clone())
            .bind(claim.events);
            waiting.events = change.records(query, WaitingEvent::read).await?;
        }
        change.commit().await?;
        Ok(claimed)
    }

    async fn settle(&self, now: Timestamp, told: &Told) -> Result<bool> {
        let mut tx = self.begin().await?;
        let query = sqlx::query(
            "update webhook set
                attempts = case ?3 when 'failed' then attempts + 1 when 'left' then attempts
                    else 0 end,
                last_error = case ?3 when 'taken' then null else coalesce(?4, last_error) end,
                next_at = coalesce(?5, next_at),
                dead_letters = dead_letters + (?3 = 'given_up'),
                delivered_at = case ?3 when 'taken' then ?6 else delivered_at end,
                claim_id = case when ?7 is null then null else claim_id end,
                claim_expires_at = ?7
             where id = ?1 and claim_id = ?2
             returning id",
        )
        .bind(&told.webhook)
        .bind(&told.claim)
        .bind(told.outcome.as_str())
        .bind(told.outcome.error())
        .bind(told.outcome.next_at().map(Timestamp::as_ms))
        .bind(now.as_ms())
        .bind(told.until.map(Timestamp::as_ms));
        let holds = fetch_optional(&mut tx, query).await?.is_some();
        // Whoever holds the claim, what was taken is not told again.
        if let Some(event) = told.outcome.done() {
            let query = sqlx::query("delete from webhook_outbox where id = ?1 and webhook_id = ?2")
                .bind(event)
                .bind(&told.webhook);
            execute(&mut tx, query).await?;
        }
        tx.commit().await.map_err(refused)?;
        Ok(holds)
    }

    async fn forget_calls(&self, before: Timestamp) -> Result<u64> {
        let query =
            sqlx::query("delete from webhook_call where created_at < ?1").bind(before.as_ms());
        self.write(query).await
    }
}

/// Puts an event into the outboxes of those that asked. Where one is full it counts as a
/// dead letter, as what the trigger puts there does.
pub(in crate::store) async fn put(tx: &mut Tx, now: Timestamp, note: &Note) -> Result<()> {
    let query = sqlx::query(
        "update webhook
         set dead_letters = dead_letters + 1, last_error = 'too many events wait for it'
         where mesh_id = ?1 and active = 1 and url is not null
            and exists (select 1 from json_each(events) wanted where wanted.value = ?2)
            and (select count(*) from webhook_outbox o where o.webhook_id = webhook.id) >= 1000
            and not exists (select 1 from webhook_outbox o
                where o.webhook_id = webhook.id and o.event = ?2 and o.subject = ?3)",
    )
    .bind(note.mesh.as_str())
    .bind(note.event.as_str())
    .bind(note.subject.clone());
    execute(tx, query).await?;
    let query = sqlx::query(
        "insert into webhook_outbox (webhook_id, event, subject, data, created_at)
         select w.id, ?2, ?3, ?4, ?5
         from webhook w, json_each(w.events) wanted
         where w.mesh_id = ?1 and w.active = 1 and w.url is not null and wanted.value = ?2
            and (select count(*) from webhook_outbox o where o.webhook_id = w.id) < 1000
         on conflict (webhook_id, event, subject) where subject is not null do nothing",
    )
    .bind(note.mesh.as_str())
    .bind(note.event.as_str())
    .bind(note.subject.clone())
    .bind(to_json(&note.data))
    .bind(now.as_ms());
    execute(tx, query).await?;
    Ok(())
}

impl SqliteStore {
    /// Webhooks for which something waits and whose time has come, the longest first.
    async fn due(&self, now: Timestamp, limit: i64) -> Result<Vec<String>> {
        let query = sqlx::query(
            "with recursive waits (id) as (
                select min(webhook_id) from webhook_outbox
                union all
                select (select min(o.webhook_id) from webhook_outbox o
                    where o.webhook_id > waits.id)
                from waits where waits.id is not null
             )
             select w.id from waits
             cross join webhook w on w.id = waits.id
             join member m on m.id = w.created_by and m.revoked_at is null
             join mesh on mesh.id = w.mesh_id and mesh.archived_at is null
             where w.active = 1 and w.url is not null and w.next_at <= ?1
                and (w.claim_expires_at is null or w.claim_expires_at <= ?1)
             order by w.next_at limit 0 + ?2",
        )
        .bind(now.as_ms())
        .bind(limit);
        self.records(query, |row| row.text("id")).await
    }
}
