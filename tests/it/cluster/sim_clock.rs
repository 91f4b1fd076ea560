//! One simulation clock over several nodes.

use serde_json::json;

use crate::harness::proxy::Fault;
use crate::harness::{Cluster, Raw, Setup, until};

/// The number of the next tick that it hears.
async fn tick(raw: &mut Raw) -> u64 {
    raw.event("tick").await["eventData"]["tick"].as_u64().expect("a number")
}

#[tokio::test]
async fn ticks_reach_every_node_once_and_any_node_moves_the_clock() {
    let cluster = Cluster::start(3).await;
    let mut peers = Vec::new();
    for (node, name) in cluster.nodes.iter().zip(["alice", "bob", "carol"]) {
        peers.push(Raw::hello(node, &node.member(name).await).await);
    }
    let begun = peers[0].ask(json!({ "type": "set_clock", "speed": 100 })).await;
    for number in 1..=3 {
        for raw in &mut peers {
            assert_eq!(tick(raw).await, number);
        }
    }
    let paused = peers[1].ask(json!({ "type": "pause_clock" })).await;
    assert_eq!((&paused["paused"], &paused["startedAt"]), (&json!(true), &begun["startedAt"]));
    let seen = peers[2].ask(json!({ "type": "get_clock" })).await;
    assert_eq!((&seen["paused"], &seen["tick"]), (&json!(true), &paused["tick"]));
    let last = paused["tick"].as_u64().expect("a number");
    let resumed = peers[2].ask(json!({ "type": "resume_clock" })).await;
    assert_eq!(resumed["tick"], last);
    for raw in &mut peers {
        // One that was under way when the clock was paused comes before.
        let mut number = tick(raw).await;
        while number <= last {
            number = tick(raw).await;
        }
        assert_eq!(number, last + 1);
    }
}

#[tokio::test]
async fn a_killed_tickers_clock_goes_on_elsewhere_and_no_number_comes_twice() {
    let mut cluster = Setup::new(3).start_processes().await;
    let mut peers = Vec::new();
    for (node, name) in cluster.nodes.iter().zip(["alice", "bob", "carol"]) {
        peers.push(Raw::hello(node, &node.member(name).await).await);
    }
    peers[0].ask(json!({ "type": "set_clock", "speed": 100 })).await;
    for raw in &mut peers {
        tick(raw).await;
    }
    let mut find = redis::cmd("HGET");
    find.arg(format!("{}:{{{}}}:clock", cluster.prefix, cluster.nodes[0].mesh)).arg("ticker");
    let ticker: String = cluster.redis.query(&find);
    let names = ["node-1", "node-2", "node-3"];
    let killed = names.iter().position(|name| ticker.contains(name)).expect("one of them ticks");
    cluster.processes[killed].kill9().await;
    drop(peers.remove(killed));
    let mut last = 1;
    let mut heard: [Vec<u64>; 2] = Default::default();
    for (raw, heard) in peers.iter_mut().zip(&mut heard) {
        // Those of the dead one that were on their way, then those of the next.
        while heard.len() < 8 {
            heard.push(tick(raw).await);
        }
        assert!(heard.windows(2).all(|two| two[0] < two[1]), "{heard:?}");
        last = last.max(heard[7]);
    }
    until("another node ticks", async || cluster.redis.query::<String>(&find) != ticker).await;
    let status = peers[0].ask(json!({ "type": "get_clock" })).await;
    assert_eq!(status["paused"], false);
    assert!(status["tick"].as_u64().is_some_and(|tick| tick >= last), "{status} {last}");
}

#[tokio::test]
async fn without_redis_a_clock_stands_and_goes_on_with_the_next_number() {
    let cluster = Setup::new(1).behind_proxies().start().await;
    let node = &cluster.nodes[0];
    let mut a = Raw::hello(node, &node.member("alice").await).await;
    a.ask(json!({ "type": "set_clock", "speed": 100 })).await;
    let mut last = tick(&mut a).await;
    cluster.proxies[0].set(Fault::Cut);
    until("the clock cannot be reached", async || {
        let answer = a.ask(json!({ "type": "get_clock" })).await;
        answer["code"] == "unavailable" && answer["retryAfterMs"].is_u64()
    })
    .await;
    for frame in a.heard() {
        last = last.max(frame["eventData"]["tick"].as_u64().unwrap_or_default());
    }
    cluster.proxies[0].set(Fault::Pass);
    let next = tick(&mut a).await;
    assert!(next > last, "{next} after {last}");
    let status = a.ask(json!({ "type": "get_clock" })).await;
    assert_eq!((&status["type"], &status["paused"]), (&json!("clock_status"), &json!(false)));
}
