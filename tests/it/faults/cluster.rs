//! Every fault in the book, under a steady load: nothing that was accepted is
//! lost, doubled or out of order, and the books are exact afterwards. What is
//! checked stands in `harness::load`; what each plan counted is printed, and
//! stands in docs/GUARANTEES.md.

mod nodes;
mod partitions;
mod postgres;
mod redis;

use std::time::Duration;

use tokio::time::sleep;

use crate::harness::load::Load;
use crate::harness::{Cluster, Setup};

/// How long what is frozen or deaf stays so: longer than a lease, and than
/// the time after which a node takes Redis for lost.
const LONG: Duration = Duration::from_secs(10);

/// Messages of each sender that follow a fault, before the load ends.
const AFTER: usize = 20;

/// A grace that outlives the fault and all that it delays.
fn patient(nodes: usize) -> Setup {
    Setup::new(nodes).set("LEASE_GRACE_SECONDS", 15)
}

async fn settle(load: Load, cluster: &Cluster) {
    load.until_accepted(AFTER).await;
    load.finish(cluster).await;
}

/// As `settle`, when nobody may have noticed anything but a delay.
async fn settle_undisturbed(load: Load, cluster: &Cluster) {
    load.until_accepted(AFTER).await;
    load.assert_undisturbed();
    load.finish(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_cluster_serves_as_one_redis_does() {
    let mut cluster = Setup::new(2).on_redis_cluster().start_processes().await;
    let mut load = Load::start(&cluster).await;
    load.until_accepted(AFTER).await;
    cluster.processes[0].kill9().await;
    load.until_accepted(AFTER).await;
    cluster.processes[0].start_again().await;
    load.one_leaves().await;
    settle(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fault_nobody_loses_a_socket() {
    let cluster = Cluster::start(2).await;
    let mut load = Load::start(&cluster).await;
    load.one_leaves().await;
    settle_undisturbed(load, &cluster).await;
}
