//! Requests and their answers: who gets one, which, and what each says.

use claudemesh_broker::store::Role;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Node, Raw};

/// Every request there is, with the type of its answer to an admin when it
/// has a `_reqId` and when it has none.
fn requests() -> Vec<(Value, &'static str, Option<&'static str>)> {
    let known = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
    vec![
        (known(r#"{"type":"list_peers"}"#), "peers_list", Some("peers_list")),
        (known(r#"{"type":"set_status","status":"working"}"#), "ack", None),
        (known(r#"{"type":"set_status","status":"idle"}"#), "ack", None),
        (known(r#"{"type":"set_status","status":"asleep"}"#), "error", None),
        (known(r#"{"type":"set_status"}"#), "error", None),
        (known(r#"{"type":"set_summary","summary":"s"}"#), "ack", None),
        (known(r#"{"type":"set_summary"}"#), "ack", None),
        (known(r#"{"type":"set_summary","summary":7}"#), "error", None),
        (known(r#"{"type":"set_stats","stats":{"messagesIn":1}}"#), "ack", None),
        (known(r#"{"type":"set_stats"}"#), "ack", None),
        (known(r#"{"type":"set_stats","stats":"many"}"#), "error", None),
        (known(r#"{"type":"set_visible","visible":false}"#), "ack", Some("ack")),
        (known(r#"{"type":"set_visible","visible":true}"#), "ack", Some("ack")),
        (known(r#"{"type":"set_visible"}"#), "error", None),
        (known(r#"{"type":"set_profile","title":"t"}"#), "ack", Some("ack")),
        (known(r#"{"type":"set_profile"}"#), "ack", Some("ack")),
        (known(r#"{"type":"set_profile","bio":1}"#), "error", None),
        (known(r#"{"type":"join_group","name":"dev","role":"lead"}"#), "ack", None),
        (known(r#"{"type":"join_group","name":""}"#), "error", None),
        (known(r#"{"type":"join_group"}"#), "error", None),
        (known(r#"{"type":"leave_group","name":"dev"}"#), "ack", None),
        (known(r#"{"type":"leave_group"}"#), "error", None),
        (known(r#"{"type":"client_ack","brokerMessageId":"nothing"}"#), "ack", None),
        (known(r#"{"type":"client_ack"}"#), "error", None),
        (known(r#"{"type":"client_ack","brokerMessageId":[]}"#), "error", None),
        (known(r#"{"type":"message_status","messageId":"abcdefgh"}"#), "error", Some("error")),
        (known(r#"{"type":"message_status","messageId":"no"}"#), "error", Some("error")),
        (known(r#"{"type":"message_status"}"#), "error", Some("error")),
        (known(r#"{"type":"kick","target":"nobody"}"#), "kick_ack", Some("kick_ack")),
        (known(r#"{"type":"kick"}"#), "kick_ack", Some("kick_ack")),
        (known(r#"{"type":"kick","stale":"x"}"#), "error", None),
        (
            known(r#"{"type":"disconnect","target":"nobody"}"#),
            "disconnect_ack",
            Some("disconnect_ack"),
        ),
        (known(r#"{"type":"ban","target":"nobody"}"#), "error", Some("error")),
        (known(r#"{"type":"ban"}"#), "error", Some("error")),
        (known(r#"{"type":"unban","target":"nobody"}"#), "error", Some("error")),
        (known(r#"{"type":"unban"}"#), "error", Some("error")),
        (
            known(r#"{"type":"apikey_create","label":"ci","capabilities":["read"]}"#),
            "apikey_created",
            Some("apikey_created"),
        ),
        (known(r#"{"type":"apikey_create"}"#), "error", None),
        (known(r#"{"type":"apikey_list"}"#), "apikey_list_response", Some("apikey_list_response")),
        (
            known(r#"{"type":"apikey_revoke","id":"zzz"}"#),
            "apikey_revoke_response",
            Some("apikey_revoke_response"),
        ),
        (known(r#"{"type":"apikey_revoke"}"#), "error", None),
        (
            known(
                r#"{"type":"vault_set","key":"k","ciphertext":"Yw==","nonce":"bg==","sealed_key":"c2s=","entry_type":"env"}"#,
            ),
            "vault_ack",
            Some("vault_ack"),
        ),
        (known(r#"{"type":"vault_set","key":"k"}"#), "error", None),
        (known(r#"{"type":"vault_list"}"#), "vault_list_result", Some("vault_list_result")),
        (known(r#"{"type":"vault_get","keys":[]}"#), "vault_get_result", Some("vault_get_result")),
        (known(r#"{"type":"vault_delete","key":"k"}"#), "vault_ack", Some("vault_ack")),
        (known(r#"{"type":"vault_delete"}"#), "error", None),
        (known(r#"{"type":"list_bans"}"#), "list_bans_result", Some("list_bans_result")),
        (known(r#"{"type":"audit_query"}"#), "audit_result", Some("audit_result")),
        (known(r#"{"type":"audit_query","limit":"all"}"#), "error", None),
        (known(r#"{"type":"audit_verify"}"#), "audit_verify_result", Some("audit_verify_result")),
        (
            known(
                r#"{"type":"send","id":"s","targetSpec":"*","priority":"now","nonce":"","ciphertext":""}"#,
            ),
            "ack",
            Some("ack"),
        ),
        (known(r#"{"type":"send","id":"s"}"#), "ack", Some("ack")),
        (known(r#"{"type":"hello"}"#), "error", None),
        (known(r#"{"type":"session_hello"}"#), "error", None),
        (known(r#"{"type":"get_state","key":"k"}"#), "state_value", Some("state_value")),
        (known(r#"{"type":"list_skills"}"#), "skill_list", Some("skill_list")),
        (known(r#"{"type":"list_state"}"#), "state_list", Some("state_list")),
        (known(r#"{"type":"budget"}"#), "budget_result", Some("budget_result")),
        (known(r#"{"type":"budget","to":"nobody"}"#), "error", None),
        (known(r#"{"type":"set_state","key":"k","value":1}"#), "ack", None),
        (known(r#"{"type":"set_state","key":"k","ifVersion":9}"#), "error", None),
        (known(r#"{"type":"set_state"}"#), "error", None),
        (known(r#"{"type":"delete_state","key":"k"}"#), "ack", None),
        (known(r#"{"type":"delete_state"}"#), "error", None),
        (known(r#"{"type":"list_streams"}"#), "stream_list", Some("stream_list")),
        (known(r#"{"type":"create_stream","name":"s"}"#), "stream_created", Some("stream_created")),
        (known(r#"{"type":"create_stream"}"#), "error", None),
        (known(r#"{"type":"delete_stream","name":"s"}"#), "ack", None),
        (known(r#"{"type":"delete_stream"}"#), "error", None),
        (known(r#"{"type":"subscribe","stream":"s"}"#), "subscribed", Some("subscribed")),
        (known(r#"{"type":"subscribe","stream":""}"#), "error", None),
        (known(r#"{"type":"publish","stream":"s","data":1}"#), "ack", None),
        (known(r#"{"type":"publish"}"#), "error", None),
        (known(r#"{"type":"unsubscribe","stream":"s"}"#), "ack", None),
        (known(r#"{"type":"resume_clock"}"#), "error", None),
        (known(r#"{"type":"get_clock"}"#), "clock_status", Some("clock_status")),
        (known(r#"{"type":"set_clock","speed":2}"#), "clock_status", Some("clock_status")),
        (known(r#"{"type":"set_clock","speed":"2"}"#), "error", None),
        (known(r#"{"type":"pause_clock"}"#), "clock_status", Some("clock_status")),
        (known(r#"{"type":"list_webhooks"}"#), "webhook_list", Some("webhook_list")),
        (known(r#"{"type":"create_webhook"}"#), "error", None),
        (known(r#"{"type":"create_webhook","name":"w"}"#), "webhook_ack", Some("webhook_ack")),
        (known(r#"{"type":"delete_webhook","name":"none"}"#), "webhook_ack", Some("webhook_ack")),
        (known(r#"{"type":"topic_list"}"#), "topic_list_response", Some("topic_list_response")),
        (known(r#"{"type":"topic_create"}"#), "error", None),
        (known(r#"{"type":"topic_create","name":"t"}"#), "topic_created", Some("topic_created")),
        (known(r#"{"type":"topic_join","topic":"t"}"#), "ack", None),
        (known(r#"{"type":"topic_join","topic":"none"}"#), "error", None),
        (
            known(r#"{"type":"topic_members","topic":"t"}"#),
            "topic_members_response",
            Some("topic_members_response"),
        ),
        (
            known(r#"{"type":"topic_history","topic":"t"}"#),
            "topic_history_response",
            Some("topic_history_response"),
        ),
        (known(r#"{"type":"topic_history","topic":"none"}"#), "error", None),
        (known(r#"{"type":"topic_invite","topic":"t","member":"none"}"#), "error", None),
        (known(r#"{"type":"topic_mark_read","topic":"t"}"#), "ack", None),
        (known(r#"{"type":"topic_leave","topic":"t"}"#), "ack", None),
        (known(r#"{"type":"mesh_info"}"#), "mesh_info_result", Some("mesh_info_result")),
        (known(r#"{"type":"no_such_type"}"#), "error", None),
        (known(r#"{"type":42}"#), "error", None),
        (known(r#"{"no":"type"}"#), "error", None),
    ]
}

/// Everything that was said because of `frame`. What answers a request is
/// queued before the next is read, but for a send's answer, which waits for
/// its commit: it is heard first.
async fn answers(raw: &mut Raw, frame: &Value) -> Vec<Value> {
    raw.say(frame.clone()).await;
    let ack = match frame["type"] == "send" {
        true => Some(raw.hear("ack").await),
        false => None,
    };
    let mut heard = raw.so_far().await;
    heard.retain(|frame| frame["type"] != "push");
    ack.into_iter().chain(heard).collect()
}

#[tokio::test]
async fn a_request_with_an_id_gets_exactly_one_frame_that_carries_it() {
    let node = Node::start().await;
    let admin = node.member_as("admin", Role::Admin).await;
    let mut raw = Raw::hello(&node, &admin).await;
    for (number, (mut request, answer, _)) in requests().into_iter().enumerate() {
        request["_reqId"] = json!(format!("r-{number}"));
        let heard = answers(&mut raw, &request).await;
        assert_eq!(heard.len(), 1, "{request}: {heard:?}");
        assert_eq!(heard[0]["_reqId"], format!("r-{number}"), "{request}");
        assert_eq!(heard[0]["type"], answer, "{request}: {}", heard[0]);
    }
}

#[tokio::test]
async fn a_request_without_an_id_gets_what_old_clients_expect_and_no_more() {
    let node = Node::start().await;
    let admin = node.member_as("admin", Role::Admin).await;
    let mut raw = Raw::hello(&node, &admin).await;
    for (request, _, answer) in requests() {
        let heard = answers(&mut raw, &request).await;
        let kinds: Vec<&str> = heard.iter().filter_map(|frame| frame["type"].as_str()).collect();
        assert_eq!(kinds, answer.into_iter().collect::<Vec<_>>(), "{request}: {heard:?}");
        assert!(heard.iter().all(|frame| frame.get("_reqId").is_none()), "{heard:?}");
    }
}

#[tokio::test]
async fn an_id_is_echoed_as_it_was_given() {
    let node = Node::start().await;
    let mut raw = Raw::hello(&node, &node.member("alice").await).await;
    for given in [json!("a\"b ü"), json!(17), json!("x".repeat(128))] {
        raw.say(json!({ "type": "list_bans", "_reqId": given })).await;
        assert_eq!(raw.hear("list_bans_result").await["_reqId"], given);
    }
    for not_given in [json!(""), json!(0), json!(null), json!(true), json!("x".repeat(129))] {
        raw.say(json!({ "type": "list_bans", "_reqId": not_given })).await;
        assert!(raw.hear("list_bans_result").await.get("_reqId").is_none(), "{not_given}");
        raw.say(json!({ "type": "nonsense", "_reqId": not_given })).await;
    }
    assert!(raw.so_far().await.is_empty(), "no error without an id");
}

#[tokio::test]
async fn a_setters_ack_says_its_id_and_that_nothing_was_queued() {
    let node = Node::start().await;
    let mut raw = Raw::hello(&node, &node.member("alice").await).await;
    raw.say(json!({ "type": "set_visible", "visible": true })).await;
    let ack = raw.hear("ack").await;
    assert_eq!(ack, json!({ "type": "ack", "id": "", "messageId": "", "queued": false }));
    let ack = raw.ask(json!({ "type": "set_profile", "bio": "b" })).await;
    assert_eq!((&ack["id"], &ack["queued"]), (&ack["_reqId"], &json!(false)));
    assert_eq!(ack["messageId"], "");
}

#[tokio::test]
async fn the_eleventh_frame_that_is_none_closes_the_connection() {
    let node = Node::start().await;
    let mut raw = Raw::hello(&node, &node.member("alice").await).await;
    let noise = ["", "{", "[]", "null", "42", "\"hello\"", "{]", "hello", "{\"type\":}", "\u{0}"];
    for text in noise {
        raw.say_text(text.to_owned()).await;
        let error = raw.hear("error").await;
        assert_eq!(error["code"], "malformed", "{text:?}");
        assert!(error.get("_reqId").is_none());
    }
    // Unknown types and wrong fields are not counted.
    raw.say(json!({ "type": "nonsense" })).await;
    raw.ask(json!({ "type": "set_status", "status": 1 })).await;
    assert_eq!(raw.ask(json!({ "type": "list_peers" })).await["type"], "peers_list");
    raw.say_text("once too often".to_owned()).await;
    assert_eq!(raw.closed().await, (1008, "malformed".to_owned()));
}

#[tokio::test]
async fn before_a_hello_everything_else_is_told_to_say_hello() {
    let node = Node::start().await;
    let mut raw = Raw::connect(&node).await;
    for (request, ..) in requests() {
        if request["type"] == "hello" || request["type"] == "session_hello" {
            continue;
        }
        raw.say(request).await;
        let error = raw.hear("error").await;
        assert_eq!(
            (&error["code"], &error["message"]),
            (&json!("no_hello"), &json!("must send hello first"))
        );
    }
    raw.say(json!({ "type": "list_peers", "_reqId": "early" })).await;
    assert_eq!(raw.hear("error").await["_reqId"], "early");
    for _ in 0..10 {
        raw.say_text("noise".to_owned()).await;
        assert_eq!(raw.hear("error").await["code"], "malformed");
    }
    raw.say_text("noise".to_owned()).await;
    assert_eq!(raw.closed().await, (1008, "malformed".to_owned()));
}

#[tokio::test]
async fn json_in_a_binary_frame_is_json() {
    let node = Node::start().await;
    let mut raw = Raw::hello(&node, &node.member("alice").await).await;
    let frame = json!({ "type": "list_peers", "_reqId": "binary" }).to_string();
    futures_util::SinkExt::send(&mut raw.socket, Message::Binary(frame.into()))
        .await
        .expect("open");
    assert_eq!(raw.hear("peers_list").await["_reqId"], "binary");
}

// --- audit ---------------------------------------------------------------------------

#[tokio::test]
async fn the_audit_trail_is_for_admins_and_the_owner() {
    let node = Node::start().await;
    let (alice, admin) = (node.member("alice").await, node.member_as("admin", Role::Admin).await);
    let mut a = Raw::hello(&node, &alice).await;
    for kind in ["audit_query", "audit_verify"] {
        let error = a.ask(json!({ "type": kind })).await;
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("forbidden")));
    }
    for member in [&admin, &node.owner] {
        let mut raw = Raw::hello(&node, member).await;
        let page = raw.ask(json!({ "type": "audit_query", "eventType": "peer_joined" })).await;
        assert_eq!(page["type"], "audit_result");
        let verdict = raw.ask(json!({ "type": "audit_verify" })).await;
        assert_eq!(verdict["valid"], true, "{verdict}");
        assert!(verdict.get("brokenAt").is_none());
    }
}

#[tokio::test]
async fn an_audit_query_gives_rows_newest_first_and_at_most_500() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    const SENT: usize = 520;
    for number in 0..SENT {
        a.say(json!({
            "type": "send", "id": "", "targetSpec": bob.pubkey(), "priority": "next",
            "nonce": "secret-nonce", "ciphertext": format!("secret-{number}"),
        }))
        .await;
    }
    for _ in 0..SENT {
        a.hear("ack").await;
    }
    let mut owner = Raw::hello(&node, &node.owner).await;
    let sent = |limit: i64, offset: i64| {
        json!({
            "type": "audit_query", "eventType": "message_sent", "limit": limit, "offset": offset,
        })
    };
    let page = owner.ask(sent(100_000, 0)).await;
    let entries = page["entries"].as_array().expect("rows");
    assert_eq!((entries.len(), &page["total"]), (500, &json!(SENT)));
    let ids: Vec<i64> = entries.iter().filter_map(|row| row["id"].as_i64()).collect();
    assert!(ids.is_sorted_by(|newer, older| newer > older), "newest first");
    let row = &entries[0];
    assert_eq!(row["eventType"], "message_sent");
    assert_eq!(row["actor"], "alice");
    assert_eq!(row["payload"], json!({ "targetSpec": bob.pubkey(), "priority": "next" }));
    assert_eq!(row["hash"].as_str().map(str::len), Some(64));
    assert!(!page.to_string().contains("secret"), "metadata only");

    let rest = owner.ask(sent(500, 500)).await;
    assert_eq!(rest["entries"].as_array().map(Vec::len), Some(SENT - 500));
    let page = owner.ask(json!({ "type": "audit_query" })).await;
    assert_eq!(page["entries"].as_array().map(Vec::len), Some(50), "the default");
    for odd in [sent(-1, 0), sent(0, 0), sent(5, -7), sent(5, 1_000_000)] {
        assert_eq!(owner.ask(odd.clone()).await["type"], "audit_result", "{odd}");
    }
    let verdict = owner.ask(json!({ "type": "audit_verify" })).await;
    assert_eq!(verdict["valid"], true);
    assert!(verdict["entries"].as_i64().is_some_and(|rows| rows > SENT as i64), "{verdict}");
}

#[tokio::test]
async fn chains_are_walked_one_at_a_time_and_every_request_is_answered() {
    let node = Node::start().await;
    let mut raw = Raw::hello(&node, &node.owner).await;
    for number in 0..20 {
        raw.say(json!({ "type": "audit_verify", "_reqId": format!("walk-{number}") })).await;
    }
    assert_eq!(raw.ask(json!({ "type": "list_peers" })).await["type"], "peers_list");
    let mut walked = 0;
    for number in 0..20 {
        let asked = format!("walk-{number}");
        let answers = |frame: &Value| frame["_reqId"] == asked.as_str();
        let answer = raw.hear_any(answers).await;
        match answer["type"].as_str() {
            Some("audit_verify_result") => walked += 1,
            _ => assert_eq!(answer["code"], "busy", "{answer}"),
        }
    }
    assert!(walked > 0, "the first was free to go");
    assert_eq!(raw.ask(json!({ "type": "audit_verify" })).await["valid"], true, "and now again");
}
