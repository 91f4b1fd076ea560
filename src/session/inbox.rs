//! What is on its way to one session, and what it is done with. Pure.
//!
//! A session is *live* (frames go straight to its socket), *draining* (its
//! mail is read from the store; live frames wait behind a bounded gate so
//! that order holds) or *stalled* (it does not confirm fast enough, or its
//! socket has no room; what comes stays in the store until it does, or has).
//!
//! A delivery is *sent* until the peer is done with it (it confirmed, or, for
//! peers that never do, the frame was written), *done* until the store knows,
//! then forgotten. Whatever is in here is skipped by a drain, so nothing goes
//! out twice on one connection.

mod confirm;
mod directs;
mod drain;
mod multicasts;

use std::sync::Arc;

use self::directs::Directs;
use self::drain::Drain;
use self::multicasts::Multicasts;

use crate::codec::SharedFrame;
use crate::id::{MemberId, MessageId};
use crate::limits;
use crate::protocol::Priority;

/// To how many a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// For this session alone; claimed for it in the store.
    Direct,
    /// For many; its sequence number in the mesh.
    Multicast(i64),
}

/// One message on its way to a session.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message's id.
    pub id: MessageId,
    /// Whether it is for this session alone.
    pub route: Route,
    /// Whether it may reach a session that is busy.
    pub priority: Priority,
    /// The sender's own id for it; a confirmation may name only that.
    pub client_message_id: Option<Arc<str>>,
    /// Whom to tell that the peer confirmed it, if its sender wants to know.
    pub report_to: Option<MemberId>,
    /// The frame.
    pub frame: Arc<SharedFrame>,
}

/// A message that was on its way, and is confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landed {
    /// The message's id.
    pub id: MessageId,
    /// The sender's own id for it, of a direct message.
    pub client_message_id: Option<Arc<str>>,
    /// Whom to tell, the first time.
    pub report_to: Option<MemberId>,
}

/// What to do with a live delivery.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer {
    /// Write it.
    Send,
    /// Write nothing: the message waits, or went out before, or the store keeps it.
    Keep,
}

#[derive(Debug)]
enum Phase {
    Live,
    Draining(Box<Drain>),
    Stalled,
}

/// The state of one session's deliveries.
#[derive(Debug)]
pub struct Inbox {
    phase: Phase,
    confirms: bool,
    /// The session is busy: of direct messages it takes only urgent ones.
    holds: bool,
    directs: Directs,
    multicasts: Multicasts,
}

/// What a drain has to ask the store for.
#[derive(Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// Direct messages to pass over.
    pub in_flight: Vec<MessageId>,
    /// How many direct messages may be sent; 0: none now.
    pub room: u32,
    /// Multicasts after this position may have to be sent.
    pub multicasts_after: i64,
    /// Of these, messages to groups and to everyone only after this position.
    pub others_after: i64,
    /// Whether some of them may have been missed.
    pub behind: bool,
}

/// What is done and not yet in the store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Direct messages.
    pub directs: Vec<MessageId>,
    /// Multicasts up to here.
    pub position: Option<i64>,
    /// Posts to the member's topics up to here.
    pub posts: Option<i64>,
    /// Whether the peer says itself what it has.
    pub is_confirmed: bool,
}

impl Inbox {
    /// A session that begins at a multicast position and is about to drain.
    #[must_use]
    pub fn new(position: i64, confirms: bool) -> Self {
        Self {
            phase: Phase::Draining(Box::default()),
            confirms,
            holds: false,
            directs: Directs::default(),
            multicasts: Multicasts::new(position),
        }
    }

    /// The session tells how far its member is in its topics, and reads those posts after
    /// `missed_since` that none of the member's sessions has had. Before its first drain.
    pub fn follow_topics(&mut self, missed_since: Option<i64>) {
        self.multicasts.follow_topics(missed_since);
    }

    /// A post of one of the member's topics came by, be it for this session or not.
    pub fn note_post(&mut self, seq: i64) {
        self.multicasts.note_post(seq);
    }

