use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::protocol::{ErrorFrame, ServerMessage};

fn delivery(id: &str, place: Place) -> Delivery {
    let message = ServerMessage::Error(ErrorFrame::new("test", id));
    Delivery {
        id: MessageId::from(id),
        place,
        priority: Priority::Next,
        client_message_id: Some(Arc::from(format!("client-{id}"))),
        frame: Arc::new(SharedFrame::new(message)),
    }
}

fn direct(id: &str) -> Delivery {
    delivery(id, Place::Direct)
}

fn multicast(seq: i64) -> Delivery {
    delivery(&format!("m{seq}"), Place::Multicast(seq))
}

/// Ends a round with room for everything: what came out from behind the gate.
fn end_drain(inbox: &mut Inbox, found_all: bool) -> Option<Vec<Delivery>> {
    let mut out = Vec::new();
    let is_over = inbox.end_drain(found_all, |delivery| {
        out.push(delivery.clone());
        true
    });
    is_over.then_some(out)
}

/// What is offered is written at once.
fn offer_written(inbox: &mut Inbox, delivery: &Delivery, now_ms: i64) {
    assert_eq!(inbox.offer(delivery), Offer::Send);
    wrote(inbox, delivery, now_ms);
}

fn wrote(inbox: &mut Inbox, delivery: &Delivery, now_ms: i64) {
    match delivery.place {
        Place::Direct => inbox.wrote_direct(&delivery.id, now_ms),
        Place::Multicast(seq) => inbox.wrote_multicast(seq, now_ms),
    };
}

/// A session that is live.
fn live(confirms: bool) -> Inbox {
    let mut inbox = Inbox::new(0, confirms);
    assert!(inbox.plan_drain().behind, "the first drain reads multicasts");
    assert!(end_drain(&mut inbox, true).expect("done").is_empty());
    inbox
}

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
    assert!(inbox.confirm(Some("a"), None));
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
fn a_peer_that_confirms_too_slowly_stalls_and_comes_back() {
    let mut inbox = live(true);
    for number in 0..limits::INFLIGHT_DELIVERIES_MAX {
        assert_eq!(inbox.offer(&direct(&number.to_string())), Offer::Send);
    }
    assert_eq!(inbox.offer(&direct("over")), Offer::Keep);
    assert!(!inbox.wants_drain());
    for number in 0..limits::INFLIGHT_DELIVERIES_MAX / 2 {
        assert!(inbox.confirm(Some(&number.to_string()), None));
    }
    assert!(inbox.wants_drain(), "half of them are done");
    assert!(inbox.begin_drain());
    let plan = inbox.plan_drain();
    assert!(plan.room > 0);
    assert_eq!(plan.in_flight.len(), limits::INFLIGHT_DELIVERIES_MAX);
}

#[test]
fn done_counts_until_the_store_knows() {
    let mut inbox = live(true);
    inbox.offer(&direct("a"));
    assert!(inbox.done().directs.is_empty());
    assert!(inbox.confirm(None, Some("client-a")), "by the sender's own id");
    let done = inbox.done();
    assert_eq!(done.directs, [MessageId::from("a")]);
    assert!(inbox.plan_drain().in_flight.contains(&MessageId::from("a")), "skipped meanwhile");
    inbox.saved(&done);
    assert!(inbox.is_settled());
    assert!(!inbox.confirm(Some("a"), None), "unknown by now");
}

