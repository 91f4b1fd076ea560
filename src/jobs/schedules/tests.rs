use super::*;
use crate::cluster::{BusMessage, Draw, Drawn};
use crate::id::Key;
use crate::jobs::fixture::{Mocks, Scene};
use crate::store::testing::{admission, member, unavailable};
use crate::store::{Scheduled, StoreError, WaitingLoad};

const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

fn key() -> String {
    "ab".repeat(32)
}

fn due(to: &str, cron: Option<&str>) -> Due {
    Due {
        scheduled: Scheduled {
            id: "s".to_owned(),
            to: to.to_owned(),
            message: "hällo".to_owned(),
            nonce: None,
            deliver_at: NOW,
            cron: cron.map(str::to_owned),
            timezone: None,
            subtype: Some("reminder".to_owned()),
            reply_to_id: None,
            hop: 0,
            fired_count: 0,
            created_at: NOW.plus_ms(-60_000),
        },
        mesh: "mesh".into(),
        member: "ada".into(),
        member_name: "ada".to_owned(),
        member_key: Key::from("ada-key"),
        is_revoked: false,
        is_archived: false,
        due_at: NOW,
    }
}

/// Bob is enrolled with that key and grants `ada` that; a bucket has a token, or not.
fn mocks(granted: &[&str], may_send: bool) -> Mocks {
    let mut bob = member("bob");
    bob.grants.insert("ada-key".to_owned(), granted.iter().map(|name| (*name).into()).collect());
    let mut mocks = Mocks::default();
    mocks.stores.members.expect_admit().returning(move |_, _, _| Ok(admission(bob.clone())));
    mocks.stores.topic_mail.expect_addressed().returning(|_, _, _| Ok(None));
    mocks
        .stores
        .envelopes
        .expect_waiting_load()
        .returning(|asked| Ok(vec![WaitingLoad::default(); asked.len()]));
    mocks
        .cluster
        .expect_take_tokens()
        .returning(move |_, draws| Ok(Drawn::all_for_tests(draws, may_send)));
    mocks
}

async fn decided(scene: &Scene, now: Timestamp, due: Due) -> Fate {
    let firings = decide(&scene.stores, &scene.presence, now, vec![due]).await;
    firings.expect("the store answers").remove(0).fate
}

fn envelope_of(fate: &Fate) -> &NewEnvelope {
    let Fate::Send { envelope, .. } = fate else { panic!("{fate:?}") };
    envelope
}

#[tokio::test]
async fn a_message_is_sent_in_the_members_name_and_says_if_it_is_late() {
    let scene = mocks(&["dm"], true).scene();
    let fate = decided(&scene, NOW.plus_ms(5_000), due(&key(), None)).await;
    let sent = envelope_of(&fate);
    assert!(matches!(fate, Fate::Send { next: None, .. }));
    assert_eq!((sent.sender_name.as_str(), &sent.sender_session_key), ("ada", &None));
    assert_eq!((sent.ciphertext.as_str(), sent.nonce.as_str()), ("aMOkbGxv", ""));
    assert_eq!(
        (sent.priority, &sent.reach),
        (Priority::Now, &Reach::Direct { claim: None, note: None })
    );
    let marks = |late| Some(Marks { subtype: Some("reminder".to_owned()), late });
    assert_eq!(sent.scheduled, marks(false));
    let fate = decided(&scene, NOW.plus_ms(5_001), due(&key(), None)).await;
    assert_eq!(envelope_of(&fate).scheduled, marks(true));
    // What was past when it was scheduled is not late.
    let mut past = due(&key(), None);
    (past.scheduled.deliver_at, past.scheduled.created_at) = (Timestamp::from_ms(0), NOW);
    let fate = decided(&scene, NOW, past).await;
    assert_eq!(envelope_of(&fate).scheduled, marks(false));
}

#[tokio::test]
async fn what_is_sealed_is_sent_as_it_is() {
    let scene = mocks(&["dm"], true).scene();
    let mut sealed = due(&key(), None);
    (sealed.scheduled.message, sealed.scheduled.nonce) = ("c2VhbA==".into(), Some("bg==".into()));
    let fate = decided(&scene, NOW, sealed).await;
    let sent = envelope_of(&fate);
    assert_eq!((sent.ciphertext.as_str(), sent.nonce.as_str()), ("c2VhbA==", "bg=="));
}

