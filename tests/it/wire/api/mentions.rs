//! Mentions, and what is said in all meshes of a user, by the HTTP API.

use serde_json::{Value, json};

use super::topics::{both_key, creates, joins, posts, send};
use super::{call, coded, key, refusal};
use crate::harness::{Node, Raw};

/// `hello @bob`, as it is sent.
const HELLO: &str = "aGVsbG8gQGJvYg==";

#[tokio::test]
async fn a_member_reads_its_mentions_and_marks_them() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("ada").await).await;
    let mut b = Raw::hello(&node, &node.member("bob").await).await;
    let topic = creates(&mut a, "deploys", "public").await;
    joins(&mut b, "deploys").await;
    let writes = both_key(&mut a).await;
    let reads = key(&mut b, json!(["read"]), json!({})).await.1;
    let posted = posts(&node, &writes, "deploys", HELLO).await;
    posts(&node, &writes, "deploys", "c2lsZW5jZQ==").await;

    let found = call(&node, "/api/v1/notifications", &reads).await.json();
    let mention = &found["notifications"][0];
    let expected = json!({ "id": posted["messageId"], "notificationId": mention["notificationId"],
        "topicId": topic, "topicName": "deploys", "senderName": "ada",
        "senderPubkey": mention["senderPubkey"], "ciphertext": HELLO, "bodyVersion": 1,
        "kind": "mention", "readAt": null, "createdAt": mention["createdAt"] });
    assert_eq!(found["notifications"], json!([expected]));
    assert_eq!(found["mentionedAs"], "bob");
    let scope = json!({ "topicScopes": ["other"] });
    let (_, scoped) = key(&mut b, json!(["read"]), scope).await;
    let none = call(&node, "/api/v1/notifications", &scoped).await.json();
    assert_eq!(none["notifications"], json!([]), "its topics only");
    let bad = call(&node, "/api/v1/notifications?since=yesterday", &reads).await;
    assert_eq!((bad.status, &bad.json()["error"]), (400, &json!("invalid_since")));
    let later = call(&node, "/api/v1/notifications?since=2999-01-01", &reads).await.json();
    assert_eq!(later["notifications"], json!([]));

    let mine = async |query: &str| {
        let path = format!("/api/v1/me/notifications{query}");
        call(&node, &path, &reads).await.json()
    };
    let unread = mine("").await;
    let shown = &unread["notifications"][0];
    let expected = json!({ "notificationId": mention["notificationId"],
        "messageId": posted["messageId"], "topicId": topic, "topicName": "deploys",
        "meshId": node.mesh, "meshSlug": "test", "meshName": shown["meshName"],
        "senderName": "ada", "snippet": "hello @bob", "ciphertext": null, "bodyVersion": 1,
        "read": false, "readAt": null, "createdAt": mention["createdAt"] });
    assert_eq!(shown, &expected);
    assert_eq!(unread["totals"], json!({ "unread": 1, "total": 1 }));
    let workspace = call(&node, "/api/v1/me/workspace", &reads).await.json();
    let totals = &workspace["totals"];
    assert_eq!((&totals["topics"], &totals["unreadMentions"]), (&json!(1), &json!(1)));

    let mark = async |body: Value| send(&node, "POST", "/notifications/read", &reads, body).await;
    let marked = mark(json!({ "ids": [mention["notificationId"]] })).await.json();
    assert_eq!(marked["marked"], 1);
    assert_eq!(mine("").await["totals"], json!({ "unread": 0, "total": 0 }));
    let all = mine("?include=all").await;
    assert_eq!(all["totals"], json!({ "unread": 0, "total": 1 }));
    assert_eq!(all["notifications"][0]["readAt"], marked["readAt"]);
    posts(&node, &writes, "deploys", HELLO).await;
    assert_eq!(mark(json!({ "all": true })).await.json()["marked"], "all");
    assert_eq!(mine("").await["totals"]["unread"], 0);
    let bad = mark(json!({ "all": true, "before": "never" })).await;
    assert_eq!((bad.status, &bad.json()["error"]), (400, &json!("invalid_before")));
    for body in [json!({}), json!({ "ids": [] }), json!({ "all": false })] {
        let refused = refusal(&mark(body).await, "/api/v1/notifications/read");
        assert_eq!(refused, coded(422, "validation:error.union"));
    }
}

#[tokio::test]
async fn what_was_said_is_listed_and_searched_by_those_who_are_in_the_topic() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("ada").await).await;
    let mut b = Raw::hello(&node, &node.member("bob").await).await;
    let topic = creates(&mut a, "100%_done", "public").await;
    creates(&mut a, "closed", "private").await;
    joins(&mut b, "100%_done").await;
    let writes = both_key(&mut a).await;
    let reads = key(&mut b, json!(["read"]), json!({})).await.1;
    let posted = posts(&node, &writes, "100%_done", HELLO).await;
    posts(&node, &writes, "closed", HELLO).await;
    let read = async |path: &str| call(&node, &format!("/api/v1/me/{path}"), &reads).await.json();

    let topics = read("topics").await;
    let first = &topics["topics"][0];
    let expected = json!({ "topicId": topic, "name": "100%_done", "description": null,
        "visibility": "public", "createdAt": first["createdAt"], "meshId": node.mesh,
        "meshSlug": "test", "meshName": first["meshName"], "memberId": first["memberId"],
        "unread": 1, "lastMessageAt": first["lastMessageAt"] });
    assert_eq!(topics["topics"], json!([expected]));
    assert!(first["lastMessageAt"].is_string());
    assert_eq!(topics["totals"], json!({ "topics": 1, "unread": 1 }));

    let activity = read("activity").await;
    let said = &activity["activity"][0];
    assert_eq!(
        (&said["messageId"], &said["snippet"]),
        (&posted["messageId"], &json!("hello @bob"))
    );
    assert_eq!((&said["senderName"], &said["ciphertext"]), (&json!("ada"), &Value::Null));
    assert_eq!(activity["totals"], json!({ "events": 1 }));
    let own = call(&node, "/api/v1/me/activity", &writes).await.json();
    assert_eq!(own["totals"], json!({ "events": 0 }), "what one said oneself is no news");

    let found = read("search?q=HELLO").await;
    assert_eq!(found["totals"], json!({ "topics": 0, "messages": 1 }));
    assert_eq!((&found["query"], found["messages"][0].get("ciphertext")), (&json!("HELLO"), None));
    let by_name = read("search?q=100%25_").await;
    assert_eq!(by_name["totals"], json!({ "topics": 1, "messages": 1 }));
    assert_eq!(by_name["topics"][0]["name"], "100%_done");
    for query in ["closed", "%25%25", "__", "x"] {
        let none = read(&format!("search?q={query}")).await;
        assert_eq!(none["totals"], json!({ "topics": 0, "messages": 0 }), "{query}");
    }
}
