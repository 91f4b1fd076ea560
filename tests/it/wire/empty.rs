//! What this broker keeps none of: questions are answered at once, and nothing that
//! would be lost is acknowledged.

use serde_json::{Value, json};

use crate::harness::{Node, Raw};
use crate::wire::visitors::command;

/// The question, and the recorded answer of an older broker that has nothing.
fn questions() -> Vec<(Value, Value)> {
    let of = |question: Value, answer: Value| (question, answer);
    vec![
        of(
            json!({ "type": "list_tasks", "status": "open" }),
            json!({ "type": "task_list", "tasks": [] }),
        ),
        of(
            json!({ "type": "list_scheduled" }),
            json!({ "type": "scheduled_list", "messages": [] }),
        ),
        of(json!({ "type": "topic_list" }), json!({ "type": "topic_list_response", "topics": [] })),
        of(
            json!({ "type": "mcp_catalog" }),
            json!({ "type": "mcp_catalog_result", "services": [] }),
        ),
        of(json!({ "type": "list_files" }), json!({ "type": "file_list", "files": [] })),
        of(
            json!({ "type": "list_collections" }),
            json!({ "type": "collection_list", "collections": [] }),
        ),
        of(json!({ "type": "mesh_schema" }), json!({ "type": "mesh_schema_result", "tables": [] })),
        of(json!({ "type": "watch_list" }), json!({ "type": "watch_list_result", "watches": [] })),
    ]
}

#[tokio::test]
async fn questions_about_what_there_is_none_of_are_answered() {
    let node = Node::start().await;
    let bob = node.member("bob").await;
    let (mut cold, _) = command(&node, &bob, "cold").await;
    for (question, mut expected) in questions() {
        let answer = cold.ask(question.clone()).await;
        expected["_reqId"] = answer["_reqId"].clone();
        assert_eq!(answer, expected, "{question}");
    }
    // Without an id, as older brokers did.
    cold.say(json!({ "type": "watch_list" })).await;
    let empty = json!({ "type": "watch_list_result", "watches": [] });
    assert_eq!(cold.hear("watch_list_result").await, empty);
}

#[tokio::test]
async fn daemons_are_answered_by_the_names_that_they_wait_for() {
    let node = Node::start().await;
    let mut daemon = Raw::hello(&node, &node.member("bob").await).await;
    for (question, mut expected) in [
        (
            json!({ "type": "recall", "query": "q" }),
            json!({ "type": "memory_recall_result", "matches": [] }),
        ),
        (json!({ "type": "list_skills" }), json!({ "type": "skill_list", "skills": [] })),
    ] {
        let answer = daemon.ask(question.clone()).await;
        expected["_reqId"] = answer["_reqId"].clone();
        assert_eq!(answer, expected, "{question}");
    }
}

#[tokio::test]
async fn what_would_be_lost_is_not_acknowledged() {
    let node = Node::start().await;
    let bob = node.member("bob").await;
    let (mut cold, _) = command(&node, &bob, "cold").await;
    for kind in ["unwatch", "mesh_execute"] {
        let answer = cold.ask(json!({ "type": kind, "key": "k", "value": 1 })).await;
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("unknown_type")));
        cold.say(json!({ "type": kind })).await;
    }
    // Whoever asks for this waits for one answer, and reads an error in it.
    let answer = cold.ask(json!({ "type": "watch", "url": "https://example.org" })).await;
    assert_eq!(answer["type"], "watch_ack");
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("watches")), "{answer}");
    cold.say(json!({ "type": "watch", "url": "https://example.org" })).await;
    assert_eq!(cold.so_far().await, Vec::<Value>::new(), "without an id no error strays");
}

#[tokio::test]
async fn a_topic_is_refused_in_words_that_end_a_daemons_retries() {
    let node = Node::start().await;
    let mut daemon = Raw::hello(&node, &node.member("bob").await).await;
    let ack = daemon.send("#deploys", "next", "eA==").await;
    assert_eq!((&ack["queued"], &ack["messageId"]), (&json!(false), &json!("")));
    let text = ack["error"].as_str().expect("a sentence").to_lowercase();
    assert!(text.contains("invalid") || text.contains("forbidden"), "{text}");
}
