//! Streams from outside: the recorded frames, who is told what, and who is not.

use claudemesh_broker::limits;
use serde_json::{Value, json};

use crate::harness::raw::hello_frame;
use crate::harness::{Cluster, Node, Raw, Setup, until};

pub(crate) async fn subscribe(raw: &mut Raw, stream: &str) {
    let answer = raw.ask(json!({ "type": "subscribe", "stream": stream })).await;
    assert_eq!((&answer["type"], &answer["stream"]), (&json!("subscribed"), &json!(stream)));
}

pub(crate) async fn publish(raw: &mut Raw, stream: &str, data: Value) {
    raw.say(json!({ "type": "publish", "stream": stream, "data": data })).await;
}

/// The count that a list gives for the stream.
pub(crate) async fn count(raw: &mut Raw, stream: &str) -> u64 {
    let list = raw.ask(json!({ "type": "list_streams" })).await;
    let streams = list["streams"].as_array().expect("streams");
    let found = streams.iter().find(|row| row["name"] == stream).expect("it was made");
    found["subscriberCount"].as_u64().expect("a number")
}

#[tokio::test]
async fn streams_are_made_listed_and_published_to_as_older_brokers_did() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let mut a = Raw::hello_with(&node, &ada, |hello| hello["displayName"] = json!("wa")).await.0;
    let mut b = Raw::hello(&node, &bob).await;
    let none = a.ask(json!({ "type": "list_streams" })).await;
    assert_eq!((&none["type"], &none["streams"]), (&json!("stream_list"), &json!([])));
    let made = a.ask(json!({ "type": "create_stream", "name": "builds" })).await;
    let (id, req) = (made["id"].clone(), made["_reqId"].clone());
    let expected = json!({ "type": "stream_created", "id": id, "name": "builds", "_reqId": req });
    assert_eq!(made, expected);
    let again = b.ask(json!({ "type": "create_stream", "name": "builds" })).await;
    assert_eq!(again["id"], id, "it is the one that is there");
    for raw in [&mut a, &mut b] {
        subscribe(raw, "builds").await;
    }
    subscribe(&mut b, "builds").await;
    let mut list = b.ask(json!({ "type": "list_streams" })).await;
    let row = list["streams"][0].take();
    let expected = json!({ "id": id, "name": "builds", "createdBy": "ada",
        "createdBySession": "wa", "createdAt": row["createdAt"], "subscriberCount": 2 });
    assert_eq!(row, expected);
    assert_eq!(row["createdAt"].as_str().map(str::len), Some(24));
    a.so_far().await;
    b.so_far().await;
    for data in [json!({ "ok": 1 }), json!(null), json!("ü"), json!([1, 2.5])] {
        publish(&mut a, "builds", data.clone()).await;
        let told = json!({ "type": "stream_data", "stream": "builds", "data": data,
            "publishedBy": "ada", "publishedBySession": "wa" });
        assert_eq!(b.hear("stream_data").await, told);
    }
    assert_eq!(a.so_far().await, Vec::<Value>::new(), "who publishes is told nothing");
    assert_eq!(node.audit_count("stream_created").await, 1);
}

#[tokio::test]
async fn only_who_subscribes_is_told_and_only_while_it_does() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let (mut a, mut b) = (Raw::hello(&node, &ada).await, Raw::hello(&node, &bob).await);
    let data = async |a: &mut Raw, b: &mut Raw, number: u32| {
        let ask = json!({ "type": "publish", "stream": "s", "data": number });
        assert_eq!(a.ask(ask).await["type"], "ack");
        let mut heard = b.so_far().await;
        heard.retain(|frame| frame["type"] == "stream_data");
        heard.len()
    };
    assert_eq!(data(&mut a, &mut b, 1).await, 0);
    subscribe(&mut b, "s").await;
    subscribe(&mut b, "S").await;
    assert_eq!(data(&mut a, &mut b, 2).await, 1);
    let ack = b.ask(json!({ "type": "unsubscribe", "stream": "s" })).await;
    assert_eq!(ack["type"], "ack");
    assert_eq!(data(&mut a, &mut b, 3).await, 0);
    a.ask(json!({ "type": "create_stream", "name": "S" })).await;
    assert_eq!(count(&mut a, "S").await, 1);
    // Without an id nothing is said.
    b.say(json!({ "type": "unsubscribe", "stream": "S" })).await;
    b.say(json!({ "type": "unsubscribe" })).await;
    b.say(json!({ "type": "publish" })).await;
    assert_eq!(b.so_far().await, Vec::<Value>::new());
    assert_eq!(count(&mut a, "S").await, 0);
}

#[tokio::test]
async fn what_is_too_much_is_refused() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("ada").await).await;
    let (long, large) = ("n".repeat(257), "x".repeat(limits::VALUE_BYTES_MAX));
    for refused in [
        json!({ "type": "create_stream", "name": "" }),
        json!({ "type": "create_stream", "name": long }),
        json!({ "type": "delete_stream", "name": long }),
        json!({ "type": "subscribe", "stream": "" }),
        json!({ "type": "subscribe", "stream": long }),
        json!({ "type": "publish", "stream": "", "data": 1 }),
        json!({ "type": "publish", "stream": "s", "data": large }),
        json!({ "type": "list_streams", "cursor": "odd" }),
    ] {
        let answer = a.ask(refused.clone()).await;
        assert_eq!(answer["code"], "invalid_argument", "{refused}");
    }
    for number in 0..limits::STREAMS_PER_PRESENCE_MAX {
        subscribe(&mut a, &number.to_string()).await;
    }
    let full = a.ask(json!({ "type": "subscribe", "stream": "more" })).await;
    assert_eq!(full["code"], "quota", "{full}");
    assert!(full["message"].as_str().is_some_and(|text| text.contains("64")), "{full}");
    subscribe(&mut a, "7").await;
    a.ask(json!({ "type": "unsubscribe", "stream": "7" })).await;
    subscribe(&mut a, "more").await;
}

