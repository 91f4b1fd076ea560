//! Messages that are sent later, in Postgres.

use std::collections::HashSet;

use async_trait::async_trait;

use super::firing::{Dropped, Work, fired};
use super::{Due, Fired, Firing, NewSchedule, Scheduled, Schedules};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::store::columns::Columns as _;
use crate::store::envelopes::postgres::accept_in;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::chain::Entries;
use crate::store::postgres::pool::Call;
use crate::store::postgres::row::{clean, clean_optional};
use crate::store::{Author, Kind, Result};

/// Before everything that was scheduled.
const BEGINNING: Timestamp = Timestamp::from_ms(0);

#[async_trait]
impl Schedules for PostgresStore {
    async fn schedule(&self, now: Timestamp, author: &Author, new: &NewSchedule) -> Result<()> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let (schedule_id, target) = (new.id.clone(), new.to.clone());
        change.append(author, &AuditEvent::ScheduleCreated { schedule_id, target }).await?;
        let query = sqlx::query(
            "insert into mesh.scheduled_message (id, mesh_id, presence_id, member_id, \"to\",
                message, nonce, deliver_at, cron, timezone, subtype, created_at, due_at,
                reply_to_id, hop)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $8, $13, $14)",
        )
        .bind(new.id.as_str())
        .bind(author.mesh.as_str())
        .bind(author.presence.as_str())
        .bind(author.member.as_str())
        .bind(clean(&new.to))
        .bind(clean(&new.message))
        .bind(clean_optional(new.nonce.as_deref()))
        .bind(new.deliver_at.to_naive())
        .bind(clean_optional(new.cron.as_deref()))
        .bind(clean_optional(new.timezone.as_deref()))
        .bind(clean_optional(new.subtype.as_deref()))
        .bind(now.to_naive())
        .bind(clean_optional(new.reply_to_id.as_deref()))
        .bind(i32::try_from(new.hop).unwrap_or(i32::MAX));
        change.execute(query).await?;
        change.within(&author.mesh, Kind::Schedule).await?.commit().await
    }

    async fn list(
        &self,
        mesh: &MeshId,
        member: &MemberId,
        after: Option<(Timestamp, String)>,
        limit: i64,
    ) -> Result<Vec<Scheduled>> {
        let (after, id) = after.unwrap_or((BEGINNING, String::new()));
        let query = sqlx::query(
            "select id, \"to\", message, nonce, deliver_at, cron, timezone, subtype,
                reply_to_id, hop::bigint as hop,
                fired_count::bigint as fired_count, created_at
             from mesh.scheduled_message
             where mesh_id = $1 and member_id = $2 and due_at is not null
                and (created_at, id) > ($3, $4)
             order by created_at, id limit $5",
        )
        .bind(mesh.as_str())
        .bind(member.as_str())
        .bind(after.to_naive())
        .bind(id)
        .bind(limit);
        self.pool.records(query, Scheduled::read).await
    }

    async fn cancel(&self, now: Timestamp, author: &Author, id: &str) -> Result<bool> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        // Whoever fires it has its row first and the chain's lock then: it is not waited
        // for.
        let query = sqlx::query(
            "delete from mesh.scheduled_message where id in (
                select s.id from mesh.scheduled_message s
                where s.id = $1 and s.mesh_id = $2 and s.member_id = $3 and s.due_at is not null
                for update skip locked)",
        )
        .bind(clean(id))
        .bind(author.mesh.as_str())
        .bind(author.member.as_str());
        if change.execute(query).await? == 0 {
            change.give_up().await?;
            return Ok(false);
        }
        let event = AuditEvent::ScheduleCancelled { schedule_id: id.to_owned() };
        change.append(author, &event).await?;
        change.commit().await?;
        Ok(true)
    }

    async fn due(&self, now: Timestamp, limit: i64) -> Result<Vec<Due>> {
        let query = sqlx::query(
            "select s.id, s.mesh_id, s.member_id, s.\"to\", s.message, s.nonce, s.deliver_at,
                s.cron, s.timezone, s.subtype, s.reply_to_id, s.hop::bigint as hop, s.fired_count::bigint as fired_count,
                s.created_at, s.due_at, m.display_name as member_name,
                m.peer_pubkey as member_key, m.revoked_at, mesh.archived_at
             from (
                select * from mesh.scheduled_message
                where due_at is not null and due_at <= $1 order by due_at limit $2
             ) s
             join mesh.member m on m.id = s.member_id
             join mesh.mesh on mesh.id = s.mesh_id
             order by s.due_at",
        )
        .bind(now.to_naive())
        .bind(limit);
        self.pool.records(query, Due::read).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>> {
        let query = sqlx::query(
            "select due_at from mesh.scheduled_message where due_at is not null
             order by due_at limit 1",
        );
        self.pool.record(query, |row| row.time("due_at")).await
    }

    async fn fire(&self, now: Timestamp, firings: &[Firing]) -> Result<Vec<Fired>> {
        let mut call = self.pool.begin().await?;
        let held = hold(&mut call, firings).await?;
        if held.is_empty() {
            call.rollback().await?;
            return Ok(vec![Fired::Elsewhere; firings.len()]);
        }
        let work = Work::of(firings, &held);
        let accepted = accept_in(&mut call, now, &work.envelopes).await?;
        write(&mut call, now, &work).await?;
        append(&mut call, now, &work.dropped).await?;
        call.commit().await?;
        Ok(fired(firings, &held, &accepted))
    }
}

