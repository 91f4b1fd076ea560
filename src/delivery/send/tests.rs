use std::borrow::Cow;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::cluster::{Draw, Drawn};
use crate::delivery::refusal::{MAILBOX_FULL, MESH_FULL, SENDER_FULL, STORE_AWAY, STORE_REJECTS};
use crate::delivery::testing::{Fakes, World, blocks, frames, received, session, stored};
use crate::id::MemberId;
use crate::protocol::{Blob, PeerRole, Status};
use crate::store::testing::{admission, member, record};
use crate::store::{Role, StoreError};
use crate::webhooks::noted::Noted;
use crate::writers::group_commit::{Quota, Refused};

/// A key that nobody here has.
const UNKNOWN: &str = "abababababababababababababababababababababababababababababababab";

fn to<'a>(target: &'a str) -> Send<'a> {
    Send {
        id: Some(Cow::Borrowed("client")),
        target_spec: Cow::Borrowed(target),
        priority: Priority::Next,
        nonce: Blob::from_text(""),
        ciphertext: Blob::from_text("c2VhbGVk"),
        client_message_id: None,
        request_fingerprint: None,
        reply_to_id: None,
        body_version: None,
        mentions: None,
        ttl_ms: None,
        thread_id: None,
        expects_reply: None,
        supersedes: None,
        receipt: None,
        sealed_keys: None,
        signature: None,
    }
}

fn world(fakes: Fakes) -> (World, Arc<Session>) {
    let world = fakes.world();
    world.enrol(&["ada", "bob"]);
    let ada = world.enter("ada", |_| {});
    (world, ada)
}

