use super::*;
use crate::delivery::testing::{Fakes, World, blocks, delivery, received, stored};
use crate::id::MemberId;
use crate::limits;
use crate::protocol::{Group, PeerRole, Status};
use crate::store::StoreError;
use crate::store::testing::member;

/// A message from Ada to Bob, under its number.
fn direct(seq: i64) -> StoredEnvelope {
    stored(&seq.to_string(), seq, "ada", "bob-key")
}

fn multicast(seq: i64) -> StoredEnvelope {
    stored(&seq.to_string(), seq, "ada", "*")
}

fn of_seqs(
    seqs: impl IntoIterator<Item = i64>,
    row: fn(i64) -> StoredEnvelope,
) -> Vec<StoredEnvelope> {
    seqs.into_iter().map(row).collect()
}

fn names(seqs: impl IntoIterator<Item = i64>) -> Vec<String> {
    seqs.into_iter().map(|seq| seq.to_string()).collect()
}

/// Bob is here and may have missed something.
fn world(fakes: Fakes) -> (World, Arc<Session>) {
    let world = fakes.world();
    world.enrol(&["ada", "bob", "dan"]);
    let bob = world.enter("bob", |_| {});
    bob.inbox.lock().mark_behind();
    (world, bob)
}

async fn drained(world: &World, session: &Arc<Session>) -> Vec<String> {
    request(&world.parts, &world.room, session);
    world.settle().await;
    received(session)
}

/// Whether what is live goes straight to the socket.
fn is_live(session: &Session) -> bool {
    session.offer(&delivery("live", 1_000))
}

#[tokio::test]
async fn both_lists_go_out_merged_in_the_order_of_the_mesh() {
    let fakes = Fakes {
        directs: of_seqs([1, 4, 6], direct),
        multicasts: of_seqs([2, 3, 5], multicast),
        newest: 6,
        ..Fakes::default()
    };
    let (world, bob) = world(fakes);
    assert_eq!(drained(&world, &bob).await, names(1..=6));
    assert_eq!(world.claims().len(), 1, "in one round");
    assert!(is_live(&bob));
}

#[tokio::test]
async fn what_came_after_the_line_waits_for_the_list_that_was_read_before_it_came() {
    let mut fakes = Fakes { directs: of_seqs([1, 4], direct), ..Fakes::default() };
    // The third is committed between the two readings of the first round.
    fakes.mail.expect_newest_seq().times(1).returning(|_| Ok(2));
    fakes.mail.expect_multicasts_after().times(1).returning(|_, _, _| Ok(of_seqs([2], multicast)));
    fakes.multicasts = of_seqs([2, 3], multicast);
    fakes.newest = 4;
    let (world, bob) = world(fakes);
    assert_eq!(drained(&world, &bob).await, names(1..=4));
    assert_eq!(world.claims().len(), 2);
}

#[tokio::test]
async fn what_is_beyond_the_line_and_waits_behind_the_gate_needs_no_other_round() {
    let fakes = Fakes { directs: of_seqs([1, 4], direct), newest: 1, ..Fakes::default() };
    let (world, bob) = world(fakes);
    assert!(bob.inbox.lock().begin_drain());
    bob.offer(&delivery("4", 4));
    start(&world.parts, &world.room, &bob);
    world.settle().await;
    assert_eq!(received(&bob), ["1", "4"]);
    assert_eq!(world.claims().len(), 1);
}

#[tokio::test]
async fn a_list_that_was_cut_says_nothing_of_what_comes_after_its_end() {
    let odd = || (0..12).map(|number| 2 * number + 1);
    let fakes = Fakes {
        directs: of_seqs(odd(), direct),
        multicasts: of_seqs([20], multicast),
        newest: 30,
        ..Fakes::default()
    };
    let (world, bob) = world(fakes);
    let mut all: Vec<i64> = odd().chain([20]).collect();
    all.sort_unstable();
    assert_eq!(drained(&world, &bob).await, names(all));
    assert_eq!(world.claims().len(), 2, "the first list was cut");
}

#[tokio::test]
async fn what_must_not_be_had_is_handed_back_in_one_call() {
    let fakes = Fakes {
        directs: vec![
            stored("1", 1, "spam", "bob-key"),
            stored("2", 2, "ada", "bob-key"),
            stored("3", 3, "spam", "bob-key"),
            stored("own", 4, "bob", "bob-key"),
        ],
        newest: 4,
        ..Fakes::default()
    };
    let (world, bob) = world(fakes);
    world.enrol_as(vec![member("ada"), blocks("bob", "spam")]);
    assert_eq!(drained(&world, &bob).await, ["2"]);
    assert_eq!(world.unclaimed(), [(bob.presence.clone(), vec![MessageId::from("own")])]);
    assert_eq!(world.blocked(), ["1", "3"].map(MessageId::from), "these never come");
    let cap = crate::metrics::Capability { cap: "dm" };
    assert_eq!(world.parts.metrics.messages_dropped_by_grant.get_or_create(&cap).get(), 2);
    assert!(is_live(&bob));
    assert!(drained(&world, &bob).await.contains(&"live".to_owned()));
    assert!(world.unclaimed().is_empty(), "the next drain passes over them");
}

