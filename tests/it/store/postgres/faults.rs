//! A database that fails: retryable, said so, and over when it is over.

use std::time::Duration;

use claudemesh_broker::id::PresenceId;
use claudemesh_broker::store::postgres::{PostgresSettings, PostgresStore};
use claudemesh_broker::store::{EndPresence, StoreError};
use sqlx::AssertSqlSafe;
use url::Url;

use super::fixture;
use crate::harness::postgres::{PrivatePostgres, connection, store};
use crate::harness::proxy::{Fault, Proxy};
use crate::harness::until;
use crate::store::fixture::{Fixture, T0, at};

#[tokio::test]
async fn no_server_is_unavailable() {
    let unused = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = unused.local_addr().expect("bound").port();
    drop(unused);
    let refusal = store(&format!("postgres://u:hunter2@127.0.0.1:{port}/x")).database.ping().await;
    let refusal = refusal.expect_err("nobody listens");
    assert!(refusal.is_retryable(), "{refusal}");
    assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
}

#[tokio::test]
async fn an_odd_url_is_refused_without_its_password() {
    let url = "postgres://u:hunter2@host:port/x".to_owned();
    let settings = PostgresSettings { url, pool_max: 1, statement_cache_max: 0 };
    let refusal = PostgresStore::connect(&settings).expect_err("no port");
    assert!(refusal.to_string().contains("DATABASE_URL"), "{refusal}");
    assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
}

/// `psql` takes it; the driver looked the brackets up as a name.
#[tokio::test]
async fn an_address_of_ipv6_is_reached() {
    let server = PrivatePostgres::shared().empty_database().await;
    let url = url::Url::parse(&server).expect("a URL");
    let port = url.port().expect("a port");
    let listener = tokio::net::TcpListener::bind("[::1]:0").await.expect("loopback of IPv6");
    let here = listener.local_addr().expect("bound").port();
    let relay = tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut to = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
                tokio::io::copy_bidirectional(&mut from, &mut to).await
            });
        }
    });
    let url = format!("postgres://postgres@[::1]:{here}{}", url.path());
    store(&url).database.ping().await.expect("it answers");
    relay.abort();
}

/// As configured: the form that cloud consoles give for a socket's folder.
#[tokio::test]
async fn a_user_without_a_host_is_no_obstacle() {
    let server = PrivatePostgres::shared().empty_database().await;
    let url = url::Url::parse(&server).expect("a URL");
    let (port, database) = (url.port().expect("a port"), url.path());
    let text = format!("postgres://postgres:p%40@{database}?host=127.0.0.1&port={port}");
    let env = |name: &str| (name == "DATABASE_URL").then(|| text.clone());
    let config = claudemesh_broker::config::Config::load(&env).expect("a form that psql takes");
    let store = claudemesh_broker::app::connect_store(&config).await.expect("a URL");
    store.database.ping().await.expect("it answers");
}

#[tokio::test]
async fn no_database_says_what_to_do() {
    let url = PrivatePostgres::shared().url("nowhere");
    let refusal = store(&url).database.ping().await.expect_err("no such database");
    assert!(refusal.to_string().contains("create it"), "{refusal}");
}

#[tokio::test]
async fn no_schema_says_what_to_do() {
    let url = PrivatePostgres::shared().empty_database().await;
    let refusal = store(&url).messages.depth().await.expect_err("no table");
    assert!(refusal.to_string().contains("migrate"), "{refusal}");
}

/// The answer is lost, and the call was done: nobody may say that it was not.
#[tokio::test]
async fn a_call_whose_answer_is_lost_is_unknown() {
    let (here, url) = fixture().await;
    let mut url = Url::parse(&url).expect("a URL");
    let server = url.socket_addrs(|| None).expect("an address")[0];
    let proxy = Proxy::start(server).await;
    url.set_ip_host(proxy.address.ip()).expect("a host");
    url.set_port(Some(proxy.address.port())).expect("a port");
    let far = store(url.as_str());
    let presence = here.present(&here.owner).await;
    // The statement is prepared and its connection rests.
    far.presences.end(T0, &[ending(&here, &PresenceId::generate())]).await.expect("nobody");
    proxy.set_each(Fault::Pass, Fault::Swallow);
    let ends = [ending(&here, &presence)];
    let call = far.presences.end(at(5), &ends);
    let cut = async {
        until("it is done", async || {
            let ended = here.store.presences.ended(std::slice::from_ref(&presence)).await;
            !ended.expect("readable").is_empty()
        })
        .await;
        proxy.set(Fault::Cut);
    };
    let (lost, ()) = tokio::join!(call, cut);
    let lost = lost.expect_err("no answer came");
    assert!(matches!(lost, StoreError::Unknown(_)) && lost.is_retryable(), "{lost:?}");
    proxy.set(Fault::Pass);
    assert_eq!(far.presences.end(at(6), &ends).await.expect("it is back"), []);
    let when = far.presences.ended(std::slice::from_ref(&presence)).await.expect("it is back");
    assert_eq!(when, [(presence, Some(at(5)))], "it was that call");
    far.database.close().await;
}

