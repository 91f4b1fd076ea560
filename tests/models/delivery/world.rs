//! The store, the bus, two nodes, a recipient; and every step that is possible.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use claudemesh_broker::codec::SharedFrame;
use claudemesh_broker::id::MessageId;
use claudemesh_broker::protocol::{ErrorFrame, Priority, ServerMessage};
use claudemesh_broker::registry::order::{Arrival, Order};
use claudemesh_broker::session::inbox::{Delivery, DrainPlan, Inbox, Offer, Route};

/// What is wired wrongly, to see that the model would find out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wiring {
    pub drain_forgets: bool,
    pub publishes_first: bool,
    pub nobody_waits: bool,
    pub drops_what_does_not_fit: bool,
}

/// Frames that find room on the way to the recipient.
const WIRE_MAX: usize = 3;

/// What the store has of a message. Its place is its index and one.
#[derive(Clone, Copy, Debug)]
struct Message {
    sender: usize,
    is_multicast: bool,
    /// The place of the multicast before it.
    previous: i64,
    /// It was accepted by a node that its sender had just come to.
    resumed: bool,
    is_stored: bool,
    is_delivered: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Send { sender: usize, is_multicast: bool },
    Publish { node: usize },
    Hear { node: usize },
    Lose { node: usize },
    Gap { node: usize },
    GiveUp { node: usize },
    Drain,
    Receive,
    Confirm,
    Flush,
    Expire,
    Crash { node: usize },
    Disconnect { is_settled: bool },
    Connect { node: usize },
}

#[derive(Debug)]
enum Drain {
    Planned(DrainPlan),
    Line(DrainPlan, i64),
    Directs(DrainPlan, i64, Vec<i64>),
    Read(i64, Vec<i64>),
}

struct Session {
    node: usize,
    inbox: Inbox,
    drain: Option<Drain>,
    wire: VecDeque<i64>,
    /// Received, and not confirmed.
    open: VecDeque<i64>,
    received: HashSet<i64>,
    /// Offered again, since it was not confirmed in time.
    expired: HashSet<i64>,
}

pub struct World {
    wiring: Wiring,
    pub log: Vec<String>,
    messages: Vec<Message>,
    position: i64,
    now_ms: i64,
    /// On which node each sender is, and whether it has just come there.
    senders: [(usize, bool); 2],
    /// Committed there, and not yet published.
    unpublished: [VecDeque<i64>; 2],
    /// On their way to that node; `None`: lost.
    bus: [VecDeque<Option<i64>>; 2],
    has_gap: [bool; 2],
    orders: [Order<i64>; 2],
    session: Option<Session>,
    /// In the order in which they first came.
    first: Vec<i64>,
}

impl World {
    pub fn new(wiring: Wiring) -> Self {
        Self {
            wiring,
            log: Vec::new(),
            messages: Vec::new(),
            position: 0,
            now_ms: 0,
            senders: [(0, false), (1, false)],
            unpublished: Default::default(),
            bus: Default::default(),
            has_gap: [false; 2],
            orders: [Order::after(0), Order::after(0)],
            session: None,
            first: Vec::new(),
        }
    }

    /// Takes one step for each choice, then lets all go quiet.
    pub fn run(&mut self, choices: &[u8]) -> Result<(), String> {
        for choice in choices {
            let steps = self.steps();
            let step = steps[usize::from(*choice) % steps.len()];
            self.log.push(format!("{step:?}"));
            self.take(step)?;
        }
        self.log.push("quiet".to_owned());
        self.settle()
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.messages.len() < 12 {
            for sender in 0..2 {
                steps.push(Step::Send { sender, is_multicast: false });
                steps.push(Step::Send { sender, is_multicast: true });
            }
        }
        for node in 0..2 {
            if !self.unpublished[node].is_empty() {
                steps.push(Step::Publish { node });
            }
            if !self.bus[node].is_empty() {
                steps.extend([Step::Hear { node }, Step::Lose { node }]);
            }
            if self.has_gap[node] {
                steps.push(Step::Gap { node });
            }
            if self.orders[node].is_waiting() {
                steps.push(Step::GiveUp { node });
            }
            steps.push(Step::Crash { node });
        }
        let Some(session) = &self.session else {
            steps.extend([Step::Connect { node: 0 }, Step::Connect { node: 1 }]);
            return steps;
        };
        if session.drain.is_some() {
            // A drain is quick.
            steps.extend([Step::Drain; 3]);
        }
        if !session.wire.is_empty() {
            steps.extend([Step::Receive; 2]);
        }
        if !session.open.is_empty() {
            steps.push(Step::Confirm);
        }
        steps.extend([Step::Flush, Step::Expire]);
        steps.extend([true, false].map(|is_settled| Step::Disconnect { is_settled }));
        steps
    }

