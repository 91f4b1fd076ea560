//! Whatever happens, in whatever order.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

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
    /// Accepted, and whether confirmed in the store.
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
        let route = if multicast { Route::Multicast(seq) } else { Route::Direct };
        let delivery = delivery(&format!("x{seq}"), route);
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
            delivery.route == Route::Direct && plan.room > 0 && !known
        };
        let reads_multicasts = plan.behind || self.stored.iter().any(|one| waits(&one));
        let found: Vec<Delivery> = self
            .stored
            .iter()
            .filter(|one| match one.0.route {
                Route::Direct => waits(one),
                Route::Multicast(seq) => reads_multicasts && seq > plan.multicasts_after,
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
        if self.inbox.confirm(Some(id.as_str()), None).is_none() {
            for (delivery, delivered) in &mut self.stored {
                *delivered |= delivery.id == id && delivery.route == Route::Direct;
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
            match delivery.route {
                Route::Direct => assert!(*delivered, "{} is not confirmed", delivery.id),
                Route::Multicast(seq) => assert!(self.position >= seq),
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
            }).filter_map(|(delivery, _)| match delivery.route {
                Route::Multicast(seq) => Some(seq),
                Route::Direct => None,
            }).collect()
        };
        prop_assert!(firsts.is_sorted(), "multicasts out of order: {firsts:?}");
    }
}
