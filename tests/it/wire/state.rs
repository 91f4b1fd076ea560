//! Shared state from outside: the recorded answers, and what is new.

use claudemesh_broker::limits;
use serde_json::{Value, json};

use crate::harness::{Node, Raw};

#[tokio::test]
async fn values_are_set_read_and_listed_as_older_brokers_did() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let mut b = Raw::hello_with(&node, &bob, |hello| hello["channel"] = json!("x")).await.0;
    let mut a = Raw::hello_with(&node, &ada, |hello| {
        hello["channel"] = json!("x");
        hello["displayName"] = json!("ada at work");
    })
    .await
    .0;
    a.say(json!({ "type": "set_state", "key": "k", "value": { "a": 1 } })).await;
    let change = b.hear("state_change").await;
    let told = json!({ "type": "state_change", "key": "k", "value": { "a": 1 }, "version": 1,
        "updatedBy": "ada" });
    assert_eq!(change, told);
    let read = a.ask(json!({ "type": "get_state", "key": "k" })).await;
    let at = read["updatedAt"].as_str().expect("an instant").to_owned();
    let entry = json!({ "key": "k", "value": { "a": 1 }, "version": 1, "updatedBy": "ada",
        "updatedBySession": "ada at work", "updatedAt": at });
    assert_eq!(without_frame(&read, "state_result"), entry);
    assert_eq!(a.so_far().await.len(), 0, "who sets is told nothing");
    let none = a.ask(json!({ "type": "get_state", "key": "nope" })).await;
    let empty = json!({ "key": "nope", "value": null, "updatedBy": "", "updatedAt": "" });
    assert_eq!(without_frame(&none, "state_result"), empty);
    let list = a.ask(json!({ "type": "list_state" })).await;
    assert_eq!(without_frame(&list, "state_list"), json!({ "entries": [entry] }));
}

fn without_frame(answer: &Value, kind: &str) -> Value {
    assert_eq!(answer["type"], kind, "{answer}");
    let mut fields = answer.clone();
    let fields = fields.as_object_mut().expect("an object");
    fields.remove("type");
    fields.remove("_reqId");
    Value::Object(fields.clone())
}

#[tokio::test]
async fn a_setter_with_an_id_learns_whether_it_was_done() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let (mut a, mut b) = (Raw::hello(&node, &ada).await, Raw::hello(&node, &bob).await);
    let mut set = async |value: Value, version: Value| {
        let ask = json!({ "type": "set_state", "key": "k", "value": value, "ifVersion": version });
        a.ask(ask).await
    };
    assert_eq!(set(json!(1), json!(0)).await["type"], "ack");
    let refused = set(json!(2), json!(0)).await;
    assert_eq!((&refused["code"], &refused["present"]["version"]), (&json!("conflict"), &json!(1)));
    assert_eq!(refused["present"]["value"], 1);
    assert_eq!(set(Value::Null, json!(1)).await["type"], "ack", "null is a value");
    let deleted = a.ask(json!({ "type": "delete_state", "key": "k", "ifVersion": 2 })).await;
    assert_eq!(deleted["type"], "ack");
    let told: Vec<(Value, Value)> = {
        let mut told = Vec::new();
        for _ in 0..3 {
            let change = b.hear("state_change").await;
            told.push((change["value"].clone(), change["version"].clone()));
        }
        told
    };
    let expected = [(json!(1), json!(1)), (Value::Null, json!(2)), (Value::Null, Value::Null)];
    assert_eq!(told, expected);
    assert_eq!(node.audit_count("state_set").await, 2);
    assert_eq!(node.audit_count("state_removed").await, 1);
}

