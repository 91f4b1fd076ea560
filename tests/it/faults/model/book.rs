//! What must be so, in plain memory: written from the protocol's description,
//! without a look at the broker.
//!
//! A *life* is what a session goes through from `peer_joined` to `peer_left`:
//! one presence, over any number of connections.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A message, by its place in the order of acceptance.
pub type Number = usize;
/// A session, by its place in [`Book::sessions`].
pub type Who = usize;

/// To whom a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A session's key.
    Session(Who),
    /// A member's key.
    Member(usize),
    /// A group.
    Group(&'static str),
    /// Everyone.
    Everyone,
}

impl Target {
    fn is_direct(self) -> bool {
        matches!(self, Self::Session(_) | Self::Member(_))
    }
}

/// An accepted message.
#[derive(Debug)]
pub struct Message {
    pub id: String,
    pub text: String,
    pub by: Who,
    pub target: Target,
    pub priority: &'static str,
    /// Of a multicast: whom it was for when it was accepted, in which life.
    readers: Vec<(Who, u32)>,
    /// When it was, at the latest.
    accepted: Instant,
    /// A direct message: somebody has confirmed it, and the broker knows.
    pub done: bool,
    /// By whom, if its claim may have run out before: the broker may have given
    /// it to another session of the member just then.
    confirmed_late_by: Option<Who>,
}

impl Message {
    /// Whether a busy recipient does not get it.
    fn can_be_held(&self) -> bool {
        self.target.is_direct() && self.priority != "now"
    }
}

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its life is over, or has not begun.
    Gone,
    /// In grace since then, at the earliest.
    Away(Instant),
    /// Connected.
    Here,
}

/// A session, as the others should see it.
#[derive(Debug)]
pub struct Session {
    pub member: usize,
    pub place: Place,
    /// Lives begun.
    pub lives: u32,
    pub presence: String,
    pub status: &'static str,
    pub groups: Vec<&'static str>,
    pub summary: Option<String>,
    /// Keeps its confirmations back.
    pub withholds: bool,
    /// Received on this connection and not confirmed yet.
    pub in_hand: BTreeSet<Number>,
    /// Received on this connection.
    got: BTreeSet<Number>,
    /// Received ever.
    seen: BTreeSet<Number>,
    confirmed: BTreeSet<Number>,
    /// Multicasts that may come though they were confirmed or were not for it:
    /// a life remembers one position, that of its oldest unconfirmed.
    again: BTreeSet<Number>,
    /// The number of messages when this life began.
    born: Number,
    /// The number of messages when it was last busy.
    busy_until: Number,
}

impl Session {
    pub fn is_here(&self) -> bool {
        self.place == Place::Here
    }

    fn is_busy(&self) -> bool {
        self.status != "idle"
    }

    fn is_in(&self, group: &str) -> bool {
        let below = |own: &str| own.strip_prefix(group).is_some_and(|rest| rest.starts_with('/'));
        self.groups.iter().any(|own| *own == group || below(own))
    }

    fn takes(&self, message: &Message) -> bool {
        self.is_here() && !(self.is_busy() && message.can_be_held())
    }
}

/// Everything that happened, and what follows from it.
#[derive(Debug)]
pub struct Book {
    pub sessions: Vec<Session>,
    pub messages: Vec<Message>,
    grace: Duration,
    /// For how long a message is one session's, unconfirmed.
    claim: Duration,
}

impl Book {
    /// A mesh in which session `i` is one of member `members[i]`.
    pub fn new(members: &[usize], grace: Duration, claim: Duration) -> Self {
        let session = |member: &usize| Session {
            member: *member,
            place: Place::Gone,
            lives: 0,
            presence: String::new(),
            status: "idle",
            groups: Vec::new(),
            summary: None,
            withholds: false,
            in_hand: BTreeSet::new(),
            got: BTreeSet::new(),
            seen: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            again: BTreeSet::new(),
            born: 0,
            busy_until: 0,
        };
        Self { sessions: members.iter().map(session).collect(), messages: Vec::new(), grace, claim }
    }

    // --- sessions ------------------------------------------------------------