async fn reason(world: &World, session: &Arc<Session>, send: Send<'_>) -> &'static str {
    plan(&world.parts, &world.room, session, send)
        .await
        .map_or_else(|refusal| refusal.reason, |_| "")
}

/// The presence that a direct message is claimed for.
async fn chosen(world: &World, session: &Arc<Session>, send: Send<'_>) -> Option<String> {
    match plan(&world.parts, &world.room, session, send).await {
        Ok((envelope, Sent { recipient: Recipient::One { presence, .. }, .. })) => {
            let claimed = match &envelope.reach {
                Reach::Direct { claim, .. } => claim.as_ref().map(|(presence, _)| presence),
                Reach::Multicast | Reach::Topic(_) => panic!("a key is one"),
            };
            assert_eq!(claimed, presence.as_ref(), "claimed for whom it is chosen");
            presence.map(|presence| presence.to_string())
        }
        Ok(_) => panic!("a key is one"),
        Err(refusal) => panic!("{}", refusal.text),
    }
}

fn acks(session: &Session) -> Vec<(bool, String)> {
    let ack = |frame: &serde_json::Value| {
        assert_eq!((&frame["type"], &frame["id"]), (&"ack".into(), &"client".into()));
        let text = frame["error"].as_str().or(frame["messageId"].as_str()).unwrap_or_default();
        (frame["queued"] == true, text.to_owned())
    };
    frames(session).iter().map(ack).collect()
}

#[tokio::test]
async fn what_webhooks_are_told_of_waiting_mail_is_written_with_the_mail() {
    let note = async |world: &World, ada: &Arc<Session>| {
        let planned = plan(&world.parts, &world.room, ada, to("bob-key")).await;
        let (envelope, _) = planned.map_err(|refusal| refusal.text).expect("a message");
        let Reach::Direct { note, .. } = envelope.reach else { panic!("a key is one") };
        note
    };
    let (world, ada) = world(Fakes::default());
    assert_eq!(note(&world, &ada).await, None, "nobody asked");
    let asked = vec![(world.room.mesh().clone(), WebhookEvent::MailWaiting)];
    let fakes = Fakes { noted: Noted::of(asked), ..Fakes::default() };
    let (world, ada) = self::world(fakes);
    let noted = note(&world, &ada).await.expect("he is away");
    assert_eq!((&*noted.subject, noted.event), ("bob-key", WebhookEvent::MailWaiting));
    assert_eq!(noted.data, json!({ "memberId": "bob", "name": "bob", "pubkey": "bob-key" }));
    let _bob = world.enter("bob", |_| {});
    assert_eq!(note(&world, &ada).await, None, "he takes it");
}

// --- refusals --------------------------------------------------------------------------

#[tokio::test]
async fn what_is_wrong_is_found_in_the_recorded_order() {
    let has_tokens = Arc::new(AtomicBool::new(false));
    let mut fakes = Fakes::default();
    let tokens = Arc::clone(&has_tokens);
    fakes
        .cluster
        .expect_take_tokens()
        .returning(move |_, draws| Ok(Drawn::all_for_tests(draws, tokens.load(Ordering::Relaxed))));
    fakes.config.message_bytes_max = 1_000;
    let (world, _ada) = world(fakes);
    world.enrol_as(vec![member("ada"), blocks("bob", "ada")]);
    let record = record(&member("ada"));
    let ada = session(&record);
    world.parts.life.disk_low.store(true, Ordering::Relaxed);

    let long = "a".repeat(limits::CLIENT_MESSAGE_ID_BYTES_MAX + 1);
    // Each step mends the first thing that is wrong with the one before.
    let wrong = |mended: usize| Send {
        ciphertext: Blob::from_text(if mended < 1 { "a".repeat(1_000) } else { String::new() }),
        reply_to_id: (mended < 2).then(|| Cow::Owned(long.clone())),
        client_message_id: (mended < 3).then_some(Cow::Borrowed("a\0b")),
        ..to(["#topic", "nobody", "bob-key"][mended.saturating_sub(3)])
    };
    assert_eq!(reason(&world, &ada, wrong(0)).await, "rate_limit");
    has_tokens.store(true, Ordering::Relaxed);
    assert_eq!(reason(&world, &ada, wrong(0)).await, "too_large");
    assert_eq!(reason(&world, &ada, wrong(1)).await, "invalid", "too long");
    assert_eq!(reason(&world, &ada, wrong(2)).await, "invalid", "NUL");
    assert_eq!(reason(&world, &ada, wrong(3)).await, "disk_low");
    world.parts.life.disk_low.store(false, Ordering::Relaxed);
    assert_eq!(reason(&world, &ada, wrong(3)).await, "gone");
    world.room.attach(record, Arc::clone(&ada), || {});
    assert_eq!(reason(&world, &ada, wrong(3)).await, "topic");
    assert_eq!(reason(&world, &ada, wrong(4)).await, "no_peer");
    assert_eq!(reason(&world, &ada, wrong(5)).await, "grants");
}

/// A world whose cluster has no more tokens of these buckets.
fn without(empty: &'static [&'static str]) -> (World, Arc<Session>) {
    let mut fakes = Fakes::default();
    fakes.cluster.expect_take_tokens().returning(move |_, draws| {
        let is_empty = |draw: &Draw| empty.iter().any(|name| draw.bucket.starts_with(name));
        Ok(draws.iter().map(|draw| Drawn::for_tests(draw, !is_empty(draw))).collect())
    });
    let (world, ada) = world(fakes);
    let olga = Member { role: Role::Admin, ..member("olga") };
    world.enrol_as(vec![member("ada"), member("bob"), olga]);
    (world, ada)
}

#[tokio::test]
async fn a_refusal_says_which_limit_the_send_is_over_and_when_to_try_again() {
    let cases: [(&'static [&'static str], &str, &str); 4] = [
        (&["send"], "bob-key", "member"),
        (&["pair"], "bob-key", "pair"),
        (&["multicast"], "@dev", "multicast"),
        (&["send", "pair"], "bob-key", "member"),
    ];
    for (empty, target, scope) in cases {
        let (world, ada) = without(empty);
        send(&world.parts, &world.room, &ada, to(target), None, Instant::now()).await;
        let ack = frames(&ada).remove(0);
        let limits = if scope == "member" { 600 } else { 120 };
        assert_eq!((&ack["code"], &ack["scope"]), (&json!("rate_limit"), &json!(scope)), "{ack}");
        assert_eq!(ack["limit"], limits, "{ack}");
        assert!((1..=60_000).contains(&ack["retryAfterMs"].as_u64().expect("a time")), "{ack}");
    }
}

