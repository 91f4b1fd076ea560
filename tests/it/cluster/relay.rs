//! What peers on different nodes ask of each other.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Cluster, Setup, until};
use crate::wire::mcp::{
    a_false_answer_is_nobodys, a_host_that_returns_is_online_again, a_name_is_taken_over,
    a_server_is_called, a_server_outlives_its_host, begin, call, listed, registration, session,
    until_online,
};
use crate::wire::peer_files::a_file_is_read;

/// Within that time the answer for a host whose node was killed is there.
const KILLED: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_server_on_one_node_is_called_from_another() {
    let cluster = Cluster::start(3).await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    a_server_is_called(one, two).await;
    a_false_answer_is_nobodys(one, two, three).await;
}

#[tokio::test]
async fn a_file_on_one_node_is_read_from_another() {
    let cluster = Cluster::start(3).await;
    a_file_is_read(&cluster.nodes[0], &cluster.nodes[2]).await;
}

#[tokio::test]
async fn a_host_that_returns_on_another_node_is_online_again() {
    let cluster = Setup::new(3).set("LEASE_GRACE_SECONDS", 60).start().await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    a_host_that_returns_is_online_again(one, two, three).await;
}

#[tokio::test]
async fn a_server_that_is_to_stay_is_restored_on_another_node() {
    let cluster = Setup::new(3).set("LEASE_GRACE_SECONDS", 1).start().await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    a_server_outlives_its_host(one, two, three).await;
}

#[tokio::test]
async fn the_latest_registration_of_a_name_counts_on_all_nodes() {
    let cluster = Cluster::start(2).await;
    a_name_is_taken_over(&cluster.nodes[0], &cluster.nodes[1]).await;
}

#[tokio::test]
async fn a_call_to_a_host_whose_node_is_killed_has_one_answer_in_time() {
    let mut cluster = Setup::new(3).set("LEASE_GRACE_SECONDS", 60).start_processes().await;
    let (ada, bob) = (cluster.nodes[0].member("ada").await, cluster.nodes[0].member("bob").await);
    let mut host = session(&cluster.nodes[0], &ada).await;
    let mut caller = session(&cluster.nodes[1], &bob).await;
    host.ask(registration("srv")).await;
    until_online(&mut caller, "srv", true).await;
    begin(&mut caller, call("srv"), "mc").await;
    host.hear("mcp_call_forward").await;
    let killed = Instant::now();
    cluster.processes[0].kill9().await;
    // The lesser of the node's word and its lease decides; nothing else is waited for.
    let answer = tokio::time::timeout(KILLED, async {
        loop {
            let heard = caller.so_far().await;
            if let Some(answer) = heard.into_iter().find(|frame| frame["_reqId"] == "mc") {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let answer = answer.await.unwrap_or_else(|_| panic!("no answer in {:?}", killed.elapsed()));
    assert_eq!(answer["error"], "MCP server \"srv\" host disconnected");
    until("it is listed as offline", async || listed(&mut caller).await[0]["online"] == false)
        .await;
    assert!(caller.so_far().await.iter().all(|frame| frame["_reqId"] != "mc"), "one answer");
    // Whoever asks a third node is told the same.
    let mut other = session(&cluster.nodes[2], &bob).await;
    assert_eq!(listed(&mut other).await[0]["online"], json!(false));
}
