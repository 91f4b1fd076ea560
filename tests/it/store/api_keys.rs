//! API keys: kept without their secrets, and good as long as all behind them is.

use std::collections::HashSet;

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::{self, MemberId};
use claudemesh_broker::protocol::ApiCapability;
use claudemesh_broker::store::{ApiKey, ApiKeyPlace, NewApiKey, Revocation, Role, Stores};
use claudemesh_broker::{audit::AuditEvent, store::Moderation};
use serde_json::json;

use super::fixture::{Fixture, Peer, T0, at};

fn key(label: &str) -> NewApiKey {
    let id = id::random();
    NewApiKey {
        secret_hash: format!("hash of {id}"),
        secret_prefix: format!("cm_{}", &id[..8]),
        id,
        label: label.to_owned(),
        capabilities: vec![ApiCapability::Read, ApiCapability::Send],
        topic_scopes: Some(vec!["größe".to_owned()]),
        expires_at: None,
    }
}

impl Fixture {
    /// A key of that member, made at that instant.
    pub(crate) async fn key(&self, now: Timestamp, peer: &Peer, key: &NewApiKey) {
        let forget_before = now.plus_ms(-1_000_000);
        let author = self.author(peer);
        self.store.api_keys.create(now, &author, key, forget_before).await.expect("a new key");
    }

    async fn is_good(&self, now: Timestamp, key: &NewApiKey) -> bool {
        let found = self.store.api_keys.good(now, &key.secret_prefix).await.expect("readable");
        found.iter().any(|good| good.id == key.id)
    }

    async fn api_keys_of(&self, issuer: Option<&MemberId>) -> Vec<ApiKey> {
        self.store.api_keys.list(&self.mesh, issuer, None, 100).await.expect("readable")
    }

    async fn revoke(&self, peer: &Peer, issuer: Option<&MemberId>, id: &str) -> Revocation {
        let author = self.author(peer);
        self.store.api_keys.revoke(at(5), &author, issuer, id).await.expect("writable")
    }
}

pub(crate) async fn a_key_is_found_by_the_beginning_of_its_secret(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (one, other) = (key("ci"), key("ci"));
    here.key(T0, &here.owner, &one).await;
    here.key(T0, &here.owner, &other).await;
    let found = store.api_keys.good(T0, &one.secret_prefix).await.expect("readable");
    let [good] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((&good.id, &good.secret_hash), (&one.id, &one.secret_hash));
    let issuer = good.issuer.as_ref().map(|one| (&one.id, &one.key, &*one.name));
    assert_eq!(
        (&good.mesh, issuer),
        (&here.mesh, Some((&here.owner.id, &here.owner.key, "owner")))
    );
    assert_eq!(good.capabilities, one.capabilities);
    assert_eq!((&good.topic_scopes, good.last_used_at), (&one.topic_scopes, None));
    assert!(store.api_keys.good(T0, "cm_0000000%").await.expect("readable").is_empty());
}

pub(crate) async fn a_key_is_good_until_it_ends(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let ending = NewApiKey { expires_at: Some(at(10)), ..key("ends") };
    let (revoked, lasting) = (key("revoked"), key("lasting"));
    for key in [&ending, &revoked, &lasting] {
        here.key(T0, &here.owner, key).await;
    }
    assert!(here.is_good(at(10), &ending).await && !here.is_good(at(11), &ending).await);
    here.revoke(&here.owner, None, &revoked.id).await;
    assert!(!here.is_good(at(1), &revoked).await && here.is_good(at(1), &lasting).await);
    assert!(store.meshes.archive(at(20), &here.mesh, None).await.expect("writable"));
    assert!(!here.is_good(at(1), &lasting).await, "its mesh is archived");
}

pub(crate) async fn a_key_may_no_more_than_the_member_that_made_it(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let ada = here.member("ada").await;
    store.members.set_role(T0, &ada.id, Role::Admin).await.expect("a member");
    let admins =
        NewApiKey { capabilities: vec![ApiCapability::Admin, ApiCapability::Read], ..key("admin") };
    here.key(T0, &ada, &admins).await;
    let may = async || {
        let found = store.api_keys.good(T0, &admins.secret_prefix).await.expect("readable");
        found[0].capabilities.clone()
    };
    assert_eq!(may().await, [ApiCapability::Admin, ApiCapability::Read]);
    store.members.set_role(T0, &ada.id, Role::Member).await.expect("a member");
    assert_eq!(may().await, [ApiCapability::Read]);
}

pub(crate) async fn a_ban_revokes_keys_and_an_unban_brings_none_back(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    let (hers, his) = (key("hers"), key("his"));
    here.key(T0, &ada, &hers).await;
    here.key(T0, &bob, &his).await;
    assert!(store.bans.ban(at(1), &here.about(&ada)).await.expect("a member"));
    assert!(!here.is_good(at(1), &hers).await && here.is_good(at(1), &his).await);
    let audit = AuditEvent::MemberUnbanned { target: "ada".to_owned() };
    let unban = Moderation { audit, ..here.about(&ada) };
    assert!(store.bans.unban(at(2), &unban).await.expect("a member"));
    assert!(!here.is_good(at(2), &hers).await);
    let keys = here.api_keys_of(Some(&ada.id)).await;
    assert_eq!(keys[0].revoked_at, Some(at(1)));
    let new = key("new");
    here.key(at(3), &ada, &new).await;
    assert!(here.is_good(at(3), &new).await);
}