    fn take(&mut self, step: Step) -> Result<(), String> {
        self.now_ms += 1;
        match step {
            Step::Send { sender, is_multicast } => self.accept(sender, is_multicast),
            Step::Publish { node } => self.publish(node),
            Step::Hear { node } => self.hear(node),
            Step::Lose { node } => {
                if let Some(frame) = self.bus[node].iter_mut().find(|frame| frame.is_some()) {
                    *frame = None;
                }
            }
            Step::Gap { node } => {
                self.has_gap[node] = false;
                self.read_all(node);
            }
            Step::GiveUp { node } => {
                if self.orders[node].give_up() {
                    self.read_all(node);
                }
            }
            Step::Drain => self.drain(),
            Step::Receive => return self.receive(),
            Step::Confirm => {
                if let Some(session) = &mut self.session
                    && let Some(place) = session.open.pop_front()
                {
                    let is_known = session.inbox.confirm(Some(&place.to_string()), None).is_some();
                    session.request_if(|inbox| inbox.wants_drain());
                    let index = usize::try_from(place - 1).expect("a place");
                    let message = &mut self.messages[index];
                    // What is on its way no more is written to the store by its id.
                    message.is_delivered |= !is_known && !message.is_multicast;
                }
            }
            Step::Flush => self.flush(),
            Step::Expire => {
                let now_ms = self.now_ms;
                if let Some(session) = &mut self.session {
                    // Whatever has left and is not confirmed may come again.
                    session.expired.extend(session.received.iter());
                    session.request_if(|inbox| inbox.expire(now_ms));
                }
            }
            Step::Crash { node } => self.crash(node),
            Step::Disconnect { is_settled } => {
                if is_settled {
                    self.flush();
                }
                self.session = None;
            }
            Step::Connect { node } => self.connect(node),
        }
        Ok(())
    }

    // --- the sending side --------------------------------------------------------------

    fn accept(&mut self, sender: usize, is_multicast: bool) {
        let (node, resumed) = self.senders[sender];
        self.senders[sender].1 = false;
        let previous = self.place_of_last_multicast();
        let is_stored = !self.wiring.publishes_first;
        self.messages.push(Message {
            sender,
            is_multicast,
            previous,
            resumed,
            is_stored,
            is_delivered: false,
        });
        let place = self.newest();
        self.unpublished[node].push_back(place);
    }

    fn publish(&mut self, node: usize) {
        let Some(place) = self.unpublished[node].pop_front() else { return };
        self.bus[1 - node].push_back(Some(place));
        self.arrive(node, place);
    }

    fn hear(&mut self, node: usize) {
        match self.bus[node].pop_front() {
            // The number of the next frame, or the next beat, tells.
            Some(None) => {
                if self.bus[node].is_empty() {
                    self.has_gap[node] = true;
                } else {
                    self.read_all(node);
                }
            }
            Some(Some(place)) => {
                if self.has_gap[node] {
                    self.has_gap[node] = false;
                    self.read_all(node);
                }
                self.arrive(node, place);
            }
            None => {}
        }
    }

    fn arrive(&mut self, node: usize, place: i64) {
        let message = *self.message(place);
        if !message.is_multicast {
            if message.resumed || self.orders[node].is_waiting() {
                self.read_all(node);
            } else {
                self.offer(node, place);
            }
            return;
        }
        let previous = if self.wiring.nobody_waits { 0 } else { message.previous };
        match self.orders[node].arrive(previous, place, place) {
            Arrival::Now(places) => {
                for place in places {
                    if self.message(place).resumed {
                        self.read_all(node);
                    }
                    self.offer(node, place);
                }
            }
            Arrival::Waits { .. } => {}
            Arrival::Lost => self.read_all(node),
        }
    }

