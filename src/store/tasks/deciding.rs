//! What becomes of a task, decided under the lock from what its row says. Pure: both
//! databases read, ask here, and write what comes out.

use super::{Task, TaskChange, TaskClaim};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::protocol::TaskStatus;
use crate::store::Author;

/// A change that is made.
pub(super) struct Decided {
    /// The task as it is then.
    pub(super) task: Task,
    /// The change's audit row, if it has one.
    pub(super) event: Option<AuditEvent>,
    /// Who is told to have made it.
    pub(super) by: Option<String>,
}

/// The change of a task as it stands; `None`: it is not as the change needs it.
pub(super) fn decide(
    task: Task,
    now: Timestamp,
    author: &Author,
    change: &TaskChange,
) -> Option<Decided> {
    let stored = task.status;
    let mut task = task.at(now);
    let is_own = |task: &Task| {
        let claim = task.claim.as_ref().filter(|_| task.status == TaskStatus::Claimed);
        claim.is_some_and(|claim| claim.member.as_ref() == Some(&author.member))
    };
    let (task_id, mut by) = (task.id.clone(), Some(author.member_name.clone()));
    let event = match change {
        TaskChange::Claim { lease_ms } if task.status == TaskStatus::Open => {
            task.status = TaskStatus::Claimed;
            task.claim = Some(TaskClaim {
                name: author.member_name.clone(),
                member: Some(author.member.clone()),
                at: now,
                lease_ms: *lease_ms,
                until: lease_ms.map(|lease_ms| now.plus_ms(lease_ms)),
            });
            Some(AuditEvent::TaskClaimed { task_id })
        }
        TaskChange::Renew { lease_ms } if is_own(&task) => {
            let claim = task.claim.as_mut()?;
            claim.lease_ms = lease_ms.or(claim.lease_ms);
            claim.until = claim.lease_ms.map(|lease_ms| now.plus_ms(lease_ms));
            None
        }
        TaskChange::Release { of_anybody }
            if is_own(&task) || (*of_anybody && task.status == TaskStatus::Claimed) =>
        {
            (task.status, task.claim) = (TaskStatus::Open, None);
            Some(AuditEvent::TaskReleased { task_id })
        }
        TaskChange::RunOut if stored == TaskStatus::Claimed && task.status == TaskStatus::Open => {
            by = None;
            Some(AuditEvent::TaskClaimRanOut { task_id })
        }
        TaskChange::Update { title, priority, tags, assignee } => {
            let replace = |known: &mut String, given: &Option<String>| {
                known.clone_from(given.as_ref().unwrap_or(&known.clone()));
            };
            replace(&mut task.title, title);
            replace(&mut task.priority, priority);
            if let Some(tags) = tags {
                task.tags.clone_from(tags);
            }
            if let Some(assignee) = assignee {
                task.assignee = Some(assignee.clone()).filter(|assignee| !assignee.is_empty());
            }
            Some(AuditEvent::TaskUpdated { task_id })
        }
        TaskChange::Complete { result } => {
            task.status = TaskStatus::Done;
            (task.result, task.completed_at) = (result.clone(), Some(now));
            Some(AuditEvent::TaskCompleted { task_id })
        }
        TaskChange::Claim { .. }
        | TaskChange::Renew { .. }
        | TaskChange::Release { .. }
        | TaskChange::RunOut => return None,
    };
    Some(Decided { task, event, by })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_000_000);

    fn author(member: &str) -> Author {
        Author {
            mesh: "mesh".into(),
            member: member.into(),
            member_name: member.to_owned(),
            session_name: member.to_owned(),
            presence: "p".into(),
        }
    }

    fn open() -> Task {
        Task {
            id: "t".to_owned(),
            title: "title".to_owned(),
            assignee: None,
            priority: "normal".to_owned(),
            status: TaskStatus::Open,
            tags: Vec::new(),
            result: None,
            created_by: None,
            created_at: Timestamp::from_ms(1),
            claim: None,
            completed_at: None,
        }
    }

    fn after(task: &Task, now: Timestamp, by: &str, change: TaskChange) -> Option<Task> {
        decide(task.clone(), now, &author(by), &change).map(|decided| decided.task)
    }

    const CLAIM: TaskChange = TaskChange::Claim { lease_ms: Some(1_000) };

    #[test]
    fn a_claim_keeps_others_off_until_it_runs_out() {
        let task = after(&open(), NOW, "ada", CLAIM).expect("it is open");
        for by in ["ada", "bob"] {
            assert_eq!(after(&task, NOW.plus_ms(999), by, CLAIM), None);
        }
        let task = after(&task, NOW.plus_ms(1_000), "bob", CLAIM).expect("it is open again");
        assert_eq!(task.claim.map(|claim| claim.name).as_deref(), Some("bob"));
        let kept = after(&open(), NOW, "ada", TaskChange::Claim { lease_ms: None });
        let kept = kept.expect("it is open");
        assert_eq!(after(&kept, NOW.plus_ms(i64::from(u32::MAX)), "bob", CLAIM), None);
    }

    #[test]
    fn only_whose_claim_it_is_renews_it_and_not_too_late() {
        let task = after(&open(), NOW, "ada", CLAIM).expect("it is open");
        let renew = || TaskChange::Renew { lease_ms: None };
        assert_eq!(after(&task, NOW, "bob", renew()), None);
        assert_eq!(after(&task, NOW.plus_ms(1_000), "ada", renew()), None);
        let decided = decide(task, NOW.plus_ms(900), &author("ada"), &renew()).expect("it holds");
        assert!(decided.event.is_none(), "the chain does not grow by it");
        let until = decided.task.claim.and_then(|claim| claim.until);
        assert_eq!(until, Some(NOW.plus_ms(1_900)));
    }

    #[test]
    fn a_claim_is_released_by_its_member_or_who_may_release_anybodys() {
        let task = after(&open(), NOW, "ada", CLAIM).expect("it is open");
        let release = |of_anybody| TaskChange::Release { of_anybody };
        assert_eq!(after(&task, NOW, "bob", release(false)), None);
        for (by, of_anybody) in [("ada", false), ("bob", true)] {
            let task = after(&task, NOW, by, release(of_anybody)).expect("it may");
            assert_eq!((task.status, task.claim), (TaskStatus::Open, None));
        }
        assert_eq!(after(&open(), NOW, "ada", release(true)), None, "it is open");
    }

    #[test]
    fn only_a_claim_that_has_run_out_runs_out() {
        let task = after(&open(), NOW, "ada", CLAIM).expect("it is open");
        assert_eq!(after(&task, NOW.plus_ms(999), "ada", TaskChange::RunOut), None);
        assert_eq!(after(&open(), NOW, "ada", TaskChange::RunOut), None);
        let late = NOW.plus_ms(1_000);
        let decided = decide(task, late, &author("ada"), &TaskChange::RunOut).expect("it has");
        assert_eq!((decided.task.status, decided.by), (TaskStatus::Open, None));
    }

    #[test]
    fn anybody_completes_a_task_whatever_it_was() {
        let claimed = after(&open(), NOW, "ada", CLAIM).expect("it is open");
        for task in [open(), claimed] {
            let complete = TaskChange::Complete { result: Some("ok".to_owned()) };
            let task = after(&task, NOW, "bob", complete).expect("anybody may");
            assert_eq!((task.status, task.result.as_deref()), (TaskStatus::Done, Some("ok")));
            assert_eq!(after(&task, NOW, "ada", CLAIM), None);
        }
    }

    #[test]
    fn an_update_changes_what_it_names() {
        let tags = Some(vec!["t".to_owned()]);
        let assignee = Some("bob".to_owned());
        let update = TaskChange::Update { title: None, priority: None, tags, assignee };
        let task = after(&open(), NOW, "ada", update).expect("it may");
        assert_eq!((task.title.as_str(), task.assignee.as_deref()), ("title", Some("bob")));
        let (title, assignee) = (Some("new".to_owned()), Some(String::new()));
        let update = TaskChange::Update { title, priority: None, tags: None, assignee };
        let task = after(&task, NOW, "ada", update).expect("it may");
        assert_eq!((task.title.as_str(), task.assignee), ("new", None));
        assert_eq!(task.tags, ["t"]);
    }
}
