//! One session: a socket that said who it is.
//!
//! A session is data: what is known of its peer, what is on its way to it, what it
//! may still ask. It calls nobody. [`admission`](crate::admission) makes and ends
//! it; between the two it is *active*, and everybody who delivers to it holds an
//! `Arc<Session>`.

pub mod inbox;
pub mod outbox;
pub(crate) mod pipeline;
pub mod resumption;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::cluster::LeaseRef;
use crate::codec::Codec;
use crate::id::{Key, MemberId, MeshId, PresenceId};
use crate::logging::milestone;
use crate::protocol::PeerRole;
use crate::rates::Budget;

use self::inbox::{Delivery, DrainPlan, Inbox, Offer, Route};
use self::outbox::{Content, Outbox, Outgoing, PushError};
use self::pipeline::Pipeline;
use self::resumption::Resumption;

/// An active session.
pub struct Session {
    /// The session's presence.
    pub presence: PresenceId,
    /// The session's mesh.
    pub mesh: MeshId,
    /// The session's member.
    pub member: MemberId,
    /// The member's key.
    pub member_key: Key,
    /// The session's own key, if it has one.
    pub session_key: Option<Key>,
    /// What kind of connection it is.
    pub role: PeerRole,
    /// Whether it only visits.
    pub visitor: bool,
    /// Whether it opens messages to many that are sealed, and may seal its own: with the keys
    /// of their recipients these are longer than others.
    pub opens_sealed: bool,
    /// The lease, under this socket's epoch.
    pub lease: LeaseRef,
    /// How its messages are coded.
    pub codec: Codec,
    /// The socket's send queue.
    pub outbox: Outbox,
    /// What is on its way to it. Locked briefly, and always before the outbox.
    pub inbox: Mutex<Inbox>,
    /// What it may ask by itself. Locked briefly, and never with another.
    pub budget: Mutex<Budget>,
    /// What is under way while its next frames are read.
    pipeline: Pipeline,
    /// Set for a while if it came back.
    resumption: Mutex<Option<Box<Resumption>>>,
    /// Until when an earlier socket of it was there, if it came back.
    heard_until: OnceLock<Timestamp>,
    /// Where its socket comes from, once its connection has said so.
    client: OnceLock<IpAddr>,
    /// Set while the confirmations have it in their list.
    pub(crate) is_in_confirmations: AtomicBool,
    /// By this machine's clock: others compare it with theirs.
    last_heard: AtomicI64,
    /// What is measured here is measured from here, whatever the clock does.
    started: Instant,
    /// Milliseconds from `started`.
    heard_ms: AtomicI64,
    /// Whether its socket is being read: else its silence is ours.
    listens: AtomicBool,
}

/// Who a session is, as its hello has proven.
pub struct Identity {
    /// The session's mesh.
    pub mesh: MeshId,
    /// The session's member.
    pub member: MemberId,
    /// The member's key.
    pub member_key: Key,
    /// The session's own key, if it has one.
    pub session_key: Option<Key>,
    /// What kind of connection it is.
    pub role: PeerRole,
    /// Whether it only visits.
    pub visitor: bool,
    /// Whether it opens messages to many that are sealed.
    pub opens_sealed: bool,
}

impl Session {
    /// An active session that nobody knows yet.
    #[must_use]
    pub fn new(
        identity: Identity,
        lease: LeaseRef,
        codec: Codec,
        outbox: Outbox,
        inbox: Inbox,
        budget: Budget,
    ) -> Self {
        let Identity { mesh, member, member_key, session_key, role, visitor, opens_sealed } =
            identity;
        Self {
            presence: lease.presence.clone(),
            mesh,
            member,
            member_key,
            session_key,
            role,
            visitor,
            opens_sealed,
            lease,
            codec,
            outbox,
            inbox: Mutex::new(inbox),
            budget: Mutex::new(budget),
            pipeline: Pipeline::default(),
            resumption: Mutex::default(),
            heard_until: OnceLock::new(),
            client: OnceLock::new(),
            is_in_confirmations: AtomicBool::new(false),
            last_heard: AtomicI64::new(Timestamp::now().as_ms()),
            started: Instant::now(),
            heard_ms: AtomicI64::new(0),
            listens: AtomicBool::new(true),
        }
    }

    /// The key under which others answer it: whose secret seals what it sends.
    #[must_use]
    pub fn sender_key(&self) -> &Key {
        self.session_key.as_ref().unwrap_or(&self.member_key)
    }

    /// Notes the client address of the session's socket.
    pub fn comes_from(&self, client: IpAddr) {
        let _ = self.client.set(client);
    }

    /// Whether its socket is open and comes from that client address.
    #[must_use]
    pub fn is_open_from(&self, client: IpAddr) -> bool {
        self.outbox.is_open() && self.client.get() == Some(&client)
    }

    /// It came back, maybe from a node that died; what it sent through that one
    /// may be on nobody's way until `until`.
    /// `heard_until`: its earlier socket was there until then.
    pub fn resume(&self, until: Instant, heard_until: Timestamp) {
        let _ = self.heard_until.set(heard_until);
        *self.resumption.lock() = Some(Box::new(Resumption::new(until)));
    }

    /// Whether the peer may have had a message on an earlier socket that was accepted then.
    #[must_use]
    pub fn may_have_had(&self, accepted_at: Timestamp) -> bool {
        self.heard_until.get().is_some_and(|until| accepted_at <= *until)
    }

    /// Whether the recipients of its message must read the store before they
    /// take it: its first to `key`, or to many, since it came back.
    #[must_use]
    pub fn is_first_since_resumed(&self, key: Option<&Key>) -> bool {
        let mut slot = self.resumption.lock();
        let Some(resumption) = slot.as_deref_mut() else { return false };
        if resumption.is_over(Instant::now()) {
            *slot = None;
            return false;
        }
        match key {
            Some(key) => resumption.is_first_to(key),
            None => resumption.is_first_to_many(),
        }
    }

