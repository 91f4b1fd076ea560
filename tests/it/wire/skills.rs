//! Skills, as those find them who ask at every start.

use serde_json::{Value, json};

use crate::harness::{Cluster, Node, Raw};
use crate::wire::visitors::command;

#[tokio::test]
async fn skills_are_shared_read_listed_and_removed_as_recorded() {
    let node = Node::start().await;
    let (mut a, _) = command(&node, &node.member("ada").await, "cold").await;
    let share =
        json!({ "type": "share_skill", "name": "sk", "description": "d", "instructions": "i" });
    let ack = a.ask(share).await;
    let expected =
        json!({ "type": "skill_ack", "name": "sk", "action": "shared", "_reqId": ack["_reqId"] });
    assert_eq!(ack, expected);
    let list = a.ask(json!({ "type": "list_skills" })).await;
    let at = list["skills"][0]["createdAt"].clone();
    assert_eq!(at.as_str().map(str::len), Some(24), "{list}");
    let entry =
        json!({ "name": "sk", "description": "d", "tags": [], "author": "ada", "createdAt": at });
    let expected = json!({ "type": "skill_list", "skills": [entry], "_reqId": list["_reqId"] });
    assert_eq!(list, expected);
    let data = a.ask(json!({ "type": "get_skill", "name": "sk" })).await;
    let skill = json!({
        "name": "sk", "description": "d", "instructions": "i", "tags": [], "author": "ada",
        "manifest": null, "createdAt": at,
    });
    assert_eq!(data, json!({ "type": "skill_data", "skill": skill, "_reqId": data["_reqId"] }));
    let none = a.ask(json!({ "type": "get_skill", "name": "no" })).await;
    assert_eq!(none, json!({ "type": "skill_data", "skill": null, "_reqId": none["_reqId"] }));
    for action in ["removed", "not_found"] {
        let ack = a.ask(json!({ "type": "remove_skill", "name": "sk" })).await;
        assert_eq!((&ack["type"], &ack["action"]), (&json!("skill_ack"), &json!(action)));
    }
    // Without an id, as older brokers did.
    a.say(json!({ "type": "list_skills" })).await;
    assert_eq!(a.hear("skill_list").await, json!({ "type": "skill_list", "skills": [] }));
    assert!(node.audit_is_valid().await);
}

#[tokio::test]
async fn anothers_skill_is_removed_by_moderators_only() {
    let node = Node::start().await;
    let mut daemon = Raw::hello(&node, &node.member("ada").await).await;
    let share = json!({
        "type": "share_skill", "name": "deploy", "description": "d", "instructions": "i",
        "tags": ["ops"], "manifest": { "v": 1 },
    });
    assert_eq!(daemon.ask(share).await["action"], "shared");
    let (mut b, _) = command(&node, &node.member("bob").await, "cold").await;
    let refused = b.ask(json!({ "type": "remove_skill", "name": "deploy" })).await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("forbidden")));
    b.say(json!({ "type": "remove_skill", "name": "deploy" })).await;
    assert_eq!(b.so_far().await, Vec::<Value>::new(), "without an id no error strays");
    let listed = b.ask(json!({ "type": "list_skills", "query": "OPS" })).await;
    assert_eq!(listed["skills"][0]["name"], "deploy");
    let (mut owner, _) = command(&node, &node.owner, "cold").await;
    let removed = owner.ask(json!({ "type": "remove_skill", "name": "deploy" })).await;
    assert_eq!(removed["action"], "removed");
}

#[tokio::test]
async fn odd_skills_are_refused() {
    let node = Node::start().await;
    let (mut a, _) = command(&node, &node.member("ada").await, "cold").await;
    let share = |field: &str, value: Value| {
        let mut share = json!({
            "type": "share_skill", "name": "n", "description": "d", "instructions": "i",
        });
        share[field] = value;
        share
    };
    for odd in [
        json!({ "type": "share_skill", "name": "n" }),
        share("name", json!("")),
        share("name", json!("n".repeat(257))),
        share("description", json!("d".repeat(4097))),
        share("instructions", json!("i".repeat(32 * 1024 + 1))),
        share("manifest", json!("m".repeat(32 * 1024 + 1))),
        share("tags", json!(vec!["t"; 65])),
        json!({ "type": "get_skill" }),
        json!({ "type": "list_skills", "cursor": "odd" }),
    ] {
        let answer = a.ask(odd).await;
        assert_eq!(answer["code"], "invalid_argument", "{answer}");
    }
}

#[tokio::test]
async fn a_long_list_of_skills_comes_in_parts_on_every_node() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let (mut a, _) = command(one, &one.member("ada").await, "cold").await;
    let mut shared = Vec::new();
    for n in 0..150 {
        let name = format!("skill{n:03}");
        let description = "d".repeat(4_000);
        let share = json!({
            "type": "share_skill", "name": name, "description": description, "instructions": "i",
        });
        assert_eq!(a.ask(share).await["action"], "shared");
        shared.push(name);
    }
    let (mut b, _) = command(two, &one.member("bob").await, "cold").await;
    let (mut ask, mut names, mut parts) = (json!({ "type": "list_skills" }), Vec::new(), 0);
    loop {
        let page = b.ask(ask.clone()).await;
        assert!(page.to_string().len() <= 512 * 1024);
        let rows = page["skills"].as_array().expect("rows");
        names.extend(rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()));
        parts += 1;
        let Some(cursor) = page.get("cursor") else { break };
        ask["cursor"] = cursor.clone();
    }
    assert!(parts > 1);
    assert_eq!(names, shared);
}
