//! Tasks in SQLite.

use async_trait::async_trait;

use super::deciding::{Decided, decide};
use super::{NewTask, Task, TaskChange, TaskChanged, TaskListing, Tasks, read_change, read_claim};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::limits;
use crate::record::SharedChange;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::change::Change;
use crate::store::sqlite::row::to_json;
use crate::store::{Author, Kind, Result};

#[async_trait]
impl Tasks for SqliteStore {
    async fn create(&self, now: Timestamp, author: &Author, task: &NewTask) -> Result<i64> {
        let mut change = self.begin_change(now, &[&author.mesh]).await?;
        let event = AuditEvent::TaskCreated { task_id: task.id.clone() };
        let seq = change.append(author, &event).await?;
        let query = sqlx::query(
            "insert into task (id, mesh_id, title, assignee, priority, status, tags,
                created_by_name, changed_by_name, created_at, seq)
             values (?1, ?2, ?3, ?4, ?5, 'open', ?6, ?7, ?7, ?8, ?9)",
        )
        .bind(task.id.as_str())
        .bind(author.mesh.as_str())
        .bind(task.title.as_str())
        .bind(task.assignee.as_deref())
        .bind(task.priority.as_str())
        .bind(to_json(&task.tags))
        .bind(author.member_name.as_str())
        .bind(now.as_ms())
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
        let query = sqlx::query("select * from task where id = ?1 and mesh_id = ?2")
            .bind(id)
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
        let query = sqlx::query(
            "select * from task where mesh_id = ?1 and (created_at, id) < (?2, ?3)
                and (?4 is null or ?4 = case
                    when status = 'claimed' and claim_expires_at <= ?5 then 'open'
                    else status end)
                and (?6 is null or assignee = ?6)
             order by created_at desc, id desc limit 0 + ?7",
        )
        .bind(mesh.as_str())
        .bind(before.as_ms())
        .bind(id)
        .bind(ask.status.as_deref())
        .bind(now.as_ms())
        .bind(ask.assignee.as_deref())
        .bind(limit);
        self.records(query, |row| Ok(Task::read(row)?.at(now))).await
    }

    async fn changed_since(
        &self,
        mesh: &MeshId,
        seq: i64,
        limit: i64,
    ) -> Result<Vec<SharedChange>> {
        let query = sqlx::query(
            "select id, status, changed_by_name, seq from task
             where mesh_id = ?1 and seq is not null and seq > ?2 order by seq limit 0 + ?3",
        )
        .bind(mesh.as_str())
        .bind(seq)
        .bind(limit);
        self.records(query, read_change).await
    }

    async fn run_out(&self, now: Timestamp, limit: i64) -> Result<Vec<(Author, String)>> {
        let query = sqlx::query(
            "select id, mesh_id, claimed_by_member, claimed_by_name from task
             where status = 'claimed' and claim_expires_at is not null
                and claim_expires_at <= ?1
             order by claim_expires_at limit 0 + ?2",
        )
        .bind(now.as_ms())
        .bind(limit);
        let found: Vec<_> = self.records(query, read_claim).await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn forget_done(&self, before: Timestamp, limit: i64) -> Result<u64> {
        let query = sqlx::query(
            "delete from task where id in (
                select id from task where status = 'done' and completed_at < ?1
                order by completed_at limit 0 + ?2)",
        )
        .bind(before.as_ms())
        .bind(limit);
        self.write(query).await
    }
}

async fn put(
    change: &mut Change,
    Decided { task, by, .. }: &Decided,
    seq: Option<i64>,
) -> Result<()> {
    let claim = task.claim.as_ref();
    let query = sqlx::query(
        "update task set title = ?2, assignee = ?3, priority = ?4, status = ?5, tags = ?6,
            result = ?7, claimed_by_name = ?8, claimed_by_member = ?9, claim_lease_ms = ?10,
            claim_expires_at = ?11, claimed_at = ?12, completed_at = ?13,
            changed_by_name = case when ?15 is null then changed_by_name else ?14 end,
            seq = coalesce(?15, seq)
         where id = ?1",
    )
    .bind(task.id.as_str())
    .bind(task.title.as_str())
    .bind(task.assignee.as_deref())
    .bind(task.priority.as_str())
    .bind(task.status.as_str())
    .bind(to_json(&task.tags))
    .bind(task.result.as_deref())
    .bind(claim.map(|claim| claim.name.as_str()))
    .bind(claim.and_then(|claim| claim.member.as_ref()).map(MemberId::as_str))
    .bind(claim.and_then(|claim| claim.lease_ms))
    .bind(claim.and_then(|claim| claim.until).map(Timestamp::as_ms))
    .bind(claim.map(|claim| claim.at.as_ms()))
    .bind(task.completed_at.map(Timestamp::as_ms))
    .bind(by.as_deref())
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
        "delete from task where id in (
            select id from task where mesh_id = ?1 and status = 'done'
            order by completed_at limit 0 + ?2)",
    )
    .bind(mesh.as_str())
    .bind(limits::TASKS_FORGOTTEN_AT_ONCE);
    change.execute(query).await?;
    Ok(())
}
