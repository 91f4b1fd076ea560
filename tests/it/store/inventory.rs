//! What a mesh keeps, as it is counted and named.

use claudemesh_broker::id;
use claudemesh_broker::protocol::TaskCounts;
use claudemesh_broker::store::{
    Kind, NewMemory, NewSchedule, NewTask, StateWrite, Stores, TaskChange,
};

use super::fixture::{Fixture, at};

impl Fixture {
    async fn counts(&self, seconds: i64) -> TaskCounts {
        let counts = self.store.inventory.task_counts(at(seconds), &self.mesh).await;
        counts.expect("readable")
    }

    async fn rows(&self, kinds: &[Kind]) -> Vec<i64> {
        let usage = self.store.inventory.usage(&self.mesh, kinds).await.expect("readable");
        kinds.iter().map(|kind| usage[kind].rows).collect()
    }

    async fn key_names(&self, limit: i64) -> Vec<String> {
        self.store.inventory.state_keys(&self.mesh, limit).await.expect("readable")
    }

    async fn to_do(&self) -> String {
        let (id, title) = (id::random(), "t".to_owned());
        let priority = "normal".to_owned();
        let task = NewTask { id, title, assignee: None, priority, tags: Vec::new() };
        self.store.tasks.create(at(0), &self.author(&self.owner), &task).await.expect("room");
        task.id
    }

    async fn becomes(&self, id: &str, what: TaskChange) {
        let author = self.author(&self.owner);
        self.store.tasks.change(at(1), &author, id, &what).await.expect("the store answers");
    }
}

pub(crate) async fn tasks_are_counted_as_they_stand(store: Stores) {
    let here = Fixture::new(store).await;
    let elsewhere = here.another().await;
    elsewhere.to_do().await;
    assert_eq!(here.counts(0).await, TaskCounts::default());
    let ids = [here.to_do().await, here.to_do().await, here.to_do().await, here.to_do().await];
    here.becomes(&ids[1], TaskChange::Claim { lease_ms: None }).await;
    here.becomes(&ids[2], TaskChange::Claim { lease_ms: Some(5_000) }).await;
    here.becomes(&ids[3], TaskChange::Complete { result: None }).await;
    assert_eq!(here.counts(2).await, TaskCounts { open: 1, claimed: 2, done: 1 });
    let after = TaskCounts { open: 2, claimed: 1, done: 1 };
    assert_eq!(here.counts(6).await, after, "a claim that ran out is open");
}

pub(crate) async fn what_is_kept_is_named_without_its_values(store: Stores) {
    let here = Fixture::new(store).await;
    let (author, inventory) = (here.author(&here.owner), &here.store.inventory);
    let write = |key: &str| StateWrite {
        author: author.clone(),
        key: key.to_owned(),
        value: Some("1".to_owned()),
        if_version: None,
    };
    here.store.states.write(at(1), &[write("b"), write("a")]).await.expect("room");
    here.store.states.write(at(2), &[write("b")]).await.expect("room");
    let states = inventory.states(&here.mesh, 10).await.expect("readable");
    let named: Vec<_> =
        states.iter().map(|line| (line.key.as_str(), line.version, line.updated_at)).collect();
    assert_eq!(named, [("a", 1, at(1)), ("b", 2, at(2))]);
    assert_eq!(states[0].updated_by.as_deref(), Some("owner"));
    for (id, nonce, due) in [("one", Some("n"), 90), ("two", None, 60)] {
        let new = NewSchedule {
            id: id.to_owned(),
            to: "*".to_owned(),
            message: "m".to_owned(),
            nonce: nonce.map(str::to_owned),
            deliver_at: at(due),
            cron: None,
            timezone: None,
            subtype: None,
            reply_to_id: None,
            hop: 0,
        };
        here.store.schedules.schedule(at(3), &author, &new).await.expect("room");
    }
    let scheduled = inventory.scheduled(&here.mesh, 10).await.expect("readable");
    let named: Vec<_> =
        scheduled.iter().map(|line| (line.id.as_str(), line.sealed, line.due_at)).collect();
    assert_eq!(named, [("two", false, at(60)), ("one", true, at(90))], "the next first");
    assert_eq!((scheduled[0].by.as_deref(), scheduled[0].target.as_str()), (Some("owner"), "*"));
    assert_eq!(inventory.topics(&here.mesh, 10).await.expect("readable"), []);
    let elsewhere = here.another().await;
    assert_eq!(inventory.scheduled(&elsewhere.mesh, 10).await.expect("readable"), []);
    assert_eq!(inventory.states(&here.mesh, 1).await.expect("readable").len(), 1);
}

pub(crate) async fn what_is_kept_is_counted_as_it_comes_and_goes(store: Stores) {
    let here = Fixture::new(store).await;
    let kinds = [Kind::State, Kind::Memory, Kind::Skill];
    assert_eq!(here.rows(&kinds).await, [0, 0, 0], "also where there is nothing yet");
    let author = here.author(&here.owner);
    let write = |key: &str, value: Option<&str>| StateWrite {
        author: author.clone(),
        key: key.to_owned(),
        value: value.map(str::to_owned),
        if_version: None,
    };
    let writes = [write("b", Some("1")), write("a", Some("2")), write("c", Some("3"))];
    here.store.states.write(at(1), &writes).await.expect("room");
    let (id, content) = (id::random(), "the build uses bun".to_owned());
    let memory = NewMemory { author: author.clone(), id, content, tags: Vec::new() };
    here.store.memories.remember(at(1), &memory).await.expect("room");
    assert_eq!(here.rows(&kinds).await, [3, 1, 0]);
    assert_eq!(here.key_names(10).await, ["a", "b", "c"]);
    assert_eq!(here.key_names(2).await, ["a", "b"]);
    here.store.states.write(at(2), &[write("b", None)]).await.expect("there");
    here.store.memories.forget(at(2), &author, &memory.id).await.expect("there");
    assert_eq!(here.rows(&kinds).await, [2, 0, 0]);
    assert_eq!(here.key_names(10).await, ["a", "c"]);
    let elsewhere = here.another().await;
    assert_eq!(
        (elsewhere.rows(&kinds).await, elsewhere.key_names(10).await.len()),
        (vec![0; 3], 0)
    );
}