    fn offer(&mut self, node: usize, place: i64) {
        let delivery = self.delivery(place);
        if let Some(session) = self.session.as_mut().filter(|session| session.node == node)
            && session.inbox.offer(&delivery) == Offer::Send
        {
            session.write(&delivery, self.wiring);
        }
    }

    /// A node's sessions read the store.
    fn read_all(&mut self, node: usize) {
        if let Some(session) = self.session.as_mut().filter(|session| session.node == node) {
            session.inbox.mark_behind();
            session.request_if(|_| true);
        }
    }

    /// A node dies between a commit and what follows it. Its sender goes to the
    /// other one; so may the recipient.
    fn crash(&mut self, node: usize) {
        self.unpublished[node].clear();
        self.bus[node].clear();
        self.has_gap = [true; 2];
        let last = self.place_of_last_multicast();
        self.orders[node] = Order::after(last);
        for sender in &mut self.senders {
            if sender.0 == node {
                *sender = (1 - node, true);
            }
        }
        if self.session.as_ref().is_some_and(|session| session.node == node) {
            self.session = None;
        }
    }

    // --- the receiving side ------------------------------------------------------------

    fn connect(&mut self, node: usize) {
        let mut session = Session {
            node,
            inbox: Inbox::new(self.position, true),
            drain: None,
            wire: VecDeque::new(),
            open: VecDeque::new(),
            received: HashSet::new(),
            expired: HashSet::new(),
        };
        session.drain = session.plan();
        self.session = Some(session);
    }

    /// One reading of a drain, in the order of `redelivery::round`.
    fn drain(&mut self) {
        let Some(drain) = self.session.as_mut().and_then(|session| session.drain.take()) else {
            return;
        };
        let next = match drain {
            Drain::Planned(plan) => Some(Drain::Line(plan, self.newest())),
            Drain::Line(plan, newest) => {
                let is_wanted = |place: &i64| {
                    let message = self.message(*place);
                    let id = MessageId::from(place.to_string());
                    let is_known = plan.in_flight.contains(&id) && !self.wiring.drain_forgets;
                    let is_open = message.is_stored && !message.is_delivered;
                    !message.is_multicast && is_open && !is_known
                };
                let directs = (1..=self.newest()).filter(is_wanted);
                let directs = directs.take(plan.room as usize).collect();
                Some(Drain::Directs(plan, newest, directs))
            }
            Drain::Directs(plan, newest, mut found) => {
                if plan.behind || !found.is_empty() {
                    let is_wanted = |place: &i64| {
                        let message = self.message(*place);
                        message.is_multicast && message.is_stored
                    };
                    found.extend((plan.multicasts_after + 1..=self.newest()).filter(is_wanted));
                    found.sort_unstable();
                }
                Some(Drain::Read(newest, found))
            }
            Drain::Read(newest, found) => self.end_round(newest, found),
        };
        if let Some(session) = &mut self.session {
            session.drain = next;
        }
    }

    fn end_round(&mut self, newest: i64, found: Vec<i64>) -> Option<Drain> {
        let deliveries: Vec<_> = found.iter().map(|place| self.delivery(*place)).collect();
        let session = self.session.as_mut()?;
        let mut sent_all = true;
        for (place, delivery) in found.into_iter().zip(deliveries) {
            if place > newest {
                if session.inbox.is_gated(&delivery.id) {
                    continue;
                }
                sent_all = false;
                session.inbox.mark_behind();
                break;
            }
            let offer = session.inbox.drained(&delivery);
            let is_sent = offer == Offer::Send || self.wiring.drain_forgets;
            if is_sent && !session.write(&delivery, self.wiring) {
                sent_all = false;
                session.inbox.mark_behind();
                break;
            }
        }
        let wire = &mut session.wire;
        let is_over = session.inbox.end_drain(sent_all, |delivery| {
            let fits = wire.len() < WIRE_MAX;
            if fits {
                wire.push_back(place_of(&delivery.id));
            }
            fits
        });
        if is_over { None } else { session.plan() }
    }

