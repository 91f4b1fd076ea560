//! What somebody with an API key reads across members and meshes.

use claudemesh_broker::id::{self, MeshId};
use claudemesh_broker::protocol::{ApiCapability, TaskStatus};
use claudemesh_broker::store::{
    NewApiKey, NewMemory, NewTask, StateWrite, Stores, TaskChange, WorkspaceMemories,
    WorkspaceState, WorkspaceTasks,
};

use super::fixture::{Fixture, T0, at};

pub(crate) async fn a_roster_has_the_active_members_as_they_joined(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    store.bans.ban(T0, &here.about(&bob)).await.expect("a member");
    let roster = store.workspaces.roster(&here.mesh).await.expect("readable");
    let mut members: Vec<_> = roster.iter().map(|line| line.member.clone()).collect();
    members.sort();
    let mut expected = vec![here.owner.id.clone(), ada.id.clone()];
    expected.sort();
    assert_eq!(members, expected);
    let line = roster.iter().find(|line| line.member == ada.id).expect("a member");
    assert_eq!((&line.key, line.display_name.as_str()), (&ada.key, "ada"));
    assert_eq!((line.is_human, line.joined_at), (false, T0));
}

pub(crate) async fn whose_keys_called_is_known(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    for peer in [&ada, &bob] {
        let key = NewApiKey {
            id: id::random(),
            label: "ci".to_owned(),
            secret_hash: "h".to_owned(),
            secret_prefix: "cm_12345678".to_owned(),
            capabilities: vec![ApiCapability::Read],
            topic_scopes: None,
            expires_at: None,
        };
        here.key(T0, peer, &key).await;
        if peer.id == ada.id {
            store.api_keys.note_use(at(10), &key.id, T0).await.expect("writable");
        }
    }
    let called = async |since| store.workspaces.callers(&here.mesh, since).await.expect("readable");
    assert_eq!(called(at(9)).await, std::slice::from_ref(&ada.id));
    assert!(called(at(10)).await.is_empty());
}

pub(crate) async fn a_member_without_a_user_is_one_by_itself(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, other) = (here.member("ada").await, here.another().await);
    other.member_with_key("ada", ada.key.clone()).await;
    let found = store.workspaces.memberships(&ada.id).await.expect("readable");
    let [one] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((one.user.as_str(), &one.member), (ada.id.as_str(), &ada.id));
    assert_eq!((&one.mesh, one.members), (&here.mesh, 2));
    store.meshes.archive(at(1), &here.mesh, None).await.expect("writable");
    assert!(store.workspaces.memberships(&ada.id).await.expect("readable").is_empty());
}

pub(crate) async fn values_of_meshes_come_newest_first_within_bounds(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (there, elsewhere) = (here.another().await, here.another().await);
    for (second, fixture, key) in
        [(1, &here, "a"), (2, &there, "a"), (3, &here, "b"), (4, &elsewhere, "a")]
    {
        let write = StateWrite {
            author: fixture.author(&fixture.owner),
            key: key.to_owned(),
            value: Some(format!("\"{}\"", "x".repeat(98))),
            if_version: None,
        };
        store.states.write(at(second), &[write]).await.expect("writable");
    }
    let meshes = [here.mesh.clone(), there.mesh.clone()];
    let read = async |meshes: &[MeshId], key: Option<&str>, rows, bytes| {
        let found = store.workspaces.states(meshes, key, rows, bytes).await.expect("readable");
        let place = |entry: &WorkspaceState| (entry.mesh.clone(), entry.key.clone());
        (found.iter().map(place).collect::<Vec<_>>(), found.first().map_or(0, |first| first.of))
    };
    let (h, t) = (here.mesh.clone(), there.mesh.clone());
    let all = [(h.clone(), "b"), (t.clone(), "a"), (h.clone(), "a")]
        .map(|(mesh, key)| (mesh, key.to_owned()));
    assert_eq!(read(&meshes, None, 10, 1000).await, (all.to_vec(), 3));
    assert_eq!(read(&meshes, None, 2, 1000).await, (all[..2].to_vec(), 3));
    assert_eq!(read(&meshes, None, 10, 250).await, (all[..2].to_vec(), 3));
    assert_eq!(read(&meshes, Some("a"), 10, 1000).await, (all[1..].to_vec(), 2));
    assert_eq!(read(&[], None, 10, 1000).await, (Vec::new(), 0));
}

