//! Invites, and enrolling by one.

use claudemesh_broker::id::{Key, MeshId};
use claudemesh_broker::store::{
    Invite, Join, JoinRefusal, Joined, NewInvite, Role, StoreError, Stores,
};
use serde_json::json;

use super::fixture::{Fixture, Peer, T0, at, fresh_key};

impl Fixture {
    async fn invited(&self, max_uses: i32) -> NewInvite {
        let invite = self.invite(max_uses);
        self.store.invites.create(T0, &invite).await.expect("a new token");
        invite
    }

    async fn joins(&self, invite: &NewInvite, key: &Key) -> Joined {
        self.store
            .invites
            .join(at(1), &self.join(&invite.token, key, "ada"))
            .await
            .expect("writable")
    }

    async fn listed(&self, id: &str) -> Invite {
        let invites = self.store.invites.of_mesh(&self.mesh).await.expect("readable");
        invites.into_iter().find(|invite| invite.id == id).expect("listed")
    }
}

pub(crate) async fn an_invite_enrols_a_member(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (invite, key) = (NewInvite { role: Role::Admin, ..here.invite(2) }, fresh_key());
    store.invites.create(T0, &invite).await.expect("a new token");
    let join = here.join(&invite.token, &key, "ada");
    let joined = store.invites.join(at(1), &join).await.expect("writable");
    assert_eq!(joined, Joined::New(join.member.clone()));
    let members = store.members.active(&here.mesh).await.expect("readable");
    let member = members.iter().find(|member| member.id == join.member).expect("enrolled");
    assert_eq!((&member.key, member.display_name.as_str()), (&key, "ada"));
    assert_eq!((member.role, member.joined_at), (Role::Admin, at(1)), "the row's role");
    assert_eq!((member.message_mode.as_str(), member.is_owner), ("push", false));
    assert!(member.default_groups.is_empty() && member.grants.is_empty());
    assert_eq!(here.listed(&invite.id).await.used_count, 1);
    let rows = here.audit_of("member_joined").await;
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(row.payload, json!({"pubkey": key, "role": "admin"}));
    assert_eq!(row.actor.as_deref(), Some(join.member.as_str()));
    assert_eq!((row.actor_name.as_deref(), row.created_at), (Some("ada"), at(1)));
}

pub(crate) async fn a_member_does_not_use_an_invite_again(store: Stores) {
    let here = Fixture::new(store).await;
    let (invite, key) = (here.invite(1), fresh_key());
    here.store.invites.create(at(1), &invite).await.expect("a new token");
    let Joined::New(member) = here.joins(&invite, &key).await else { panic!("not enrolled") };
    let again = here.joins(&invite, &key).await;
    assert_eq!(again, Joined::Already(member), "even when it is used up");
    let join = here.join(&invite.token, &here.owner.key, "owner");
    let stranger = here.store.invites.join(at(1), &join).await.expect("writable");
    let exhausted = Joined::Refused(JoinRefusal::Exhausted);
    assert_eq!(stranger, exhausted, "it does not tell which keys are members");
    assert_eq!(here.listed(&invite.id).await.used_count, 1);
    assert_eq!(here.audit_of("member_joined").await.len(), 1);
}

pub(crate) async fn a_bad_invite_is_refused_with_its_reason(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let there = here.another().await;
    let invite = here.invited(1).await;
    let join = || here.join(&invite.token, &fresh_key(), "ada");
    let refused =
        async |now, join: Join| match store.invites.join(now, &join).await.expect("writable") {
            Joined::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        };
    let nowhere = Join { mesh: MeshId::generate(), ..join() };
    assert_eq!(refused(T0, nowhere).await, JoinRefusal::MeshNotFound);
    let forged = Join { owner_key: there.owner.key.to_string(), ..join() };
    assert_eq!(refused(T0, forged).await, JoinRefusal::OwnerMismatch);
    let unknown = Join { token: "unknown".to_owned(), ..join() };
    assert_eq!(refused(T0, unknown).await, JoinRefusal::NotFound);
    let crossed = Join { token: invite.token.clone(), ..there.join("", &fresh_key(), "ada") };
    assert_eq!(refused(T0, crossed).await, JoinRefusal::MeshMismatch);
    assert_eq!(refused(at(3600).plus_ms(1), join()).await, JoinRefusal::Expired);
    let last_moment = store.invites.join(at(3600), &join()).await.expect("writable");
    assert!(matches!(last_moment, Joined::New(_)), "{last_moment:?}");
    assert_eq!(refused(T0, join()).await, JoinRefusal::Exhausted);
    let revoked = here.invited(1).await;
    assert!(store.invites.revoke(T0, &revoked.id).await.expect("writable"));
    let late = here.join(&revoked.token, &fresh_key(), "ada");
    assert_eq!(refused(T0, late).await, JoinRefusal::Revoked);
    store.meshes.archive(T0, &here.mesh, None).await.expect("a mesh");
    assert_eq!(refused(T0, join()).await, JoinRefusal::MeshNotFound);
    assert_eq!(here.audit_of("member_joined").await.len(), 1);
}

