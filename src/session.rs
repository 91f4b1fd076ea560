//! One session: a socket that said who it is.
//!
//! [`handshake`] turns a hello into a session, [`teardown`] ends it; between
//! them it is *active*, and everybody who delivers to it holds an
//! `Arc<Session>`.

pub mod handshake;
pub mod inbox;
pub mod resumption;
pub mod teardown;

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::cluster::LeaseRef;
use crate::codec::Codec;
use crate::id::{Key, MemberId, MeshId, PresenceId};
use crate::outbox::{Outbox, Outgoing, PushError, Receipt};
use crate::protocol::{CloseReason, PeerRole};
use crate::rates::Budget;

use self::inbox::{Delivery, Inbox, Offer, Place};
use self::resumption::Resumption;

/// An active session.
pub struct Session {
    /// Its presence.
    pub presence: PresenceId,
    /// Its mesh.
    pub mesh: MeshId,
    /// Its member.
    pub member: MemberId,
    /// The member's key.
    pub member_key: Key,
    /// Its own key, if it has one.
    pub session_key: Option<Key>,
    /// What kind of connection it is.
    pub role: PeerRole,
    /// Whether it only visits.
    pub visitor: bool,
    /// Its lease, under this socket's epoch.
    pub lease: LeaseRef,
    /// How its messages are coded.
    pub codec: Codec,
    /// Its send queue.
    pub outbox: Outbox,
    /// What is on its way to it. Locked briefly, and always before the outbox.
    pub inbox: Mutex<Inbox>,
    /// What it may ask by itself. Locked briefly, and never with another.
    pub budget: Mutex<Budget>,
    /// Set for a while if it came back.
    resumption: Mutex<Option<Box<Resumption>>>,
    /// Where its socket comes from, once its connection has said so.
    client: OnceLock<IpAddr>,
    /// Set while the ledger has it in its list.
    pub(crate) in_ledger: AtomicBool,
    /// By this machine's clock: others compare it with theirs.
    last_heard: AtomicI64,
    /// What is measured here is measured from here, whatever the clock does.
    started: Instant,
    /// Milliseconds from `started`.
    heard_ms: AtomicI64,
}

impl Session {
    /// The key under which others answer it: whose secret seals what it sends.
    #[must_use]
    pub fn sender_key(&self) -> &Key {
        self.session_key.as_ref().unwrap_or(&self.member_key)
    }

    /// Its socket comes from that client address.
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
    pub fn resume(&self, until: Instant) {
        *self.resumption.lock() = Some(Box::new(Resumption::new(until)));
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

    /// Milliseconds since then.
    #[must_use]
    pub fn silent_ms(&self) -> i64 {
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
        inbox.offer(delivery, self.age_ms()) == Offer::Send && self.queue(delivery)
    }

    /// A delivery that a drain found.
    pub fn offer_drained(&self, delivery: &Delivery) -> bool {
        let mut inbox = self.inbox.lock();
        inbox.drained(delivery, self.age_ms()) == Offer::Send && self.queue(delivery)
    }

    /// Ends a drain's round; `true` if the drain is over.
    pub fn end_drain(&self, found_all: bool) -> bool {
        let mut inbox = self.inbox.lock();
        let Some(gated) = inbox.end_drain(found_all, self.age_ms()) else { return false };
        for delivery in &gated {
            self.queue(delivery);
        }
        true
    }

    fn queue(&self, delivery: &Delivery) -> bool {
        let receipt = match delivery.place {
            Place::Direct => Receipt::Direct(delivery.id.clone()),
            Place::Multicast(seq) => Receipt::Multicast(seq),
        };
        let bytes = delivery.frame.bytes(self.codec);
        match self.outbox.push(Outgoing { bytes, receipt: Some(receipt) }) {
            Ok(()) => {
                tracing::debug!(
                    message_id = %delivery.id, mesh = %self.mesh, presence = %self.presence,
                    "message delivered"
                );
                true
            }
            Err(PushError::Closed) => false,
            Err(PushError::Full) => {
                // It stays in the store and comes again on the next socket.
                self.outbox.abort(CloseReason::SLOW_READER);
                false
            }
        }
    }
}