#[tokio::test]
async fn a_subscription_lasts_as_long_as_the_presence() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let (mut a, mut b) = (Raw::hello(&node, &ada).await, Raw::hello(&node, &bob).await);
    a.ask(json!({ "type": "create_stream", "name": "s" })).await;
    subscribe(&mut b, "s").await;
    b.goodbye().await;
    assert_eq!(count(&mut a, "s").await, 1, "it may come back");
    let mut b = Raw::hello(&node, &bob).await;
    publish(&mut a, "s", json!("again")).await;
    assert_eq!(b.hear("stream_data").await["data"], "again");
    b.goodbye().await;
    a.event("peer_left").await;
    assert_eq!(count(&mut a, "s").await, 0);
}

#[tokio::test]
async fn any_member_deletes_a_stream_and_who_subscribes_goes_on_to() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let (mut a, mut b) = (Raw::hello(&node, &ada).await, Raw::hello(&node, &bob).await);
    let first = a.ask(json!({ "type": "create_stream", "name": "s" })).await;
    subscribe(&mut a, "s").await;
    for _ in 0..2 {
        let ack = b.ask(json!({ "type": "delete_stream", "name": "s" })).await;
        assert_eq!((&ack["type"], &ack["queued"]), (&json!("ack"), &json!(false)), "{ack}");
    }
    let list = b.ask(json!({ "type": "list_streams" })).await;
    assert_eq!(list["streams"], json!([]));
    publish(&mut b, "s", json!("still")).await;
    assert_eq!(a.hear("stream_data").await["data"], "still");
    assert_eq!(node.audit_count("stream_deleted").await, 1);
    let again = b.ask(json!({ "type": "create_stream", "name": "s" })).await;
    assert_ne!(again["id"], first["id"]);
    // Without an id nothing is said.
    b.say(json!({ "type": "delete_stream", "name": "s" })).await;
    b.say(json!({ "type": "delete_stream" })).await;
    let mut heard = b.so_far().await;
    heard.retain(|frame| frame["type"] != "stream_data");
    assert_eq!(heard, Vec::<Value>::new());
    assert_eq!(node.audit_count("stream_deleted").await, 2);
}

// --- several nodes -----------------------------------------------------------------

#[tokio::test]
async fn subscribers_on_every_node_are_told_in_the_publishers_order_and_counted() {
    let cluster = Cluster::start(3).await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let (ada, bob, carol) =
        (one.member("ada").await, one.member("bob").await, one.member("carol").await);
    let mut a = Raw::hello(one, &ada).await;
    let mut here = Raw::hello(one, &bob).await;
    let mut there = Raw::hello(two, &carol).await;
    let mut other = Raw::hello(three, &one.owner).await;
    other.ask(json!({ "type": "create_stream", "name": "s" })).await;
    for raw in [&mut a, &mut here, &mut there] {
        subscribe(raw, "s").await;
    }
    for raw in [&mut a, &mut other] {
        until("all are counted", async || count(raw, "s").await == 3).await;
    }
    for number in 0..100 {
        publish(&mut a, "s", json!(number)).await;
    }
    for raw in [&mut here, &mut there] {
        for number in 0..100 {
            assert_eq!(raw.hear("stream_data").await["data"], number);
        }
    }
    let mut heard = other.so_far().await;
    heard.retain(|frame| frame["type"] == "stream_data");
    assert_eq!(heard, Vec::<Value>::new());
    there.ask(json!({ "type": "unsubscribe", "stream": "s" })).await;
    until("it is counted no more", async || count(&mut other, "s").await == 2).await;
}

#[tokio::test]
async fn a_session_that_comes_back_on_another_node_is_still_subscribed() {
    let mut cluster = Setup::new(3).start_processes().await;
    let [one, two, three] = &cluster.nodes[..] else { unreachable!() };
    let (ada, bob) = (one.member("ada").await, one.member("bob").await);
    let mut a = Raw::hello(one, &ada).await;
    a.ask(json!({ "type": "create_stream", "name": "s" })).await;
    let (mut b, first) = Raw::greet(two, hello_frame(&one.mesh, &bob)).await;
    subscribe(&mut b, "s").await;
    until("it is counted", async || count(&mut a, "s").await == 1).await;
    // Taken over while the first socket is open.
    let (mut b, second) = Raw::greet(three, hello_frame(&one.mesh, &bob)).await;
    assert_eq!(second["presenceId"], first["presenceId"]);
    publish(&mut a, "s", json!("three")).await;
    assert_eq!(b.hear("stream_data").await["data"], "three");
    cluster.processes[2].kill9().await;
    let (mut b, third) = Raw::greet(two, hello_frame(&one.mesh, &bob)).await;
    assert_eq!(third["presenceId"], first["presenceId"]);
    publish(&mut a, "s", json!("two")).await;
    assert_eq!(b.hear("stream_data").await["data"], "two");
    assert_eq!(count(&mut a, "s").await, 1);
}