pub(crate) async fn keys_are_listed_newest_first_some_at_a_time(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let ada = here.member("ada").await;
    let mut made = Vec::new();
    for second in [1, 1, 1, 2, 3] {
        let key = key("some");
        here.key(at(second), &ada, &key).await;
        made.push(key.id);
    }
    here.key(at(2), &here.owner, &key("the owner's")).await;
    let (mut seen, mut after) = (Vec::new(), None::<ApiKeyPlace>);
    loop {
        let page = store.api_keys.list(&here.mesh, Some(&ada.id), after.as_ref(), 2).await;
        let page = page.expect("readable");
        after = page.last().map(|key| (key.created_at, key.id.clone()));
        let is_last = page.len() < 2;
        seen.extend(page);
        if is_last {
            break;
        }
    }
    let instants: Vec<_> = seen.iter().map(|key| key.created_at).collect();
    assert_eq!(instants, [at(3), at(2), at(1), at(1), at(1)]);
    let ids: HashSet<_> = seen.iter().map(|key| key.id.clone()).collect();
    assert_eq!(ids, made.into_iter().collect());
    assert_eq!(seen[0].issued_by.as_deref(), Some("ada"));
    assert_eq!(here.api_keys_of(None).await.len(), 6);
    assert!(here.another().await.api_keys_of(None).await.is_empty());
}

pub(crate) async fn a_key_is_revoked_by_its_id_or_the_beginning_of_it(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let ada = here.member("ada").await;
    let named = |id: &str| NewApiKey { id: id.to_owned() + &id::random(), ..key("some") };
    let (one, two, three) = (named("aaaa1"), named("aaaa2"), named("b"));
    for key in [&one, &two, &three] {
        here.key(T0, &ada, key).await;
    }
    let own = Some(&ada.id);
    assert_eq!(here.revoke(&ada, own, "aaaa").await, Revocation::Ambiguous);
    for nothing in ["%", "_", "a%1", "c", "aaaa1_"] {
        assert_eq!(here.revoke(&ada, own, nothing).await, Revocation::Unknown, "{nothing}");
    }
    let others = Some(&here.owner.id);
    assert_eq!(here.revoke(&here.owner, others, &one.id).await, Revocation::Unknown);
    let elsewhere = here.another().await;
    assert_eq!(elsewhere.revoke(&elsewhere.owner, None, &one.id).await, Revocation::Unknown);
    for _ in 0..2 {
        assert_eq!(here.revoke(&ada, own, "aaaa1").await, Revocation::Revoked(one.id.clone()));
    }
    let all = here.revoke(&here.owner, None, &three.id).await;
    assert_eq!(all, Revocation::Revoked(three.id.clone()));
    assert!(here.is_good(at(6), &two).await && !here.is_good(at(6), &three).await);
}

pub(crate) async fn a_use_is_noted_once_in_a_while(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let one = key("ci");
    here.key(T0, &here.owner, &one).await;
    let used = async |now: Timestamp| {
        store.api_keys.note_use(now, &one.id, now.plus_ms(-60_000)).await.expect("writable");
        here.api_keys_of(None).await[0].last_used_at
    };
    assert_eq!(used(at(1)).await, Some(at(1)));
    assert_eq!(used(at(30)).await, Some(at(1)));
    assert_eq!(used(at(62)).await, Some(at(62)));
}

pub(crate) async fn keys_that_ended_long_ago_are_forgotten(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let run_out = NewApiKey { expires_at: Some(at(5)), ..key("run out") };
    let (revoked, lasting) = (key("revoked"), key("lasting"));
    for key in [&run_out, &revoked, &lasting] {
        here.key(T0, &here.owner, key).await;
    }
    here.revoke(&here.owner, None, &revoked.id).await;
    let author = here.author(&here.owner);
    store.api_keys.create(at(9), &author, &key("next"), at(5)).await.expect("a new key");
    assert_eq!(here.api_keys_of(None).await.len(), 4, "not so long ago");
    store.api_keys.create(at(9), &author, &key("next"), at(6)).await.expect("a new key");
    let labels: HashSet<_> =
        here.api_keys_of(None).await.into_iter().map(|key| key.label).collect();
    assert_eq!(labels, ["lasting", "next"].map(str::to_owned).into());
}

pub(crate) async fn a_change_of_a_key_has_one_audit_row(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let one = key("ci");
    here.key(T0, &here.owner, &one).await;
    for _ in 0..2 {
        here.revoke(&here.owner, None, &one.id).await;
    }
    let rows = here.audit_of("apikey_created").await;
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    let payload = json!({ "keyId": one.id, "label": "ci", "capabilities": ["read", "send"] });
    assert_eq!((&row.payload, row.actor.as_deref()), (&payload, Some(here.owner.id.as_str())));
    let rows = here.audit_of("apikey_revoked").await;
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(row.payload, json!({ "keyId": one.id }));
}