pub(crate) async fn tasks_of_meshes_come_by_what_is_to_be_done_of_them(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (there, elsewhere) = (here.another().await, here.another().await);
    let mut ids = Vec::new();
    for (second, fixture, title) in [
        (1, &here, "done"),
        (2, &there, "claimed"),
        (3, &here, "open"),
        (4, &here, "run out"),
        (5, &elsewhere, "elsewhere"),
    ] {
        let task = NewTask {
            id: id::random(),
            title: title.to_owned(),
            assignee: None,
            priority: "normal".to_owned(),
            tags: vec!["x".to_owned()],
        };
        let author = fixture.author(&fixture.owner);
        store.tasks.create(at(second), &author, &task).await.expect("room");
        ids.push(task.id);
    }
    let change = async |fixture: &Fixture, id: &str, second, change: TaskChange| {
        let author = fixture.author(&fixture.owner);
        store.tasks.change(at(second), &author, id, &change).await.expect("writable")
    };
    change(&here, &ids[0], 10, TaskChange::Claim { lease_ms: None }).await;
    change(&here, &ids[0], 11, TaskChange::Complete { result: Some("r".to_owned()) }).await;
    change(&there, &ids[1], 10, TaskChange::Claim { lease_ms: None }).await;
    change(&here, &ids[3], 10, TaskChange::Claim { lease_ms: Some(1000) }).await;
    let meshes = [here.mesh.clone(), there.mesh.clone()];
    let read = async |ask: WorkspaceTasks, rows, bytes| {
        let found = store.workspaces.tasks(at(20), &meshes, &ask, rows, bytes).await;
        let found = found.expect("readable");
        let titles: Vec<_> = found.iter().map(|one| one.task.title.clone()).collect();
        (titles, found.first().map_or(0, |first| first.of))
    };
    let all = WorkspaceTasks::default();
    let titles = ["run out", "open", "claimed", "done"].map(str::to_owned);
    assert_eq!(read(all.clone(), 10, 1000).await, (titles.to_vec(), 4));
    assert_eq!(read(all.clone(), 2, 1000).await, (titles[..2].to_vec(), 4));
    assert_eq!(read(all.clone(), 10, 14).await.0.len(), 1);
    let of = |statuses: &[TaskStatus]| WorkspaceTasks {
        statuses: Some(statuses.to_vec()),
        done_after: None,
    };
    let claimed = read(of(&[TaskStatus::Claimed]), 10, 1000).await;
    assert_eq!(claimed, (titles[2..3].to_vec(), 1));
    let open = read(of(&[TaskStatus::Open, TaskStatus::Done]), 10, 1000).await;
    assert_eq!(open.0, ["run out", "open", "done"]);
    let recent = |second| WorkspaceTasks { statuses: None, done_after: Some(at(second)) };
    assert_eq!(read(recent(10), 10, 1000).await.1, 4);
    assert_eq!(read(recent(11), 10, 1000).await.0, titles[..3]);
    let found = store.workspaces.tasks(at(20), &meshes, &all, 10, 1000).await.expect("readable");
    let [first, .., last] = &found[..] else { panic!("{found:?}") };
    assert_eq!((first.task.status, first.task.claim.as_ref()), (TaskStatus::Open, None));
    assert_eq!((&last.mesh, last.task.result.as_deref()), (&here.mesh, Some("r")));
    assert_eq!(last.task.tags, ["x"]);
    let none = store.workspaces.tasks(at(20), &[], &all, 10, 1000).await.expect("readable");
    assert!(none.is_empty());
}

pub(crate) async fn memories_of_meshes_are_found_by_a_part_of_them(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (there, elsewhere) = (here.another().await, here.another().await);
    for (second, fixture, content, tag) in [
        (1, &here, "100% of Builds", "ci"),
        (2, &there, "snake_case", "Style"),
        (3, &elsewhere, "builds elsewhere", "ci"),
    ] {
        let memory = NewMemory {
            author: fixture.author(&fixture.owner),
            id: id::random(),
            content: content.to_owned(),
            tags: vec![tag.to_owned()],
        };
        store.memories.remember(at(second), &memory).await.expect("room");
    }
    let meshes = [here.mesh.clone(), there.mesh.clone()];
    let read = async |text: Option<&str>, after, rows| {
        let text = text.map(str::to_owned);
        let ask = WorkspaceMemories { text, after };
        let found = store.workspaces.memories(&meshes, &ask, rows, 1000).await.expect("readable");
        let contents: Vec<_> = found.iter().map(|one| one.content.clone()).collect();
        (contents, found.first().map_or(0, |first| first.of))
    };
    let both = ["snake_case", "100% of Builds"].map(str::to_owned);
    assert_eq!(read(None, None, 10).await, (both.to_vec(), 2));
    assert_eq!(read(None, None, 1).await, (both[..1].to_vec(), 2));
    assert_eq!(read(None, Some(at(1)), 10).await.0, both[..1]);
    for (text, found) in
        [("bUILD", &both[1..]), ("STYLE", &both[..1]), ("%", &both[1..]), ("_", &both[..1])]
    {
        assert_eq!(read(Some(text), None, 10).await.0, found, "{text}");
    }
    assert_eq!(read(Some("[\""), None, 10).await.1, 0, "no text of a tag");
    let ask = WorkspaceMemories::default();
    let found = store.workspaces.memories(&meshes, &ask, 10, 12).await.expect("readable");
    assert!(found.is_empty(), "too large for the answer");
    let found = store.workspaces.memories(&meshes, &ask, 10, 1000).await.expect("readable");
    assert_eq!((&found[0].mesh, found[0].remembered_by.as_deref()), (&there.mesh, Some("owner")));
    assert_eq!((&found[0].tags[..], found[0].remembered_at), (&["Style".to_owned()][..], at(2)));
}
