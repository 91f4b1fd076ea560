//! Every fault in the book, under a steady load: nothing that was accepted is
//! lost, doubled or out of order, and the books are exact afterwards. What is
//! checked stands in `harness::load`.

use std::time::Duration;

use tokio::time::sleep;

use crate::harness::load::Load;
use crate::harness::proxy::Fault;
use crate::harness::{Cluster, Setup};

/// How long what is frozen or deaf stays so: longer than a lease, and than
/// the time after which a node takes Redis for lost.
const LONG: Duration = Duration::from_secs(6);

/// Messages of each sender that follow a fault, before the load ends.
const AFTER: usize = 20;

/// A grace that outlives the fault and all that it delays.
fn patient(nodes: usize) -> Setup {
    Setup::new(nodes).set("LEASE_GRACE_SECONDS", 10)
}

async fn settle(load: Load, cluster: &Cluster) {
    load.until_accepted(AFTER).await;
    load.finish(cluster).await;
}

// --- nodes -----------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fault_nobody_loses_a_socket() {
    let cluster = Cluster::start(2).await;
    let mut load = Load::start(&cluster).await;
    load.one_leaves().await;
    load.until_accepted(AFTER).await;
    load.assert_undisturbed();
    load.finish(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_killed() {
    let mut cluster = Setup::new(2).start_processes().await;
    let mut load = Load::start(&cluster).await;
    cluster.processes[0].kill9().await;
    load.one_leaves().await;
    settle(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_is_stopped_and_started_in_turn() {
    let mut cluster = Setup::new(2).start_processes().await;
    let mut load = Load::start(&cluster).await;
    for number in 0..2 {
        assert_eq!(cluster.processes[number].sigterm().await.code(), Some(0));
        load.until_accepted(AFTER).await;
        cluster.processes[number].start_again().await;
        load.one_leaves().await;
    }
    settle(load, &cluster).await;
}

// --- Redis -----------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_and_comes_back_empty() {
    let mut cluster = patient(2).start().await;
    let mut load = Load::start(&cluster).await;
    cluster.redis.kill();
    load.until_accepted(AFTER).await;
    cluster.redis.start_again();
    load.until_accepted(AFTER).await;
    load.assert_undisturbed();
    load.one_leaves().await;
    settle(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_stands_still() {
    let cluster = patient(2).start().await;
    let mut load = Load::start(&cluster).await;
    cluster.redis.freeze();
    load.one_leaves().await;
    sleep(LONG).await;
    cluster.redis.thaw();
    load.until_accepted(AFTER).await;
    load.assert_undisturbed();
    settle(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_connected_and_deaf() {
    let cluster = patient(2).behind_proxies().start().await;
    let mut load = Load::start(&cluster).await;
    for proxy in &cluster.proxies {
        proxy.set(Fault::Swallow);
    }
    load.one_leaves().await;
    sleep(LONG).await;
    for proxy in &cluster.proxies {
        proxy.set(Fault::Pass);
    }
    load.until_accepted(AFTER).await;
    load.assert_undisturbed();
    settle(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_says_does_not_arrive() {
    let cluster = patient(2).behind_proxies().start().await;
    let load = Load::start(&cluster).await;
    cluster.proxies[1].set_each(Fault::Pass, Fault::Swallow);
    sleep(LONG).await;
    cluster.proxies[1].set(Fault::Pass);
    load.until_accepted(AFTER).await;
    load.assert_undisturbed();
    settle(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_is_cut_off_from_redis() {
    let cluster = patient(2).behind_proxies().start().await;
    let mut load = Load::start(&cluster).await;
    cluster.proxies[1].set(Fault::Cut);
    load.one_leaves().await;
    sleep(LONG).await;
    cluster.proxies[1].set(Fault::Pass);
    load.until_accepted(AFTER).await;
    load.assert_undisturbed();
    settle(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_far_away() {
    let cluster = patient(2).behind_proxies().start().await;
    let mut load = Load::start(&cluster).await;
    for proxy in &cluster.proxies {
        proxy.set(Fault::Delay(Duration::from_millis(100)));
    }
    load.until_accepted(AFTER).await;
    load.one_leaves().await;
    load.assert_undisturbed();
    settle(load, &cluster).await;
}

// --- Postgres ----------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn postgres_stands_still() {
    let cluster = patient(2).on_its_own_postgres().start().await;
    let mut load = Load::start(&cluster).await;
    let frozen = cluster.freeze_postgres().await;
    load.one_leaves().await;
    sleep(Duration::from_secs(4)).await;
    drop(frozen);
    load.until_accepted(AFTER).await;
    settle(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_crashes_and_recovers() {
    let cluster = patient(2).on_its_own_postgres().start().await;
    let mut load = Load::start(&cluster).await;
    cluster.crash_postgres().await;
    load.one_leaves().await;
    load.until_accepted(AFTER).await;
    load.assert_undisturbed();
    settle(load, &cluster).await;
}
