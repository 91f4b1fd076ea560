//! Tasks: one claim of many, claims that run out, lists, and what is forgotten.

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id;
use claudemesh_broker::protocol::TaskStatus;
use claudemesh_broker::record::Shared;
use claudemesh_broker::store::{
    NewTask, StoreError, Stores, Task, TaskChange, TaskChanged, TaskListing,
};

use super::fixture::{Fixture, Peer, T0, at};

impl Fixture {
    async fn task(&self, now: Timestamp, title: &str) -> String {
        let task = NewTask {
            id: id::random(),
            title: title.to_owned(),
            assignee: Some("bob".to_owned()),
            priority: "high".to_owned(),
            tags: vec!["a,b".to_owned(), "\"größe\" {}".to_owned()],
        };
        self.store.tasks.create(now, &self.author(&self.owner), &task).await.expect("room");
        task.id
    }

    async fn change(&self, now: Timestamp, by: &Peer, id: &str, what: TaskChange) -> TaskChanged {
        let changed = self.store.tasks.change(now, &self.author(by), id, &what).await;
        changed.expect("the store answers")
    }

    async fn tasks(&self, now: Timestamp, listing: TaskListing, limit: i64) -> Vec<Task> {
        self.store.tasks.list(now, &self.mesh, &listing, limit).await.expect("readable")
    }

    async fn audited(&self) -> Vec<String> {
        self.audit().await.into_iter().map(|row| row.event_type).collect()
    }
}

fn claim(lease_ms: Option<i64>) -> TaskChange {
    TaskChange::Claim { lease_ms }
}

fn is_changed(changed: TaskChanged) -> bool {
    matches!(changed, TaskChanged::Changed { .. })
}

pub(crate) async fn a_task_goes_from_open_to_done(store: Stores) {
    let here = Fixture::new(store).await;
    let bob = here.member("bob").await;
    let id = here.task(at(1), "fix \u{1f980}").await;
    let [task] = &here.tasks(at(1), TaskListing::default(), 10).await[..] else { panic!("one") };
    assert_eq!((task.status, task.claim.as_ref()), (TaskStatus::Open, None));
    assert_eq!((task.title.as_str(), task.priority.as_str()), ("fix \u{1f980}", "high"));
    assert_eq!(task.tags, ["a,b", "\"größe\" {}"]);
    assert_eq!((task.created_by.as_deref(), task.created_at), (Some("owner"), at(1)));
    assert!(is_changed(here.change(at(2), &bob, &id, claim(None)).await));
    let [task] = &here.tasks(at(9), TaskListing::default(), 10).await[..] else { panic!("one") };
    let held = task.claim.as_ref().expect("a claim");
    assert_eq!((held.name.as_str(), held.member.as_ref()), ("bob", Some(&bob.id)));
    assert_eq!((held.at, held.until), (at(2), None));
    let release = TaskChange::Release { of_anybody: false };
    assert_eq!(here.change(at(3), &here.owner, &id, release.clone()).await, TaskChanged::Declined);
    assert!(is_changed(here.change(at(3), &bob, &id, release).await));
    let complete = TaskChange::Complete { result: Some("ok".to_owned()) };
    assert!(is_changed(here.change(at(4), &here.owner, &id, complete.clone()).await));
    let [task] = &here.tasks(at(9), TaskListing::default(), 10).await[..] else { panic!("one") };
    assert_eq!((task.status, task.result.as_deref()), (TaskStatus::Done, Some("ok")));
    assert_eq!(task.completed_at, Some(at(4)));
    assert_eq!(here.change(at(5), &bob, &id, claim(None)).await, TaskChanged::Declined);
    let rows = ["task_created", "task_claimed", "task_released", "task_completed"];
    assert_eq!(here.audited().await[1..], rows, "what was declined is not written");
    let elsewhere = here.another().await;
    let missing = elsewhere.change(at(6), &elsewhere.owner, &id, complete).await;
    assert_eq!(missing, TaskChanged::Missing, "a task is its mesh's");
}

