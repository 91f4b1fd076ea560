//! `message_status`: what became of a message, and who may know.

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::store::Role;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::harness::{Node, Raw, until};

async fn status(raw: &mut Raw, id: &str) -> Value {
    raw.ask(json!({ "type": "message_status", "messageId": id })).await
}

async fn is_refused(raw: &mut Raw, id: &str, code: &str, message: &str) {
    let error = status(raw, id).await;
    assert_eq!((&error["code"], &error["message"]), (&json!(code), &json!(message)), "{id}");
}

#[tokio::test]
async fn a_direct_message_is_held_until_it_is_confirmed() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let away = a.sent(bob.pubkey().as_str(), "next", "eA==").await;
    let result = status(&mut a, &away).await;
    assert_eq!(result["type"], "message_status_result");
    assert_eq!(result["messageId"], away.as_str());
    assert_eq!(result["targetSpec"], json!(bob.pubkey()));
    assert_eq!((&result["delivered"], &result["deliveredAt"]), (&json!(false), &json!(null)));
    let nobody = json!([{
        "name": "unknown", "pubkey": &bob.pubkey().as_str()[..16], "status": "disconnected",
        "stage": "kept",
    }]);
    assert_eq!(result["recipients"], nobody);

    let mut b = Raw::hello(&node, &bob).await;
    let push = b.message().await;
    until("it is known to be on a socket", async || {
        let result = status(&mut a, &away).await;
        let recipient = &result["recipients"][0];
        assert_eq!((&result["delivered"], &recipient["status"]), (&json!(false), &json!("held")));
        recipient["stage"] == "pushed" && recipient["at"].is_string()
    })
    .await;

    b.confirm(&push).await;
    until("the confirmation is in the store", async || {
        status(&mut a, &away).await["delivered"] == true
    })
    .await;
    let result = status(&mut a, &away).await;
    let delivered = json!([{
        "name": "bob", "pubkey": bob.pubkey(), "status": "delivered", "stage": "confirmed",
        "at": result["deliveredAt"], "peerStatus": "idle",
    }]);
    assert_eq!(result["recipients"], delivered);
    assert!(result["deliveredAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{result}");
}

#[tokio::test]
async fn a_broadcast_is_delivered_when_all_who_were_there_have_it() {
    let node = Node::start_with(|config| config.presence.lease_grace_ms = 60_000).await;
    let (alice, bob, carol) =
        (node.member("alice").await, node.member("bob").await, node.member("carol").await);
    let mut a = Raw::hello(&node, &alice).await;
    let mut b = Raw::hello(&node, &bob).await;
    let mut c = Raw::hello(&node, &carol).await;
    let id = a.sent("*", "next", "eA==").await;
    let of = async |a: &mut Raw, name: &str| {
        let result = status(a, &id).await;
        let all = result["recipients"].as_array().expect("a list").clone();
        assert_eq!(all.len(), 2, "its sender is none of them: {all:?}");
        let found = all.into_iter().find(|one| one["name"] == name).expect("everyone is named");
        (found["stage"].clone(), found["status"].clone(), result["delivered"].clone())
    };
    let push = c.message().await;
    assert_eq!(of(&mut a, "carol").await, (json!("kept"), json!("held"), json!(false)));
    c.confirm(&push).await;
    let confirmed = (json!("confirmed"), json!("delivered"), json!(false));
    until("carol's is known", async || of(&mut a, "carol").await == confirmed).await;
    let push = b.message().await;
    b.goodbye().await;
    let away = (json!("kept"), json!("disconnected"), json!(false));
    until("bob is in grace", async || of(&mut a, "bob").await == away).await;
    let mut b = Raw::hello(&node, &bob).await;
    let again = b.message().await;
    assert_eq!((&again["messageId"], &again["redelivered"]), (&push["messageId"], &json!(true)));
    b.confirm(&again).await;
    until("all have it", async || status(&mut a, &id).await["delivered"] == true).await;
    let _late = Raw::hello(&node, &node.member("dave").await).await;
    let result = status(&mut a, &id).await;
    assert_eq!(result["recipients"].as_array().map(Vec::len), Some(2), "dave came later");
}

#[tokio::test]
async fn a_prefix_will_do_if_it_names_one() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let first = a.sent(bob.pubkey().as_str(), "next", "eA==").await;
    let second = a.sent(bob.pubkey().as_str(), "next", "eA==").await;
    let differ = first.bytes().zip(second.bytes()).take_while(|(x, y)| x == y).count();
    assert!(differ >= 8, "ids of one moment begin alike: {first} {second}");
    let ambiguous = "prefix matched 2 messages — use a longer id";
    is_refused(&mut a, &first[..8], "ambiguous_prefix", ambiguous).await;
    is_refused(&mut a, &first[..differ], "ambiguous_prefix", ambiguous).await;
    let prefix = &second[..=differ];
    let result = status(&mut a, prefix).await;
    assert_eq!(
        (&result["type"], &result["messageId"]),
        (&json!("message_status_result"), &json!(prefix))
    );
    assert_eq!(status(&mut a, &first).await["messageId"], first.as_str(), "a whole id is exact");
}

