//! One node is cut off from Redis, from Postgres, from both; the others are not.

use super::{AFTER, LONG, patient, settle_undisturbed, sleep};
use crate::harness::load::Load;
use crate::harness::proxy::Fault;

#[tokio::test(flavor = "multi_thread")]
async fn one_node_is_cut_off_from_redis() {
    let cluster = patient(2).behind_proxies().start().await;
    let mut load = Load::start(&cluster).await;
    cluster.proxies[1].set(Fault::Cut);
    load.one_leaves().await;
    sleep(LONG).await;
    cluster.proxies[1].set(Fault::Pass);
    settle_undisturbed(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_is_cut_off_from_postgres() {
    let cluster = patient(2).behind_postgres_proxies().start().await;
    let mut load = Load::start(&cluster).await;
    cluster.postgres_proxies[1].set(Fault::Cut);
    load.one_leaves().await;
    sleep(LONG).await;
    cluster.postgres_proxies[1].set(Fault::Pass);
    settle_undisturbed(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_is_cut_off_from_both() {
    let cluster = patient(2).behind_proxies().behind_postgres_proxies().start().await;
    let mut load = Load::start(&cluster).await;
    cluster.proxies[1].set(Fault::Cut);
    cluster.postgres_proxies[1].set(Fault::Cut);
    load.one_leaves().await;
    sleep(LONG).await;
    cluster.proxies[1].set(Fault::Pass);
    cluster.postgres_proxies[1].set(Fault::Pass);
    load.until_accepted(AFTER).await;
    settle_undisturbed(load, &cluster).await;
}
