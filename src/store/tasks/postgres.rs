//! Tasks in Postgres.

use std::borrow::Cow;

use async_trait::async_trait;

use super::deciding::{Decided, decide};
use super::{NewTask, Task, TaskChange, TaskChanged, TaskListing, Tasks, read_change, read_claim};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::limits;
use crate::record::SharedChange;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::change::Change;
use crate::store::postgres::row::{clean, clean_optional};
use crate::store::{Author, Kind, Result};

/// `select` of a task's columns, and what follows it.
macro_rules! select_tasks {
    ($rest:literal) => {
        concat!(
            "select id, title, assignee, priority, status,
                to_json(coalesce(tags, '{}'))::text as tags, result, created_by_name,
                claimed_by_name, claimed_by_member, claim_lease_ms, claim_expires_at,
                created_at, claimed_at, completed_at
             from mesh.task ",
            $rest
        )
    };
}

#[async_trait]
impl Tasks for PostgresStore {
    async fn create(&self, now: Timestamp, author: &Author, task: &NewTask) -> Result<i64> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let event = AuditEvent::TaskCreated { task_id: task.id.clone() };
        let seq = change.append(author, &event).await?;
        let query = sqlx::query(
            "insert into mesh.task (id, mesh_id, title, assignee, priority, status, tags,
                created_by_name, changed_by_name, created_at, seq)
             values ($1, $2, $3, $4, $5, 'open', $6, $7, $7, $8, $9)",
        )
        .bind(task.id.as_str())
        .bind(author.mesh.as_str())
        .bind(clean(&task.title))
        .bind(clean_optional(task.assignee.as_deref()))
        .bind(clean(&task.priority))
        .bind(cleaned(&task.tags))
        .bind(clean(&author.member_name))
        .bind(now.to_naive())
        .bind(seq);
        change.execute(query).await?;
        make_room(&mut change, &author.mesh).await?;
        change.within(&author.mesh, Kind::Task).await?.commit().await?;
        Ok(seq)
    }

    async fn change(
        &self,
        now: Timestamp,
        author: &Author,
        id: &str,
        what: &TaskChange,
    ) -> Result<TaskChanged> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        // Other programs take no lock on the chain.
        let query = sqlx::query(select_tasks!("where id = $1 and mesh_id = $2 for update"))
            .bind(clean(id))
            .bind(author.mesh.as_str());
        let Some(task) = change.record(query, Task::read).await? else {
            change.give_up().await?;
            return Ok(TaskChanged::Missing);
        };
        let Some(decided) = decide(task, now, author, what) else {
            change.give_up().await?;
            return Ok(TaskChanged::Declined);
        };
        let seq = match &decided.event {
            Some(event) => Some(change.append(author, event).await?),
            None => None,
        };
        put(&mut change, &decided, seq).await?;
        // Only these make it larger.
        if matches!(what, TaskChange::Update { .. } | TaskChange::Complete { .. }) {
            make_room(&mut change, &author.mesh).await?;
            change = change.within(&author.mesh, Kind::Task).await?;
        }
        change.commit().await?;
        Ok(TaskChanged::Changed { seq, status: decided.task.status })
    }

    async fn list(
        &self,
        now: Timestamp,
        mesh: &MeshId,
        ask: &TaskListing,
        limit: i64,
    ) -> Result<Vec<Task>> {
        let (before, id) = ask.position();
        let query = sqlx::query(select_tasks!(
            "where mesh_id = $1 and (created_at, id) < ($2, $3)
                and ($4::text is null or $4 = case
                    when status = 'claimed' and claim_expires_at <= $5 then 'open'
                    else status end)
                and ($6::text is null or assignee = $6)
             order by created_at desc, id desc limit $7"
        ))
        .bind(mesh.as_str())
        .bind(before.to_naive())
        .bind(id)
        .bind(clean_optional(ask.status.as_deref()))
        .bind(now.to_naive())
        .bind(clean_optional(ask.assignee.as_deref()))
        .bind(limit);
        self.pool.records(query, |row| Ok(Task::read(row)?.at(now))).await
    }

    async fn changed_since(
        &self,
        mesh: &MeshId,
        seq: i64,
        limit: i64,
    ) -> Result<Vec<SharedChange>> {
        let query = sqlx::query(
            "select id, status, changed_by_name, seq from mesh.task
             where mesh_id = $1 and seq is not null and seq > $2 order by seq limit $3",
        )
        .bind(mesh.as_str())
        .bind(seq)
        .bind(limit);
        self.pool.records(query, read_change).await
    }

    async fn run_out(&self, now: Timestamp, limit: i64) -> Result<Vec<(Author, String)>> {
        let query = sqlx::query(
            "select id, mesh_id, claimed_by_member, claimed_by_name from mesh.task
             where status = 'claimed' and claim_expires_at is not null
                and claim_expires_at <= $1
             order by claim_expires_at limit $2",
        )
        .bind(now.to_naive())
        .bind(limit);
        let found: Vec<_> = self.pool.records(query, read_claim).await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn forget_done(&self, before: Timestamp, limit: i64) -> Result<u64> {
        let query = sqlx::query(
            "delete from mesh.task where id in (
                select id from mesh.task where status = 'done' and completed_at < $1
                order by completed_at limit $2)",
        )
        .bind(before.to_naive())
        .bind(limit);
        self.pool.execute(query).await
    }
}

async fn put(
    change: &mut Change,
    Decided { task, by, .. }: &Decided,
    seq: Option<i64>,
) -> Result<()> {
    let claim = task.claim.as_ref();
    let query = sqlx::query(
        "update mesh.task set title = $2, assignee = $3, priority = $4, status = $5, tags = $6,
            result = $7, claimed_by_name = $8, claimed_by_member = $9, claim_lease_ms = $10,
            claim_expires_at = $11, claimed_at = $12, completed_at = $13,
            changed_by_name = case when $15::bigint is null then changed_by_name else $14 end,
            seq = coalesce($15, seq)
         where id = $1",
    )
    .bind(task.id.as_str())
    .bind(clean(&task.title))
    .bind(clean_optional(task.assignee.as_deref()))
    .bind(clean(&task.priority))
    .bind(task.status.as_str())
    .bind(cleaned(&task.tags))
    .bind(clean_optional(task.result.as_deref()))
    .bind(claim.map(|claim| clean(&claim.name)))
    .bind(claim.and_then(|claim| claim.member.as_ref()).map(MemberId::as_str))
    .bind(claim.and_then(|claim| claim.lease_ms))
    .bind(claim.and_then(|claim| claim.until).map(Timestamp::to_naive))
    .bind(claim.map(|claim| claim.at.to_naive()))
    .bind(task.completed_at.map(Timestamp::to_naive))
    .bind(clean_optional(by.as_deref()))
    .bind(seq);
    change.execute(query).await?;
    Ok(())
}

/// What has been done for longest goes, if the mesh is full.
async fn make_room(change: &mut Change, mesh: &MeshId) -> Result<()> {
    if change.usage(mesh, Kind::Task).await?.check(Kind::Task).is_ok() {
        return Ok(());
    }
    let query = sqlx::query(
        "delete from mesh.task where id in (
            select id from mesh.task where mesh_id = $1 and status = 'done'
            order by completed_at limit $2)",
    )
    .bind(mesh.as_str())
    .bind(limits::TASKS_FORGOTTEN_AT_ONCE);
    change.execute(query).await?;
    Ok(())
}

fn cleaned(tags: &[String]) -> Vec<Cow<'_, str>> {
    tags.iter().map(|tag| clean(tag)).collect()
}