    /// Charges it for a frame that cannot be refused; how long it has to wait for
    /// its next one.
    pub fn charge(&self, cost: u32) -> Option<Duration> {
        let now_ms = self.age_ms();
        let mut budget = self.budget.lock();
        budget.charge(now_ms, cost);
        budget.owes(now_ms)
    }

    /// Milliseconds since this socket became a session.
    #[must_use]
    pub fn age_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// The peer said something, or answered a ping.
    pub fn heard(&self) {
        self.last_heard.store(Timestamp::now().as_ms(), Ordering::Relaxed);
        self.heard_ms.store(self.age_ms(), Ordering::Relaxed);
    }

    /// The peer took some of what waited for it: it is alive, however far it is
    /// behind the pings that wait there too.
    pub fn took(&self) {
        self.heard_ms.store(self.age_ms(), Ordering::Relaxed);
    }

    /// Its socket is read from now on, or is not: a request is being handled.
    /// What the peer says meanwhile is heard later, and counts from then.
    pub fn listens(&self, listens: bool) {
        if listens {
            self.heard_ms.store(self.age_ms(), Ordering::Relaxed);
        }
        self.listens.store(listens, Ordering::Release);
    }

    /// For how many milliseconds nothing came while the socket was read.
    #[must_use]
    pub fn silent_ms(&self) -> i64 {
        if !self.listens.load(Ordering::Acquire) {
            return 0;
        }
        self.age_ms() - self.heard_ms.load(Ordering::Relaxed)
    }

    /// When that was last.
    #[must_use]
    pub fn last_heard(&self) -> Timestamp {
        Timestamp::from_ms(self.last_heard.load(Ordering::Relaxed))
    }

    /// A live delivery: writes it, or lets it wait as the inbox decides.
    pub fn offer(&self, delivery: &Delivery) -> bool {
        let mut inbox = self.inbox.lock();
        // Queued under the inbox's lock: the order that it decided is the
        // order on the wire.
        inbox.offer(delivery) == Offer::Send && self.queue(&mut inbox, delivery) == Queued::Yes
    }

    /// A delivery that a drain found; `false` if there is no room for it.
    pub fn offer_drained(&self, delivery: &Delivery) -> bool {
        let mut inbox = self.inbox.lock();
        inbox.drained(delivery) != Offer::Send || self.queue(&mut inbox, delivery) != Queued::Full
    }

    /// What the next round of a drain asks for. `None`: there is no room for
    /// what it would find, and the session stalls until [`wants_drain`] says so.
    ///
    /// [`wants_drain`]: Self::wants_drain
    #[must_use]
    pub fn plan_drain(&self) -> Option<DrainPlan> {
        let mut inbox = self.inbox.lock();
        // Under the inbox's lock, as `written` is: one of the two sees what the
        // other has done.
        if self.outbox.has_room() {
            return Some(inbox.plan_drain());
        }
        inbox.stall_drain();
        None
    }

    /// Ends a drain's round; `true` if the drain is over.
    pub fn end_drain(&self, found_all: bool) -> bool {
        let mut inbox = self.inbox.lock();
        inbox.end_drain(found_all, |delivery| self.push(delivery) != Queued::Full)
    }

    /// Whether it is stalled and could take more: a drain would help.
    #[must_use]
    pub fn wants_drain(&self) -> bool {
        self.inbox.lock().wants_drain() && self.outbox.has_room()
    }

    /// Frames have left for the peer.
    pub fn written(&self, frames: &VecDeque<Outgoing>) -> Written {
        let now_ms = self.age_ms();
        let mut written = Written::default();
        let mut inbox = self.inbox.lock();
        for frame in frames {
            let is_done = match &frame.content {
                Content::Direct(id) => inbox.wrote_direct(id, now_ms),
                Content::Multicast(seq) => inbox.wrote_multicast(*seq, now_ms),
                Content::Answer | Content::Event(_) | Content::Relayed => continue,
            };
            written.deliveries += 1;
            written.is_done |= is_done;
        }
        self.outbox.written(frames);
        written.wants_drain = inbox.wants_drain() && self.outbox.has_room();
        written
    }

    fn queue(&self, inbox: &mut Inbox, delivery: &Delivery) -> Queued {
        let queued = self.push(delivery);
        if queued == Queued::Full {
            inbox.take_back(delivery);
        }
        queued
    }

    fn push(&self, delivery: &Delivery) -> Queued {
        let content = match delivery.route {
            Route::Direct => Content::Direct(delivery.id.clone()),
            Route::Multicast(seq) => Content::Multicast(seq),
        };
        let bytes = delivery.frame.bytes(self.codec);
        match self.outbox.push(Outgoing { bytes, content }) {
            Ok(()) => {
                tracing::debug!(
                    name: milestone::DELIVERED,
                    message_id = %delivery.id, mesh = %self.mesh, presence = %self.presence,
                    "message delivered"
                );
                Queued::Yes
            }
            Err(PushError::Closed) => Queued::Closed,
            Err(PushError::Full) => Queued::Full,
        }
    }
}

/// What became of a delivery that was to be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queued {
    Yes,
    /// The message stays in the store, for a drain when there is room.
    Full,
    /// The message stays in the store, for the next socket.
    Closed,
}

/// What frames that were written mean for their session.
#[derive(Default)]
pub struct Written {
    /// How many of them were messages.
    pub deliveries: u64,
    /// Whether the peer is done with any.
    pub is_done: bool,
    /// Whether there is room for what a stalled session has missed.
    pub wants_drain: bool,
}
