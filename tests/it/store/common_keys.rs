//! Keys that members hold in common, as the store keeps them.

use std::collections::BTreeMap;

use claudemesh_broker::id::{self, Key, TopicId};
use claudemesh_broker::protocol::{CommonKey, KeyMaker, Visibility};
use claudemesh_broker::store::{
    KeyMaking, KeyScope, KeySharing, Moderation, NewCommonKey, NewTopic, SharedCommonKey, Stores,
};
use serde_json::json;

use super::fixture::{Fixture, Peer, at};

fn copies(of: &[&Peer]) -> BTreeMap<Key, String> {
    of.iter().map(|peer| (peer.key.clone(), format!("for-{}", peer.name))).collect()
}

fn new(epoch: i64, maker: &Peer, readers: &[&Peer]) -> NewCommonKey {
    let key = CommonKey {
        key_hash: format!("{epoch:064x}"),
        maker: maker.key.clone(),
        signature: "ab".repeat(64),
        earlier: (epoch > 1).then(|| "earlier".to_owned()),
    };
    NewCommonKey { epoch, key, copies: copies(readers), leaves_out: Vec::new() }
}

impl Fixture {
    async fn makes(&self, scope: &KeyScope, maker: &Peer, new: &NewCommonKey) -> KeyMaking {
        let made = self.store.common_keys.make(at(1), &self.author(maker), scope, new).await;
        made.expect("the store answers")
    }

    async fn hands_on(
        &self,
        scope: &KeyScope,
        by: &Peer,
        epoch: i64,
        readers: &[&Peer],
    ) -> KeySharing {
        let (sealed_by, copies) = (by.key.clone(), copies(readers));
        let shared = SharedCommonKey { epoch, sealed_by, copies };
        let done = self.store.common_keys.share(at(2), &self.author(by), scope, &shared).await;
        done.expect("the store answers")
    }

    /// The copy of a member, and whether somebody has one who should not.
    async fn holds(&self, scope: &KeyScope, member: &Peer) -> (Option<String>, bool) {
        let found = self.store.common_keys.get(&self.mesh, scope, &member.id).await;
        let held = found.expect("the store answers").expect("a key");
        (held.copy.map(|copy| copy.sealed), held.is_stale)
    }

    /// Those with a copy, and those without.
    async fn holders(&self, scope: &KeyScope) -> [Vec<Key>; 2] {
        let found = self.store.common_keys.holders(&self.mesh, scope, 10).await;
        let (have, lack) =
            found.expect("the store answers").into_iter().partition(|holder| holder.has_copy);
        [have, lack].map(|holders: Vec<claudemesh_broker::store::CommonKeyHolder>| {
            holders.into_iter().map(|holder| holder.key).collect()
        })
    }
}

pub(crate) async fn a_common_key_is_kept_for_members_and_handed_on_once(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    let (mesh, stranger) = (KeyScope::Mesh, here.another().await.owner);
    let first = store.common_keys.get(&here.mesh, &mesh, &ada.id).await.expect("answered");
    assert_eq!(first, None);
    let made = here.makes(&mesh, &ada, &new(1, &ada, &[&ada, &stranger])).await;
    assert_eq!(made, KeyMaking::Made);
    assert_eq!(here.holds(&mesh, &ada).await, (Some("for-ada".to_owned()), false));
    let [have, mut lack] = here.holders(&mesh).await;
    lack.sort();
    let mut expected = [here.owner.key.clone(), bob.key.clone()];
    expected.sort();
    assert_eq!((&have[..], &lack[..]), (&[ada.key.clone()][..], &expected[..]));
    assert_eq!(here.hands_on(&mesh, &bob, 1, &[&bob]).await, KeySharing::NotHeld);
    assert_eq!(here.hands_on(&mesh, &ada, 2, &[&bob]).await, KeySharing::Overtaken { epoch: 1 });
    assert_eq!(here.hands_on(&mesh, &ada, 1, &[&bob, &stranger]).await, KeySharing::Shared(1));
    assert_eq!(here.hands_on(&mesh, &ada, 1, &[&bob]).await, KeySharing::Shared(0), "it stays");
    let held = store.common_keys.get(&here.mesh, &mesh, &bob.id).await.expect("answered");
    let held = held.expect("a key");
    let copy = held.copy.expect("a copy");
    assert_eq!((&*copy.sealed, &copy.sealed_by, held.epoch), ("for-bob", &ada.key, 1));
    store.common_keys.drop_copy(&here.mesh, &mesh, &bob.id).await.expect("dropped");
    assert_eq!(here.holds(&mesh, &bob).await, (None, false));
    let shared = here.audit_of("common_key_shared").await;
    assert_eq!(shared.len(), 1);
    assert_eq!(shared[0].payload, json!({ "scope": "mesh", "epoch": 1, "members": 1 }));
}

