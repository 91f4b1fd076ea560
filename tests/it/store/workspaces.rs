//! What somebody with an API key reads across members and meshes.

use claudemesh_broker::id::{self, MeshId};
use claudemesh_broker::protocol::ApiCapability;
use claudemesh_broker::store::{NewApiKey, StateWrite, Stores, WorkspaceState};

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
    store.meshes.archive(at(1), &here.mesh).await.expect("writable");
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