#[test]
fn the_position_waits_for_the_oldest_unconfirmed() {
    let mut inbox = live(true);
    for seq in [2, 5, 9] {
        assert_eq!(inbox.offer(&multicast(seq)), Offer::Send);
    }
    inbox.pass_over(12);
    assert_eq!(inbox.position(), 1);
    assert!(inbox.confirm(Some("m5"), None));
    assert_eq!(inbox.position(), 1);
    assert!(inbox.confirm(Some("m2"), None));
    assert_eq!(inbox.position(), 8);
    assert!(inbox.confirm(Some("m9"), None));
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
fn places_that_the_store_gives_away_again_are_not_taken_for_what_was_seen() {
    let mut inbox = live(true);
    for seq in [30, 90, 100] {
        assert_eq!(inbox.offer(&multicast(seq)), Offer::Send);
    }
    assert!(inbox.confirm(Some("m30"), None));
    assert!(!inbox.rewind(100, 20), "the store is where it was");
    assert!(inbox.rewind(41, 35));
    assert_eq!((inbox.multicast_seen(), inbox.position()), (35, 35));
    assert!(!inbox.confirm(Some("m90"), None), "it is in no store any more");
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
    assert!(!inbox.confirm(Some("a"), None), "the store must be told");
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
    assert_eq!(inbox.done(), Done { directs: vec![MessageId::from("a")], position: Some(4) });
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
    assert!(inbox.confirm(Some("m2"), None));
    assert_eq!(inbox.drained(&multicast(2)), Offer::Keep);
}

#[derive(Clone, Debug)]
enum Step {
    /// The peer takes all that waits for it.
    Read,
    Live(bool),
    Request,
    Round {
        cut: bool,
    },
    Confirm(usize),
    Save,
    Expire,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => any::<bool>().prop_map(Step::Live),
        2 => Just(Step::Read),
        1 => Just(Step::Request),
        2 => any::<bool>().prop_map(|cut| Step::Round { cut }),
        3 => any::<prop::sample::Index>().prop_map(|at| Step::Confirm(at.index(1000))),
        2 => Just(Step::Save),
        1 => Just(Step::Expire),
    ];
    prop::collection::vec(step, 1..120)
}

/// Frames that find room at once.
const ROOM: usize = 4;

/// The store and the wire around one inbox.
struct World {
    inbox: Inbox,
    /// What waits for the peer.
    outbox: Vec<Delivery>,
    draining: bool,
    /// Accepted: id, place, confirmed in the store.
    stored: Vec<(Delivery, bool)>,
    position: i64,
    sent: Vec<MessageId>,
    confirmed: HashSet<MessageId>,
    /// Since the last expiry: what went out twice would be a duplicate.
    sent_since_expiry: HashSet<MessageId>,
}

impl World {
    fn queue(&mut self, delivery: &Delivery) -> bool {
        let fits = self.outbox.len() < ROOM;
        if fits {
            self.queued(delivery);
            self.outbox.push(delivery.clone());
        } else {
            self.inbox.take_back(delivery);
        }
        fits
    }

    fn read(&mut self) {
        for delivery in std::mem::take(&mut self.outbox) {
            wrote(&mut self.inbox, &delivery, 0);
            self.sent.push(delivery.id.clone());
        }
        if self.inbox.wants_drain() {
            self.draining |= self.inbox.begin_drain();
        }
    }

    fn queued(&mut self, delivery: &Delivery) {
        assert!(
            self.sent_since_expiry.insert(delivery.id.clone()),
            "{} went out twice without a reason",
            delivery.id
        );
        assert!(!self.confirmed.contains(&delivery.id), "{} came again", delivery.id);
    }

    fn offer(&mut self, multicast: bool) {
        let seq = i64::try_from(self.stored.len()).expect("small") + 1;
        let place = if multicast { Place::Multicast(seq) } else { Place::Direct };
        let delivery = delivery(&format!("x{seq}"), place);
        self.stored.push((delivery.clone(), false));
        if self.inbox.offer(&delivery) == Offer::Send {
            self.queue(&delivery);
        }
    }