pub(crate) async fn of_simultaneous_claims_one_is_done(store: Stores) {
    let here = Fixture::new(store).await;
    let id = here.task(T0, "wanted").await;
    let claimers: Vec<_> = (0..20)
        .map(|_| {
            let (here, id) = (here.clone(), id.clone());
            tokio::spawn(async move { here.change(at(1), &here.owner, &id, claim(None)).await })
        })
        .collect();
    let mut won = 0;
    for claimer in claimers {
        won += usize::from(is_changed(claimer.await.expect("no panic")));
    }
    assert_eq!(won, 1);
    let claims = here.audited().await.iter().filter(|event| *event == "task_claimed").count();
    assert_eq!(claims, 1);
}

pub(crate) async fn a_claim_that_ran_out_is_open_as_read_and_as_claimed(store: Stores) {
    let here = Fixture::new(store).await;
    let bob = here.member("bob").await;
    let id = here.task(T0, "wanted").await;
    assert!(is_changed(here.change(at(0), &bob, &id, claim(Some(10_000))).await));
    let of =
        |status: &str| TaskListing { status: Some(status.to_owned()), ..TaskListing::default() };
    assert_eq!(here.tasks(at(9), of("claimed"), 10).await.len(), 1);
    assert_eq!(here.change(at(9), &here.owner, &id, claim(None)).await, TaskChanged::Declined);
    let renew = || TaskChange::Renew { lease_ms: None };
    let renewed = here.change(at(9), &bob, &id, renew()).await;
    assert_eq!(renewed, TaskChanged::Changed { seq: None, status: TaskStatus::Claimed });
    assert_eq!(here.tasks(at(18), of("open"), 10).await.len(), 0);
    assert_eq!(here.tasks(at(19), of("claimed"), 10).await.len(), 0);
    let open = here.tasks(at(19), of("open"), 10).await;
    assert_eq!((open[0].status, open[0].claim.as_ref()), (TaskStatus::Open, None));
    assert_eq!(here.change(at(19), &bob, &id, renew()).await, TaskChanged::Declined, "too late");
    assert!(is_changed(here.change(at(19), &here.owner, &id, claim(None)).await));
    assert_eq!(here.audited().await.len(), 4, "a renewal is in no row of the chain");
}

pub(crate) async fn that_a_claim_ran_out_is_noted_once(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let bob = here.member("bob").await;
    let early = T0.plus_ms(-1_000_000_000);
    let id = here.task(early, "wanted").await;
    here.change(early, &bob, &id, claim(Some(1_000))).await;
    let of_here = async |now| {
        let run_out = store.tasks.run_out(now, 1_000).await.expect("readable");
        run_out.into_iter().filter(|(author, _)| author.mesh == here.mesh).collect::<Vec<_>>()
    };
    assert!(of_here(early.plus_ms(999)).await.is_empty());
    let [(author, found)] = &of_here(early.plus_ms(1_000)).await[..] else { panic!("one") };
    assert_eq!((found, &author.member, author.member_name.as_str()), (&id, &bob.id, "bob"));
    let note = async || {
        store.tasks.change(at(0), author, &id, &TaskChange::RunOut).await.expect("answers")
    };
    let TaskChanged::Changed { seq: Some(seq), status } = note().await else { panic!("it has") };
    assert_eq!((status, note().await), (TaskStatus::Open, TaskChanged::Declined));
    assert!(of_here(at(0)).await.is_empty());
    let changes = store.tasks.changed_since(&here.mesh, seq - 1, 10).await.expect("readable");
    let told = Shared::Task { task_id: id.clone(), status: TaskStatus::Open, by: None };
    assert_eq!((changes[0].seq, &changes[0].what), (seq, &told));
}

