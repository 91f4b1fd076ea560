//! Webhooks in Postgres.

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
use crate::store::postgres::PostgresStore;
use crate::store::postgres::chain::Query;
use crate::store::postgres::row::{clean, to_json};
use crate::store::{Author, Kind, Result};

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

#[async_trait]
impl Webhooks for PostgresStore {
    async fn create(&self, now: Timestamp, hook: &NewWebhook) -> Result<bool> {
        let author = &hook.author;
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        // A shared database may have no unique index on names.
        let query = sqlx::query(
            "insert into mesh.webhook (id, mesh_id, name, secret, created_by, created_at, signing,
                signing_secret, url, events, durable, noted)
             select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb, $11, $12
             where not exists (select from mesh.webhook w where w.mesh_id = $2 and w.name = $3)
             on conflict do nothing",
        )
        .bind(&hook.id)
        .bind(author.mesh.as_str())
        .bind(clean(&hook.name))
        .bind(&hook.secret)
        .bind(author.member.as_str())
        .bind(now.to_naive())
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
            "select w.id, w.name, w.secret, w.created_by, w.created_at, w.durable,
                w.signing, w.signing_secret, w.url, w.events::text as events, w.dead_letters, w.last_error,
                w.delivered_at,
                (select count(*) from mesh.broker_webhook_outbox o where o.webhook_id = w.id)
                    as waiting
             from mesh.webhook w where w.mesh_id = $1 and w.name > $2 and w.active
             order by w.name limit $3",
        )
        .bind(mesh.as_str())
        .bind(clean(after.unwrap_or_default()))
        .bind(limit);
        self.pool.records(query, Webhook::read).await
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
            "select id, created_by from mesh.webhook
             where mesh_id = $1 and name = $2 and active order by id limit 1",
        )
        .bind(author.mesh.as_str())
        .bind(clean(name));
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
            "update mesh.webhook set active = false, secret = '', signing_secret = null,
                url = null, events = '[]', noted = false, claim_id = null, claim_expires_at = null
             where id = $1",
        )
        .bind(&id);
        change.execute(query).await?;
        let query = sqlx::query("delete from mesh.broker_webhook_outbox where webhook_id = $1");
        change.execute(query.bind(&id)).await?;
        change.append(author, &AuditEvent::WebhookDeleted { name: name.to_owned() }).await?;
        change.commit().await?;
        Ok(Deleted::Done)
    }

    async fn by_secret(&self, mesh: &MeshId, secret: &str) -> Result<Vec<Webhook>> {
        let query = sqlx::query(
            "select w.id, w.name, w.secret, w.created_by, w.created_at, w.durable,
                w.signing, w.signing_secret, w.url, w.events::text as events, w.dead_letters, w.last_error,
                w.delivered_at, 0::bigint as waiting
             from mesh.webhook w
             join mesh.member m on m.id = w.created_by and m.revoked_at is null
             join mesh.mesh on mesh.id = w.mesh_id and mesh.archived_at is null
             where w.mesh_id = $1 and hashtextextended(w.secret, 0) = hashtextextended($2, 0)
                and w.active and w.url is null",
        )
        .bind(mesh.as_str())
        .bind(clean(secret));
        self.pool.records(query, Webhook::read).await
    }

    async fn answered(&self, webhook: &str, key: &str, since: Timestamp) -> Result<Option<i64>> {
        let query = sqlx::query(
            "select delivered from mesh.broker_webhook_call
             where webhook_id = $1 and key_digest = $2 and created_at >= $3",
        )
        .bind(webhook)
        .bind(digest(key))
        .bind(since.to_naive());
        self.pool.record(query, |row| row.int("delivered")).await
    }

    async fn receive(&self, now: Timestamp, call: &Call) -> Result<Option<i64>> {
        let mut change = self.begin_change(now, &[&call.author.mesh]).await?;
        if let Some(key) = &call.key {
            let query = sqlx::query(
                "insert into mesh.broker_webhook_call as c
                    (webhook_id, key_digest, delivered, created_at)
                 values ($1, $2, $3, $4)
                 on conflict (webhook_id, key_digest) do update
                 set delivered = excluded.delivered, created_at = excluded.created_at
                 where c.created_at < $5",
            )
            .bind(&call.webhook)
            .bind(digest(key))
            .bind(call.delivered)
            .bind(now.to_naive())
            .bind(call.since.to_naive());
            if change.execute(query).await? == 0 {
                let query = sqlx::query(
                    "select delivered from mesh.broker_webhook_call
                     where webhook_id = $1 and key_digest = $2",
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
            "select distinct w.mesh_id, wanted.event
             from mesh.webhook w
             cross join lateral jsonb_array_elements_text(w.events) as wanted (event)
             where w.noted and wanted.event in ('mail_waiting', 'capacity')",
        );
        let asked: Vec<_> = self.pool.records(query, read_asked).await?;
        Ok(asked.into_iter().flatten().collect())
    }

    async fn note(&self, now: Timestamp, notes: &[Note]) -> Result<()> {
        if notes.is_empty() {
            return Ok(());
        }
        let notes: Vec<&Note> = notes.iter().collect();
        self.pool.execute(put(now, &notes)).await?;
        Ok(())
    }

    async fn claim(&self, now: Timestamp, claim: &OutClaim) -> Result<Vec<Waiting>> {
        let query = sqlx::query(
            "update mesh.webhook set claim_id = $2, claim_expires_at = $3
             where id in (
                with recursive waits (id) as (
                    (select webhook_id from mesh.broker_webhook_outbox
                     order by webhook_id limit 1)
                    union all
                    select (select o.webhook_id from mesh.broker_webhook_outbox o
                        where o.webhook_id > waits.id order by o.webhook_id limit 1)
                    from waits where waits.id is not null
                )
                select w.id from waits
                join mesh.webhook w on w.id = waits.id
                where w.active and w.url is not null and w.next_at <= $1
                    and (w.claim_expires_at is null or w.claim_expires_at <= $1)
                    and exists (
                        select from mesh.member m
                        join mesh.mesh on mesh.id = w.mesh_id and mesh.archived_at is null
                        where m.id = w.created_by and m.revoked_at is null)
                order by w.next_at limit $4 for update of w skip locked
             )
             returning id, mesh_id, name, url, signing_secret, attempts",
        )
        .bind(now.to_naive())
        .bind(&claim.id)
        .bind(claim.until.to_naive())
        .bind(claim.limit);
        let mut claimed: Vec<Waiting> = self.pool.records(query, Waiting::read).await?;
        for waiting in &mut claimed {
            let query = sqlx::query(
                "select id, event, data::text as data, created_at from mesh.broker_webhook_outbox
                 where webhook_id = $1 order by id limit $2",
            )
            .bind(waiting.webhook.clone())
            .bind(claim.events);
            waiting.events = self.pool.records(query, WaitingEvent::read).await?;
        }
        Ok(claimed)
    }

    async fn settle(&self, now: Timestamp, told: &Told) -> Result<bool> {
        // Whoever holds the claim, what was taken is not told again.
        let query = sqlx::query(
            "with gone as (
                delete from mesh.broker_webhook_outbox where id = $8 and webhook_id = $1
             )
             update mesh.webhook set
                attempts = case $3 when 'failed' then attempts + 1 when 'left' then attempts
                    else 0 end,
                last_error = case $3 when 'taken' then null else coalesce($4, last_error) end,
                next_at = coalesce($5, next_at),
                dead_letters = dead_letters + case $3 when 'given_up' then 1 else 0 end,
                delivered_at = case $3 when 'taken' then $6 else delivered_at end,
                claim_id = case when $7::timestamp is null then null else claim_id end,
                claim_expires_at = $7
             where id = $1 and claim_id = $2
             returning id",
        )
        .bind(&told.webhook)
        .bind(&told.claim)
        .bind(told.outcome.as_str())
        .bind(told.outcome.error())
        .bind(told.outcome.next_at().map(Timestamp::to_naive))
        .bind(now.to_naive())
        .bind(told.until.map(Timestamp::to_naive))
        .bind(told.outcome.done());
        Ok(self.pool.fetch_optional(query).await?.is_some())
    }

    async fn forget_calls(&self, before: Timestamp) -> Result<u64> {
        let query = sqlx::query("delete from mesh.broker_webhook_call where created_at < $1")
            .bind(before.to_naive());
        self.pool.execute(query).await
    }
}

