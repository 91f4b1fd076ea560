//! A Postgres that dies, stands still, is slow, full, or takes no writes. What
//! it does not keep is refused, and nobody loses a socket.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use super::{AFTER, patient, settle_undisturbed, sleep};
use crate::harness::Cluster;
use crate::harness::load::Load;
use crate::harness::proxy::Fault;

const AWAY: Duration = Duration::from_secs(4);

async fn own_postgres() -> (Cluster, Load) {
    let cluster = patient(2).on_its_own_postgres().start().await;
    let load = Load::start(&cluster).await;
    (cluster, load)
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_stands_still() {
    let (mut cluster, mut load) = own_postgres().await;
    let frozen = cluster.freeze_postgres();
    load.one_leaves().await;
    sleep(AWAY).await;
    drop(frozen);
    settle_undisturbed(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_crashes_and_recovers() {
    let (mut cluster, mut load) = own_postgres().await;
    cluster.crash_postgres();
    load.one_leaves().await;
    settle_undisturbed(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_killed_and_started_again() {
    let (mut cluster, mut load) = own_postgres().await;
    cluster.postgres().kill();
    load.one_leaves().await;
    sleep(AWAY).await;
    cluster.postgres().start_again().await;
    settle_undisturbed(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_slow() {
    let cluster = patient(2).behind_postgres_proxies().start().await;
    let mut load = Load::start(&cluster).await;
    for proxy in &cluster.postgres_proxies {
        proxy.set(Fault::Delay(Duration::from_millis(100)));
    }
    load.until_accepted(AFTER).await;
    load.one_leaves().await;
    settle_undisturbed(load, &cluster).await;
}

/// Others have all connections, and the nodes lose theirs.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_out_of_connections() {
    let (cluster, mut load) = own_postgres().await;
    let mut others = Vec::new();
    take_all(&cluster, &mut others).await;
    // Whoever is quicker has the places that come free: the nodes that come back
    // are sent away again, until the test has them all.
    while end_connections(&mut others[0]).await > 0 {
        take_all(&cluster, &mut others).await;
    }
    load.one_leaves().await;
    sleep(AWAY).await;
    drop(others);
    settle_undisturbed(load, &cluster).await;
}

async fn take_all(cluster: &Cluster, others: &mut Vec<PgConnection>) {
    while let Ok(mut other) = PgConnection::connect(cluster.database()).await {
        sqlx::query("set application_name = 'test'").execute(&mut other).await.expect("set");
        others.push(other);
    }
}

/// Ends those of the nodes, and says how many there were.
async fn end_connections(own: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity
         where application_name <> 'test' and backend_type = 'client backend'",
    )
    .fetch_one(own)
    .await
    .expect("a superuser may")
}

/// As after a failover that leaves the old server up and a standby.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_takes_no_writes() {
    let (cluster, mut load) = own_postgres().await;
    cluster.sql("alter system set default_transaction_read_only = on").await;
    cluster.sql("select pg_reload_conf()").await;
    load.one_leaves().await;
    sleep(AWAY).await;
    cluster.sql("alter system reset default_transaction_read_only").await;
    cluster.sql("select pg_reload_conf()").await;
    settle_undisturbed(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_postgres_is_full() {
    let (cluster, mut load) = own_postgres().await;
    cluster
        .sql(
            "create function mesh.no_space() returns trigger language plpgsql as $$
             begin
                raise exception 'could not extend file: No space left on device'
                    using errcode = 'disk_full';
             end $$;
             create trigger no_space before insert on mesh.message_queue
                for each statement execute function mesh.no_space();
             create trigger no_space before insert on mesh.audit_log
                for each statement execute function mesh.no_space()",
        )
        .await;
    load.one_leaves().await;
    sleep(AWAY).await;
    cluster
        .sql(
            "drop trigger no_space on mesh.message_queue; drop trigger no_space on mesh.audit_log;
             drop function mesh.no_space()",
        )
        .await;
    settle_undisturbed(load, &cluster).await;
}