/// Those whose rows are as they were read, and in nobody else's hands.
async fn hold(call: &mut Call, firings: &[Firing]) -> Result<HashSet<String>> {
    let dues = || firings.iter().map(|firing| &firing.due);
    let query = sqlx::query(
        "select s.id from mesh.scheduled_message s
         join unnest($1::text[], $2::timestamp[]) as e (id, due_at)
            on s.id = e.id and s.due_at = e.due_at
         for update of s skip locked",
    )
    .bind(dues().map(|due| due.scheduled.id.as_str()).collect::<Vec<_>>())
    .bind(dues().map(|due| due.due_at.to_naive()).collect::<Vec<_>>());
    call.fetch_all(query).await?.iter().map(|row| row.text("id")).collect()
}

async fn write(call: &mut Call, now: Timestamp, work: &Work<'_>) -> Result<()> {
    if !work.marked.is_empty() {
        let marked = || work.marked.iter();
        let query = sqlx::query(
            "update mesh.message_queue q set subtype = e.subtype, late = e.late
             from unnest($1::text[], $2::text[], $3::boolean[]) as e (id, subtype, late)
             where q.id = e.id",
        )
        .bind(marked().map(|marked| marked.id.as_str()).collect::<Vec<_>>())
        .bind(marked().map(|marked| clean_optional(marked.subtype)).collect::<Vec<_>>())
        .bind(marked().map(|marked| marked.late).collect::<Vec<_>>());
        call.execute(query).await?;
    }
    if !work.gone.is_empty() {
        let query = sqlx::query("delete from mesh.scheduled_message where id = any ($1)")
            .bind(work.gone.clone());
        call.execute(query).await?;
    }
    if work.moved.is_empty() {
        return Ok(());
    }
    let moved = || work.moved.iter();
    let shown = moved().map(|moved| moved.deliver_at.map(Timestamp::to_naive));
    let query = sqlx::query(
        "update mesh.scheduled_message s set due_at = e.due_at,
            deliver_at = coalesce(e.deliver_at, s.deliver_at),
            fired_count = s.fired_count + case when e.sent then 1 else 0 end,
            fired_at = case when e.sent then $5 else s.fired_at end
         from unnest($1::text[], $2::timestamp[], $3::timestamp[], $4::boolean[])
            as e (id, due_at, deliver_at, sent)
         where s.id = e.id",
    )
    .bind(moved().map(|moved| moved.id).collect::<Vec<_>>())
    .bind(moved().map(|moved| moved.due_at.to_naive()).collect::<Vec<_>>())
    .bind(shown.collect::<Vec<_>>())
    .bind(moved().map(|moved| moved.is_sent).collect::<Vec<_>>())
    .bind(now.to_naive());
    call.execute(query).await?;
    Ok(())
}

async fn append(call: &mut Call, now: Timestamp, dropped: &[Dropped<'_>]) -> Result<()> {
    if dropped.is_empty() {
        return Ok(());
    }
    // Rows of one mesh stand together.
    let mut dropped: Vec<&Dropped<'_>> = dropped.iter().collect();
    dropped.sort_by_key(|dropped| dropped.mesh);
    let mut rows = Entries::default();
    for Dropped { mesh, member, name, event } in dropped {
        rows.push(mesh, Some(*member), Some(*name), event);
    }
    let statement = "select mesh.broker_append_v2($1, $2, $3, $4, $5, $6, $7, $8, null)";
    call.execute(rows.bind(sqlx::query(statement), now)).await?;
    Ok(())
}
