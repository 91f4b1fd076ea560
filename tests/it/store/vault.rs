//! The vault: sealed entries of members.

use claudemesh_broker::limits;
use claudemesh_broker::protocol::{VaultEntryType, VaultSealed, VaultSet};
use claudemesh_broker::store::{Kind, StoreError, Stores};
use serde_json::json;

use super::fixture::{Fixture, Peer, T0, at};

impl Fixture {
    async fn sealed(&self, peer: &Peer, keys: &[&str]) -> Vec<VaultSealed> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        self.store.vault.get(&self.mesh, &peer.id, &keys).await.expect("readable")
    }

    async fn vault_keys(&self, peer: &Peer, after: Option<&str>, limit: i64) -> Vec<String> {
        let lines = self.store.vault.list(&self.mesh, &peer.id, after, limit).await;
        lines.expect("readable").into_iter().map(|line| line.key).collect()
    }
}

fn entry(key: &str, ciphertext: &str) -> VaultSet {
    VaultSet {
        key: key.to_owned(),
        ciphertext: ciphertext.to_owned(),
        nonce: "bm9uY2U=".to_owned(),
        sealed_key: "c2s=".to_owned(),
        entry_type: VaultEntryType::File,
        mount_path: Some("/etc/it".to_owned()),
        description: Some("größe".to_owned()),
    }
}

pub(crate) async fn a_vault_is_its_members_only(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    store.vault.put(T0, &here.author(&ada), &entry("k", "YWRh")).await.expect("writable");
    store.vault.put(T0, &here.author(&bob), &entry("k", "Ym9i")).await.expect("writable");
    let kept = here.sealed(&ada, &["k", "none"]).await;
    let expected = VaultSealed {
        key: "k".to_owned(),
        ciphertext: "YWRh".to_owned(),
        nonce: "bm9uY2U=".to_owned(),
        sealed_key: "c2s=".to_owned(),
        entry_type: VaultEntryType::File,
        mount_path: Some("/etc/it".to_owned()),
    };
    assert_eq!(kept, [expected]);
    let elsewhere = here.another().await;
    assert!(
        store
            .vault
            .get(&elsewhere.mesh, &ada.id, &["k".to_owned()])
            .await
            .expect("readable")
            .is_empty()
    );
    assert!(here.vault_keys(&here.owner, None, 10).await.is_empty(), "the owner's neither");
    assert!(store.vault.delete(T0, &here.author(&bob), "k").await.expect("writable"));
    assert_eq!(here.vault_keys(&ada, None, 10).await, ["k"]);
    assert!(here.vault_keys(&bob, None, 10).await.is_empty());
}

pub(crate) async fn a_later_vault_entry_stands_in_place_of_an_earlier_one(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let author = here.author(&here.owner);
    store.vault.put(at(1), &author, &entry("k", "b25l")).await.expect("writable");
    let later = VaultSet {
        entry_type: VaultEntryType::Env,
        mount_path: None,
        description: None,
        ..entry("k", "dHdv")
    };
    store.vault.put(at(2), &author, &later).await.expect("writable");
    let lines = store.vault.list(&here.mesh, &here.owner.id, None, 10).await.expect("readable");
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((line.entry_type, line.updated_at), (VaultEntryType::Env, at(2)));
    assert_eq!((&line.mount_path, &line.description), (&None, &None));
    assert_eq!(here.sealed(&here.owner, &["k"]).await[0].ciphertext, "dHdv");
}

pub(crate) async fn a_change_of_a_vault_has_one_audit_row(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let author = here.author(&here.owner);
    store.vault.put(at(1), &author, &entry("k", "c2VjcmV0")).await.expect("writable");
    assert!(store.vault.delete(at(2), &author, "k").await.expect("writable"));
    assert!(!store.vault.delete(at(3), &author, "k").await.expect("writable"));
    for (kind, when) in [("vault_set", at(1)), ("vault_deleted", at(2))] {
        let rows = here.audit_of(kind).await;
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((&row.payload, row.created_at), (&json!({ "key": "k" }), when));
        assert_eq!(row.actor.as_deref(), Some(here.owner.id.as_str()));
    }
}

pub(crate) async fn a_vault_is_listed_by_key_some_at_a_time(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let author = here.author(&here.owner);
    for key in ["c", "a", "d", "b"] {
        store.vault.put(T0, &author, &entry(key, "eA==")).await.expect("writable");
    }
    assert_eq!(here.vault_keys(&here.owner, None, 3).await, ["a", "b", "c"]);
    assert_eq!(here.vault_keys(&here.owner, Some("c"), 3).await, ["d"]);
    let keys: Vec<String> =
        here.sealed(&here.owner, &["d", "a", "a"]).await.into_iter().map(|e| e.key).collect();
    assert_eq!(keys, ["a", "d"]);
}

pub(crate) async fn a_vault_has_a_bound(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let author = here.author(&here.owner);
    let large = "x".repeat(usize::try_from(limits::SHARED_BYTES_MAX / 2).expect("a size"));
    store.vault.put(T0, &author, &entry("a", &large)).await.expect("it fits");
    let refused = store.vault.put(T0, &author, &entry("b", &large)).await.expect_err("too much");
    let StoreError::Full(full) = refused else { panic!("{refused:?}") };
    assert_eq!((full.kind, full.numbers().0), (Kind::Vault, limits::SHARED_BYTES_MAX));
    assert_eq!(here.vault_keys(&here.owner, None, 10).await, ["a"]);
    assert_eq!(here.audit_of("vault_set").await.len(), 1, "nothing of it has happened");
    store.vault.put(T0, &author, &entry("a", "eA==")).await.expect("less");
    store.vault.put(T0, &author, &entry("b", &large)).await.expect("there is room again");
}
