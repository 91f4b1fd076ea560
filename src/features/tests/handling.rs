//! Handlers, where they decide something.

use super::*;
use crate::id::MessageId;
use crate::limits;
use crate::protocol::Priority;
use crate::store::{MessageState, StoreError};

// --- moderation ------------------------------------------------------------------------

/// Finds members as the database does, and notes who is banned.
fn banning() -> (MockStores, Noted<MemberId>) {
    let (mut fakes, banned) = (MockStores::default(), Noted::default());
    fakes.members.expect_find().returning(|_, target| {
        let is_meant = |member: &Member| {
            member.display_name == target || member.key.as_str().starts_with(target)
        };
        Ok(members().into_iter().filter(is_meant).collect())
    });
    let noted = Arc::clone(&banned);
    fakes.bans.expect_ban().returning(move |_, ban| {
        noted.lock().push(ban.member.clone());
        Ok(true)
    });
    (fakes, banned)
}

#[tokio::test]
async fn only_whom_a_word_can_but_mean_is_banned() {
    let (fakes, banned) = banning();
    let scene = Scene::new(fakes).await;
    let (ada, eve) = (scene.session("ada"), scene.session("eve"));
    // Eve calls her session as another is enrolled.
    scene.room.update(&eve, |record| {
        record.display_name = "bob".to_owned();
        true
    });
    for (target, code) in [
        ("", "invalid"),
        ("nobody", "not_found"),
        ("bob", "ambiguous"),
        ("bbbbbbb", "not_found"),
        ("ada", "invalid"),
        ("olga", "forbidden"),
    ] {
        let error = scene.asks(&ada, json!({ "type": "ban", "target": target })).await;
        assert_eq!(error["code"], code, "{target}");
    }
    let error = scene.asks(&eve, json!({ "type": "ban", "target": "bob" })).await;
    assert_eq!(error["message"], "only owner or admin can ban");
    assert!(banned.lock().is_empty());
    let ack = scene.asks(&ada, json!({ "type": "ban", "target": "bbbbbbbb" })).await;
    assert_eq!((&ack["type"], &ack["banned"]), (&json!("ban_ack"), &json!("bob")));
    assert_eq!(*banned.lock(), [MemberId::from("bob")]);
}

#[tokio::test]
async fn who_kicks_itself_is_answered_before_it_is_closed() {
    let mut fakes = MockStores::default();
    let ended =
        |_, ends: &[crate::store::EndPresence]| Ok(ends.iter().map(|end| end.id.clone()).collect());
    fakes.presences.expect_end().returning(ended);
    let scene = Scene::new(fakes).await;
    let (ada, bob) = (scene.session("ada"), scene.session("bob"));
    let ack = scene.asks(&ada, json!({ "type": "kick", "target": "ada" })).await;
    assert_eq!(ack["kicked"], json!(["ada"]));
    assert_eq!(heard(&ada.outbox).1, Some(CloseReason::KICKED));
    assert_eq!(heard(&bob.outbox).1, None);
}

#[tokio::test]
async fn bans_are_paged_with_the_oldest_first_and_each_once() {
    const BANS: usize = 3_000;
    let mut fakes = MockStores::default();
    fakes.bans.expect_banned().returning(|_| {
        let banned = |at: usize| Member {
            id: MemberId::from(format!("{at:05}")),
            display_name: format!("{at:0>250}"),
            revoked_at: Some(Timestamp::from_ms((at / 2) as i64)),
            ..member("", "cc", Role::Member)
        };
        Ok((0..BANS).rev().map(banned).collect())
    });
    let scene = Scene::new(fakes).await;
    let bob = scene.session("bob");
    let (mut ask, mut names, mut pages) = (json!({ "type": "list_bans" }), Vec::new(), 0);
    loop {
        let page = scene.asks(&bob, ask.clone()).await;
        assert!(page.to_string().len() <= limits::ANSWER_BYTES_MAX);
        pages += 1;
        let rows = page["bans"].as_array().expect("rows");
        names.extend(rows.iter().map(|ban| ban["name"].as_str().expect("a name").to_owned()));
        assert_eq!(page.get("more"), page.get("cursor").map(|_| &json!(true)));
        let Some(cursor) = page.get("cursor") else { break };
        ask["cursor"] = cursor.clone();
    }
    assert!(pages > 1 && names.len() == BANS && names.is_sorted(), "{pages} {}", names.len());
    let error = scene.asks(&bob, json!({ "type": "list_bans", "cursor": "odd" })).await;
    assert_eq!(error["code"], "invalid_argument");
}