fn ending(here: &Fixture, presence: &PresenceId) -> EndPresence {
    let (id, mesh) = (presence.clone(), here.mesh.clone());
    EndPresence { id, mesh, member: None, node: None, audit: Vec::new() }
}

#[tokio::test]
async fn a_read_only_server_is_unavailable_until_it_is_not() {
    let (here, url) = fixture().await;
    let name = url.rsplit('/').next().expect("a name");
    let mut other = connection(&url).await;
    // What a failover looks like: sessions end, new ones cannot write.
    let sql = format!(
        "alter database {name} set default_transaction_read_only = on;
         select pg_terminate_backend(pid) from pg_stat_activity
         where datname = '{name}' and pid <> pg_backend_pid()"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut other).await.expect("a superuser may");
    let batch = [here.multicast(&here.owner)];
    // The first may meet its dead connection.
    for _ in 0..2 {
        let refusal = here.store.envelopes.accept(T0, &batch).await.expect_err("it cannot write");
        assert!(refusal.is_retryable(), "{refusal}");
    }
    let sql = format!(
        "set default_transaction_read_only = off;
         alter database {name} reset default_transaction_read_only;
         select pg_terminate_backend(pid) from pg_stat_activity
         where datname = '{name}' and pid <> pg_backend_pid()"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut other).await.expect("a superuser may");
    let mut taken = here.store.envelopes.accept(T0, &batch).await;
    if taken.is_err() {
        taken = here.store.envelopes.accept(T0, &batch).await;
    }
    taken.expect("it can write again");
    assert_eq!(here.audit().await.len(), 1);
}

#[tokio::test]
async fn a_lock_that_is_not_given_is_unavailable() {
    let (here, url) = fixture().await;
    let mut other = connection(&url).await;
    sqlx::raw_sql("begin; lock table mesh.audit_log").execute(&mut other).await.expect("free");
    let refusal = here.store.envelopes.accept(T0, &[here.multicast(&here.owner)]).await;
    let refusal = refusal.expect_err("the lock is not given");
    assert!(matches!(&refusal, StoreError::Unavailable(text) if text.contains("lock")));
    sqlx::raw_sql("rollback").execute(&mut other).await.expect("open");
    here.send(T0, &here.multicast(&here.owner)).await;
}

#[tokio::test]
async fn calls_that_are_dropped_half_way_cost_no_connection() {
    let (here, url) = fixture().await;
    for pause_us in 0..60 {
        let batch = [here.multicast(&here.owner)];
        let work = here.store.envelopes.accept(T0, &batch);
        let _ = tokio::time::timeout(Duration::from_micros(pause_us * 20), work).await;
        let slug = here.another().await;
        assert!(slug.store.meshes.get(&slug.mesh).await.expect("open").is_some());
    }
    // The server ends what was dropped by itself; then the rows stand.
    let mut watch = connection(&url).await;
    let sql = "select from pg_stat_activity where datname = current_database()
        and pid <> pg_backend_pid() and state = 'active'";
    until("no dropped call runs any more", async || {
        sqlx::query(sql).fetch_all(&mut watch).await.expect("readable").is_empty()
    })
    .await;
    // Whole ones only, and none is left in a transaction.
    let sent = here.audit_of("message_sent").await.len();
    let kept = here.store.mail.multicasts_after(&here.mesh, 0, 1000).await.expect("readable").len();
    assert_eq!(sent, kept);
    here.store.database.close().await;
    let open = store(&url);
    open.database.ping().await.expect("open");
    let sql = "select from pg_stat_activity where datname = current_database()
        and state like 'idle in transaction%'";
    let idle = sqlx::query(sql).fetch_all(&mut connection(&url).await).await.expect("readable");
    assert!(idle.is_empty());
}

#[tokio::test]
async fn an_error_quotes_no_row() {
    let (here, _url) = fixture().await;
    let envelope = here.multicast(&here.owner);
    here.send(T0, &envelope).await;
    let refusal = here
        .store
        .envelopes
        .accept(T0, std::slice::from_ref(&envelope))
        .await
        .expect_err("the id is taken");
    let text = refusal.to_string();
    assert!(matches!(refusal, StoreError::Conflict(_)), "{text}");
    assert!(!text.contains(envelope.id.as_str()) && !text.contains(&envelope.ciphertext));
}
