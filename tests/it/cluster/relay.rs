//! What peers on different nodes ask of each other.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::proxy::Fault;
use crate::harness::{Cluster, Raw, Setup, until};
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

/// What a session was told of servers, in its order.
async fn told_of_servers(raw: &mut Raw, told: &mut Vec<(String, String)>) {
    for frame in raw.so_far().await {
        let event = frame["event"].as_str().unwrap_or_default();
        if event.starts_with("mcp_") {
            let name = frame["eventData"]["serverName"].as_str().expect("a name");
            told.push((event.to_owned(), name.to_owned()));
        }
    }
}

/// Its node heard nothing while servers came and went, and tells it once of each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_on_a_deaf_node_is_told_once_which_servers_there_are() {
    let cluster = Setup::new(3).behind_proxies().set("LEASE_GRACE_SECONDS", 30).start().await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let mut host = session(one, &one.member("ada").await).await;
    let mut second = session(two, &one.member("bob").await).await;
    let mut watching = session(three, &one.member("carol").await).await;
    for name in ["gone", "taken"] {
        host.ask(registration(name)).await;
        until_online(&mut watching, name, true).await;
    }
    let (mut by_deaf, mut by_hearing) = (Vec::new(), Vec::new());
    told_of_servers(&mut watching, &mut Vec::new()).await;
    told_of_servers(&mut second, &mut Vec::new()).await;
    cluster.proxies[2].set_each(Fault::Pass, Fault::Swallow);
    let mut kept = registration("kept");
    kept["persistent"] = json!(true);
    host.ask(kept).await;
    host.ask(registration("live")).await;
    host.ask(registration("passing")).await;
    for name in ["gone", "passing"] {
        host.ask(json!({ "type": "mcp_unregister", "serverName": name })).await;
    }
    second.ask(registration("taken")).await;
    // Its own peers' servers do not hide what it has missed.
    let mut third = session(three, &one.member("dan").await).await;
    third.ask(registration("own")).await;
    cluster.proxies[2].set(Fault::Pass);
    let mut expected = [
        ("mcp_registered", "kept"),
        ("mcp_registered", "live"),
        ("mcp_registered", "own"),
        ("mcp_registered", "taken"),
        ("mcp_unregistered", "gone"),
    ]
    .map(|(event, name)| (event.to_owned(), name.to_owned()));
    expected.sort();
    until("all is told", async || {
        told_of_servers(&mut watching, &mut by_deaf).await;
        by_deaf.sort();
        expected.iter().all(|told| by_deaf.contains(told))
    })
    .await;
    // What follows is told as ever, and nothing of before again.
    host.ask(registration("later")).await;
    until("it is told", async || {
        told_of_servers(&mut watching, &mut by_deaf).await;
        told_of_servers(&mut second, &mut by_hearing).await;
        let later = |told: &[(String, String)]| told.iter().any(|(_, name)| name == "later");
        later(&by_deaf) && later(&by_hearing)
    })
    .await;
    by_deaf.retain(|(_, name)| name != "later");
    by_deaf.sort();
    assert_eq!(by_deaf, expected);
    by_hearing.sort();
    by_hearing.dedup_by(|one, other| one == other && panic!("told twice: {one:?}"));
    let servers = listed(&mut watching).await;
    let names: Vec<&str> =
        servers.as_array().expect("rows").iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names.len(), 5, "{names:?}");
}
