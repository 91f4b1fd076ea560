//! What comes live while a drain reads the store.

use super::*;

#[test]
fn what_comes_while_draining_waits_and_keeps_its_order() {
    let mut inbox = Inbox::new(0, true);
    assert_eq!(inbox.offer(&direct("b")), Offer::Keep);
    assert_eq!(inbox.offer(&multicast(3)), Offer::Keep);
    inbox.plan_drain();
    assert_eq!(inbox.drained(&direct("a")), Offer::Send);
    assert_eq!(inbox.drained(&direct("b")), Offer::Send, "the drain found it too");
    let out = end_drain(&mut inbox, true).expect("done");
    let ids: Vec<_> = out.iter().map(|delivery| delivery.id.as_str()).collect();
    assert_eq!(ids, ["m3"], "what the drain sent does not come again");
}

#[test]
fn a_twin_behind_the_gate_is_skipped_even_if_the_drained_one_is_over() {
    let mut inbox = Inbox::new(0, false);
    inbox.offer(&direct("a"));
    inbox.plan_drain();
    assert_eq!(inbox.drained(&direct("a")), Offer::Send);
    assert!(inbox.wrote_direct(&MessageId::from("a"), 0));
    let done = inbox.done();
    inbox.saved(&done);
    assert!(end_drain(&mut inbox, true).expect("done").is_empty());
}

#[test]
fn a_twin_that_comes_after_all_is_over_is_skipped() {
    let mut inbox = Inbox::new(0, true);
    inbox.plan_drain();
    assert_eq!(inbox.drained(&direct("a")), Offer::Send);
    assert!(end_drain(&mut inbox, true).expect("done").is_empty());
    assert!(inbox.confirm(Some("a"), None).is_some());
    let done = inbox.done();
    inbox.saved(&done);
    assert_eq!(inbox.offer(&direct("a")), Offer::Keep);
    assert_eq!(inbox.offer(&direct("b")), Offer::Send);
}

#[test]
fn a_busy_session_gets_only_what_is_urgent() {
    let mut inbox = live(true);
    inbox.hold(true);
    let urgent = Delivery { priority: Priority::Now, ..direct("urgent") };
    assert_eq!(inbox.offer(&direct("held")), Offer::Keep);
    assert_eq!(inbox.offer(&urgent), Offer::Send);
    assert_eq!(inbox.offer(&multicast(1)), Offer::Send, "news are not held");
    // A drain that began before it was busy has read more than it may have.
    assert!(inbox.begin_drain());
    assert_eq!(inbox.drained(&direct("found")), Offer::Keep);
    inbox.offer(&direct("gated"));
    assert!(end_drain(&mut inbox, true).expect("done").is_empty());
    // Nothing of it counts as sent: the next drain finds all of it.
    inbox.hold(false);
    assert!(inbox.begin_drain());
    assert_eq!(inbox.plan_drain().in_flight, [MessageId::from("urgent")]);
    for id in ["held", "found", "gated"] {
        assert_eq!(inbox.drained(&direct(id)), Offer::Send, "{id}");
    }
}

#[test]
fn what_passes_during_a_drain_has_passed() {
    let mut inbox = Inbox::new(0, true);
    inbox.plan_drain();
    inbox.offer(&multicast(1));
    inbox.pass_over(2);
    inbox.offer(&multicast(3));
    inbox.pass_over(4);
    assert_eq!(end_drain(&mut inbox, true).expect("done").len(), 2);
    assert_eq!(inbox.plan_drain().multicasts_after, 4);
}

#[test]
fn what_passed_during_a_drain_is_not_found_by_it() {
    let mut inbox = Inbox::new(0, true);
    inbox.pass_over(1);
    assert_eq!(inbox.offer(&multicast(2)), Offer::Keep);
    inbox.pass_over(3);
    inbox.pass_over(5);
    // Here the session joins the group of all of them.
    inbox.plan_drain();
    for (seq, offer) in [(1, Offer::Keep), (2, Offer::Send), (3, Offer::Keep), (5, Offer::Keep)] {
        assert_eq!(inbox.drained(&multicast(seq)), offer, "{seq}");
    }
    assert_eq!(inbox.drained(&multicast(6)), Offer::Send);
}

#[test]
fn an_overflowing_gate_goes_round_again() {
    let mut inbox = Inbox::new(0, true);
    for seq in 1..=i64::try_from(limits::GATE_FRAMES_MAX).expect("small") + 1 {
        inbox.offer(&multicast(seq));
    }
    assert_eq!(end_drain(&mut inbox, true).map(|out| out.len()), None);
    let plan = inbox.plan_drain();
    assert_eq!((plan.multicasts_after, plan.behind), (0, true));
}

#[test]
fn one_missed_while_the_store_is_read_is_not_forgotten() {
    let mut inbox = Inbox::new(0, true);
    inbox.plan_drain();
    inbox.mark_behind();
    assert!(end_drain(&mut inbox, true).is_none());
}

#[test]
fn places_that_the_store_gives_away_again_are_not_taken_for_what_was_seen() {
    let mut inbox = live(true);
    for seq in [30, 90, 100] {
        assert_eq!(inbox.offer(&multicast(seq)), Offer::Send);
    }
    assert!(inbox.confirm(Some("m30"), None).is_some());
    assert!(!inbox.rewind(100, 20), "the store is where it was");
    assert!(inbox.rewind(41, 35));
    assert_eq!((inbox.multicast_seen(), inbox.position()), (35, 35));
    assert!(inbox.confirm(Some("m90"), None).is_none(), "it is in no store any more");
    assert!(inbox.begin_drain());
    let plan = inbox.plan_drain();
    assert_eq!((plan.multicasts_after, plan.behind), (35, true));
    assert_eq!(inbox.drained(&multicast(41)), Offer::Send);
    inbox.offer(&multicast(95));
    assert!(
        end_drain(&mut inbox, true).is_some_and(|out| out.len() == 1),
        "a new one, as it goes on"
    );
    // What waits behind the gate is read from the store again.
    assert!(inbox.begin_drain());
    inbox.plan_drain();
    inbox.offer(&multicast(99));
    inbox.offer(&direct("d"));
    assert!(inbox.rewind(50, 45));
    assert!(end_drain(&mut inbox, true).is_none(), "it goes round again");
    inbox.plan_drain();
    let out = end_drain(&mut inbox, true).expect("done");
    assert_eq!(out.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["d"]);
}