#[tokio::test]
async fn a_member_that_is_told_of_a_used_up_rate_tells_an_admin_all_the_same() {
    for empty in [&["send"][..], &["pair"], &["send", "pair"]] {
        let (world, ada) = without(empty);
        let now = |target| Send { priority: Priority::Now, ..to(target) };
        assert_eq!(reason(&world, &ada, now("olga-key")).await, "", "{empty:?}");
        assert_eq!(reason(&world, &ada, to("olga-key")).await, "rate_limit", "it can wait");
        assert_eq!(reason(&world, &ada, now("bob-key")).await, "rate_limit", "he cannot help");
    }
    let (world, ada) = without(&["send", "urgent"]);
    let now = Send { priority: Priority::Now, ..to("olga-key") };
    assert_eq!(reason(&world, &ada, now).await, "rate_limit");
}

#[tokio::test]
async fn who_may_have_sent_it_before_is_refused_by_the_group_commit_alone() {
    let (world, ada) = without(&["pair", "multicast"]);
    let named = |target| Send { client_message_id: Some(Cow::Borrowed("own")), ..to(target) };
    for target in ["bob-key", "*"] {
        let planned = plan(&world.parts, &world.room, &ada, named(target)).await;
        let Ok((_, mut sent)) = planned else { panic!("{target} is refused at once") };
        assert!(sent.allowance.is_over());
        assert_eq!(sent.allowance.refusal(Refused::OverRate).reason, "rate_limit");
        let unnamed = Send { client_message_id: Some(Cow::Borrowed("")), ..to(target) };
        assert_eq!(reason(&world, &ada, unnamed).await, "rate_limit", "an empty id is none");
    }
    let (world, ada) = without(&["send"]);
    assert_eq!(reason(&world, &ada, named("bob-key")).await, "rate_limit", "as ever");
}

#[tokio::test]
async fn whom_only_the_store_knows_is_a_pair_as_well() {
    let mut fakes = Fakes::default();
    fakes.members.expect_admit().returning(|_, _, _| Ok(admission(member("new"))));
    fakes.cluster.expect_take_tokens().returning(|_, draws| {
        let drawn = |draw: &Draw| Drawn::for_tests(draw, draw.bucket != "pair/new");
        Ok(draws.iter().map(drawn).collect())
    });
    let (world, ada) = world(fakes);
    assert_eq!(reason(&world, &ada, to(UNKNOWN)).await, "rate_limit");
    let named = Send { client_message_id: Some(Cow::Borrowed("own")), ..to(UNKNOWN) };
    let Ok((_, sent)) = plan(&world.parts, &world.room, &ada, named).await else {
        panic!("refused at once")
    };
    assert!(sent.allowance.is_over());
    assert_eq!(reason(&world, &ada, to("bob-key")).await, "");
}

#[tokio::test]
async fn every_text_is_bounded_and_may_hold_no_nul() {
    let (world, ada) = world(Fakes::default());
    let long = "a".repeat(limits::CLIENT_MESSAGE_ID_BYTES_MAX + 1);
    let target = "a".repeat(limits::TARGET_SPEC_BYTES_MAX + 1);
    for text in [long.as_str(), "\0"] {
        let some = || Some(Cow::Borrowed(text));
        let sends = [
            Send { client_message_id: some(), ..to("*") },
            Send { request_fingerprint: some(), ..to("*") },
            Send { reply_to_id: some(), ..to("*") },
        ];
        for send in sends {
            assert_eq!(reason(&world, &ada, send).await, "invalid");
        }
    }
    let sends = [
        to(&target),
        to("bob\0"),
        Send { nonce: Blob::from_text("\0"), ..to("*") },
        Send { ciphertext: Blob::from_text("\0"), ..to("*") },
    ];
    for send in sends {
        assert_eq!(reason(&world, &ada, send).await, "invalid");
    }
    assert_eq!(reason(&world, &ada, to("*")).await, "");
}

#[tokio::test]
async fn a_refusal_is_answered_and_counted() {
    let (world, ada) = world(Fakes::default());
    send(&world.parts, &world.room, &ada, to("#topic"), None, Instant::now()).await;
    let text = "invalid target \"#topic\": there is no such topic";
    assert_eq!(acks(&ada), [(false, text.to_owned())]);
    refuse_invalid(&world.parts, &ada, Some("client".to_owned()), None, "priority");
    assert_eq!(acks(&ada), [(false, "invalid send: priority".to_owned())]);
}

// --- recipients ------------------------------------------------------------------------