    fn round(&mut self, cut: bool) {
        if !self.draining {
            return;
        }
        if self.outbox.len() > ROOM / 2 {
            self.inbox.stall_drain();
            self.draining = false;
            return;
        }
        let plan = self.inbox.plan_drain();
        let waits = |(delivery, delivered): &&(Delivery, bool)| {
            let known = *delivered || plan.in_flight.contains(&delivery.id);
            delivery.place == Place::Direct && plan.room > 0 && !known
        };
        let reads_multicasts = plan.behind || self.stored.iter().any(|one| waits(&one));
        let found: Vec<Delivery> = self
            .stored
            .iter()
            .filter(|one| match one.0.place {
                Place::Direct => waits(one),
                Place::Multicast(seq) => reads_multicasts && seq > plan.multicasts_after,
            })
            .map(|(delivery, _)| delivery.clone())
            .collect();
        let take = if cut { found.len() / 2 } else { found.len() };
        let mut all = take == found.len();
        for delivery in found.into_iter().take(take) {
            if self.inbox.is_full() {
                all = false;
                break;
            }
            if self.inbox.drained(&delivery) == Offer::Send && !self.queue(&delivery) {
                all = false;
                break;
            }
        }
        if !all && reads_multicasts {
            self.inbox.mark_behind();
        }
        let mut out = Vec::new();
        let room = ROOM - self.outbox.len();
        let is_over = self.inbox.end_drain(all, |delivery| {
            let fits = out.len() < room;
            if fits {
                out.push(delivery.clone());
            }
            fits
        });
        for delivery in out {
            self.queued(&delivery);
            self.outbox.push(delivery);
        }
        self.draining = !is_over;
    }

    /// What is not on its way any more is written to the store by its id.
    fn confirm(&mut self, id: MessageId) {
        if !self.inbox.confirm(Some(id.as_str()), None) {
            for (delivery, delivered) in &mut self.stored {
                *delivered |= delivery.id == id && delivery.place == Place::Direct;
            }
        }
        self.confirmed.insert(id);
    }

    fn save(&mut self) {
        let done = self.inbox.done();
        for (delivery, delivered) in &mut self.stored {
            *delivered |= done.directs.contains(&delivery.id);
        }
        self.position = self.position.max(done.position.unwrap_or(0));
        self.inbox.saved(&done);
    }

    /// Everything accepted reaches the peer, everything confirmed the store.
    fn settle(&mut self) {
        for _ in 0..self.stored.len() + 10 {
            if self.inbox.begin_drain() || self.draining {
                self.draining = true;
                self.round(false);
            }
            self.read();
            for id in self.sent.clone() {
                self.confirm(id);
            }
            self.save();
        }
        for (delivery, delivered) in &self.stored {
            assert!(self.sent.contains(&delivery.id), "{} was lost", delivery.id);
            match delivery.place {
                Place::Direct => assert!(*delivered, "{} is not confirmed", delivery.id),
                Place::Multicast(seq) => assert!(self.position >= seq),
            }
        }
        assert!(self.inbox.is_settled());
    }
}

proptest! {
    /// Whatever happens in whatever order: nothing is lost, nothing goes out
    /// twice without its time having run out, nothing confirmed comes again,
    /// multicasts keep their order.
    #[test]
    fn nothing_is_lost_and_nothing_confirmed_comes_again(steps in steps()) {
        let mut world = World {
            inbox: Inbox::new(0, true),
            outbox: Vec::new(),
            draining: true,
            stored: Vec::new(),
            position: 0,
            sent: Vec::new(),
            confirmed: HashSet::new(),
            sent_since_expiry: HashSet::new(),
        };
        for step in steps {
            match step {
                Step::Read => world.read(),
                Step::Live(multicast) => world.offer(multicast),
                Step::Request => world.draining |= world.inbox.begin_drain(),
                Step::Round { cut } => world.round(cut),
                Step::Confirm(at) => {
                    if let Some(id) = world.sent.get(at % world.sent.len().max(1)).cloned() {
                        world.confirm(id);
                    }
                }
                Step::Save => world.save(),
                Step::Expire => {
                    if world.inbox.expire(0) {
                        world.sent_since_expiry.clear();
                    }
                }
            }
        }
        world.settle();
        let firsts: Vec<i64> = {
            let mut seen = HashSet::new();
            world.sent.iter().filter(|id| seen.insert((*id).clone())).filter_map(|id| {
                world.stored.iter().find(|(delivery, _)| delivery.id == *id)
            }).filter_map(|(delivery, _)| match delivery.place {
                Place::Multicast(seq) => Some(seq),
                Place::Direct => None,
            }).collect()
        };
        prop_assert!(firsts.is_sorted(), "multicasts out of order: {firsts:?}");
    }
}