#[tokio::test]
async fn one_that_repeats_goes_on_with_its_next_time_whatever_it_missed() {
    let scene = mocks(&[], true).scene();
    let day_later = NOW.plus_ms(24 * 60 * 60 * 1000);
    let fate = decided(&scene, day_later, due("@team", Some("* * * * *"))).await;
    assert_eq!(envelope_of(&fate).reach, Reach::Multicast);
    let Fate::Send { next: Some(next), .. } = fate else { panic!("{fate:?}") };
    assert!((1..=60_000).contains(&next.ms_since(day_later)), "{next}");
}

/// Berlin's clocks go forward on 28 March 2027 and back on 31 October: a message of each
/// night at half past two is sent once a day by them, also in those nights.
#[tokio::test]
async fn a_message_of_each_night_is_sent_once_in_the_nights_that_clocks_change() {
    let scene = mocks(&[], true).scene();
    for (first, expected) in [
        ("2027-03-27T01:30:00.000Z", ["2027-03-28T01:00:00.000Z", "2027-03-29T00:30:00.000Z"]),
        ("2027-10-30T00:30:00.000Z", ["2027-10-31T00:30:00.000Z", "2027-11-01T01:30:00.000Z"]),
    ] {
        let mut now = Timestamp::read(first).expect("an instant");
        let mut sent = Vec::new();
        while sent.len() < expected.len() {
            let mut due = due("*", Some("30 2 * * *"));
            due.scheduled.timezone = Some("Europe/Berlin".to_owned());
            (due.scheduled.deliver_at, due.due_at) = (now, now);
            // A little late, as a node is that wakes up.
            let fate = decided(&scene, now.plus_ms(700), due).await;
            let Fate::Send { next: Some(next), .. } = fate else { panic!("{fate:?}") };
            sent.push(next.to_string());
            now = next;
        }
        assert_eq!(sent, expected);
    }
}

#[tokio::test]
async fn what_may_not_be_sent_is_dropped_or_skipped_once() {
    let scene = mocks(&[], true).scene();
    let fate = decided(&scene, NOW, due(&key(), None)).await;
    assert!(matches!(fate, Fate::Drop { reason: "grants" }), "{fate:?}");
    let fate = decided(&scene, NOW, due(&key(), Some("0 9 * * *"))).await;
    assert!(matches!(fate, Fate::Skip { .. }), "{fate:?}");
    let fate = decided(&scene, NOW, due("no key", None)).await;
    assert!(matches!(fate, Fate::Drop { reason: "no_peer" }), "{fate:?}");
    let fate = decided(&scene, NOW, due("#topic", None)).await;
    assert!(matches!(fate, Fate::Drop { reason: "topic" }), "{fate:?}");
    let banned = Due { is_revoked: true, ..due("*", Some("0 9 * * *")) };
    let fate = decided(&scene, NOW, banned).await;
    assert!(matches!(fate, Fate::Drop { reason: "revoked" }), "{fate:?}");
    let archived = Due { is_archived: true, ..due("*", Some("0 9 * * *")) };
    let fate = decided(&scene, NOW, archived).await;
    assert!(matches!(fate, Fate::Drop { reason: "archived" }), "{fate:?}");
}

#[tokio::test]
async fn a_member_over_its_rate_and_a_full_mailbox_put_a_message_off() {
    let mut mocks_of_few = mocks(&["dm"], false);
    mocks_of_few.stores.members.checkpoint();
    let scene = mocks_of_few.scene_with(|config| config.message.send_rate_per_minute = 1);
    // A bucket may give its first token away by itself.
    let mut fates = Vec::new();
    for _ in 0..20 {
        fates.push(decided(&scene, NOW, due("*", None)).await);
    }
    assert!(matches!(fates.last(), Some(Fate::PutOff { .. })), "{fates:?}");
    // So does one that has written enough to that one, or to many.
    for (bucket, target) in [("pair/bob", key()), ("multicast", "*".to_owned())] {
        let mut mocks_of_pair = mocks(&["dm"], true);
        mocks_of_pair.cluster.checkpoint();
        mocks_of_pair.cluster.expect_take_tokens().returning(move |_, draws| {
            let drawn = |draw: &Draw| Drawn::for_tests(draw, draw.bucket != bucket);
            Ok(draws.iter().map(drawn).collect())
        });
        let fate = decided(&mocks_of_pair.scene(), NOW, due(&target, None)).await;
        assert!(matches!(fate, Fate::PutOff { .. }), "{bucket}: {fate:?}");
    }
    let mut full = Mocks::default();
    full.stores.members.expect_admit().returning(|_, _, _| Ok(admission(member("bob"))));
    full.cluster.expect_take_tokens().returning(|_, draws| Ok(Drawn::all_for_tests(draws, true)));
    full.stores.envelopes.expect_waiting_load().returning(|asked| {
        let is_full = |holder: &Holder| matches!(holder, Holder::Mailbox { .. });
        let bytes = |(holder, _): &(Holder, u64)| if is_full(holder) { u64::MAX } else { 0 };
        Ok(asked.iter().map(|asked| WaitingLoad { messages: 0, bytes: bytes(asked) }).collect())
    });
    let scene = full.scene();
    let fate = decided(&scene, NOW, due(&key(), None)).await;
    assert!(matches!(fate, Fate::PutOff { .. }), "{fate:?}");
}

