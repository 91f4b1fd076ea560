//! The description of the API is held against what the API does, both ways.

use claudemesh_broker::http::admin::{OPENAPI, table};
use serde_json::{Value, json};

use super::stream::Events;
use super::{call, presence_of, start};
use crate::harness::{Node, Raw};

fn description() -> Value {
    serde_json::from_str(OPENAPI).expect("JSON")
}

/// A schema of the description, as a validator takes it: what it refers to
/// lies beside it.
fn validator(schema: &Value) -> jsonschema::Validator {
    let mut root = schema.clone();
    root["components"] = description()["components"].clone();
    jsonschema::draft202012::new(&root).expect("a schema")
}

fn assert_fits(schema: &Value, answer: &Value, what: &str) {
    let validator = validator(schema);
    let errors: Vec<String> = validator
        .iter_errors(answer)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{answer}");
}

/// The schema of an operation's answer with that status.
fn schema_of(description: &Value, method: &str, path: &str, status: u16) -> Value {
    let operation = &description["paths"][path][method];
    let mut response = &operation["responses"][status.to_string()];
    if let Some(reference) = response["$ref"].as_str() {
        response = description.pointer(&reference[1..]).expect(reference);
    }
    let content = response["content"].as_object();
    let content = content.unwrap_or_else(|| panic!("{method} {path} has no {status}"));
    content.values().next().expect("a kind")["schema"].clone()
}

#[test]
fn every_route_is_described_and_every_described_path_is_a_route() {
    let description = description();
    assert_eq!(description["openapi"], "3.1.0");
    let mut described: Vec<(String, String)> = Vec::new();
    for (path, item) in description["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("operations").keys() {
            described.push((method.clone(), path.clone()));
        }
    }
    let mut routes: Vec<(String, String)> =
        table().into_iter().map(|(method, path, _)| (method.to_owned(), path.to_owned())).collect();
    described.sort();
    routes.sort();
    assert_eq!(described, routes);
}

#[test]
fn the_description_names_nothing_that_it_does_not_describe() {
    let description = description();
    let schemas = description["components"]["schemas"].as_object().expect("schemas");
    for (name, schema) in schemas {
        validator(schema);
        let reference = format!("\"#/components/schemas/{name}\"");
        assert!(OPENAPI.contains(&reference), "{name} is used by nothing");
    }
    for path in description["paths"].as_object().expect("paths").values() {
        for operation in path.as_object().expect("operations").values() {
            for response in operation["responses"].as_object().expect("responses").values() {
                let reference = response["$ref"].as_str();
                let found =
                    reference.is_none_or(|pointer| description.pointer(&pointer[1..]).is_some());
                assert!(found, "{reference:?}");
            }
        }
    }
}

/// The path with its parameters filled in.
fn filled(path: &str, node: &Node, presence: &str) -> String {
    path.replace("{id}", node.mesh.as_str()).replace("{presence}", presence)
}

#[tokio::test]
async fn every_answer_has_the_described_shape() {
    let node = start().await;
    let description = description();
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let _b = Raw::hello(&node, &bob).await;
    a.ask(json!({ "type": "join_group", "name": "dev" })).await;
    a.sent(node.owner.pubkey().as_str(), "next", "eA==").await;
    a.sent("@dev", "low", "eA==").await;
    let mut owner = Raw::hello(&node, &node.owner).await;
    super::shared::share(&node, &mut owner).await;
    let presence = presence_of(&node, "bob").await;
    // Points come every ten seconds.
    let deadline = tokio::time::Instant::now() + 3 * crate::harness::PATIENCE;
    while call(&node, "GET", "/series").await.json()["points"] == json!([]) {
        assert!(tokio::time::Instant::now() < deadline, "no point came");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    for (method, path, _) in table() {
        if path == "/events" {
            continue;
        }
        let reply = call(&node, &method.to_uppercase(), &filled(path, &node, &presence)).await;
        let what = format!("{method} {path}");
        assert_eq!(reply.status, 200, "{what}: {reply:?}");
        let schema = schema_of(&description, method, path, 200);
        assert_fits(&schema, &reply.json(), &what);
        // Without a token, and about a mesh that is not there.
        let bare = crate::harness::http::request(
            &node,
            &method.to_uppercase(),
            &format!("/admin/v1{}", filled(path, &node, &presence)),
            &[],
            "",
        )
        .await;
        let schema = schema_of(&description, method, path, bare.status);
        assert_fits(&schema, &bare.json(), &what);
        if path.contains("{id}") {
            let nowhere = path.replace("{id}", "nothing").replace("{presence}", &presence);
            let reply = call(&node, &method.to_uppercase(), &nowhere).await;
            let schema = schema_of(&description, method, path, reply.status);
            assert_fits(&schema, &reply.json(), &what);
        }
    }
    let schemas = &description["components"]["schemas"];
    let mut events = Events::open(&node, &format!("?mesh={}", node.mesh)).await;
    let snapshot = events.next("snapshot").await.expect("a snapshot");
    assert_fits(&schemas["Snapshot"], &snapshot, "snapshot");
    a.sent(node.owner.pubkey().as_str(), "next", "eA==").await;
    loop {
        let change = events.next("change").await.expect("a change");
        assert_fits(&schemas["Change"], &change, "change");
        if change.get("audit").is_some() {
            break;
        }
    }
}

#[test]
fn a_wrong_answer_would_be_noticed() {
    let description = description();
    let schema = schema_of(&description, "get", "/nodes", 200);
    let validator = validator(&schema);
    assert!(!validator.is_valid(&json!({ "at": "x", "node": "n", "nodes": [{}] })));
    assert!(!validator.is_valid(&json!({ "at": "x", "node": "n", "nodes": [], "more": 1 })));
}
