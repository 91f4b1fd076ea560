//! Tasks: who wants what, who does it, and until when that holds.

mod deciding;
pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::protocol::TaskStatus;
use crate::record::{Shared, SharedChange};
use crate::store::columns::Columns;
use crate::store::{Author, Result};

/// Tasks of a mesh.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Tasks: Send + Sync + 'static {
    /// A new task, open; the change's seq. In a mesh that is full the tasks that have
    /// been done for longest make room.
    async fn create(&self, now: Timestamp, author: &Author, task: &NewTask) -> Result<i64>;

    /// Changes a task, if it is as the change needs it: of any number of simultaneous
    /// claims one is done.
    async fn change(
        &self,
        now: Timestamp,
        author: &Author,
        id: &str,
        change: &TaskChange,
    ) -> Result<TaskChanged>;

    /// Tasks as they stand now, newest first, those after that position.
    async fn list(
        &self,
        now: Timestamp,
        mesh: &MeshId,
        ask: &TaskListing,
        limit: i64,
    ) -> Result<Vec<Task>>;

    /// What is otherwise since that seq, in the order of the changes, at most `limit`.
    async fn changed_since(&self, mesh: &MeshId, seq: i64, limit: i64)
    -> Result<Vec<SharedChange>>;

    /// Claims that have run out, each with whom it was of, at most `limit`.
    async fn run_out(&self, now: Timestamp, limit: i64) -> Result<Vec<(Author, String)>>;

    /// Forgets tasks that were done before that instant, at most `limit`.
    async fn forget_done(&self, before: Timestamp, limit: i64) -> Result<u64>;
}

/// A task to create.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Its id, made by the caller.
    pub id: String,
    /// What is to be done.
    pub title: String,
    /// For whom.
    pub assignee: Option<String>,
    /// How urgent.
    pub priority: String,
    /// Words to find it by.
    pub tags: Vec<String>,
}

/// What is to become of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskChange {
    /// The author does it, if it is open.
    Claim {
        /// For how long; `None`: for good.
        lease_ms: Option<i64>,
    },
    /// The author's member, which does it, still does. Written in no audit row, and told
    /// to nobody.
    Renew {
        /// For how long from now; `None`: as long as it was claimed for.
        lease_ms: Option<i64>,
    },
    /// It is open again.
    Release {
        /// Also if another member does it.
        of_anybody: bool,
    },
    /// It is open again, if its claim has run out.
    RunOut,
    /// What is `None` stays.
    Update {
        /// What is to be done.
        title: Option<String>,
        /// How urgent.
        priority: Option<String>,
        /// Words to find it by.
        tags: Option<Vec<String>>,
        /// For whom; empty: for nobody.
        assignee: Option<String>,
    },
    /// It is done.
    Complete {
        /// What came of it.
        result: Option<String>,
    },
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskChanged {
    /// The change is on disk.
    Changed {
        /// Its seq; `None`: it is told to nobody.
        seq: Option<i64>,
        /// How far the task is now.
        status: TaskStatus,
    },
    /// There is no such task.
    Missing,
    /// The task is not as the change needs it.
    Declined,
}

/// Which tasks to list.
#[derive(Clone, Debug, Default)]
pub struct TaskListing {
    /// Only those of that status, as it is now.
    pub status: Option<String>,
    /// Only those for that assignee.
    pub assignee: Option<String>,
    /// Only those after that one: when it was created, and its id.
    pub after: Option<(Timestamp, String)>,
}

/// Later than all tasks.
const NEVER: Timestamp = Timestamp::from_ms(253_402_300_799_000);

impl TaskListing {
    /// The position after which the list begins, also where it begins at its start.
    fn position(&self) -> (Timestamp, &str) {
        self.after.as_ref().map_or((NEVER, ""), |(at, id)| (*at, id.as_str()))
    }
}

/// A task.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// What is to be done.
    pub title: String,
    /// For whom.
    pub assignee: Option<String>,
    /// How urgent.
    pub priority: String,
    /// How far it is.
    pub status: TaskStatus,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// What came of it.
    pub result: Option<String>,
    /// Who wants it.
    pub created_by: Option<String>,
    /// Since when.
    pub created_at: Timestamp,
    /// Who does it, or has done it.
    pub claim: Option<TaskClaim>,
    /// When it was done.
    pub completed_at: Option<Timestamp>,
}

/// Who does a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskClaim {
    /// The member's name.
    pub name: String,
    /// The member; `None` where another program wrote it.
    pub member: Option<MemberId>,
    /// Since when.
    pub at: Timestamp,
    /// For how long it was claimed or renewed.
    pub lease_ms: Option<i64>,
    /// When it runs out.
    pub until: Option<Timestamp>,
}

impl Task {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        let created_at = row.time("created_at")?;
        let claim = match row.optional_text("claimed_by_name")? {
            Some(name) => Some(TaskClaim {
                name,
                member: row.optional_id("claimed_by_member")?,
                at: row.optional_time("claimed_at")?.unwrap_or(created_at),
                lease_ms: row.optional_int("claim_lease_ms")?,
                until: row.optional_time("claim_expires_at")?,
            }),
            None => None,
        };
        Ok(Self {
            id: row.text("id")?,
            title: row.text("title")?,
            assignee: row.optional_text("assignee")?,
            priority: row.text("priority")?,
            status: TaskStatus::read(row.str("status")?),
            tags: row.described("tags")?,
            result: row.optional_text("result")?,
            created_by: row.optional_text("created_by_name")?,
            created_at,
            claim,
            completed_at: row.optional_time("completed_at")?,
        })
    }

    /// The task as it is at that instant: one whose claim has run out is open.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        let until = self.claim.as_ref().and_then(|claim| claim.until);
        if self.status == TaskStatus::Claimed && until.is_some_and(|until| until <= now) {
            (self.status, self.claim) = (TaskStatus::Open, None);
        }
        self
    }
}

/// A change as a row says it.
fn read_change(row: &impl Columns) -> Result<SharedChange> {
    let what = Shared::Task {
        task_id: row.text("id")?,
        status: TaskStatus::read(row.str("status")?),
        by: row.optional_text("changed_by_name")?,
    };
    Ok(SharedChange { seq: row.int("seq")?, by: None, what })
}

/// Whose claim has run out, as a row says it.
fn read_claim(row: &impl Columns) -> Result<Option<(Author, String)>> {
    let Some(member) = row.optional_id("claimed_by_member")? else { return Ok(None) };
    let name = row.optional_text("claimed_by_name")?.unwrap_or_default();
    let author = Author {
        mesh: row.id("mesh_id")?,
        member,
        member_name: name.clone(),
        session_name: name,
        presence: "".into(),
    };
    Ok(Some((author, row.text("id")?)))
}
