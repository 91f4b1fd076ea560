//! Bringing a schema up to date.

use claudemesh_broker::store::{Store as _, StoreError};
use sqlx::Row as _;

use super::fixture;
use crate::harness::postgres::{PrivatePostgres, connection, store};
use crate::store_conformance::fixture::T0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes_migrate_at_once() {
    let url = PrivatePostgres::shared().empty_database().await;
    let mut nodes = Vec::new();
    for _ in 0..6 {
        let url = url.clone();
        nodes.push(tokio::spawn(async move {
            let node = store(&url);
            node.migrate().await.expect("one of them does it, the others wait");
            node.pending_migrations().await.expect("readable")
        }));
    }
    for node in nodes {
        assert!(node.await.expect("no panic").is_empty());
    }
}

#[tokio::test]
async fn asking_what_is_pending_makes_nothing() {
    let url = PrivatePostgres::shared().empty_database().await;
    let pending = store(&url).pending_migrations().await.expect("an empty database");
    assert_eq!(pending, ["0001_core", "0002_coordination"]);
    let made = sqlx::query("select to_regnamespace('mesh') is not null as made")
        .fetch_one(&mut connection(&url).await)
        .await
        .expect("readable");
    assert!(!made.get::<bool, _>("made"));
}

#[tokio::test]
async fn a_failed_migration_leaves_nothing_and_no_lock() {
    let url = PrivatePostgres::shared().empty_database().await;
    let mut other = connection(&url).await;
    sqlx::raw_sql("create schema mesh; create view mesh.send_key as select 1 as message_id")
        .execute(&mut other)
        .await
        .expect("an empty database");
    let (first, second) = (store(&url), store(&url));
    let refusal = first.migrate().await.expect_err("a view is in the way");
    assert!(!refusal.is_retryable(), "{refusal}");
    let made = sqlx::query("select to_regclass('mesh.mesh') is not null as made")
        .fetch_one(&mut other)
        .await
        .expect("readable");
    assert!(!made.get::<bool, _>("made"));
    sqlx::raw_sql("drop view mesh.send_key").execute(&mut other).await.expect("there");
    second.migrate().await.expect("nothing is in the way");
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    let (here, url) = fixture().await;
    sqlx::raw_sql("update mesh.broker_migration set checksum = 'other' where version = 1")
        .execute(&mut connection(&url).await)
        .await
        .expect("there");
    let refusal = here.store.migrate().await.expect_err("not the one that ran");
    assert!(matches!(&refusal, StoreError::Broken(text) if text.contains("0001_core")));
}

#[tokio::test]
async fn a_migration_of_a_later_release_is_no_obstacle() {
    let (here, url) = fixture().await;
    sqlx::raw_sql("insert into mesh.broker_migration values (900, 'later', 'x')")
        .execute(&mut connection(&url).await)
        .await
        .expect("there");
    here.store.migrate().await.expect("nothing to do");
    here.send(T0, &here.multicast(&here.owner)).await;
}

/// Names, types and constraints of a fresh schema are those that an
/// installation's own programs know.
#[tokio::test]
async fn a_fresh_schema_is_the_recorded_one() {
    let (_here, url) = fixture().await;
    let rows = sqlx::query(
        "select c.relname || ' ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
            || case when a.attnotnull then ' not null' else '' end as line
         from pg_attribute a join pg_class c on c.oid = a.attrelid
         where c.relnamespace = 'mesh'::regnamespace and a.attnum > 0 and not a.attisdropped
            and c.relname in ('mesh', 'member', 'presence', 'message_queue', 'audit_log')
         order by c.relname, a.attnum",
    )
    .fetch_all(&mut connection(&url).await)
    .await
    .expect("readable");
    let lines: Vec<String> = rows.iter().map(|row| row.get("line")).collect();
    insta::assert_snapshot!(lines.join("\n"));
}