#[tokio::test]
async fn everyone_and_groups_are_many() {
    let (world, ada) = world(Fakes::default());
    for target in ["*", "@all", "@dev"] {
        let planned = plan(&world.parts, &world.room, &ada, to(target)).await;
        let Ok((envelope, sent)) = planned else { panic!("{target} is refused") };
        assert!(matches!(sent.recipient, Recipient::Many));
        assert_eq!(envelope.reach, Reach::Multicast);
        assert_eq!(envelope.target_spec, target);
    }
}

#[tokio::test]
async fn an_empty_id_is_none_and_the_name_is_the_sessions() {
    let (world, _) = world(Fakes::default());
    let ada = world.enter("ada", |record| {
        record.display_name = "Ada at work".to_owned();
        record.session_key = Some(Key::from("own"));
    });
    let empty = || Some(Cow::Borrowed(""));
    let send = Send { client_message_id: empty(), request_fingerprint: empty(), ..to("*") };
    let Ok((envelope, _)) = plan(&world.parts, &world.room, &ada, send).await else {
        panic!("refused")
    };
    assert_eq!((&envelope.client_message_id, &envelope.request_fingerprint), (&None, &None));
    assert_eq!(envelope.sender_name, "Ada at work");
    assert_eq!(envelope.sender_session_key, Some(Key::from("own")));
    assert_eq!(envelope.sender_member, MemberId::from("ada"));
}

#[tokio::test]
async fn a_key_reaches_the_idle_one_of_its_sessions_and_never_the_sender_itself() {
    let (world, ada) = world(Fakes::default());
    assert_eq!(reason(&world, &ada, to("ada-key")).await, "no_peer", "it is alone");
    let other = world.enter("ada", |_| {});
    assert_eq!(chosen(&world, &ada, to("ada-key")).await, Some(other.presence.to_string()));
    let busy = world.enter("bob", |record| record.status = Status::Working);
    assert_eq!(chosen(&world, &ada, to("bob-key")).await, None, "it waits");
    let urgent = Send { priority: Priority::Now, ..to("bob-key") };
    assert_eq!(chosen(&world, &ada, urgent).await, Some(busy.presence.to_string()));
    let idle = world.enter("bob", |_| {});
    assert_eq!(chosen(&world, &ada, to("bob-key")).await, Some(idle.presence.to_string()));
}

#[tokio::test]
async fn a_node_without_its_cluster_claims_for_nobody_elsewhere() {
    for health in [ClusterHealth::Up, ClusterHealth::Degraded] {
        let mut fakes = Fakes::default();
        fakes.cluster.expect_health().return_const(health);
        let (world, ada) = world(fakes);
        let away = world.elsewhere("bob", |_| {});
        let expected = (health == ClusterHealth::Up).then(|| away.to_string());
        assert_eq!(chosen(&world, &ada, to("bob-key")).await, expected, "{health:?}");
        let here = world.enter("bob", |record| record.role = PeerRole::ControlPlane);
        if health == ClusterHealth::Degraded {
            assert_eq!(chosen(&world, &ada, to("bob-key")).await, Some(here.presence.to_string()));
        }
    }
}

#[tokio::test]
async fn a_member_who_is_away_gets_mail_that_waits() {
    let (world, ada) = world(Fakes::default());
    assert_eq!(chosen(&world, &ada, to("bob-key")).await, None);
}

#[tokio::test]
async fn who_was_enrolled_a_moment_ago_is_found_in_the_store() {
    let mut fakes = Fakes::default();
    fakes
        .members
        .expect_admit()
        .withf(|_, key, _| key == UNKNOWN)
        .returning(|_, _, _| Ok(admission(member("new"))));
    let (world, ada) = world(fakes);
    assert_eq!(chosen(&world, &ada, to(UNKNOWN)).await, None);
    assert_eq!(reason(&world, &ada, to("no key")).await, "no_peer", "nor is it looked for");
}

#[tokio::test]
async fn a_session_key_that_the_store_remembers_names_its_member() {
    for (owner, expected) in [("bob", ""), ("new", ""), ("gone", "no_peer")] {
        let mut fakes = Fakes::default();
        let id = MemberId::from(owner);
        let found = fakes.members.expect_addressee_of_session_key();
        found.returning(move |_, _, _| Ok(Some(id.clone())));
        fakes.members.expect_active().returning(|_| Ok(vec![member("new")]));
        let (world, ada) = world(fakes);
        assert_eq!(reason(&world, &ada, to(UNKNOWN)).await, expected, "{owner}");
    }
    let (world, ada) = world(Fakes::default());
    assert_eq!(reason(&world, &ada, to(UNKNOWN)).await, "no_peer", "nobody had it");
}