    fn receive(&mut self) -> Result<(), String> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let Some(place) = session.wire.pop_front() else { return Ok(()) };
        // It has left, which makes room.
        session.inbox.wrote_direct(&MessageId::from(place.to_string()), self.now_ms);
        session.inbox.wrote_multicast(place, self.now_ms);
        session.request_if(|inbox| inbox.wants_drain());
        session.open.push_back(place);
        if !session.received.insert(place) && !session.expired.contains(&place) {
            return Err(format!("{place} came twice on one connection"));
        }
        if self.first.contains(&place) {
            return Ok(());
        }
        let message = *self.message(place);
        let earlier = (1..place).find(|earlier| {
            let before = self.message(*earlier);
            let is_in_order =
                before.sender == message.sender || (before.is_multicast && message.is_multicast);
            is_in_order && !self.first.contains(earlier)
        });
        self.first.push(place);
        match earlier {
            Some(earlier) => Err(format!("{place} came before {earlier}")),
            None => Ok(()),
        }
    }

    fn flush(&mut self) {
        let Some(session) = &mut self.session else { return };
        let done = session.inbox.done();
        for id in &done.directs {
            let index = usize::try_from(place_of(id) - 1).expect("a place");
            self.messages[index].is_delivered = true;
        }
        self.position = self.position.max(done.position.unwrap_or(0));
        session.inbox.saved(&done);
        session.request_if(|inbox| inbox.wants_drain());
    }

    // --- quiet -------------------------------------------------------------------------

    fn settle(&mut self) -> Result<(), String> {
        if self.session.is_none() {
            self.connect(0);
        }
        for _ in 0..self.messages.len() + 4 {
            for node in 0..2 {
                while !self.unpublished[node].is_empty() {
                    self.publish(node);
                }
                while !self.bus[node].is_empty() {
                    self.hear(node);
                }
                self.take(Step::Gap { node })?;
                self.take(Step::GiveUp { node })?;
            }
            while self.session.as_ref().is_some_and(|session| session.drain.is_some()) {
                self.take(Step::Drain)?;
            }
            while self.session.as_ref().is_some_and(|session| !session.wire.is_empty()) {
                self.take(Step::Receive)?;
                self.take(Step::Confirm)?;
            }
            self.take(Step::Expire)?;
            self.flush();
        }
        let never: Vec<i64> = (1..=self.newest()).filter(|it| !self.first.contains(it)).collect();
        if !never.is_empty() {
            return Err(format!("{never:?} never came"));
        }
        Ok(())
    }

    fn newest(&self) -> i64 {
        i64::try_from(self.messages.len()).expect("few")
    }

    fn place_of_last_multicast(&self) -> i64 {
        let last = self.messages.iter().rposition(|message| message.is_multicast);
        last.map_or(0, |index| i64::try_from(index + 1).expect("few"))
    }

    fn message(&self, place: i64) -> &Message {
        &self.messages[usize::try_from(place - 1).expect("a place")]
    }

    fn delivery(&self, place: i64) -> Delivery {
        let is_multicast = self.message(place).is_multicast;
        let frame = ServerMessage::Error(ErrorFrame::new("a frame", ""));
        Delivery {
            id: MessageId::from(place.to_string()),
            route: if is_multicast { Route::Multicast(place) } else { Route::Direct },
            priority: Priority::Next,
            client_message_id: None,
            report_to: None,
            frame: Arc::new(SharedFrame::new(frame)),
        }
    }
}

impl Session {
    fn request_if(&mut self, wants: impl FnOnce(&mut Inbox) -> bool) {
        if wants(&mut self.inbox) && self.inbox.begin_drain() {
            self.drain = self.plan();
        }
    }

    /// The next round of a drain, if there is room for what it finds.
    fn plan(&mut self) -> Option<Drain> {
        if self.wire.len() <= WIRE_MAX / 2 {
            return Some(Drain::Planned(self.inbox.plan_drain()));
        }
        self.inbox.stall_drain();
        None
    }

    fn write(&mut self, delivery: &Delivery, wiring: Wiring) -> bool {
        let fits = self.wire.len() < WIRE_MAX;
        if fits {
            self.wire.push_back(place_of(&delivery.id));
        } else if !wiring.drops_what_does_not_fit {
            self.inbox.take_back(delivery);
        }
        fits
    }
}

fn place_of(id: &MessageId) -> i64 {
    id.as_str().parse().expect("a place")
}