#[tokio::test]
async fn a_drain_that_refuses_too_much_gives_up_on_directs_and_not_on_multicasts() {
    let fakes = Fakes {
        directs: vec![stored("1", 1, "spam", "bob-key"), direct(3)],
        multicasts: of_seqs([2, 4], multicast),
        newest: 4,
        ..Fakes::default()
    };
    let (world, bob) = world(fakes);
    world.enrol_as(vec![member("ada"), blocks("bob", "spam")]);
    for number in 0..limits::REFUSED_DELIVERIES_MAX {
        assert!(bob.inbox.lock().refuse(MessageId::from(format!("refused {number}"))));
    }
    assert_eq!(drained(&world, &bob).await, ["2", "4"]);
    assert_eq!(world.claims().len(), 1, "it ends");
    assert_eq!(bob.inbox.lock().multicast_seen(), 4);
    assert!(is_live(&bob));
}

#[tokio::test]
async fn multicasts_for_others_are_passed_in_their_order() {
    let grouped = |seq: i64| stored(&seq.to_string(), seq, "ada", "@dev");
    let fakes = Fakes {
        multicasts: vec![grouped(1), multicast(2), grouped(3), stored("4", 4, "bob", "*")],
        newest: 4,
        ..Fakes::default()
    };
    let (world, bob) = world(fakes);
    let dan = world.enter("dan", |record| {
        record.groups = vec![Group { name: "dev".to_owned(), role: None }];
    });
    dan.inbox.lock().mark_behind();
    assert_eq!(drained(&world, &bob).await, ["2"]);
    assert_eq!(bob.inbox.lock().multicast_seen(), 4);
    assert_eq!(drained(&world, &dan).await, names(1..=4));
}

#[tokio::test]
async fn a_store_that_is_away_leaves_the_session_stalled_and_another_drain_owed() {
    for list in ["newest", "directs", "multicasts"] {
        let mut fakes = Fakes { directs: of_seqs([1], direct), newest: 2, ..Fakes::default() };
        fakes.multicasts = of_seqs([2], multicast);
        let away = || StoreError::Unavailable("away".to_owned());
        match list {
            "newest" => {
                fakes.mail.expect_newest_seq().times(1).returning(move |_| Err(away()));
            }
            "directs" => {
                fakes.mail.expect_claim().times(1).returning(move |_, _| Err(away()));
            }
            _ => {
                let read = fakes.mail.expect_multicasts_after();
                read.times(1).returning(move |_, _, _| Err(away()));
            }
        }
        let (world, bob) = world(fakes);
        assert!(drained(&world, &bob).await.is_empty(), "{list}");
        assert!(bob.wants_drain() && !is_live(&bob), "{list}");
        assert_eq!(drained(&world, &bob).await, names(1..=2), "{list}");
    }
}

#[tokio::test]
async fn a_session_without_room_is_asked_for_nothing() {
    let (world, bob) =
        world(Fakes { directs: of_seqs([1], direct), newest: 1, ..Fakes::default() });
    bob.outbox.close(crate::protocol::CloseReason::SESSION_REPLACED);
    assert!(drained(&world, &bob).await.is_empty());
    assert!(world.claims().is_empty());
}

/// A round that found a full session has read no direct message. What is confirmed
/// while it reads the others must not let those go out first.
#[tokio::test]
async fn room_that_a_peer_makes_while_its_mail_is_read_changes_no_order() {
    let peer: Arc<parking_lot::Mutex<Option<Arc<Session>>>> = Arc::default();
    let confirms = Arc::clone(&peer);
    let mut fakes = Fakes {
        directs: of_seqs([1, 3], direct),
        multicasts: of_seqs([2], multicast),
        newest: 3,
        ..Fakes::default()
    };
    fakes.mail.expect_multicasts_after().times(1).returning(move |_, _, _| {
        let peer = confirms.lock().take().expect("it is here");
        for number in 0..limits::INFLIGHT_DELIVERIES_MAX {
            assert!(peer.inbox.lock().confirm(Some(&format!("before {number}")), None).is_some());
        }
        Ok(of_seqs([2], multicast))
    });
    let (world, bob) = world(fakes);
    bob.inbox.lock().confirm(None, None);
    for number in 0..limits::INFLIGHT_DELIVERIES_MAX {
        assert!(bob.offer(&delivery(&format!("before {number}"), 0)));
    }
    assert_eq!(received(&bob).len(), limits::INFLIGHT_DELIVERIES_MAX);
    assert!(bob.inbox.lock().is_full());
    *peer.lock() = Some(Arc::clone(&bob));
    assert_eq!(drained(&world, &bob).await, names(1..=3));
}

