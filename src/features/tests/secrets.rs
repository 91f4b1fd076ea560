//! The vault and API keys: whose they are, and what is asked of the store for whom.

use super::*;
use crate::limits;
use crate::store::Revocation;

fn sealed(key: &str, bytes: usize) -> Value {
    json!({ "type": "vault_set", "key": key, "ciphertext": "x".repeat(bytes), "nonce": "n",
        "sealed_key": "s" })
}

#[tokio::test]
async fn a_vault_is_asked_for_what_is_the_askers_own() {
    let mut fakes = MockStores::default();
    let own = |member: &MemberId| member.as_str() == "bob";
    fakes
        .vault
        .expect_list()
        .withf(move |_, member, _, _| own(member))
        .return_once(|_, _, _, _| Ok(Vec::new()));
    fakes
        .vault
        .expect_get()
        .withf(move |_, member, _| own(member))
        .return_once(|_, _, _| Ok(Vec::new()));
    fakes.vault.expect_put().withf(move |_, by, _| own(&by.member)).return_once(|_, _, _| Ok(()));
    fakes
        .vault
        .expect_delete()
        .withf(move |_, by, _| own(&by.member))
        .return_once(|_, _, _| Ok(true));
    let scene = Scene::new(fakes).await;
    let bob = scene.session("bob");
    for (frame, answer) in [
        (json!({ "type": "vault_list" }), "vault_list_result"),
        (json!({ "type": "vault_get", "keys": ["k"] }), "vault_get_result"),
        (sealed("k", limits::VALUE_BYTES_MAX), "vault_ack"),
        (json!({ "type": "vault_delete", "key": "k" }), "vault_ack"),
    ] {
        assert_eq!(scene.asks(&bob, frame).await["type"], answer);
    }
}

#[tokio::test]
async fn what_is_too_long_for_a_vault_never_reaches_the_store() {
    let scene = Scene::new(MockStores::default()).await;
    let bob = scene.session("bob");
    for frame in [
        sealed("", 1),
        sealed("k", 0),
        sealed("k", limits::VALUE_BYTES_MAX + 1),
        sealed(&"k".repeat(limits::SHARED_NAME_BYTES_MAX + 1), 1),
        json!({ "type": "vault_get", "keys": vec!["k"; limits::SHARED_NAMES_MAX + 1] }),
    ] {
        assert_eq!(scene.asks(&bob, frame).await["code"], "invalid_argument");
    }
    assert!(scene.says(&bob, sealed("", 1)).await.is_empty(), "without an id no error strays");
}

#[tokio::test]
async fn members_are_given_their_own_keys_and_moderators_all() {
    let (mut fakes, asked) = (MockStores::default(), Noted::<Option<MemberId>>::default());
    let noted = Arc::clone(&asked);
    fakes.api_keys.expect_list().returning(move |_, issuer, _, _| {
        noted.lock().push(issuer.cloned());
        Ok(Vec::new())
    });
    let noted = Arc::clone(&asked);
    fakes.api_keys.expect_revoke().returning(move |_, _, issuer, _| {
        noted.lock().push(issuer.cloned());
        Ok(Revocation::Unknown)
    });
    let scene = Scene::new(fakes).await;
    for name in ["bob", "ada", "olga"] {
        let session = scene.session(name);
        scene.asks(&session, json!({ "type": "apikey_list" })).await;
        let revoke = json!({ "type": "apikey_revoke", "id": "k" });
        assert_eq!(scene.asks(&session, revoke).await["status"], "not_found");
    }
    let bob = Some(MemberId::from("bob"));
    assert_eq!(*asked.lock(), [bob.clone(), bob, None, None, None, None]);
}

#[tokio::test]
async fn a_key_may_no_more_than_the_member_that_asks_for_it() {
    let mut fakes = MockStores::default();
    fakes.api_keys.expect_create().times(1).returning(|_, by, key, _| {
        assert_eq!((by.member.as_str(), key.secret_hash.len()), ("ada", 64));
        Ok(())
    });
    let scene = Scene::new(fakes).await;
    let ask = json!({ "type": "apikey_create", "label": "ci", "capabilities": ["admin"] });
    assert_eq!(scene.asks(&scene.session("bob"), ask.clone()).await["code"], "forbidden");
    let made = scene.asks(&scene.session("ada"), ask).await;
    assert_eq!(made["type"], "apikey_created", "{made}");
}
