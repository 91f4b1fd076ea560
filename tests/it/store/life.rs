//! Migrations, readiness, the end.

use std::sync::Arc;
use std::time::Duration;

use claudemesh_broker::store::Store;

use super::fixture::Fixture;

pub(crate) async fn migrating_again_changes_nothing(store: Arc<dyn Store>) {
    let pending = store.pending_migrations().await.expect("readable");
    assert!(pending.is_empty(), "{pending:?} did not run");
    let here = Fixture::new(store.clone()).await;
    let again = || {
        let store = store.clone();
        tokio::spawn(async move { store.migrate().await })
    };
    let (first, second) = (again(), again());
    first.await.expect("no panic").expect("nothing to do");
    second.await.expect("no panic").expect("nothing to do");
    assert!(store.mesh(&here.mesh).await.expect("readable").is_some());
}

pub(crate) async fn a_store_answers(store: Arc<dyn Store>) {
    store.ping().await.expect("it is open");
}

pub(crate) async fn watching_for_changes_comes_back(store: Arc<dyn Store>) {
    for _ in 0..2 {
        let watched = tokio::time::timeout(Duration::from_secs(5), store.changes()).await;
        watched.expect("about a second").expect("it is open");
    }
}

pub(crate) async fn a_closed_store_refuses(store: Arc<dyn Store>) {
    store.close().await;
    let refusal = store.ping().await.expect_err("it is closed");
    assert!(refusal.is_retryable(), "{refusal}");
}
