//! Messages that are sent later, in SQLite.

use std::collections::HashSet;

use async_trait::async_trait;

use super::firing::{Work, fired};
use super::{Due, Fired, Firing, NewSchedule, Scheduled, Schedules};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::store::columns::Columns as _;
use crate::store::envelopes::sqlite::accept_in;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::chain::Chains;
use crate::store::sqlite::connection::{self, Tx};
use crate::store::sqlite::error::refused;
use crate::store::{Author, Kind, Result};

#[async_trait]
impl Schedules for SqliteStore {
    async fn schedule(&self, now: Timestamp, author: &Author, new: &NewSchedule) -> Result<()> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let (schedule_id, target) = (new.id.clone(), new.to.clone());
        change.append(author, &AuditEvent::ScheduleCreated { schedule_id, target }).await?;
        let query = sqlx::query(
            "insert into scheduled_message (id, mesh_id, presence_id, member_id, [to], message,
                nonce, deliver_at, cron, timezone, subtype, created_at, due_at, reply_to_id, hop)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?8, ?13, ?14)",
        )
        .bind(new.id.as_str())
        .bind(author.mesh.as_str())
        .bind(author.presence.as_str())
        .bind(author.member.as_str())
        .bind(new.to.as_str())
        .bind(new.message.as_str())
        .bind(new.nonce.as_deref())
        .bind(new.deliver_at.as_ms())
        .bind(new.cron.as_deref())
        .bind(new.timezone.as_deref())
        .bind(new.subtype.as_deref())
        .bind(now.as_ms())
        .bind(new.reply_to_id.as_deref())
        .bind(new.hop);
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
        let (after, id) = after.unwrap_or((Timestamp::from_ms(i64::MIN), String::new()));
        let query = sqlx::query(
            "select * from scheduled_message
             where mesh_id = ?1 and member_id = ?2 and due_at is not null
                and (created_at, id) > (?3, ?4)
             order by created_at, id limit 0 + ?5",
        )
        .bind(mesh.as_str())
        .bind(member.as_str())
        .bind(after.as_ms())
        .bind(id)
        .bind(limit);
        self.records(query, Scheduled::read).await
    }

    async fn cancel(&self, now: Timestamp, author: &Author, id: &str) -> Result<bool> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let query = sqlx::query(
            "delete from scheduled_message
             where id = ?1 and mesh_id = ?2 and member_id = ?3 and due_at is not null",
        )
        .bind(id)
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
            "select found.*, m.display_name as member_name, m.peer_pubkey as member_key, m.revoked_at,
                mesh.archived_at
             from (
                select * from scheduled_message where due_at is not null and due_at <= ?1
                order by due_at limit 0 + ?2
             ) found
             cross join member m on m.id = found.member_id
             cross join mesh on mesh.id = found.mesh_id
             order by found.due_at",
        )
        .bind(now.as_ms())
        .bind(limit);
        self.records(query, Due::read).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>> {
        let query = sqlx::query(
            "select due_at from scheduled_message where due_at is not null and due_at > ?1
             order by due_at limit 1",
        )
        .bind(i64::MIN);
        self.record(query, |row| row.time("due_at")).await
    }

    async fn fire(&self, now: Timestamp, firings: &[Firing]) -> Result<Vec<Fired>> {
        let mut tx = self.begin().await?;
        let held = hold(&mut tx, firings).await?;
        let work = Work::of(firings, &held);
        let accepted = accept_in(&mut tx, now, &work.envelopes).await?;
        write(&mut tx, now, &work).await?;
        tx.commit().await.map_err(refused)?;
        Ok(fired(firings, &held, &accepted))
    }
}

/// Those whose rows are as they were read.
async fn hold(tx: &mut Tx, firings: &[Firing]) -> Result<HashSet<String>> {
    let mut held = HashSet::with_capacity(firings.len());
    for Firing { due, .. } in firings {
        let query = sqlx::query("select id from scheduled_message where id = ?1 and due_at = ?2")
            .bind(due.scheduled.id.as_str())
            .bind(due.due_at.as_ms());
        if connection::fetch_optional(tx, query).await?.is_some() {
            held.insert(due.scheduled.id.clone());
        }
    }
    Ok(held)
}

async fn write(tx: &mut Tx, now: Timestamp, work: &Work<'_>) -> Result<()> {
    for marked in &work.marked {
        let query = sqlx::query("update message_queue set subtype = ?2, late = ?3 where id = ?1")
            .bind(marked.id.as_str())
            .bind(marked.subtype)
            .bind(marked.late);
        connection::execute(tx, query).await?;
    }
    for id in &work.gone {
        let query = sqlx::query("delete from scheduled_message where id = ?1").bind(*id);
        connection::execute(tx, query).await?;
    }
    for moved in &work.moved {
        let query = sqlx::query(
            "update scheduled_message set due_at = ?2, deliver_at = coalesce(?3, deliver_at),
                fired_count = fired_count + ?4, fired_at = case when ?4 then ?5 else fired_at end
             where id = ?1",
        )
        .bind(moved.id)
        .bind(moved.due_at.as_ms())
        .bind(moved.deliver_at.map(Timestamp::as_ms))
        .bind(moved.is_sent)
        .bind(now.as_ms());
        connection::execute(tx, query).await?;
    }
    // After the messages, whose rows stand in the same chains.
    let mut chains = Chains::read(tx, now, work.dropped.iter().map(|dropped| dropped.mesh)).await?;
    for dropped in &work.dropped {
        let actor = Some(dropped.member);
        chains.push(dropped.mesh, actor, Some(dropped.name), &dropped.event);
    }
    chains.write(tx).await
}