pub(crate) async fn nobody_loses_what_it_reads_by_the_next_common_key(store: Stores) {
    let here = Fixture::new(store).await;
    let (ada, bob, eve) =
        (here.member("ada").await, here.member("bob").await, here.member("eve").await);
    let mesh = KeyScope::Mesh;
    let overtaken = here.makes(&mesh, &ada, &new(2, &ada, &[&ada])).await;
    assert_eq!(overtaken, KeyMaking::Overtaken { epoch: 0 });
    assert_eq!(here.makes(&mesh, &ada, &new(1, &ada, &[&ada, &bob])).await, KeyMaking::Made);
    let again = here.makes(&mesh, &bob, &new(1, &bob, &[&bob])).await;
    assert_eq!(again, KeyMaking::Overtaken { epoch: 1 });
    assert_eq!(here.makes(&mesh, &eve, &new(2, &eve, &[&eve])).await, KeyMaking::NotHeld);
    assert_eq!(here.makes(&mesh, &ada, &new(2, &ada, &[&ada])).await, KeyMaking::Incomplete);
    let without = NewCommonKey { leaves_out: vec![bob.key.clone()], ..new(2, &ada, &[&ada]) };
    assert_eq!(here.makes(&mesh, &ada, &without).await, KeyMaking::Made, "on purpose");
    assert_eq!(here.holds(&mesh, &bob).await, (None, false));
    let made = here.makes(&mesh, &ada, &new(3, &ada, &[&ada, &bob, &eve])).await;
    assert_eq!(made, KeyMaking::Made);
    here.ban(&ada).await;
    assert!(here.holds(&mesh, &bob).await.1, "one has it who is no member any more");
    let made = here.makes(&mesh, &bob, &new(4, &bob, &[&bob, &eve])).await;
    assert_eq!(made, KeyMaking::Made, "the banned one needs no copy");
    assert!(!here.holds(&mesh, &bob).await.1);
    for gone in [&bob, &eve] {
        here.ban(gone).await;
    }
    let made = here.makes(&mesh, &here.owner, &new(5, &here.owner, &[&here.owner])).await;
    assert_eq!(made, KeyMaking::Made, "nobody has the newest any more");
}

pub(crate) async fn a_topics_common_key_is_for_who_is_in_it(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    let id = TopicId::from(id::random());
    let topic = NewTopic {
        id: id.clone(),
        name: "closed".to_owned(),
        description: None,
        visibility: Visibility::Private,
        key_pubkey: String::new(),
        key_maker: KeyMaker::Client,
        seals: Vec::new(),
    };
    store.topics.create(at(1), &here.author(&ada), &topic).await.expect("made");
    let scope = KeyScope::Topic(id.clone());
    let made = here.makes(&scope, &ada, &new(1, &ada, &[&ada, &bob])).await;
    assert_eq!(made, KeyMaking::Made);
    assert_eq!(here.holders(&scope).await, [vec![ada.key.clone()], Vec::new()]);
    assert_eq!(here.hands_on(&scope, &ada, 1, &[&bob]).await, KeySharing::Shared(0));
    let author = here.author(&ada);
    store.topics.invite(at(2), &author, &id, &bob.id).await.expect("invited");
    let role = claudemesh_broker::protocol::TopicRole::Member;
    store.topics.join(at(2), &here.author(&bob), &id, role).await.expect("joined");
    assert_eq!(here.hands_on(&scope, &ada, 1, &[&bob]).await, KeySharing::Shared(1));
    assert!(!here.holds(&scope, &ada).await.1);
    store.topics.leave(at(3), &here.author(&bob), &id).await.expect("left");
    assert!(here.holds(&scope, &ada).await.1, "who has left has it still");
}

impl Fixture {
    async fn ban(&self, target: &Peer) {
        let audit = claudemesh_broker::audit::AuditEvent::MemberBanned {
            target: target.name.clone(),
            target_pubkey: target.key.clone(),
        };
        let ban = Moderation {
            mesh: self.mesh.clone(),
            member: target.id.clone(),
            actor: None,
            actor_name: None,
            audit,
        };
        self.store.bans.ban(at(3), &ban).await.expect("banned");
    }
}
