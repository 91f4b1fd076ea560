//! A database without Redis has one broker.

use std::pin::pin;

use claudemesh_broker::id::NodeId;
use claudemesh_broker::store::StoreError;
use claudemesh_broker::store::postgres::{Claim, PostgresSettings};
use sqlx::AssertSqlSafe;

use crate::harness::postgres::{PrivatePostgres, connection};
use crate::harness::until;

fn settings(url: &str) -> PostgresSettings {
    PostgresSettings { url: url.to_owned(), pool_max: 2, statement_cache_max: 100 }
}

async fn take(url: &str, node: &str) -> Result<Option<Claim>, StoreError> {
    Claim::take(&settings(url), &NodeId::from(node)).await
}

async fn cut_owners(url: &str) {
    let sql = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name like 'claudemesh-owner%'";
    let mut other = connection(url).await;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut other).await.expect("a superuser may");
}

/// The server process that holds the claim.
async fn holder(url: &str) -> Option<i32> {
    let sql = "select pid from pg_locks where locktype = 'advisory' and granted
        and database = (select oid from pg_database where datname = current_database())";
    let mut other = connection(url).await;
    sqlx::query_scalar(sql).fetch_optional(&mut other).await.expect("anybody may look")
}

#[tokio::test]
async fn a_second_owner_is_refused_and_told_whose_it_is() {
    let url = PrivatePostgres::shared().empty_database().await;
    let first = take(&url, "node-a").await.expect("free").expect("claimed");
    let refused = take(&url, "node-b").await.err().expect("taken");
    assert!(matches!(refused, StoreError::Conflict(_)), "{refused}");
    let text = refused.to_string();
    let process = format!("process {}, node node-a", std::process::id());
    assert!(text.contains(&process) && text.contains("REDIS_URL"), "{text}");
    let elsewhere = PrivatePostgres::shared().empty_database().await;
    assert!(take(&elsewhere, "node-b").await.expect("another database").is_some());
    // As the end of its process does.
    drop(first);
    until("the server has noticed", async || take(&url, "node-b").await.is_ok()).await;
    let pooled = PostgresSettings { statement_cache_max: 0, ..settings(&url) };
    let claim = Claim::take(&pooled, &NodeId::from("node-c")).await.expect("no question");
    assert!(claim.is_none(), "behind a pooler nothing can be claimed");
}

#[tokio::test]
async fn an_owner_whose_connection_broke_claims_again_or_learns_that_it_is_too_late() {
    let url = PrivatePostgres::shared().empty_database().await;
    let mut first = take(&url, "node-a").await.expect("free").expect("claimed");
    let broken = holder(&url).await.expect("claimed");
    cut_owners(&url).await;
    // Only looked at: whoever tries takes it, and the owner comes too late.
    let is_again = async || holder(&url).await.is_some_and(|process| process != broken);
    // Kept to the end: whoever drops it drops the connection that it is making.
    let mut lost = pin!(first.lost());
    tokio::select! {
        other = &mut lost => panic!("{other}"),
        () = until("it is claimed again", is_again) => {}
    }
    assert!(take(&url, "node-b").await.is_err(), "it is the first's");
    let mut second = None;
    until("another was faster", async || {
        cut_owners(&url).await;
        second = take(&url, "node-b").await.ok().flatten();
        second.is_some()
    })
    .await;
    let why = lost.await;
    assert!(why.contains("node node-b"), "{why}");
}
