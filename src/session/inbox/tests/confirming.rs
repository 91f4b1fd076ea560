//! What a peer confirms, what it does not, and what the store learns of both.

use super::*;

#[test]
fn done_counts_until_the_store_knows() {
    let mut inbox = live(true);
    inbox.offer(&direct("a"));
    assert!(inbox.done().directs.is_empty());
    assert!(inbox.confirm(None, Some("client-a")).is_some(), "by the sender's own id");
    let done = inbox.done();
    assert_eq!(done.directs, [MessageId::from("a")]);
    assert!(inbox.plan_drain().in_flight.contains(&MessageId::from("a")), "skipped meanwhile");
    inbox.saved(&done);
    assert!(inbox.is_settled());
    assert!(inbox.confirm(Some("a"), None).is_none(), "unknown by now");
}

#[test]
fn the_position_waits_for_the_oldest_unconfirmed() {
    let mut inbox = live(true);
    for seq in [2, 5, 9] {
        assert_eq!(inbox.offer(&multicast(seq)), Offer::Send);
    }
    inbox.pass_over(12);
    assert_eq!(inbox.position(), 1);
    assert!(inbox.confirm(Some("m5"), None).is_some());
    assert_eq!(inbox.position(), 1);
    assert!(inbox.confirm(Some("m2"), None).is_some());
    assert_eq!(inbox.position(), 8);
    assert!(inbox.confirm(Some("m9"), None).is_some());
    assert_eq!(inbox.position(), 12);
    assert_eq!(inbox.done().position, Some(12));
}

#[test]
fn what_is_not_confirmed_in_time_comes_again_and_the_rest_does_not() {
    let mut inbox = live(true);
    for delivery in [direct("a"), direct("b"), multicast(1), multicast(2)] {
        offer_written(&mut inbox, &delivery, 0);
    }
    inbox.confirm(Some("a"), None);
    inbox.confirm(Some("m2"), None);
    assert!(!inbox.expire(-1));
    assert!(inbox.expire(0));
    assert!(inbox.begin_drain());
    let plan = inbox.plan_drain();
    assert_eq!(plan.in_flight, [MessageId::from("a")]);
    assert_eq!((plan.multicasts_after, plan.behind), (0, true));
    assert_eq!(inbox.drained(&direct("b")), Offer::Send);
    assert_eq!(inbox.drained(&multicast(1)), Offer::Send);
    assert_eq!(inbox.drained(&multicast(2)), Offer::Keep);
    assert_eq!(inbox.drained(&multicast(1)), Offer::Keep, "once per time");
}

#[test]
fn a_multicast_that_has_left_the_store_is_over() {
    let mut inbox = live(true);
    for seq in [1, 2, 3] {
        offer_written(&mut inbox, &multicast(seq), 0);
    }
    assert!(inbox.expire(0) && inbox.begin_drain());
    inbox.plan_drain();
    assert_eq!(inbox.drained(&multicast(2)), Offer::Send);
    wrote(&mut inbox, &multicast(2), 5);
    // Late in a long drain: the next one looks for it.
    assert!(inbox.expire(5));
    inbox.drained_all_multicasts();
    assert_eq!(inbox.position(), 1, "1 and 3 are gone, 2 is still on its way");
    assert_eq!(end_drain(&mut inbox, true).map(|out| out.len()), None, "it looks for 2");
    inbox.plan_drain();
    inbox.drained_all_multicasts();
    assert!(end_drain(&mut inbox, true).is_some() && !inbox.expire(i64::MAX), "nothing is open");
    assert_eq!(inbox.done().position, Some(3));
}

#[test]
fn what_is_confirmed_while_it_is_found_again_does_not_go_out() {
    let mut inbox = live(true);
    offer_written(&mut inbox, &direct("a"), 0);
    assert!(inbox.expire(0) && inbox.begin_drain());
    assert!(inbox.plan_drain().in_flight.is_empty(), "the store is asked for it");
    assert!(inbox.confirm(Some("a"), None).is_none(), "the store must be told");
    assert_eq!(inbox.drained(&direct("a")), Offer::Keep);
    assert!(end_drain(&mut inbox, true).expect("done").is_empty());
}

#[test]
fn a_peer_that_never_confirms_is_done_when_the_frame_is_written() {
    let mut inbox = live(false);
    inbox.offer(&direct("a"));
    inbox.offer(&multicast(4));
    assert!(!inbox.expire(i64::MAX), "nothing to wait for");
    assert!(inbox.wrote_direct(&MessageId::from("a"), 0));
    assert!(inbox.wrote_multicast(4, 0));
    assert_eq!(
        inbox.done(),
        Done {
            directs: vec![MessageId::from("a")],
            position: Some(4),
            posts: None,
            is_confirmed: false
        }
    );
}

#[test]
fn the_first_confirmation_makes_a_peer_one_that_confirms() {
    let mut inbox = live(false);
    inbox.confirm(Some("unknown"), None);
    inbox.offer(&direct("a"));
    assert!(!inbox.wrote_direct(&MessageId::from("a"), 0));
    assert!(inbox.done().directs.is_empty());
}

#[test]
fn what_waits_for_its_slow_reader_is_not_late() {
    let mut inbox = live(true);
    assert_eq!(inbox.offer(&direct("a")), Offer::Send);
    assert_eq!(inbox.offer(&multicast(1)), Offer::Send);
    assert!(!inbox.expire(i64::MAX), "neither has left");
    wrote(&mut inbox, &direct("a"), 50);
    wrote(&mut inbox, &multicast(1), 60);
    assert!(!inbox.expire(49));
    assert!(inbox.expire(50), "from then on its time runs");
    assert!(inbox.begin_drain());
    assert_eq!(inbox.plan_drain().multicasts_after, 1, "the other is not late");
}