    /// A session is connected, under that presence.
    pub fn connected(&mut self, who: Who, presence: &str) {
        let now = Instant::now();
        let is_same = self.sessions[who].presence == presence;
        match self.sessions[who].place {
            Place::Gone => assert!(!is_same, "its life was over"),
            Place::Away(since) => {
                let in_time = now - since < self.grace;
                assert!(is_same || !in_time, "back in time, and not to its presence");
            }
            Place::Here => assert!(is_same, "a second socket is no second presence"),
        }
        let again = if is_same { self.may_come_again(who) } else { BTreeSet::new() };
        let messages = self.messages.len();
        let session = &mut self.sessions[who];
        session.place = Place::Here;
        session.in_hand.clear();
        session.got.clear();
        session.again = again;
        if !is_same {
            if session.is_busy() {
                session.busy_until = messages;
            }
            session.lives += 1;
            session.born = messages;
            session.presence = presence.to_owned();
            session.status = "idle";
            session.groups.clear();
            session.summary = None;
        }
    }

    /// Multicasts after the oldest that this life has not confirmed.
    fn may_come_again(&self, who: Who) -> BTreeSet<Number> {
        let session = &self.sessions[who];
        let oldest = (session.born..self.messages.len())
            .find(|number| self.is_reader(who, *number) && !session.confirmed.contains(number));
        let Some(oldest) = oldest else { return BTreeSet::new() };
        (oldest..self.messages.len())
            .filter(|number| self.includes(who, &self.messages[*number]))
            .collect()
    }

    /// A session's socket is gone.
    pub fn dropped(&mut self, who: Who) {
        self.sessions[who].place = Place::Away(Instant::now());
    }

    /// A session's life is over.
    pub fn ended(&mut self, who: Who) {
        self.sessions[who].place = Place::Gone;
    }

    pub fn set_status(&mut self, who: Who, status: &'static str) {
        let messages = self.messages.len();
        let session = &mut self.sessions[who];
        if session.is_busy() {
            session.busy_until = messages;
        }
        session.status = status;
    }

    // --- messages ------------------------------------------------------------

    /// Whether a send should be taken: its target is known.
    pub fn is_known(&self, target: Target) -> bool {
        match target {
            Target::Session(who) => self.sessions[who].lives > 0,
            Target::Member(_) | Target::Group(_) | Target::Everyone => true,
        }
    }

    /// A send was acked.
    pub fn accepted(
        &mut self,
        id: &str,
        text: String,
        by: Who,
        target: Target,
        priority: &'static str,
    ) {
        let message = Message {
            id: id.to_owned(),
            text,
            by,
            target,
            priority,
            readers: Vec::new(),
            accepted: Instant::now(),
            done: false,
            confirmed_late_by: None,
        };
        let readers = (0..self.sessions.len())
            .filter(|who| self.sessions[*who].place != Place::Gone && self.includes(*who, &message))
            .map(|who| (who, self.sessions[who].lives))
            .collect();
        self.messages.push(Message { readers, ..message });
    }

    /// Whether a multicast is for a session as it is now.
    fn includes(&self, who: Who, message: &Message) -> bool {
        let session = &self.sessions[who];
        session.member != self.sessions[message.by].member
            && match message.target {
                Target::Everyone => true,
                Target::Group(group) => session.is_in(group),
                Target::Session(_) | Target::Member(_) => false,
            }
    }

    fn is_reader(&self, who: Who, number: Number) -> bool {
        self.messages[number].readers.contains(&(who, self.sessions[who].lives))
    }

    /// Whether a message is for this session in this life, alone or with others.
    fn is_for(&self, who: Who, number: Number) -> bool {
        match self.messages[number].target {
            Target::Session(target) => target == who,
            Target::Member(member) => self.sessions[who].member == member,
            Target::Group(_) | Target::Everyone => self.is_reader(who, number),
        }
    }

