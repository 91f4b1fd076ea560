//! The dispatcher: read, paid for, answered once.

use super::*;
use crate::features::{empty, example};
use crate::limits;
use crate::store::StoreError;

fn nobody_is_banned() -> MockStores {
    let mut fakes = MockStores::default();
    fakes.bans.expect_banned().returning(|_| Ok(Vec::new()));
    fakes
}

fn the_store_is_away(error: fn() -> StoreError) -> MockStores {
    let mut fakes = MockStores::default();
    fakes.bans.expect_banned().returning(move |_| Err(error()));
    fakes
}

#[test]
fn each_request_is_listed_once_and_is_no_question_without_an_answer() {
    for (at, entry) in REQUESTS.iter().enumerate() {
        assert!(empty::find(entry.kind, true).is_none(), "{}", entry.kind);
        let is_listed = |other: &Entry| other.kind == entry.kind;
        assert_eq!(REQUESTS.iter().position(is_listed), Some(at), "{}", entry.kind);
    }
}

#[tokio::test]
async fn the_example_is_answered() {
    let scene = Scene::new(MockStores::default()).await;
    let bob = scene.session("bob");
    let frame = json!({ "type": "whoami", "_reqId": 7 });
    let told = scene.says_of(example::REQUESTS, &bob, frame).await;
    assert_eq!(told, [json!({ "type": "me", "name": "bob", "_reqId": 7 })]);
}

#[tokio::test]
async fn a_request_without_an_id_is_told_what_its_kind_says() {
    let scene = Scene::new(nobody_is_banned()).await;
    let bob = scene.session("bob");
    for (frame, told) in [
        // Silent: neither.
        (json!({ "type": "set_status", "status": "working" }), None),
        (json!({ "type": "join_group", "name": "" }), None),
        // Answered: no error.
        (json!({ "type": "list_bans" }), Some("list_bans_result")),
        (json!({ "type": "set_visible", "visible": true }), Some("ack")),
        (json!({ "type": "set_profile", "bio": "x".repeat(limits::PROFILE_BYTES_MAX) }), None),
        // Refused: both.
        (json!({ "type": "kick", "target": "ada" }), Some("error")),
        (json!({ "type": "audit_verify" }), Some("error")),
        (json!({ "type": "message_status", "messageId": "short" }), Some("error")),
        // No older broker refused so.
        (json!({ "type": "message_status", "messageId": "abcdefgh", "cursor": "odd" }), None),
        (json!({ "type": "set_status", "status": "asleep" }), None),
        (json!({ "type": "no_such_thing" }), None),
    ] {
        let heard = scene.says(&bob, frame.clone()).await;
        let kinds: Vec<_> = heard.iter().map(|frame| frame["type"].as_str()).collect();
        assert_eq!(kinds, Vec::from_iter(told.map(Some)), "{frame}");
        let asked = scene.asks(&bob, frame).await;
        assert!(asked["type"].is_string(), "{asked}");
    }
}

#[tokio::test]
async fn a_store_that_fails_is_a_refusal_for_who_can_be_told() {
    let list = || json!({ "type": "list_bans" });
    let scene = Scene::new(the_store_is_away(|| StoreError::Unavailable("away".to_owned()))).await;
    let bob = scene.session("bob");
    let error = scene.asks(&bob, list()).await;
    assert_eq!((&error["code"], &error["retryAfterMs"]), (&json!("unavailable"), &json!(2_000)));
    assert!(scene.says(&bob, list()).await.is_empty());

    let scene = Scene::new(the_store_is_away(|| StoreError::Broken("secret".to_owned()))).await;
    let error = scene.asks(&scene.session("bob"), list()).await;
    assert_eq!((&error["code"], error.get("retryAfterMs")), (&json!("internal"), None));
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn a_request_over_budget_is_refused_and_not_handled() {
    let mut fakes = MockStores::default();
    fakes.bans.expect_banned().times(1).returning(|_| Ok(Vec::new()));
    let scene = Scene::new(fakes).await;
    let bob = scene.session_with("bob", Budget::new(1, 10));
    assert_eq!(scene.asks(&bob, json!({ "type": "list_bans" })).await["bans"], json!([]));
    let error = scene.asks(&bob, json!({ "type": "list_bans" })).await;
    assert_eq!(error["code"], "rate_limit");
    assert!(error["retryAfterMs"].as_u64().is_some_and(|wait_ms| wait_ms > 0), "{error}");
}

#[tokio::test]
async fn what_is_no_request_is_refused_as_what_it_is() {
    let scene = Scene::new(MockStores::default()).await;
    let bob = scene.session("bob");
    for (frame, code, text) in [
        (json!({ "type": "x".repeat(500) }), "unknown_type", "this broker does not know that type"),
        (json!({ "type": 7 }), "unknown_type", "this broker does not know that type"),
        (json!({ "type": "set_status" }), "invalid_argument", "set_status: missing field `status`"),
        (
            json!({ "type": "client_ack", "brokerMessageId": 3 }),
            "invalid_argument",
            "client_ack: a field is wrong: expected a string",
        ),
        (json!({ "type": "hello" }), "already_active", "this connection has said hello already"),
    ] {
        let told = scene.asks(&bob, frame.clone()).await;
        let found = [&told["code"], &told["message"]].map(|text| text.as_str().unwrap_or_default());
        assert_eq!(found, [code, text], "{frame}");
    }
}
