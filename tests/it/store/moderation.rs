//! Members: finding them, shutting them out, changing what they may do.

use claudemesh_broker::audit::AuditEvent;
use claudemesh_broker::id::MemberId;
use claudemesh_broker::store::{Moderation, Role, StoreError, Stores};
use serde_json::json;

use super::fixture::{Fixture, Peer, T0, at};

impl Fixture {
    fn unbanning(&self, peer: &Peer) -> Moderation {
        let audit = AuditEvent::MemberUnbanned { target: peer.name.clone() };
        Moderation { audit, actor: None, actor_name: None, ..self.about(peer) }
    }
}

pub(crate) async fn members_are_found_by_name_and_key(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    // No key begins as this name does.
    let (nora, banned) = (here.member("nora").await, here.member("nora").await);
    let odd = here.member("100%_").await;
    here.another().await.member("nora").await;
    store.bans.ban(T0, &here.about(&banned)).await.expect("a member");
    let found = async |target: &str| {
        let members = store.members.find(&here.mesh, target).await.expect("readable");
        members.into_iter().map(|member| member.id).collect::<Vec<_>>()
    };
    for target in ["nora", nora.key.as_str(), &nora.key.as_str()[..20]] {
        assert_eq!(found(target).await, std::slice::from_ref(&nora.id), "{target:?}");
    }
    assert_eq!(found("100%_").await, [odd.id]);
    for nobody in ["nor", "%", "n_ra", "", &nora.key.as_str()[1..20], banned.key.as_str()] {
        assert!(found(nobody).await.is_empty(), "{nobody:?} is nobody");
    }
}

pub(crate) async fn a_ban_revokes_once(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    let ban = here.about(&peer);
    assert!(store.bans.ban(at(1), &ban).await.expect("a member"));
    assert!(!store.bans.ban(at(2), &ban).await.expect("a member"));
    let bans = store.bans.banned(&here.mesh).await.expect("readable");
    let [banned] = bans.as_slice() else { panic!("{bans:?}") };
    assert_eq!((&banned.id, banned.revoked_at), (&peer.id, Some(at(1))));
    let rows = here.audit_of("member_banned").await;
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(row.payload, json!({"target": "ada", "targetPubkey": peer.key}));
    assert_eq!(row.actor.as_deref(), Some(here.owner.id.as_str()));
    assert_eq!(row.created_at, at(1));
}

pub(crate) async fn an_unban_restores_once(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    let unban = here.unbanning(&peer);
    assert!(!store.bans.unban(T0, &unban).await.expect("a member"), "it is active");
    store.bans.ban(at(1), &here.about(&peer)).await.expect("a member");
    assert!(store.bans.unban(at(2), &unban).await.expect("a member"));
    assert!(!store.bans.unban(at(3), &unban).await.expect("a member"));
    assert!(store.bans.banned(&here.mesh).await.expect("readable").is_empty());
    let members = store.members.active(&here.mesh).await.expect("readable");
    assert!(members.iter().any(|member| member.id == peer.id && member.revoked_at.is_none()));
    let rows = here.audit_of("member_unbanned").await;
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((&row.actor, row.created_at), (&None, at(2)), "an operator has no member id");
}

pub(crate) async fn concurrent_bans_write_one_audit_row(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    let tasks: Vec<_> = (0..5)
        .map(|_| {
            let (store, ban) = (store.clone(), here.about(&peer));
            tokio::spawn(async move { store.bans.ban(T0, &ban).await.expect("a member") })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += usize::from(task.await.expect("no panic"));
    }
    assert_eq!((done, here.audit_of("member_banned").await.len()), (1, 1));
}

pub(crate) async fn an_unknown_member_cannot_be_banned(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let elsewhere = here.another().await.member("ada").await;
    for ban in [
        Moderation { member: MemberId::generate(), ..here.about(&here.owner) },
        here.about(&elsewhere),
    ] {
        let refusal = store.bans.ban(T0, &ban).await.expect_err("not of this mesh");
        assert!(matches!(refusal, StoreError::NotFound(_)), "{refusal:?}");
    }
    assert!(here.audit_of("member_banned").await.is_empty());
}

pub(crate) async fn a_role_changes_with_an_audit_row(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    store.members.set_role(at(1), &peer.id, Role::Admin).await.expect("a member");
    store.members.set_role(at(2), &peer.id, Role::Admin).await.expect("a member");
    let members = store.members.active(&here.mesh).await.expect("readable");
    let member = members.iter().find(|member| member.id == peer.id).expect("a member");
    assert_eq!((member.role, member.is_owner), (Role::Admin, false));
    let rows = here.audit_of("member_role_changed").await;
    let [row] = rows.as_slice() else { panic!("one change, one row: {rows:?}") };
    assert_eq!(row.payload, json!({"targetPubkey": peer.key, "role": "admin"}));
    let nobody = store.members.set_role(T0, &MemberId::generate(), Role::Admin).await;
    assert!(matches!(nobody, Err(StoreError::NotFound(_))), "{nobody:?}");
}

pub(crate) async fn a_grant_is_replaced_and_restored(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    let odd = "a \"key\".b[0] größe";
    let grants = async || {
        let members = store.members.active(&here.mesh).await.expect("readable");
        let member = members.into_iter().find(|m| m.id == peer.id).expect("a member");
        serde_json::to_value(member.grants).expect("plain")
    };
    let caps = ["dm".to_owned(), "broadcast".to_owned()];
    store.members.set_grant(&peer.id, "k1", Some(&caps)).await.expect("a member");
    store.members.set_grant(&peer.id, odd, Some(&caps[..1])).await.expect("a member");
    assert_eq!(grants().await, json!({"k1": ["dm", "broadcast"], odd: ["dm"]}));
    store.members.set_grant(&peer.id, "k1", Some(&[])).await.expect("a member");
    assert_eq!(grants().await, json!({"k1": [], odd: ["dm"]}), "nothing is not the default");
    store.members.set_grant(&peer.id, "k1", None).await.expect("a member");
    store.members.set_grant(&peer.id, "never given", None).await.expect("a member");
    assert_eq!(grants().await, json!({odd: ["dm"]}));
    let nobody = store.members.set_grant(&MemberId::generate(), "k", None).await;
    assert!(matches!(nobody, Err(StoreError::NotFound(_))), "{nobody:?}");
}
