//! Shared state on any node: who wins, and what everybody is told in the end.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::harness::proxy::Fault;
use crate::harness::raw::hello_frame;
use crate::harness::{Raw, Setup, until};

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_on_three_nodes_one_wins_and_all_hear_of_it() {
    let cluster = Setup::new(3).start().await;
    let ada = cluster.nodes[0].member("ada").await;
    let mut watching = Vec::new();
    for node in &cluster.nodes {
        watching.push(Raw::hello(node, &node.member("watcher").await).await);
    }
    let mut writers = Vec::new();
    for n in 0..50 {
        let node = &cluster.nodes[n % 3];
        let mut hello = hello_frame(&node.mesh, &ada);
        hello["sessionId"] = json!(format!("writer {n}"));
        hello["channel"] = json!("x");
        writers.push(Raw::greet(node, hello).await.0);
    }
    // Who makes it, and then who changes what all of them have read.
    let mut winner = None;
    for version in 0..4 {
        let mut writing = Vec::new();
        for (n, mut raw) in writers.drain(..).enumerate() {
            let ask = json!({ "type": "set_state", "key": "k", "value": n, "ifVersion": version });
            writing.push(tokio::spawn(async move {
                let answer = raw.ask(ask).await;
                (raw, answer)
            }));
        }
        let mut won = Vec::new();
        for (n, writer) in writing.into_iter().enumerate() {
            let (raw, answer) = writer.await.expect("no panic");
            writers.push(raw);
            match answer["type"].as_str() {
                Some("ack") => won.push(n),
                _ => assert_eq!(
                    (&answer["code"], &answer["present"]["version"]),
                    (&json!("conflict"), &json!(version + 1))
                ),
            }
        }
        let [only] = won[..] else { panic!("{won:?}") };
        winner = Some(only);
        for raw in &mut watching {
            let change = raw.hear("state_change").await;
            let told = (&change["value"], &change["version"]);
            assert_eq!(told, (&json!(only), &json!(version + 1)));
        }
    }
    let read = watching[2].ask(json!({ "type": "get_state", "key": "k" })).await;
    assert_eq!(read["state"]["value"], json!(winner));
    assert_eq!(cluster.nodes[0].audit_count("state_set").await, 4);
}

/// Writes that are not waited for cross to another node in their order, and so does what
/// is sent after them.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_nobody_waited_for_are_told_elsewhere_in_their_order() {
    let cluster = Setup::new(3).start().await;
    let [one, two, _] = &cluster.nodes[..] else { unreachable!() };
    let (ada, bob) = (one.member("ada").await, one.member("bob").await);
    let (mut a, mut b) = (Raw::hello(one, &ada).await, Raw::hello(two, &bob).await);
    for n in 0..100 {
        let set = json!({ "type": "set_state", "key": format!("k{}", n % 9), "value": n });
        a.say(set).await;
    }
    a.sent(bob.pubkey().as_str(), "now", "dGV4dA==").await;
    b.message().await;
    let mut told = b.heard();
    told.retain(|frame| frame["type"] == "state_change");
    let told: Vec<Value> = told.into_iter().map(|change| change["value"].clone()).collect();
    assert_eq!(told, (0..100).map(Value::from).collect::<Vec<_>>());
    assert_eq!(two.audit_count("state_set").await, 100);
}

/// Nothing that Redis says reaches the third node while others write: what it was not
/// told, it reads, and its peer has every key's last value in the end.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_on_a_deaf_node_is_told_the_last_value_of_each_key() {
    let cluster = Setup::new(3).behind_proxies().set("LEASE_GRACE_SECONDS", 30).start().await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let (ada, bob) = (one.member("ada").await, one.member("bob").await);
    let (mut a, mut b) = (Raw::hello(one, &ada).await, Raw::hello(two, &bob).await);
    let mut watching = Raw::hello(three, &one.member("carol").await).await;
    a.ask(json!({ "type": "set_state", "key": "gone", "value": 0 })).await;
    watching.hear("state_change").await;
    cluster.proxies[2].set_each(Fault::Pass, Fault::Swallow);
    for round in 0..20 {
        for (raw, who) in [(&mut a, "a"), (&mut b, "b")] {
            for key in [who, "both"] {
                let set = json!({ "type": "set_state", "key": key, "value": [who, round] });
                assert_eq!(raw.ask(set).await["type"], "ack");
            }
        }
    }
    a.ask(json!({ "type": "delete_state", "key": "gone" })).await;
    // Its own peers' changes do not hide what it has missed.
    let own = json!({ "type": "set_state", "key": "own", "value": 1 });
    assert_eq!(Raw::hello(three, &ada).await.ask(own).await["type"], "ack");
    cluster.proxies[2].set(Fault::Pass);
    let mut last: HashMap<String, Value> = HashMap::new();
    until("all is told", async || {
        for change in watching.so_far().await {
            if change["type"] == "state_change" {
                let key = change["key"].as_str().expect("a key").to_owned();
                last.insert(key, change["value"].clone());
            }
        }
        ["a", "b", "both", "own", "gone"].iter().all(|key| last.contains_key(*key))
            && last["a"] == json!(["a", 19])
            && last["b"] == json!(["b", 19])
            && last["both"] == json!(["b", 19])
    })
    .await;
    assert_eq!((&last["gone"], &last["own"]), (&Value::Null, &json!(1)));
}

/// Without Redis the store is the only way between nodes.
#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_on_other_nodes_while_redis_is_away() {
    let mut cluster = Setup::new(2).set("LEASE_GRACE_SECONDS", 60).start().await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let mut a = Raw::hello(one, &one.member("ada").await).await;
    let mut b = Raw::hello(two, &one.member("bob").await).await;
    cluster.redis.kill();
    let set = json!({ "type": "set_state", "key": "k", "value": 7 });
    assert_eq!(a.ask(set).await["type"], "ack");
    assert_eq!(b.hear("state_change").await["value"], 7);
}