pub(crate) async fn tasks_are_listed_newest_first_in_pages(store: Stores) {
    let here = Fixture::new(store).await;
    let mut all = Vec::new();
    for seconds in [1, 2, 2, 3] {
        all.push((at(seconds), here.task(at(seconds), "one of many").await));
    }
    all.sort();
    all.reverse();
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = here.tasks(at(9), TaskListing { after, ..TaskListing::default() }, 3).await;
        let Some(last) = page.last() else { break };
        after = Some((last.created_at, last.id.clone()));
        seen.extend(page.into_iter().map(|task| (task.created_at, task.id)));
    }
    assert_eq!(seen, all);
    let for_nobody = TaskListing { assignee: Some("eve".to_owned()), ..TaskListing::default() };
    assert!(here.tasks(at(9), for_nobody, 9).await.is_empty());
    assert!(here.another().await.tasks(at(9), TaskListing::default(), 9).await.is_empty());
}

pub(crate) async fn what_became_of_tasks_is_read_after_a_gap(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let bob = here.member("bob").await;
    let (first, second) = (here.task(at(1), "first").await, here.task(at(1), "second").await);
    let seen = store.tasks.changed_since(&here.mesh, 0, 10).await.expect("readable");
    assert_eq!(seen.len(), 2);
    here.change(at(2), &bob, &first, claim(None)).await;
    here.change(at(3), &bob, &first, TaskChange::Renew { lease_ms: Some(9_000) }).await;
    let changes = store.tasks.changed_since(&here.mesh, seen[1].seq, 10).await.expect("readable");
    let [change] = &changes[..] else { panic!("{changes:?}") };
    let (task_id, by) = (first, Some("bob".to_owned()));
    assert_eq!(change.what, Shared::Task { task_id, status: TaskStatus::Claimed, by });
    let one = store.tasks.changed_since(&here.mesh, 0, 1).await.expect("readable");
    let told =
        Shared::Task { task_id: second, status: TaskStatus::Open, by: Some("owner".to_owned()) };
    assert_eq!(one[0].what, told, "in the order of the last changes");
}

pub(crate) async fn in_a_full_mesh_what_is_done_makes_room(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let large = "x".repeat(4 << 20);
    let mut ids = Vec::new();
    for second in 0..15 {
        ids.push(here.task(at(second), &large).await);
    }
    let author = here.author(&here.owner);
    let another = || NewTask {
        id: id::random(),
        title: large.clone(),
        assignee: None,
        priority: "normal".to_owned(),
        tags: Vec::new(),
    };
    let audited = here.audited().await.len();
    let refused = store.tasks.create(at(20), &author, &another()).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    let grown = TaskChange::Complete { result: Some("x".repeat(4 << 20)) };
    let change = store.tasks.change(at(20), &author, &ids[0], &grown).await;
    // It is done, and nothing else that could go.
    assert!(change.is_ok() || matches!(change, Err(StoreError::Full(_))), "{change:?}");
    assert_eq!(
        here.tasks(at(30), TaskListing::default(), 100).await.len(),
        15 - usize::from(change.is_ok())
    );
    assert!(here.audited().await.len() <= audited + 1);
    if change.is_err() {
        here.change(at(21), &here.owner, &ids[1], TaskChange::Complete { result: None }).await;
    }
    store.tasks.create(at(22), &author, &another()).await.expect("what was done made room");
}

pub(crate) async fn what_was_done_long_ago_is_forgotten(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let early = T0.plus_ms(-2_000_000_000);
    let (open, done) = (here.task(early, "open").await, here.task(early, "done").await);
    let done_at = early.plus_ms(1);
    here.change(done_at, &here.owner, &done, TaskChange::Complete { result: None }).await;
    store.tasks.forget_done(done_at, 1_000).await.expect("answers");
    assert_eq!(here.tasks(T0, TaskListing::default(), 9).await.len(), 2);
    store.tasks.forget_done(done_at.plus_ms(1), 1_000).await.expect("answers");
    let left = here.tasks(T0, TaskListing::default(), 9).await;
    assert_eq!(left.iter().map(|task| &task.id).collect::<Vec<_>>(), [&open]);
}
