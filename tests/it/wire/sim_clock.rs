//! The simulation clock: who moves it, who hears it tick, and when it stands.

use claudemesh_broker::clock::Timestamp;
use serde_json::{Value, json};

use crate::harness::{Node, Raw, until};
use crate::wire::visitors::command;

async fn clock(raw: &mut Raw, frame: Value) -> Value {
    let mut status = raw.ask(frame).await;
    let status = status.as_object_mut().expect("an answer");
    status.remove("_reqId");
    json!(status)
}

#[tokio::test]
async fn a_clock_is_set_paused_and_resumed_by_anybody() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("alice").await).await;
    let mut b = Raw::hello(&node, &node.member("bob").await).await;
    let none = clock(&mut a, json!({ "type": "get_clock" })).await;
    let now = none["simTime"].clone();
    assert_eq!(now.as_str().map(str::len), Some(24), "{none}");
    let expected = json!({ "type": "clock_status", "speed": 0, "paused": true, "tick": 0,
        "simTime": now, "startedAt": now });
    assert_eq!(none, expected);
    for kind in ["pause_clock", "resume_clock"] {
        let refusal = clock(&mut a, json!({ "type": kind })).await;
        let text = "No clock running for this mesh";
        assert_eq!(refusal, json!({ "type": "error", "code": "no_clock", "message": text }));
    }
    let begun = clock(&mut a, json!({ "type": "set_clock", "speed": 5 })).await;
    let since = begun["startedAt"].clone();
    let status = |speed: Value, paused: bool| {
        json!({ "type": "clock_status", "speed": speed, "paused": paused, "tick": 0,
            "simTime": since, "startedAt": since })
    };
    assert_eq!(begun, status(json!(5), false));
    for (frame, expected) in [
        (json!({ "type": "pause_clock" }), status(json!(5), true)),
        (json!({ "type": "set_clock", "speed": 2.5 }), status(json!(2.5), true)),
        (json!({ "type": "resume_clock" }), status(json!(2.5), false)),
        (json!({ "type": "resume_clock" }), status(json!(2.5), false)),
        (json!({ "type": "set_clock", "speed": 0 }), status(json!(1), false)),
        (json!({ "type": "set_clock", "speed": 1000 }), status(json!(100), false)),
        (json!({ "type": "set_clock" }), status(json!(1), false)),
    ] {
        assert_eq!(clock(&mut b, frame.clone()).await, expected, "{frame}");
        assert_eq!(clock(&mut a, json!({ "type": "get_clock" })).await, expected);
    }
    let odd = clock(&mut a, json!({ "type": "set_clock", "speed": "fast" })).await;
    assert_eq!(odd["code"], "invalid_argument");
    // Without an id: the answer to who asked, and no error.
    a.say(json!({ "type": "pause_clock" })).await;
    assert_eq!(a.hear("clock_status").await, status(json!(1), true));
}

#[tokio::test]
async fn everybody_hears_each_tick_once_but_commands() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut hidden = Raw::hello(&node, &bob).await;
    hidden.ask(json!({ "type": "set_visible", "visible": false })).await;
    let (mut passing, _) = command(&node, &alice, "passing").await;
    let begun = a.ask(json!({ "type": "set_clock", "speed": 100 })).await;
    let start = serde_json::from_value::<Timestamp>(begun["startedAt"].clone());
    let start = start.expect("an instant");
    for number in 1..=3 {
        for raw in [&mut a, &mut hidden] {
            let push = raw.event("tick").await;
            let sim_time = start.plus_ms(number * 60_000);
            let data = json!({ "tick": number, "simTime": sim_time, "speed": 100 });
            assert_eq!(push["eventData"], data);
            assert_eq!(
                (&push["subtype"], &push["priority"], &push["senderPubkey"]),
                (&json!("system"), &json!("low"), &json!("system"))
            );
        }
    }
    let paused = a.ask(json!({ "type": "pause_clock" })).await;
    assert_eq!((&paused["tick"], &paused["paused"]), (&json!(3), &json!(true)));
    assert_eq!(passing.so_far().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_clock_stands_when_the_last_presence_has_ended_and_goes_on_when_told() {
    let node = Node::start().await;
    let alice = node.member("alice").await;
    let mut a = Raw::hello(&node, &alice).await;
    a.ask(json!({ "type": "set_clock", "speed": 100 })).await;
    a.event("tick").await;
    a.goodbye().await;
    until("the presence has ended", async || node.audit_count("peer_left").await == 1).await;
    let mut a = Raw::hello(&node, &alice).await;
    let stands = clock(&mut a, json!({ "type": "get_clock" })).await;
    assert_eq!(stands["paused"], true, "{stands}");
    let last = stands["tick"].as_u64().expect("a number");
    let resumed = clock(&mut a, json!({ "type": "resume_clock" })).await;
    assert_eq!((&resumed["tick"], &resumed["startedAt"]), (&json!(last), &stands["startedAt"]));
    assert_eq!(a.event("tick").await["eventData"]["tick"], last + 1);
}