#[tokio::test]
async fn writes_that_nobody_waited_for_keep_their_order_before_all_else() {
    // More than may be on their way at once, with answers and without.
    let count = 2 * i64::from(limits::PIPELINED_MAX);
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let (mut a, mut b) = (Raw::hello(&node, &ada).await, Raw::hello(&node, &bob).await);
    for n in 0..count {
        let mut set = json!({ "type": "set_state", "key": format!("k{}", n % 7), "value": n });
        if n % 2 == 0 {
            set["_reqId"] = json!(format!("w{n}"));
        }
        a.say(set).await;
    }
    a.say(json!({ "type": "delete_state", "key": "k0" })).await;
    a.say(json!({ "type": "get_state", "key": "k1", "_reqId": "read" })).await;
    let conditional = json!({ "type": "set_state", "key": "k0", "value": "new", "ifVersion": 0,
        "_reqId": "last" });
    a.say(conditional).await;
    a.sent(bob.pubkey().as_str(), "now", "dGV4dA==").await;

    let mut answers = a.heard();
    answers.retain(|answer| answer["type"] != "push");
    while answers.len() < usize::try_from(count / 2 + 2).expect("a count") {
        answers.push(a.hear_any(|_| true).await);
    }
    let read = answers.iter().find(|answer| answer["_reqId"] == "read").expect("an answer");
    let last = (0..count).rev().find(|n| n % 7 == 1);
    assert_eq!(read["state"]["value"], json!(last), "a peer reads what it wrote: {read}");
    let mut answered: Vec<&str> = answers.iter().filter_map(|a| a["_reqId"].as_str()).collect();
    answered.sort_unstable();
    let mut expected: Vec<String> = (0..count).step_by(2).map(|n| format!("w{n}")).collect();
    expected.extend(["read".to_owned(), "last".to_owned()]);
    expected.sort();
    assert_eq!(answered, expected, "each is answered once");
    assert!(answers.iter().all(|answer| answer["type"] != "error"), "{answers:?}");

    b.message().await;
    let mut told: Vec<Value> = b.heard();
    told.retain(|frame| frame["type"] == "state_change");
    let told: Vec<Value> = told.into_iter().map(|change| change["value"].clone()).collect();
    let mut expected: Vec<Value> = (0..count).map(Value::from).collect();
    expected.extend([Value::Null, json!("new")]);
    assert_eq!(told, expected, "others are told in the order of the writes, then get the message");
    assert_eq!(node.audit_count("state_set").await, count + 1);
}

#[tokio::test]
async fn what_is_too_large_or_has_no_name_is_refused_in_words() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("ada").await).await;
    let long = "x".repeat(limits::VALUE_BYTES_MAX - 1);
    for (key, value, word) in [
        ("", "v", "`key` is needed"),
        (&*"k".repeat(257), "v", "257 bytes"),
        ("k", &*long, "32769 bytes"),
    ] {
        let refused = a.ask(json!({ "type": "set_state", "key": key, "value": value })).await;
        assert_eq!(refused["code"], "invalid_argument");
        assert!(refused["message"].as_str().expect("words").contains(word), "{refused}");
        a.say(json!({ "type": "set_state", "key": key, "value": value })).await;
    }
    let fits = json!({ "type": "set_state", "key": "k", "value": long[1..] });
    assert_eq!(a.ask(fits).await["type"], "ack");
    assert_eq!(a.so_far().await, Vec::<Value>::new(), "without an id no error strays");
}

#[tokio::test]
async fn a_long_list_comes_in_pages_that_fit() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("ada").await).await;
    let value = "x".repeat(30_000);
    for n in 0..40 {
        a.ask(json!({ "type": "set_state", "key": format!("{n:02}"), "value": value })).await;
    }
    let (mut cursor, mut keys, mut pages) = (Value::Null, Vec::new(), 0);
    loop {
        let mut ask = json!({ "type": "list_state" });
        if cursor.is_string() {
            ask["cursor"] = cursor.clone();
        }
        let page = a.ask(ask).await;
        assert!(page.to_string().len() <= limits::ANSWER_BYTES_MAX);
        pages += 1;
        let entries = page["entries"].as_array().expect("entries");
        keys.extend(entries.iter().map(|entry| entry["key"].as_str().expect("a key").to_owned()));
        cursor = page["cursor"].clone();
        assert_eq!(page["more"] == true, cursor.is_string());
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(keys, (0..40).map(|n| format!("{n:02}")).collect::<Vec<_>>());
    assert_eq!(pages, 3);
}

#[tokio::test]
async fn daemons_are_answered_in_their_own_words_and_only_so() {
    let node = Node::start().await;
    let mut daemon = Raw::hello(&node, &node.member("bob").await).await;
    daemon.ask(json!({ "type": "set_state", "key": "k", "value": 7 })).await;
    let read = daemon.ask(json!({ "type": "get_state", "key": "k" })).await;
    assert_eq!((&read["type"], &read["state"]["value"]), (&json!("state_value"), &json!(7)));
    let none = daemon.ask(json!({ "type": "get_state", "key": "no" })).await;
    assert_eq!(without_frame(&none, "state_value"), json!({ "state": null }));
    let list = daemon.ask(json!({ "type": "list_state" })).await;
    assert_eq!(list["entries"][0]["key"], "k");
}