    /// A session was sent a message: whether it should have been.
    pub fn received(&mut self, who: Who, number: Number) {
        let (session, message) = (&self.sessions[who], &self.messages[number]);
        let again = session.again.contains(&number);
        let context = || format!("session {who} {session:?}\ngot {number} {message:?}");
        assert!(again || self.is_for(who, number), "not for it: {}", context());
        let crossed = !session.seen.contains(&number)
            && message.confirmed_late_by.is_some_and(|by| by != who);
        assert!(!message.done || crossed, "confirmed before: {}", context());
        let confirmed = session.confirmed.contains(&number);
        assert!(again || !confirmed, "confirmed by itself: {}", context());
        if !session.seen.contains(&number) {
            let held = session.is_busy() && message.can_be_held();
            assert!(!held, "it is busy: {}", context());
            if let Some(earlier) = self.overtaken(who, number) {
                panic!("{earlier} {:?} was before: {}", self.messages[earlier], context());
            }
        }
        let session = &mut self.sessions[who];
        session.got.insert(number);
        session.seen.insert(number);
        session.in_hand.insert(number);
    }

    /// A message of the same sender that should have come before this one.
    fn overtaken(&self, who: Who, number: Number) -> Option<Number> {
        let session = &self.sessions[who];
        let message = &self.messages[number];
        (0..number).find(|earlier| {
            let other = &self.messages[*earlier];
            let shared = matches!(other.target, Target::Member(_))
                && self.sessions.iter().filter(|other| other.member == session.member).count() > 1;
            let was_held =
                other.can_be_held() && (session.is_busy() || *earlier < session.busy_until);
            other.by == message.by
                && !other.done
                && !shared
                && !was_held
                && self.is_for(who, *earlier)
                && !session.seen.contains(earlier)
        })
    }

    /// A session has confirmed a message, and the broker has said so.
    pub fn confirmed(&mut self, who: Who, number: Number) {
        let session = &mut self.sessions[who];
        session.in_hand.remove(&number);
        session.confirmed.insert(number);
        session.again.remove(&number);
        let message = &mut self.messages[number];
        message.done = message.target.is_direct();
        let is_late = message.accepted.elapsed() >= self.claim;
        message.confirmed_late_by = is_late.then_some(who);
    }

    /// What should have come by now and has not: session (one of those that
    /// could take it) and message.
    pub fn due(&self) -> Option<(Who, Number)> {
        (0..self.messages.len()).find_map(|number| self.is_due(number).map(|who| (who, number)))
    }

    fn is_due(&self, number: Number) -> Option<Who> {
        let message = &self.messages[number];
        let everyone = 0..self.sessions.len();
        let mut candidates = everyone
            .filter(|who| self.is_for(*who, number) && self.sessions[*who].takes(message))
            .peekable();
        let has = |who: &Who| {
            let session = &self.sessions[*who];
            session.got.contains(&number) || session.confirmed.contains(&number)
        };
        match message.target {
            _ if message.done => None,
            // One of them is enough, and it may have turned busy since.
            Target::Member(_) => {
                let first = *candidates.peek()?;
                let mut all = 0..self.sessions.len();
                let taken = all.any(|who| {
                    self.sessions[who].is_here() && self.is_for(who, number) && has(&who)
                });
                (!taken).then_some(first)
            }
            _ => candidates.find(|who| !has(who)),
        }
    }

    /// Something that a session has in hand and that will come to it again.
    pub fn comes_again(&self, who: Who) -> Option<Number> {
        let session = &self.sessions[who];
        session.in_hand.iter().copied().find(|number| {
            let message = &self.messages[*number];
            // Another session of the member may get it instead.
            !matches!(message.target, Target::Member(_))
                && !message.done
                && session.takes(message)
                && self.is_for(who, *number)
                && !session.confirmed.contains(number)
        })
    }

    // --- the list ------------------------------------------------------------

    /// Whether a session must, may or must not be listed.
    pub fn listing(&self, who: Who) -> Listing {
        match self.sessions[who].place {
            Place::Here => Listing::Must,
            Place::Away(since) if since.elapsed() < self.grace => Listing::Must,
            Place::Away(_) => Listing::May,
            Place::Gone => Listing::MustNot,
        }
    }

    /// How many lives have begun, and how many of them are over.
    pub fn lives(&self) -> (i64, i64) {
        let begun: u32 = self.sessions.iter().map(|session| session.lives).sum();
        let lasting = self.sessions.iter().filter(|session| session.place != Place::Gone).count();
        let begun = i64::from(begun);
        (begun, begun - i64::try_from(lasting).expect("few"))
    }
}

/// Whether a session is in `list_peers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    Must,
    May,
    MustNot,
}
