//! Nodes that die, stop, stand still, or have another idea of the time.

use std::path::Path;
use std::time::Duration;

use super::{AFTER, patient, settle, sleep};
use crate::harness::load::Load;
use crate::harness::{Cluster, Setup};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_killed() {
    let mut cluster = Setup::new(2).start_processes().await;
    let mut load = Load::start(&cluster).await;
    cluster.processes[0].kill9().await;
    load.one_leaves().await;
    settle(load, &cluster).await;
}

async fn kill_and_restart(cluster: &mut Cluster, nodes: &[usize]) {
    for number in nodes {
        cluster.processes[*number].kill9().await;
    }
    for number in nodes {
        cluster.processes[*number].start_again().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_nodes_is_killed_and_comes_back() {
    let mut cluster = patient(3).start_processes().await;
    let mut load = Load::start(&cluster).await;
    kill_and_restart(&mut cluster, &[1]).await;
    load.one_leaves().await;
    settle(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_nodes_are_killed_and_come_back() {
    let mut cluster = patient(3).start_processes().await;
    let mut load = Load::start(&cluster).await;
    kill_and_restart(&mut cluster, &[0, 1]).await;
    load.until_accepted(AFTER).await;
    kill_and_restart(&mut cluster, &[1, 2]).await;
    load.one_leaves().await;
    settle(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_are_killed_and_come_back() {
    let mut cluster = patient(3).start_processes().await;
    let mut load = Load::start(&cluster).await;
    kill_and_restart(&mut cluster, &[0, 1, 2]).await;
    load.one_leaves().await;
    settle(load, &cluster).await;
}

/// Its peers have long been elsewhere when it goes on, and it has been counted
/// out: it must neither end what is theirs nor hold on to what is not its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_sleeps_beyond_its_leases_and_wakes() {
    let mut cluster = patient(3).start_processes().await;
    let load = Load::start(&cluster).await;
    // The one that stays away is on this node, too.
    cluster.processes[2].freeze();
    load.until_accepted(AFTER).await;
    // The lease, the grace, and the interval of reaping.
    sleep(Duration::from_secs(3 + 15 + 1)).await;
    cluster.processes[2].thaw();
    load.until_accepted(AFTER).await;
    assert_eq!(cluster.nodes[0].audit_count("peer_left").await, 1, "the one that did not return");
    settle(load, &cluster).await;
    assert_eq!(cluster.processes[2].sigterm().await.code(), Some(0));
}

/// A rolling deploy: each node leaves by itself, and its peers are elsewhere in
/// a moment.
#[tokio::test(flavor = "multi_thread")]
async fn each_node_is_stopped_and_started_in_turn() {
    let mut cluster = Setup::new(3).start_processes().await;
    let mut load = Load::start(&cluster).await;
    for number in 0..3 {
        let drain = Duration::from_secs(6);
        let stopping = cluster.processes[number].sigterm();
        let stopped = tokio::time::timeout(drain, stopping).await.expect("within DRAIN_SECONDS");
        assert_eq!(stopped.code(), Some(0));
        load.until_accepted(AFTER).await;
        cluster.processes[number].start_again().await;
    }
    load.one_leaves().await;
    load.until_accepted(AFTER).await;
    let report = load.finish(&cluster).await;
    assert!(report.slowest_return < Duration::from_secs(2), "{report}");
}

/// Shifts what a program takes for the time of day.
const FAKETIME: &str = "/usr/lib/*-linux-gnu*/faketime/libfaketimeMT.so.1";

fn faketime() -> String {
    let (before, after) = FAKETIME.split_once("*-linux-gnu*").expect("a pattern");
    let found = std::fs::read_dir(before).expect("a folder").flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let library = format!("{before}{name}{after}");
        (name.contains("-linux-gnu") && Path::new(&library).exists()).then_some(library)
    });
    found.expect("this test shifts a clock: install libfaketime (apt-get install libfaketime)")
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_are_half_a_minute_apart() {
    let library = faketime();
    let shifted = |by| {
        [("LD_PRELOAD", library.as_str()), ("FAKETIME", by), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]
    };
    let mut cluster =
        patient(3).set_on(0, &shifted("+15s")).set_on(1, &shifted("-15s")).start_processes().await;
    let mut load = Load::start(&cluster).await;
    load.until_accepted(AFTER).await;
    load.one_leaves().await;
    load.until_accepted(AFTER).await;
    load.assert_undisturbed();
    // From the one that is ahead to the one that is behind, and back.
    cluster.processes[0].kill9().await;
    load.until_accepted(AFTER).await;
    cluster.processes[0].start_again().await;
    cluster.processes[1].kill9().await;
    load.until_accepted(AFTER).await;
    cluster.processes[1].start_again().await;
    settle(load, &cluster).await;
}