#[tokio::test]
async fn a_store_that_cannot_say_who_it_is_makes_the_sender_try_again() {
    let away = || StoreError::Unavailable("away".to_owned());
    let mut fakes = Fakes::default();
    fakes.members.expect_admit().times(1).returning(move |_, _, _| Err(away()));
    let found = fakes.members.expect_addressee_of_session_key();
    found.times(1).returning(move |_, _, _| Err(away()));
    let (world, ada) = world(fakes);
    for _ in 0..2 {
        assert_eq!(reason(&world, &ada, to(UNKNOWN)).await, "unavailable");
    }
}

// --- outcomes --------------------------------------------------------------------------

async fn decide(world: &World, ada: &Arc<Session>, target: &str, outcome: Outcome) {
    let Ok((envelope, sent)) = plan(&world.parts, &world.room, ada, to(target)).await else {
        panic!("refused")
    };
    let answer_to = AnswerTo::new(ada, "client".to_owned(), None, false);
    let pending = PendingSend { parts: Arc::clone(&world.parts), answer_to, sent };
    pending.decided(envelope, outcome);
    world.settle().await;
}

#[tokio::test]
async fn a_send_that_is_kept_is_answered_and_delivered() {
    let (world, ada) = world(Fakes::default());
    let bob = world.enter("bob", |_| {});
    let new = Accepted::New {
        seq: 1,
        previous_multicast: 0,
        roster: 0,
        created_at: Timestamp::from_ms(7),
    };
    decide(&world, &ada, "bob-key", Ok(new)).await;
    let push = frames(&bob).remove(0);
    assert_eq!(acks(&ada), [(true, push["messageId"].as_str().expect("an id").to_owned())]);
    assert_eq!((&push["senderPubkey"], &push["senderName"]), (&"ada-key".into(), &"ada".into()));
    assert_eq!(push["ciphertext"], "c2VhbGVk");
    assert_eq!(world.room.traffic(), (1, 0));
}

#[tokio::test]
async fn a_send_that_was_kept_before_is_answered_with_its_first_id_and_looked_for() {
    let fakes = Fakes {
        directs: vec![stored("first", 1, "ada", "bob-key")],
        newest: 1,
        ..Fakes::default()
    };
    let (world, ada) = world(fakes);
    let bob = world.enter("bob", |_| {});
    decide(&world, &ada, "bob-key", Ok(Accepted::Duplicate { id: "first".into() })).await;
    assert_eq!(acks(&ada), [(true, "first".to_owned())]);
    assert_eq!(received(&bob), ["first"], "from the store");
    assert_eq!(world.room.traffic(), (0, 0), "it is not counted twice");
}

#[tokio::test]
async fn a_send_that_is_not_kept_is_refused_in_words_that_daemons_know() {
    let outcomes = [
        (Refused::Unavailable, STORE_AWAY),
        (Refused::Rejected, STORE_REJECTS),
        (Refused::Full(Quota::Mailbox), MAILBOX_FULL),
        (Refused::Full(Quota::Sender), SENDER_FULL),
        (Refused::Full(Quota::Mesh), MESH_FULL),
    ];
    let (world, ada) = world(Fakes::default());
    let bob = world.enter("bob", |_| {});
    for (refused, text) in outcomes {
        decide(&world, &ada, "bob-key", Err(refused)).await;
        assert_eq!(acks(&ada), [(false, text.to_owned())], "{refused:?}");
        assert!(received(&bob).is_empty());
    }
}

#[tokio::test]
async fn a_send_is_refused_for_now_once_the_writer_is_gone() {
    let (mut world, ada) = world(Fakes::default());
    send(&world.parts, &world.room, &ada, to("*"), None, Instant::now()).await;
    assert!(acks(&ada).is_empty(), "its fate is not known");
    world.lane = None;
    send(&world.parts, &world.room, &ada, to("*"), None, Instant::now()).await;
    assert_eq!(acks(&ada), [(false, STORE_AWAY.to_owned())]);
}
