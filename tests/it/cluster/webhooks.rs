//! Webhooks on any node: each post once to everybody, a rate of all nodes together, and
//! an address that is told in order though the node that tells it dies.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::receiver::{Called, Receiver};
use crate::harness::{Raw, Setup, until};
use crate::wire::webhooks::{is_signed, post};

#[tokio::test(flavor = "multi_thread")]
async fn a_post_comes_to_every_node_once_and_its_rate_is_of_all_of_them() {
    let cluster = Setup::new(3).start().await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let (ada, bob) = (one.member("ada").await, one.member("bob").await);
    let (mut a, mut b) = (Raw::hello(one, &ada).await, Raw::hello(two, &bob).await);
    until("the first knows of both", async || {
        let listed = a.ask(json!({ "type": "list_peers" })).await;
        listed["peers"].as_array().expect("rows").len() == 2
    })
    .await;
    let made = a.ask(json!({ "type": "create_webhook", "name": "ci" })).await;
    // The third has no peer of the mesh.
    for node in [three, two, one] {
        let reply = post(node, &made["url"], &[("idempotency-key", "k")], "[1]").await;
        assert_eq!(reply.json(), json!({ "ok": true, "delivered": 2 }));
    }
    let fresh = post(two, &made["url"], &[("idempotency-key", "l")], "[2]").await;
    assert_eq!(fresh.json(), json!({ "ok": true, "delivered": 2 }));
    for raw in [&mut a, &mut b] {
        for expected in [json!([1]), json!([2])] {
            let push = raw.hear_where("push", |push| push["subtype"] == "webhook").await;
            assert_eq!(push["eventData"], expected);
        }
    }
    let mut refused = None;
    for n in 0..300 {
        let reply = post(&cluster.nodes[n % 3], &made["url"], &[], "{}").await;
        if reply.status == 429 {
            refused = Some((n, reply));
            break;
        }
    }
    let (taken, refused) = refused.expect("a rate of all nodes together");
    // What has come back meanwhile, and what the first four took.
    assert!(taken < 120, "{taken}");
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds == "1"));
    assert_eq!(refused.json(), json!({ "ok": false, "error": "rate limited" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_told_all_in_order_though_nodes_that_tell_it_are_killed() {
    let setup = Setup::new(3).set("WEBHOOK_ALLOW_PRIVATE", true).set("LEASE_GRACE_SECONDS", 0);
    let mut cluster = setup.start_processes().await;
    let receiver = Receiver::start(2).await;
    let keeper = &cluster.nodes[2];
    let mut owner = Raw::hello(keeper, &keeper.owner).await;
    let made = owner
        .ask(json!({ "type": "create_webhook", "name": "out", "url": receiver.url(),
            "events": ["peer_joined"] }))
        .await;
    let secret = made["secret"].as_str().expect("a secret").to_owned();
    let mut names = Vec::new();
    for n in 0..12 {
        let name = format!("peer {n}");
        let member = cluster.nodes[2].member(&name).await;
        let _raw = Raw::hello(&cluster.nodes[n % (3 - n / 6)], &member).await;
        names.push(name);
        if n == 5 {
            until("somebody tells it", async || !receiver.calls().is_empty()).await;
            // The nodes that are left are the ones of the higher numbers.
            cluster.processes[0].kill9().await;
            cluster.nodes.swap(0, 2);
            cluster.processes.swap(0, 2);
        }
    }
    // A claim of the one that died runs out first.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while receiver.taken().len() < names.len() {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", receiver.taken());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told: Vec<Value> =
        receiver.taken().iter().map(|call| call.json()["data"]["name"].clone()).collect();
    assert_eq!(json!(told), json!(names));
    assert!(receiver.calls().iter().all(|call: &Called| is_signed(call, &secret)));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_calls_an_address_of_a_private_network() {
    let cluster = Setup::new(3).start().await;
    let receiver = Receiver::start(0).await;
    let first = &cluster.nodes[0];
    let mut owner = Raw::hello(first, &first.owner).await;
    // What a name leads to shows only to the node that calls it.
    let url = format!("http://localhost:{}/told", receiver.address.port());
    let ask = json!({ "type": "create_webhook", "name": "out", "url": url,
        "events": ["peer_joined"] });
    assert_eq!(owner.ask(ask).await["type"], "webhook_ack");
    let mut peers = Vec::new();
    for (n, node) in cluster.nodes.iter().enumerate() {
        peers.push(Raw::hello(node, &node.member(&format!("peer {n}")).await).await);
    }
    let mut row = Value::Null;
    until("it was tried", async || {
        let list = owner.ask(json!({ "type": "list_webhooks" })).await;
        row = list["webhooks"][0].clone();
        row["lastError"].is_string()
    })
    .await;
    assert!(row["lastError"].as_str().is_some_and(|text| text.contains("private")), "{row}");
    assert_eq!((&row["waiting"], &row["deadLetters"]), (&json!(3), &json!(0)));
    for node in &cluster.nodes {
        let ask = json!({ "type": "create_webhook", "name": "direct", "url": receiver.url(),
            "events": ["peer_joined"] });
        let refused = Raw::hello(node, &first.owner).await.ask(ask).await;
        assert_eq!(refused["code"], "invalid_argument", "{refused}");
    }
    assert!(receiver.calls().is_empty());
}