#[tokio::test]
async fn what_one_may_not_see_hides_nothing_of_ones_own() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let carol = node.member("carol").await;
    let mut a = Raw::hello(&node, &alice).await;
    let mut c = Raw::hello(&node, &carol).await;
    let to = bob.pubkey();
    let mut ids = Vec::new();
    // More than are read at once.
    for _ in 0..40 {
        ids.push(a.sent(to.as_str(), "next", "eA==").await);
    }
    let own = c.sent(to.as_str(), "next", "eA==").await;
    ids.push(a.sent(to.as_str(), "next", "eA==").await);
    let same = |id: &String| own.bytes().zip(id.bytes()).take_while(|(x, y)| x == y).count();
    let shared = ids.iter().map(same).min().expect("some");
    assert!(shared >= 8, "ids of one moment begin alike: {own} {ids:?}");
    let result = status(&mut c, &own[..shared]).await;
    assert_eq!(result["type"], "message_status_result", "{result}");
    let second = c.sent(to.as_str(), "next", "eA==").await;
    assert_eq!(&second[..8], &own[..8]);
    let ambiguous = "prefix matched 2 messages — use a longer id";
    is_refused(&mut c, &own[..8], "ambiguous_prefix", ambiguous).await;
}

#[tokio::test]
async fn odd_ids_are_refused_in_the_words_clients_know() {
    let node = Node::start().await;
    let mut a = Raw::hello(&node, &node.member("alice").await).await;
    for (id, length) in
        [("", 0), ("1234567", 7), (&"a".repeat(33), 33), ("abcd-efgh", 9), ("ünïcödé8", 8)]
    {
        let text = format!("messageId must be 8-32 base62 chars (got {length})");
        is_refused(&mut a, id, "invalid_argument", &text).await;
    }
    for id in ["00000000", &"f".repeat(32), "AAAAAAAA%"[..8].to_owned().as_str()] {
        is_refused(&mut a, id, "not_found", "message not found").await;
    }
}

#[tokio::test]
async fn only_the_sender_its_recipients_and_admins_may_know() {
    let node = Node::start().await;
    let (alice, bob, carol) =
        (node.member("alice").await, node.member("bob").await, node.member("carol").await);
    let admin = node.member_as("admin", Role::Admin).await;
    let mut a = Raw::hello(&node, &alice).await;
    let mut c = Raw::hello(&node, &carol).await;
    let key = SecretKey::generate();
    let (mut session, _) = Raw::session(&node, &bob, &key).await;
    let (mut other, _) = Raw::session(&node, &bob, &SecretKey::generate()).await;
    let to_session = a.sent(key.public_key().as_str(), "next", "eA==").await;
    let to_member = a.sent(bob.pubkey().as_str(), "next", "eA==").await;
    let to_group = a.sent("@ops", "next", "eA==").await;
    let to_all = a.sent("*", "next", "eA==").await;
    for id in [&to_session, &to_member, &to_group] {
        is_refused(&mut c, id, "not_found", "message not found").await;
    }
    assert_eq!(status(&mut c, &to_all).await["targetSpec"], "*");
    for id in [&to_session, &to_member] {
        assert_eq!(status(&mut session, id).await["type"], "message_status_result");
    }
    is_refused(&mut other, &to_session, "not_found", "message not found").await;
    c.ask(json!({ "type": "join_group", "name": "ops" })).await;
    assert_eq!(status(&mut c, &to_group).await["targetSpec"], "@ops");
    for member in [&admin, &node.owner] {
        let mut raw = Raw::hello(&node, member).await;
        for id in [&to_session, &to_member, &to_group, &to_all] {
            assert_eq!(status(&mut raw, id).await["messageId"], id.as_str());
        }
    }
    let (mesh, owner) = node.another_mesh("other").await;
    let mut stranger = Raw::connect(&node).await;
    stranger.say(crate::harness::raw::hello_frame(&mesh, &owner)).await;
    stranger.hear("hello_ack").await;
    is_refused(&mut stranger, &to_all, "not_found", "message not found").await;
}

#[tokio::test]
async fn what_waited_for_seven_days_has_expired() {
    let node = Node::start().await;
    let (alice, bob) = (node.member("alice").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &alice).await;
    let id = a.sent(bob.pubkey().as_str(), "next", "eA==").await;
    // Time passes, as far as the file is concerned.
    let file = node.data_dir().join("broker.db");
    let mut file = SqliteConnectOptions::new().filename(file).connect().await.expect("the file");
    let week_ms: i64 = 7 * 24 * 3_600_000 + 60_000;
    sqlx::query("update message_queue set created_at = created_at - ?1 where id = ?2")
        .bind(week_ms)
        .bind(&id)
        .execute(&mut file)
        .await
        .expect("the row");
    file.close().await.expect("closed");
    let result = status(&mut a, &id).await;
    assert_eq!(result["delivered"], false);
    assert_eq!(result["recipients"][0]["status"], "expired");
}