    /// Whether the peer confirms its deliveries.
    #[must_use]
    pub fn confirms(&self) -> bool {
        self.confirms
    }

    /// From now on the session is busy, or is so no more; what was held is for
    /// a drain to find.
    pub fn hold(&mut self, holds: bool) {
        self.holds = holds;
    }

    fn is_held(&self, delivery: &Delivery) -> bool {
        self.holds && delivery.route == Route::Direct && delivery.priority != Priority::Now
    }

    /// Every multicast up to here is done with.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.multicasts.position()
    }

    /// Every multicast up to here was handed over or is not for this session.
    #[must_use]
    pub fn multicast_seen(&self) -> i64 {
        self.multicasts.seen()
    }

    /// Whether that multicast went out on this socket before, and is not confirmed.
    #[must_use]
    pub fn is_repeat(&self, seq: i64) -> bool {
        self.multicasts.is_repeat(seq)
    }

    /// Whether nothing is on its way and the store knows all.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.directs.is_empty() && self.multicasts.is_settled()
    }

    /// A live delivery arrives.
    pub fn offer(&mut self, delivery: &Delivery) -> Offer {
        let is_gated = match &mut self.phase {
            Phase::Live => return self.take_up(delivery),
            Phase::Draining(drain) => drain.gate(delivery),
            Phase::Stalled => false,
        };
        if !is_gated {
            self.missed(delivery.route);
        }
        Offer::Keep
    }

    /// A delivery that was to be sent did not fit into the socket's outbox: it
    /// counts as never taken up, and a drain finds it again. A live session
    /// stalls until there is room; a drain under way goes round again.
    pub fn take_back(&mut self, delivery: &Delivery) {
        match delivery.route {
            Route::Direct => self.directs.take_back(&delivery.id),
            Route::Multicast(seq) => self.multicasts.take_back(seq),
        }
        self.missed(delivery.route);
        match &mut self.phase {
            Phase::Live => self.phase = Phase::Stalled,
            Phase::Draining(drain) => drain.take_back(&delivery.id),
            Phase::Stalled => {}
        }
    }

    fn take_up(&mut self, delivery: &Delivery) -> Offer {
        if self.is_held(delivery) {
            return Offer::Keep;
        }
        if self.is_full() {
            self.phase = Phase::Stalled;
            self.missed(delivery.route);
            return Offer::Keep;
        }
        match delivery.route {
            Route::Direct if self.directs.is_twin(&delivery.id) => return Offer::Keep,
            Route::Direct => self.directs.fly(delivery),
            Route::Multicast(seq) if seq <= self.multicasts.seen() => return Offer::Keep,
            Route::Multicast(seq) => self.multicasts.fly(seq, delivery),
        }
        Offer::Send
    }

    /// A live multicast passed that is not for this session. It stays so: whoever
    /// joins a group later does not get what was sent to it before.
    pub fn pass_over(&mut self, seq: i64) {
        match &mut self.phase {
            Phase::Live => self.multicasts.pass(seq),
            Phase::Draining(drain) => {
                if !drain.pass_over(seq) {
                    self.mark_behind();
                }
            }
            Phase::Stalled => {}
        }
    }

    fn missed(&mut self, route: Route) {
        if matches!(route, Route::Multicast(_)) {
            self.mark_behind();
        }
    }

    /// Live frames may have been lost on their way here.
    pub fn mark_behind(&mut self) {
        self.multicasts.mark_behind();
    }

    /// Whether nothing more may go out before something is done, or before
    /// the store has caught up with what is.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.flights() >= self.flights_max() || self.directs.len() >= limits::DONE_DELIVERIES_MAX
    }

    fn flights(&self) -> usize {
        self.directs.open() + self.multicasts.open()
    }

    fn flights_max(&self) -> usize {
        if self.confirms { limits::INFLIGHT_DELIVERIES_MAX } else { limits::OUTBOX_FRAMES_MAX }
    }
}

#[cfg(test)]
mod tests;
