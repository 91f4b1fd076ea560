//! Migrations, readiness, the end.

use std::time::Duration;

use claudemesh_broker::store::Stores;

use super::fixture::Fixture;

pub(crate) async fn migrating_again_changes_nothing(store: Stores) {
    let pending = store.database.pending_migrations().await.expect("readable");
    assert!(pending.is_empty(), "{pending:?} did not run");
    let here = Fixture::new(store.clone()).await;
    let again = || {
        let store = store.clone();
        tokio::spawn(async move { store.database.migrate().await })
    };
    let (first, second) = (again(), again());
    first.await.expect("no panic").expect("nothing to do");
    second.await.expect("no panic").expect("nothing to do");
    assert!(store.meshes.get(&here.mesh).await.expect("readable").is_some());
}

pub(crate) async fn a_store_answers(store: Stores) {
    store.database.ping().await.expect("it is open");
}

pub(crate) async fn watching_for_changes_comes_back(store: Stores) {
    for _ in 0..2 {
        let watched = tokio::time::timeout(Duration::from_secs(5), store.database.changes()).await;
        watched.expect("about a second").expect("it is open");
    }
}

pub(crate) async fn a_closed_store_refuses(store: Stores) {
    store.database.close().await;
    let refusal = store.database.ping().await.expect_err("it is closed");
    assert!(refusal.is_retryable(), "{refusal}");
}