#[tokio::test]
async fn a_visitor_reads_what_is_addressed_to_its_own_key_and_no_more() {
    let directs = vec![direct(1), stored("2", 2, "ada", "own")];
    let mut fakes = Fakes { directs, ..Fakes::default() };
    fakes.mail.expect_newest_seq().times(0);
    fakes.mail.expect_multicasts_after().times(0);
    let (world, _bob) = world(fakes);
    let visitor = world.enter("bob", |record| {
        record.visitor = true;
        record.session_key = Some(Key::from("own"));
    });
    assert_eq!(drained(&world, &visitor).await, ["2"]);
    let claims = world.claims();
    assert_eq!((&claims[0].member_key, &claims[0].session_key), (&None, &Some(Key::from("own"))));
    let nameless = world.enter("bob", |record| record.visitor = true);
    assert!(drained(&world, &nameless).await.is_empty());
    assert!(world.claims().is_empty(), "nothing is addressed to it");
}

#[tokio::test]
async fn a_busy_session_claims_what_is_urgent() {
    let (world, _bob) = world(Fakes::default());
    for (status, urgent_only) in
        [(Status::Idle, false), (Status::Working, true), (Status::Dnd, true)]
    {
        let session = world.enter("dan", |record| record.status = status);
        drained(&world, &session).await;
        assert_eq!(world.claims()[0].urgent_only, urgent_only, "{status:?}");
    }
}

#[tokio::test]
async fn a_session_key_that_is_merely_named_opens_its_mail_only_to_its_member() {
    for (owner, expected) in [(Some("bob"), Some("named")), (Some("dan"), None), (None, None)] {
        let mut fakes = Fakes::default();
        let owner = owner.map(MemberId::from);
        fakes.members.expect_of_session_key().returning(move |_, _, _| Ok(owner.clone()));
        let (world, _bob) = world(fakes);
        let session = world.enter("bob", |record| {
            record.role = PeerRole::ControlPlane;
            record.session_key = Some(Key::from("named"));
        });
        drained(&world, &session).await;
        assert_eq!(world.claims()[0].session_key, expected.map(Key::from));
    }
}

#[tokio::test]
async fn a_drain_that_is_asked_for_meanwhile_goes_round_once_more() {
    let (world, bob) = world(Fakes::default());
    request(&world.parts, &world.room, &bob);
    request(&world.parts, &world.room, &bob);
    world.settle().await;
    // The task has not begun when the second is asked for: its first plan is both.
    assert_eq!(world.claims().len(), 1);
    request_all(&world.parts, &world.room);
    world.settle().await;
    assert_eq!(world.claims().len(), 1);
}

// --- a database that went back ---------------------------------------------------------

#[tokio::test]
async fn a_store_that_goes_on_is_believed() {
    let (world, _bob) = world(Fakes { newest: 12, ..Fakes::default() });
    world.room.skip_to(10, || {});
    let since = world.room.seqs_known_at();
    assert_eq!(rewind::newest(&world.parts, &world.room, 10).await.expect("readable"), Some(12));
    assert!(world.room.seqs_known_at() >= since);
    assert_eq!(world.room.last_multicast(), 10);
}

#[tokio::test]
async fn what_was_believed_of_a_store_that_went_back_is_forgotten() {
    let mut fakes = Fakes { newest: 5, ..Fakes::default() };
    fakes.mail.expect_seq_before().returning(|_, _| Ok(3));
    let is_told = |_: &_, newest: &i64, seq: &i64| (*newest, *seq) == (5, 3);
    fakes.mail.expect_rewind().withf(is_told).times(1).returning(|_, _, _| Ok(()));
    let (world, bob) = world(fakes);
    world.room.skip_to(10, || {});
    bob.inbox.lock().pass_over(10);
    rewind::check(&world.parts, &world.room).await;
    assert_eq!(world.room.last_multicast(), 5);
    assert_eq!(bob.inbox.lock().multicast_seen(), 3);
    world.settle().await;
    assert_eq!(world.claims().len(), 1, "everybody reads again");
}

#[tokio::test]
async fn a_chain_that_lost_its_newest_rows_is_not_taken_for_a_store_that_went_back() {
    // No rewind is expected: it would panic.
    let fakes = Fakes { newest: 5, multicasts: of_seqs([8], multicast), ..Fakes::default() };
    let (world, _bob) = world(fakes);
    world.room.skip_to(10, || {});
    assert_eq!(rewind::newest(&world.parts, &world.room, 10).await.expect("readable"), Some(5));
    assert_eq!(world.room.last_multicast(), 10);
}
