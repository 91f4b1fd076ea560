//! A peer that takes no more, and what waits for it.

use super::*;

#[test]
fn a_peer_that_confirms_too_slowly_stalls_and_comes_back() {
    let mut inbox = live(true);
    for number in 0..limits::INFLIGHT_DELIVERIES_MAX {
        assert_eq!(inbox.offer(&direct(&number.to_string())), Offer::Send);
    }
    assert_eq!(inbox.offer(&direct("over")), Offer::Keep);
    assert!(!inbox.wants_drain());
    for number in 0..limits::INFLIGHT_DELIVERIES_MAX / 2 {
        assert!(inbox.confirm(Some(&number.to_string()), None).is_some());
    }
    assert!(inbox.wants_drain(), "half of them are done");
    assert!(inbox.begin_drain());
    let plan = inbox.plan_drain();
    assert!(plan.room > 0);
    assert_eq!(plan.in_flight.len(), limits::INFLIGHT_DELIVERIES_MAX);
}

#[test]
fn what_finds_no_room_stalls_the_session_and_stays_for_a_drain() {
    for confirms in [true, false] {
        let mut inbox = live(confirms);
        assert_eq!(inbox.offer(&multicast(2)), Offer::Send);
        for delivery in [multicast(5), direct("a")] {
            assert_eq!(inbox.offer(&delivery), Offer::Send);
            inbox.take_back(&delivery);
            assert!(inbox.wants_drain(), "as soon as there is room");
            assert_eq!(inbox.offer(&multicast(7)), Offer::Keep);
            assert_eq!(inbox.offer(&direct("b")), Offer::Keep);
            assert!(inbox.begin_drain());
            let plan = inbox.plan_drain();
            assert!(plan.in_flight.is_empty(), "it is not on its way");
            assert_eq!((plan.multicasts_after, plan.behind), (4, true));
            // No room again, now for the drain.
            assert_eq!(inbox.drained(&multicast(5)), Offer::Send);
            inbox.take_back(&multicast(5));
            assert_eq!(inbox.drained(&direct("a")), Offer::Send);
            inbox.take_back(&direct("a"));
            assert_eq!(end_drain(&mut inbox, false).map(|out| out.len()), None);
            inbox.stall_drain();
            // For the second time round.
            inbox = live(confirms);
            inbox.offer(&multicast(2));
            inbox.pass_over(4);
        }
    }
}

#[test]
fn a_gate_that_finds_no_room_keeps_the_rest_in_order() {
    let mut inbox = Inbox::new(0, true);
    inbox.plan_drain();
    for delivery in [multicast(1), direct("a"), multicast(2), direct("b")] {
        assert_eq!(inbox.offer(&delivery), Offer::Keep);
    }
    inbox.pass_over(3);
    let mut written = Vec::new();
    assert!(inbox.end_drain(true, |delivery| {
        written.push(delivery.id.clone());
        written.len() < 3
    }));
    assert_eq!(written.len(), 3, "the first that does not fit is the last that is tried");
    assert!(inbox.wants_drain() && inbox.begin_drain());
    let plan = inbox.plan_drain();
    assert_eq!(plan.in_flight, [MessageId::from("a")]);
    assert_eq!((plan.multicasts_after, plan.behind), (1, true));
    assert_eq!(inbox.drained(&multicast(2)), Offer::Send);
    assert_eq!(inbox.drained(&direct("b")), Offer::Send);
}

#[test]
fn what_was_to_go_out_again_and_found_no_room_is_looked_for_again() {
    let mut inbox = live(true);
    for seq in [1, 2] {
        offer_written(&mut inbox, &multicast(seq), 0);
    }
    assert!(inbox.expire(0) && inbox.begin_drain());
    inbox.plan_drain();
    assert_eq!(inbox.drained(&multicast(1)), Offer::Send);
    inbox.take_back(&multicast(1));
    assert_eq!(inbox.position(), 0, "it is not over");
    assert_eq!(inbox.plan_drain().multicasts_after, 0);
    assert_eq!(inbox.drained(&multicast(1)), Offer::Send);
    // The newest, too: its first copy may be confirmed at any time.
    assert_eq!(inbox.drained(&multicast(2)), Offer::Send);
    inbox.take_back(&multicast(2));
    assert!(inbox.confirm(Some("m2"), None).is_some());
    assert_eq!(inbox.drained(&multicast(2)), Offer::Keep);
}
