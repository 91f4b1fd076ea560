//! Tasks by the clock: those who watch are told of claims that nobody renewed, and what
//! was done long ago is forgotten.
//!
//! A claim runs out by itself, and whoever reads or claims its task then finds it open:
//! nothing waits for what is done here. The clock of [`jobs`](super) calls.

use crate::clock::Timestamp;
use crate::cluster::BusMessage;
use crate::events::shared;
use crate::limits;
use crate::presence;
use crate::record::{Shared, SharedChange};
use crate::store::{TaskChange, TaskChanged, Tasks};

/// Notes which claims have run out, each once in the cluster, and tells of it.
pub(super) async fn end_claims(tasks: &dyn Tasks, parts: &presence::Parts) {
    let now = Timestamp::now();
    let run_out = match tasks.run_out(now, limits::TASK_CLAIMS_ENDED_AT_ONCE).await {
        Ok(run_out) => run_out,
        Err(error) => return tracing::debug!(%error, "claims of tasks wait for the store"),
    };
    for (author, task_id) in run_out {
        if parts.life.stopped.is_cancelled() {
            return;
        }
        match tasks.change(now, &author, &task_id, &TaskChange::RunOut).await {
            Ok(TaskChanged::Changed { seq: Some(seq), status }) => {
                let what = Shared::Task { task_id, status, by: None };
                let change = SharedChange { seq, by: None, what };
                match parts.registry.room(&author.mesh) {
                    Some(room) => shared::publish(&parts.shared, &room, change),
                    None => {
                        let message = BusMessage::Shared(Box::new(change));
                        parts.cluster.publish(&author.mesh, &message);
                    }
                }
            }
            // Another node was faster, or it was renewed or claimed meanwhile.
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a claim of a task waits for the next look"),
        }
    }
}

/// Forgets what was done long ago.
pub(super) async fn forget_done(tasks: &dyn Tasks, parts: &presence::Parts) {
    let before = Timestamp::now().plus_ms(-limits::TASK_DONE_KEPT_MS);
    let limit = limits::TASKS_FORGOTTEN_AT_ONCE;
    loop {
        match tasks.forget_done(before, limit).await {
            Ok(gone) if gone < limit.unsigned_abs() => return,
            Ok(_) if parts.life.stopped.is_cancelled() => return,
            Ok(_) => {}
            Err(error) => return tracing::debug!(%error, "done tasks stay for now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::fixture::Mocks;
    use crate::protocol::TaskStatus;
    use crate::store::testing::unavailable;
    use crate::store::{Author, MockTasks};

    fn author() -> Author {
        Author {
            mesh: "elsewhere".into(),
            member: "ada".into(),
            member_name: "ada".to_owned(),
            session_name: "ada".to_owned(),
            presence: "".into(),
        }
    }

    #[tokio::test]
    async fn who_notes_that_a_claim_ran_out_tells_of_it() {
        let mut tasks = MockTasks::new();
        tasks.expect_run_out().once().returning(|_, _| {
            Ok(["mine", "gone", "lost"].map(|id| (author(), id.to_owned())).into())
        });
        tasks.expect_change().times(3).returning(|_, _, id, change| {
            assert_eq!(*change, TaskChange::RunOut);
            match id {
                "mine" => Ok(TaskChanged::Changed { seq: Some(7), status: TaskStatus::Open }),
                "gone" => Ok(TaskChanged::Declined),
                _ => Err(unavailable()),
            }
        });
        let mut mocks = Mocks::default();
        mocks.cluster.expect_publish().once().returning(|mesh, message| {
            assert_eq!(mesh.as_str(), "elsewhere");
            let BusMessage::Shared(change) = message else { panic!("{message:?}") };
            assert_eq!((change.seq, &*change.what.thing()), (7, "task mine"));
        });
        end_claims(&tasks, &mocks.scene().presence).await;
    }

    #[tokio::test]
    async fn a_store_that_is_away_ends_no_claim() {
        let mut tasks = MockTasks::new();
        tasks.expect_run_out().once().returning(|_, _| Err(unavailable()));
        tasks.expect_forget_done().once().returning(|_, _| Err(unavailable()));
        let scene = Mocks::default().scene();
        end_claims(&tasks, &scene.presence).await;
        forget_done(&tasks, &scene.presence).await;
    }

    #[tokio::test]
    async fn done_tasks_are_forgotten_until_a_page_is_not_full() {
        let mut tasks = MockTasks::new();
        let full = limits::TASKS_FORGOTTEN_AT_ONCE.unsigned_abs();
        let mut pages = vec![full - 1, full, full];
        tasks.expect_forget_done().times(3).returning(move |_, _| Ok(pages.pop().unwrap_or(0)));
        forget_done(&tasks, &Mocks::default().scene().presence).await;
    }
}