pub(crate) async fn checks_come_in_order(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    let invite = here.invited(1).await;
    store.invites.revoke(T0, &invite.id).await.expect("writable");
    // Revoked, expired, and of a member already: the first of them is told.
    let join = here.join(&invite.token, &peer.key, "ada");
    let joined = store.invites.join(at(9999), &join).await.expect("writable");
    assert_eq!(joined, Joined::Refused(JoinRefusal::Revoked));
    let expired = here.invited(1).await;
    let join = here.join(&expired.token, &peer.key, "ada");
    let joined = store.invites.join(at(9999), &join).await.expect("writable");
    assert_eq!(joined, Joined::Refused(JoinRefusal::Expired));
    let join = Join { owner_key: peer.key.to_string(), token: "unknown".to_owned(), ..join };
    let joined = store.invites.join(T0, &join).await.expect("writable");
    assert_eq!(joined, Joined::Refused(JoinRefusal::OwnerMismatch));
}

pub(crate) async fn an_invite_is_used_no_more_than_it_may_be(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let invite = here.invited(3).await;
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let (here, invite) = (here.clone(), invite.clone());
            tokio::spawn(async move { here.joins(&invite, &fresh_key()).await })
        })
        .collect();
    let mut enrolled = 0;
    for task in tasks {
        match task.await.expect("no panic") {
            Joined::New(_) => enrolled += 1,
            other => assert_eq!(other, Joined::Refused(JoinRefusal::Exhausted)),
        }
    }
    assert_eq!(enrolled, 3);
    assert_eq!(here.listed(&invite.id).await.used_count, 3);
    assert_eq!(store.members.active(&here.mesh).await.expect("readable").len(), 1 + 3);
    assert_eq!(here.audit_of("member_joined").await.len(), 3);
}

pub(crate) async fn a_banned_key_comes_back_by_a_newer_invite_only(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let older = here.invited(9).await;
    let key = fresh_key();
    let Joined::New(member) = here.joins(&older, &key).await else { panic!("not enrolled") };
    let peer = Peer { id: member, key, name: "ada".to_owned() };
    store.bans.ban(at(2), &here.about(&peer)).await.expect("a member");
    let banned = here.joins(&older, &peer.key).await;
    assert_eq!(banned, Joined::Refused(JoinRefusal::Banned));
    assert_eq!(here.listed(&older.id).await.used_count, 1);
    let newer = here.invite(1);
    store.invites.create(at(3), &newer).await.expect("a new token");
    let joined = here.joins(&newer, &peer.key).await;
    assert!(matches!(&joined, Joined::New(member) if *member != peer.id), "{joined:?}");
}

pub(crate) async fn invites_are_listed_newest_first(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    here.another().await.invited(1).await;
    let mut made = Vec::new();
    for (seconds, role) in [(1, Role::Member), (3, Role::Admin), (2, Role::Member)] {
        let invite = NewInvite { role, ..here.invite(5) };
        store.invites.create(at(seconds), &invite).await.expect("a new token");
        made.push(invite);
    }
    let invites = store.invites.of_mesh(&here.mesh).await.expect("readable");
    let ids: Vec<&str> = invites.iter().map(|invite| invite.id.as_str()).collect();
    assert_eq!(ids, [&made[1].id, &made[2].id, &made[0].id]);
    let newest = &invites[0];
    assert_eq!((newest.role, newest.max_uses, newest.used_count), (Role::Admin, 5, 0));
    assert_eq!((newest.created_at, newest.expires_at), (at(3), at(3600)));
    assert_eq!(newest.revoked_at, None);
}

pub(crate) async fn an_invite_is_revoked_once(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let revoke = async |now, name: &str| store.invites.revoke(now, name).await.expect("writable");
    let by_id = here.invited(1).await;
    assert!(revoke(at(5), &by_id.id).await);
    assert!(!revoke(at(6), &by_id.id).await, "revoked already");
    assert_eq!(here.listed(&by_id.id).await.revoked_at, Some(at(5)));
    assert!(revoke(at(5), &here.invited(1).await.token).await);
    assert!(!revoke(at(5), "unknown").await);
    assert!(!revoke(at(3601), &here.invited(1).await.id).await, "expired");
    let used = here.invited(1).await;
    here.joins(&used, &fresh_key()).await;
    assert!(!revoke(at(5), &used.id).await, "used up");
}

pub(crate) async fn a_token_is_unique(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let first = here.invited(1).await;
    let second = NewInvite { token: first.token.clone(), ..here.invite(1) };
    let refusal = store.invites.create(T0, &second).await.expect_err("taken");
    assert!(matches!(refusal, StoreError::Conflict(_)), "{refusal:?}");
    assert!(!refusal.to_string().contains(&first.token), "no values in sentences");
}
