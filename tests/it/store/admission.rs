//! Who may enter.

use claudemesh_broker::audit::AuditEvent;
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::{Key, MeshId};
use claudemesh_broker::protocol::PeerRole;
use claudemesh_broker::store::{Admission, EndPresence, Moderation, Role, Stores};
use serde_json::json;

use super::fixture::{Fixture, Peer, T0, at, fresh_key};

impl Fixture {
    async fn admits(&self, key: &Key) -> Admission {
        self.store.members.admit(&self.mesh, key.as_str(), "").await.expect("readable")
    }

    pub(crate) fn about(&self, peer: &Peer) -> Moderation {
        Moderation {
            mesh: self.mesh.clone(),
            member: peer.id.clone(),
            actor: Some(self.owner.id.clone()),
            actor_name: Some(self.owner.name.clone()),
            audit: AuditEvent::MemberBanned {
                target: peer.name.clone(),
                target_pubkey: peer.key.clone(),
            },
        }
    }

    async fn owner_of_session(&self, key: &Key, since: Timestamp) -> Option<String> {
        let found = self.store.members.of_session_key(&self.mesh, key.as_str(), since).await;
        found.expect("readable").map(|member| member.to_string())
    }
}

pub(crate) async fn an_active_member_is_admitted(store: Stores) {
    let here = Fixture::new(store).await;
    let peer = here.member("ada").await;
    let Admission::Member(admitted) = here.admits(&peer.key).await else {
        panic!("not admitted");
    };
    let member = &admitted.member;
    assert_eq!((&member.id, &member.key), (&peer.id, &peer.key));
    assert_eq!((member.display_name.as_str(), member.role), ("ada", Role::Member));
    assert_eq!((member.message_mode.as_str(), &member.role_tag), ("push", &None));
    assert!(!member.is_owner && member.default_groups.is_empty() && member.grants.is_empty());
    assert_eq!((member.joined_at, member.revoked_at), (T0, None));
    assert_eq!(admitted.saved, None);
    let policy = json!({"displayName": true, "roleTag": true, "groups": true, "messageMode": true});
    assert_eq!(admitted.self_editable, policy);

    let Admission::Member(owner) = here.admits(&here.owner.key).await else {
        panic!("the owner is not admitted");
    };
    assert!(owner.member.is_owner);
    assert_eq!(owner.member.role, Role::Admin);
}

pub(crate) async fn strangers_are_unknown(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let elsewhere = here.another().await;
    let peer = elsewhere.member("ada").await;
    assert!(matches!(here.admits(&fresh_key()).await, Admission::Unknown));
    assert!(matches!(here.admits(&peer.key).await, Admission::Unknown), "another mesh's key");
    let nowhere =
        store.members.admit(&MeshId::generate(), peer.key.as_str(), "").await.expect("readable");
    assert!(matches!(nowhere, Admission::Unknown));
    let banned = elsewhere.member("bob").await;
    store.bans.ban(T0, &elsewhere.about(&banned)).await.expect("a member");
    store.meshes.archive(T0, &elsewhere.mesh, None).await.expect("a mesh");
    assert!(matches!(elsewhere.admits(&peer.key).await, Admission::Unknown), "archived");
    assert!(matches!(elsewhere.admits(&banned.key).await, Admission::Unknown), "archived");
}

pub(crate) async fn a_revoked_member_is_told_of_its_mesh(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    store.bans.ban(T0, &here.about(&peer)).await.expect("a member");
    let Admission::Revoked { mesh_label } = here.admits(&peer.key).await else {
        panic!("not revoked");
    };
    let mesh = store.meshes.get(&here.mesh).await.expect("readable").expect("it exists");
    assert_eq!(mesh_label, mesh.name);
}

pub(crate) async fn an_active_membership_wins_over_a_revoked_one(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let before = here.member("ada").await;
    // Before the invite that follows.
    store.bans.ban(T0.plus_ms(-1), &here.about(&before)).await.expect("a member");
    let after = here.member_with_key("ada again", before.key.clone()).await;
    let Admission::Member(admitted) = here.admits(&before.key).await else {
        panic!("not admitted");
    };
    assert_eq!(admitted.member.id, after.id);
}

pub(crate) async fn members_are_the_active_ones(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    here.another().await.member("eve").await;
    store.bans.ban(T0, &here.about(&bob)).await.expect("a member");
    let members = store.members.active(&here.mesh).await.expect("readable");
    let mut names: Vec<&str> = members.iter().map(|m| m.display_name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, [ada.name.as_str(), "owner"]);
    let owners: Vec<bool> = members.iter().map(|m| m.is_owner).collect();
    assert_eq!(owners.iter().filter(|owner| **owner).count(), 1);
}

pub(crate) async fn a_mesh_is_found_also_when_archived(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let mesh = store.meshes.get(&here.mesh).await.expect("readable").expect("it exists");
    assert_eq!(mesh.owner_key.as_ref(), Some(&here.owner.key));
    assert_eq!((mesh.owner_secret_key, mesh.root_key.as_deref()), (None, Some("cm9vdA")));
    assert_eq!((mesh.created_at, mesh.archived_at), (T0, None));
    store.meshes.archive(at(9), &here.mesh, None).await.expect("a mesh");
    let mesh = store.meshes.get(&here.mesh).await.expect("readable").expect("it exists");
    assert_eq!(mesh.archived_at, Some(at(9)));
    assert!(store.meshes.get(&MeshId::generate()).await.expect("readable").is_none());
}

pub(crate) async fn a_session_key_leads_to_its_member(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (peer, key) = (here.member("ada").await, fresh_key());
    let mut opening = here.opening(&peer);
    opening.record.session_key = Some(key.clone());
    opening.record.role = PeerRole::Session;
    here.open(at(10), &opening).await;
    let found = Some(peer.id.to_string());
    assert_eq!(here.owner_of_session(&key, at(10)).await, found);
    assert_eq!(here.owner_of_session(&key, at(11)).await, None, "seen before that only");
    assert_eq!(here.owner_of_session(&fresh_key(), T0).await, None);
    assert_eq!(here.another().await.owner_of_session(&key, T0).await, None, "another mesh");

    let ended = EndPresence {
        id: opening.record.id.clone(),
        mesh: here.mesh.clone(),
        member: None,
        node: None,
        audit: Vec::new(),
    };
    store.presences.end(at(20), &[ended]).await.expect("an open presence");
    assert_eq!(here.owner_of_session(&key, at(20)).await, found, "seen until it ended");
    assert_eq!(here.owner_of_session(&key, at(21)).await, None);
    store.bans.ban(T0, &here.about(&peer)).await.expect("a member");
    assert_eq!(here.owner_of_session(&key, T0).await, None, "no longer a member");
}

pub(crate) async fn a_proven_session_key_wins_over_a_claimed_one(store: Stores) {
    let here = Fixture::new(store).await;
    let (ada, eve) = (here.member("ada").await, here.member("eve").await);
    let key = fresh_key();
    let mut proven = here.opening(&ada);
    proven.record.session_key = Some(key.clone());
    proven.record.role = PeerRole::Session;
    here.open(at(1), &proven).await;
    let mut claimed = here.opening(&eve);
    claimed.record.session_key = Some(key.clone());
    here.open(at(2), &claimed).await;
    assert_eq!(here.owner_of_session(&key, T0).await, Some(ada.id.to_string()));
}