// --- messages --------------------------------------------------------------------------

fn message(id: &str, from: &str, target: &str) -> MessageState {
    MessageState {
        id: MessageId::from(id),
        seq: 1,
        sender_member: MemberId::from(from),
        target_spec: target.to_owned(),
        priority: Priority::Next,
        multicast: false,
        ciphertext_bytes: 0,
        created_at: Timestamp::now(),
        delivered_at: None,
        pushed_at: None,
        surfaced_at: None,
        expires_at: None,
        ended: None,
        claimed_by: None,
    }
}

#[tokio::test]
async fn a_message_is_shown_to_its_sender_its_recipient_and_moderators() {
    let mut fakes = MockStores::default();
    fakes.messages.expect_find().returning(|_, _, _| {
        let of_bob = message("message1", "bob", &"ee".repeat(8));
        Ok(vec![of_bob, message("message2", "ada", &"00".repeat(8))])
    });
    let scene = Scene::new(fakes).await;
    let ask = || json!({ "type": "message_status", "messageId": "message0" });
    let bob = scene.session("bob");
    let status = scene.asks(&bob, ask()).await;
    assert_eq!(status["targetSpec"], json!("ee".repeat(8)), "ada's is none of his");
    assert_eq!(status["recipients"][0]["status"], "disconnected");
    let eve = scene.session("eve");
    assert_eq!(scene.asks(&eve, ask()).await["recipients"][0]["name"], "eve");
    let ada = scene.session("ada");
    assert_eq!(scene.asks(&ada, ask()).await["code"], "ambiguous_prefix", "she sees both");
}

#[tokio::test]
async fn a_message_that_one_may_not_see_is_not_found() {
    let mut fakes = MockStores::default();
    fakes.messages.expect_find().returning(|_, _, _| Ok(vec![message("message1", "ada", "@a")]));
    let scene = Scene::new(fakes).await;
    let ask = json!({ "type": "message_status", "messageId": "message1" });
    assert_eq!(scene.asks(&scene.session("bob"), ask).await["code"], "not_found");
}

// --- the audit trail -------------------------------------------------------------------

#[tokio::test]
async fn the_audit_trail_is_for_moderators() {
    let mut fakes = MockStores::default();
    fakes.audit.expect_page().returning(|_, _, _, _| Ok((Vec::new(), 0)));
    fakes.audit.expect_after().returning(|_, _, _| Ok(Vec::new()));
    let scene = Scene::new(fakes).await;
    let (ada, bob) = (scene.session("ada"), scene.session("bob"));
    for (kind, answer) in [("audit_query", "audit_result"), ("audit_verify", "audit_verify_result")]
    {
        let error = scene.asks(&bob, json!({ "type": kind })).await;
        assert_eq!(error["message"], "only owner or admin can read the audit trail");
        assert_eq!(scene.asks(&ada, json!({ "type": kind })).await["type"], answer);
    }
    let walking = scene.parts.verifying.try_acquire().expect("nobody walks");
    assert_eq!(scene.asks(&ada, json!({ "type": "audit_verify" })).await["code"], "busy");
    drop(walking);
    let verdict = scene.asks(&ada, json!({ "type": "audit_verify" })).await;
    assert_eq!(verdict["valid"], true, "the turn was given back");
}

#[tokio::test]
async fn an_audit_trail_that_cannot_be_read_is_told_with_and_without_an_id() {
    let mut fakes = MockStores::default();
    let away = || StoreError::Unavailable("away".to_owned());
    fakes.audit.expect_page().returning(move |_, _, _, _| Err(away()));
    fakes.audit.expect_after().returning(move |_, _, _| Err(away()));
    let scene = Scene::new(fakes).await;
    let ada = scene.session("ada");
    for (kind, code) in
        [("audit_query", "audit_query_error"), ("audit_verify", "audit_verify_error")]
    {
        assert_eq!(scene.asks(&ada, json!({ "type": kind })).await["code"], code);
        assert_eq!(scene.says(&ada, json!({ "type": kind })).await[0]["code"], code);
    }
}