/// Puts events into the outboxes of those that asked. Where one is full they count as dead
/// letters, as what the trigger puts there does.
pub(in crate::store) fn put<'a>(now: Timestamp, notes: &[&'a Note]) -> Query<'a> {
    sqlx::query(
        "with wanted as (
            select w.id, n.event, n.subject, n.data, n.at, (
                select count(*) from mesh.broker_webhook_outbox o where o.webhook_id = w.id
             ) >= 1000 as is_full
            from unnest($1::text[], $2::text[], $3::text[], $4::text[])
                with ordinality as n (mesh, event, subject, data, at)
            join mesh.webhook w on w.mesh_id = n.mesh and w.active and w.url is not null
                and w.events ? n.event
         ), lost as (
            update mesh.webhook w
            set dead_letters = w.dead_letters + l.events, last_error = 'too many events wait for it'
            from (
                select f.id, count(*) as events from wanted f
                where f.is_full and not exists (
                    select from mesh.broker_webhook_outbox o
                    where o.webhook_id = f.id and o.event = f.event and o.subject = f.subject)
                group by f.id
            ) l
            where w.id = l.id
         )
         insert into mesh.broker_webhook_outbox (webhook_id, event, subject, data, created_at)
         select f.id, f.event, f.subject, f.data::jsonb, $5
         from wanted f where not f.is_full
         order by f.id, f.at
         on conflict (webhook_id, event, subject) where subject is not null do nothing",
    )
    .bind(notes.iter().map(|note| note.mesh.as_str()).collect::<Vec<_>>())
    .bind(notes.iter().map(|note| note.event.as_str()).collect::<Vec<_>>())
    .bind(notes.iter().map(|note| clean(&note.subject)).collect::<Vec<_>>())
    .bind(notes.iter().map(|note| to_json(&note.data)).collect::<Vec<_>>())
    .bind(now.to_naive())
}