#[tokio::test]
async fn what_is_on_disk_is_told_of_also_where_nobody_of_its_mesh_is() {
    let mut mocks = mocks(&["dm"], true);
    let mut rounds = vec![vec![], vec![due(&key(), None), due("*", None)]];
    mocks
        .stores
        .schedules
        .expect_due()
        .times(2)
        .returning(move |_, _| Ok(rounds.pop().unwrap_or_default()));
    mocks.stores.schedules.expect_next_due().once().returning(|| Ok(None));
    mocks.stores.schedules.expect_fire().once().returning(|_, firings| {
        let fired =
            |at: usize| Fired::Sent { seq: at as i64 + 7, previous_multicast: 3, roster: 0 };
        Ok((0..firings.len()).map(fired).collect())
    });
    let mut expected = vec!["multicast", "mail"];
    mocks.cluster.expect_publish().times(2).returning(move |mesh, message| {
        assert_eq!(mesh.as_str(), "mesh");
        match (message, expected.pop()) {
            (BusMessage::MailFor { keys, many: false }, Some("mail")) => {
                assert_eq!(keys[..], [Key::from(key())]);
            }
            (BusMessage::Multicast(multicast), Some("multicast")) => {
                assert_eq!((multicast.previous, multicast.delivery.seq), (3, 8));
            }
            (other, _) => panic!("{other:?}"),
        }
    });
    let scene = mocks.scene();
    let pause = fire_due(&scene.stores, &scene.presence).await.expect("the store answers");
    assert_eq!(pause, SLEEP_MAX);
}

#[tokio::test]
async fn one_that_the_store_refuses_is_put_off_and_holds_up_no_other() {
    let mut mocks = mocks(&["dm"], true);
    let mut broken = due("*", None);
    broken.scheduled.id = "broken".to_owned();
    let mut rounds = vec![vec![], vec![broken, due("*", None)]];
    let schedules = &mut mocks.stores.schedules;
    schedules.expect_due().times(2).returning(move |_, _| Ok(rounds.pop().unwrap_or_default()));
    schedules.expect_next_due().once().returning(|| Ok(None));
    // Both, each alone, and the one once more to put it off.
    schedules.expect_fire().times(4).returning(|_, firings| {
        let is_broken = |firing: &Firing| firing.due.scheduled.id == "broken";
        let is_sent = |firing: &Firing| matches!(firing.fate, Fate::Send { .. });
        if firings.iter().any(|firing| is_broken(firing) && is_sent(firing)) {
            return Err(StoreError::Broken("on purpose".to_owned()));
        }
        let fired = |firing: &Firing| match is_sent(firing) {
            true => Fired::Sent { seq: 7, previous_multicast: 0, roster: 0 },
            false => Fired::Settled,
        };
        Ok(firings.iter().map(fired).collect())
    });
    mocks.cluster.expect_publish().once().returning(|_, message| {
        assert!(matches!(message, BusMessage::Multicast(_)), "{message:?}");
    });
    let scene = mocks.scene();
    fire_due(&scene.stores, &scene.presence).await.expect("the store answers");
}

#[tokio::test]
async fn what_others_have_in_hand_is_looked_at_again_and_a_store_that_is_away_waited_for() {
    let mut mocks = mocks(&["dm"], true);
    mocks.stores.schedules.expect_due().once().returning(|_, _| Ok(vec![due("*", None)]));
    mocks.stores.schedules.expect_fire().once().returning(|_, _| Ok(vec![Fired::Elsewhere]));
    let scene = mocks.scene();
    let pause = fire_due(&scene.stores, &scene.presence).await.expect("the store answers");
    assert_eq!(pause, ELSEWHERE_PAUSE);
    let mut away = Mocks::default();
    away.stores.schedules.expect_due().once().returning(|_, _| Err(unavailable()));
    let scene = away.scene();
    assert!(fire_due(&scene.stores, &scene.presence).await.is_err());
}
