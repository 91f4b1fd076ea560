//! Meshes, as the command line sees them.

use claudemesh_broker::id::{self, MemberId, MeshId};
use claudemesh_broker::store::{NewMesh, Role, StoreError, Stores};

use super::fixture::{Fixture, Peer, T0, at, fresh_key, new_mesh};

fn mesh_called(slug: &str) -> NewMesh {
    let owner = Peer { id: MemberId::generate(), key: fresh_key(), name: "owner".to_owned() };
    new_mesh(slug, &owner)
}

pub(crate) async fn a_new_mesh_has_its_owner(store: Stores) {
    let mesh = mesh_called(&id::generate());
    store.meshes.create(at(1), &mesh).await.expect("a new slug");
    let members = store.members.active(&mesh.id).await.expect("readable");
    let [owner] = members.as_slice() else { panic!("{members:?}") };
    assert_eq!((&owner.id, &owner.key), (&mesh.owner_member, &mesh.owner_key));
    assert_eq!((owner.display_name.as_str(), owner.role), ("owner", Role::Admin));
    assert!(owner.is_owner);
    let kept = store.meshes.get(&mesh.id).await.expect("readable").expect("created");
    assert_eq!((kept.slug, kept.name), (mesh.slug, mesh.name));
    assert_eq!((kept.root_key, kept.created_at), (Some(mesh.root_key), at(1)));
}

pub(crate) async fn a_slug_is_taken_until_its_mesh_is_archived(store: Stores) {
    let slug = id::generate();
    let (first, second) = (mesh_called(&slug), mesh_called(&slug));
    store.meshes.create(T0, &first).await.expect("a new slug");
    let refusal = store.meshes.create(T0, &second).await.expect_err("taken");
    assert!(matches!(refusal, StoreError::Conflict(_)), "{refusal:?}");
    assert!(!refusal.to_string().contains(&slug), "no values in sentences");
    assert!(store.meshes.get(&second.id).await.expect("readable").is_none());
    assert!(store.members.all(&second.id).await.expect("readable").is_empty());
    store.meshes.archive(T0, &first.id, None).await.expect("a mesh");
    store.meshes.create(T0, &second).await.expect("free again");
}

pub(crate) async fn a_mesh_is_found_by_slug_or_id(store: Stores) {
    let slug = id::generate();
    let (old, new) = (mesh_called(&slug), mesh_called(&slug));
    // Its slug is another's id: the slug wins.
    let confusing = mesh_called(old.id.as_str());
    let found =
        async |name: &str| store.meshes.find(name).await.expect("readable").map(|mesh| mesh.id);
    store.meshes.create(at(1), &old).await.expect("a new slug");
    assert_eq!(found(&slug).await.as_ref(), Some(&old.id));
    store.meshes.archive(at(2), &old.id, None).await.expect("a mesh");
    assert_eq!(found(&slug).await, None, "an archived slug names nothing");
    assert_eq!(found(old.id.as_str()).await.as_ref(), Some(&old.id), "its id does");
    store.meshes.create(at(3), &new).await.expect("free again");
    assert_eq!(found(&slug).await.as_ref(), Some(&new.id));
    store.meshes.create(at(4), &confusing).await.expect("a new slug");
    assert_eq!(found(old.id.as_str()).await.as_ref(), Some(&confusing.id));
    assert_eq!(found("no such mesh").await, None);
}

pub(crate) async fn a_mesh_is_archived_once(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    assert!(store.meshes.archive(at(1), &here.mesh, None).await.expect("a mesh"));
    assert!(!store.meshes.archive(at(2), &here.mesh, None).await.expect("a mesh"));
    let mesh = store.meshes.get(&here.mesh).await.expect("readable").expect("kept");
    assert_eq!(mesh.archived_at, Some(at(1)));
    let nowhere = store.meshes.archive(T0, &MeshId::generate(), None).await;
    assert!(matches!(nowhere, Err(StoreError::NotFound(_))), "{nowhere:?}");
}

pub(crate) async fn meshes_are_counted_and_sorted(store: Stores) {
    let archived = Fixture::new(store.clone()).await;
    let here = archived.another().await;
    store.meshes.archive(T0, &archived.mesh, None).await.expect("a mesh");
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    store.bans.ban(T0, &here.about(&bob)).await.expect("a member");
    let ended = here.present(&ada).await;
    here.end(&ended).await;
    here.present(&ada).await;
    here.present(&here.owner).await;
    here.mail(&ada.key, 3).await;
    here.send(T0, &here.multicast(&ada)).await;
    let meshes = store.meshes.all().await.expect("readable");
    let place = |id: &MeshId| meshes.iter().position(|summary| summary.mesh.id == *id);
    let (mine, last) = (place(&here.mesh).expect("listed"), place(&archived.mesh).expect("listed"));
    assert!(mine < last, "archived ones last");
    let summary = &meshes[mine];
    assert_eq!((summary.members, summary.presences, summary.queued), (2, 2, 3));
    let summary = &meshes[last];
    assert_eq!((summary.members, summary.presences, summary.queued), (1, 0, 0));
}

pub(crate) async fn all_members_includes_the_revoked(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let bob = here.member("bob").await;
    store.bans.ban(at(1), &here.about(&bob)).await.expect("a member");
    let members = store.members.all(&here.mesh).await.expect("readable");
    assert_eq!(members.len(), 2);
    let revoked = members.iter().find(|member| member.id == bob.id).expect("listed");
    assert_eq!(revoked.revoked_at, Some(at(1)));
}
