//! The books of one mesh: pure, with the instant as a parameter.
//!
//! A lease is in one of three states. `Online` expires by `ttl_ms` unless
//! renewed. `Released` (its socket closed) and `Lost` (its node went silent)
//! are grace: they expire by `grace_ms`, keep their place until somebody else
//! needs it, and differ in that only a lost one can be renewed back.
//!
//! ```text
//!          acquire                release
//!   (none) -------> Online ------------------> Released
//!     ^             ^    | expired, reap          |
//!     |             |    v                        | expired (reap), or
//!     |       renew '-- Lost                      | place needed (acquire)
//!     '------------------'------------------------'
//! ```
//!
//! An ended presence leaves a tombstone, so that a node which slept through
//! its end cannot bring it back.

mod clockwork;

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use self::clockwork::Clockwork;
use super::LeaseTimes;
use super::tombstones::{End, Tombstones};
use crate::clock::Timestamp;
use crate::cluster::{Acquired, HeldLease, LeaseRef, LeaseState, LeaseView, Release};
use crate::id::PresenceId;
use crate::record::{PresenceRecord, SessionIdentity};

/// What became of an attempt to renew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Held, or restored.
    Held,
    /// Another holder has it, or it was revoked.
    Replaced,
    /// The presence ended meanwhile: its peers were told that it left.
    Ended,
}

/// What the books say of one presence: for whoever checks them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The presence.
    pub presence: PresenceId,
    /// Which holding of its lease this is.
    pub epoch: u64,
    /// How the lease stands.
    pub state: LeaseState,
    /// Until when it stands so, unless somebody acts.
    pub expires_ms: u64,
    /// Whether its session would come back to it.
    pub is_indexed: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    /// Shared with the directory as long as both say the same.
    record: Arc<PresenceRecord>,
    identity: SessionIdentity,
    epoch: u64,
    state: LeaseState,
    expires_ms: u64,
}

/// Every lease of one mesh, with its indexes.
#[derive(Clone, Debug, Default)]
pub struct MeshBooks {
    leases: HashMap<PresenceId, Entry>,
    sessions: HashMap<SessionIdentity, PresenceId>,
    online: BTreeSet<(u64, PresenceId)>,
    grace: BTreeSet<(u64, PresenceId)>,
    ended: Tombstones,
    clockwork: Option<Clockwork>,
}

impl MeshBooks {
    /// See [`Cluster::acquire`](crate::cluster::Cluster::acquire).
    ///
    /// Expired leases count until they are reaped or yield, so the number of
    /// leases never exceeds the cap, and a session that is still in the books
    /// needs no place to come back.
    pub fn acquire(
        &mut self,
        now_ms: u64,
        times: LeaseTimes,
        record: &PresenceRecord,
        cap: u32,
    ) -> Acquired {
        if let Some(reattached) = self.reattach(now_ms, times, record) {
            return reattached;
        }
        let places_short = (self.leases.len() + 1).saturating_sub(cap as usize);
        let yielding = self.yielding(now_ms, times, places_short);
        if yielding.len() < places_short {
            return self.at_capacity(now_ms, times);
        }
        let yielded =
            yielding.into_iter().filter_map(|presence| self.end(now_ms, &presence)).collect();
        let epoch = now_ms.max(record.epoch + 1);
        self.ended.forget(&record.id);
        self.insert(Arc::new(record.clone()), epoch, LeaseState::Online, now_ms + times.ttl_ms);
        let lease = lease_ref(record, epoch);
        Acquired::New { lease, yielded }
    }

    /// See [`Cluster::renew`](crate::cluster::Cluster::renew).
    pub fn renew(&mut self, now_ms: u64, times: LeaseTimes, held: &HeldLease) -> Renewal {
        let HeldLease { lease, record } = held;
        let expires_ms = now_ms + times.ttl_ms;
        if let Some(entry) = self.leases.get(&lease.presence) {
            let is_indexed = self.sessions.get(&entry.identity) == Some(&lease.presence);
            return match (entry.state, entry.epoch.cmp(&lease.epoch)) {
                (_, Ordering::Greater) => Renewal::Replaced,
                _ if !is_indexed => Renewal::Replaced,
                // The release overtook this renewal.
                (LeaseState::Released, Ordering::Equal) => Renewal::Held,
                _ => {
                    self.move_to(&lease.presence, LeaseState::Online, lease.epoch, expires_ms);
                    if let Some(entry) = self.leases.get_mut(&lease.presence) {
                        set_node(&mut entry.record, &record.node);
                        if entry.record == *record {
                            entry.record = Arc::clone(record);
                        }
                    }
                    Renewal::Held
                }
            };
        }
        match self.ended.get(now_ms, &lease.presence) {
            Some(End::Revoked) => return Renewal::Replaced,
            Some(End::Left) => return Renewal::Ended,
            None => {}
        }
        // Both sides of a split took the session in: the newer one keeps it.
        if let Some(other) = self.sessions.get(&record.identity()).cloned() {
            if self.leases.get(&other).is_some_and(|entry| entry.epoch > lease.epoch) {
                return Renewal::Replaced;
            }
            self.sessions.remove(&record.identity());
            self.move_to(&other, LeaseState::Released, lease.epoch + 1, now_ms);
        }
        self.insert(Arc::clone(record), lease.epoch, LeaseState::Online, expires_ms);
        Renewal::Held
    }

    /// Notes what another book-keeper said of a lease, whatever is known here.
    pub fn put(&mut self, now_ms: u64, times: LeaseTimes, held: &HeldLease) {
        self.ended.forget(&held.lease.presence);
        if self.renew(now_ms, times, held) == Renewal::Replaced {
            self.remove(&held.lease.presence);
            self.renew(now_ms, times, held);
        }
    }

    /// Takes a presence out without a trace.
    pub fn forget(&mut self, presence: &PresenceId) {
        self.remove(presence);
    }

    /// Whether this very holding was released or has ended.
    #[must_use]
    pub fn has_let_go(&self, now_ms: u64, lease: &LeaseRef) -> bool {
        match self.leases.get(&lease.presence) {
            Some(entry) => entry.epoch == lease.epoch && entry.state == LeaseState::Released,
            None => self.ended.get(now_ms, &lease.presence).is_some(),
        }
    }

    /// Whether the presence is held here by a newer holding.
    #[must_use]
    pub fn has_newer(&self, lease: &LeaseRef) -> bool {
        self.leases.get(&lease.presence).is_some_and(|entry| entry.epoch > lease.epoch)
    }

    /// The epoch at which a session is held.
    #[must_use]
    pub fn epoch_of(&self, identity: &SessionIdentity) -> Option<u64> {
        self.leases.get(self.sessions.get(identity)?).map(|entry| entry.epoch)
    }

    /// The record of a lease, if this epoch holds it.
    #[must_use]
    pub fn record_of(&self, lease: &LeaseRef) -> Option<PresenceRecord> {
        self.held(lease).map(|entry| entry.record.as_ref().clone())
    }

    /// The number of leases.
    #[must_use]
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// See [`Cluster::release`](crate::cluster::Cluster::release).
    pub fn release(
        &mut self,
        now_ms: u64,
        times: LeaseTimes,
        lease: &LeaseRef,
        how: Release,
    ) -> bool {
        let Some(entry) = self.held(lease) else { return false };
        match how {
            Release::Now => {
                self.end(now_ms, &lease.presence);
                self.stop_if_deserted(now_ms);
            }
            Release::Grace if entry.state == LeaseState::Released => {}
            Release::Grace => {
                let expires_ms = now_ms + times.grace_ms;
                self.move_to(&lease.presence, LeaseState::Released, lease.epoch, expires_ms);
            }
        }
        true
    }

    /// See [`Cluster::revoke`](crate::cluster::Cluster::revoke).
    pub fn revoke(&mut self, now_ms: u64, presence: &PresenceId) {
        self.remove(presence);
        self.ended.add(now_ms, presence, End::Revoked);
        self.stop_if_deserted(now_ms);
    }

    /// See [`Cluster::reap`](crate::cluster::Cluster::reap). A lease whose node
    /// went silent gets its grace first.
    pub fn reap(&mut self, now_ms: u64, times: LeaseTimes, limit: usize) -> Vec<PresenceRecord> {
        while let Some((expires_ms, presence)) = self.online.first().cloned() {
            if expires_ms > now_ms {
                break;
            }
            let epoch = self.leases.get(&presence).map_or(0, |entry| entry.epoch);
            self.move_to(&presence, LeaseState::Lost, epoch, now_ms + times.grace_ms);
        }
        let expired: Vec<_> = self
            .grace
            .iter()
            .take_while(|(expires_ms, _)| *expires_ms <= now_ms)
            .take(limit)
            .map(|(_, presence)| presence.clone())
            .collect();
        self.ended.expire(now_ms);
        let ended = expired.iter().filter_map(|presence| self.end(now_ms, presence)).collect();
        self.stop_if_deserted(now_ms);
        ended
    }

    /// See [`Cluster::adopt`](crate::cluster::Cluster::adopt).
    pub fn adopt(&mut self, now_ms: u64, times: LeaseTimes, record: &PresenceRecord) {
        let is_known = self.leases.contains_key(&record.id);
        // The session is here under another id: this one is left over. It ends
        // by itself, and is not what the session comes back to.
        let is_left_over = self.sessions.contains_key(&record.identity());
        if !is_known {
            let expires_ms = if is_left_over { now_ms } else { now_ms + times.grace_ms };
            self.insert(Arc::new(record.clone()), record.epoch, LeaseState::Lost, expires_ms);
        }
    }

    /// See [`Cluster::write_record`](crate::cluster::Cluster::write_record). The
    /// node stays the one that holds the lease.
    pub fn write_record(&mut self, lease: &LeaseRef, record: &PresenceRecord) -> bool {
        let Some(entry) = self.leases.get_mut(&lease.presence) else { return false };
        let is_held = entry.epoch == lease.epoch;
        if is_held {
            let node = entry.record.node.clone();
            entry.record = Arc::new(PresenceRecord { node, ..record.clone() });
            stamp(&mut entry.record, entry.epoch, entry.state);
        }
        is_held
    }

    /// Every presence in the books.
    #[must_use]
    pub fn directory(&self) -> Vec<PresenceRecord> {
        self.leases.values().map(|entry| entry.record.as_ref().clone()).collect()
    }

    /// See [`Cluster::leases`](crate::cluster::Cluster::leases).
    #[must_use]
    pub fn views(&self) -> Vec<LeaseView> {
        let views = self.leases.values().map(|entry| LeaseView {
            record: entry.record.as_ref().clone(),
            state: entry.state,
            expires_at: Timestamp::from_ms(entry.expires_ms.cast_signed()),
        });
        views.collect()
    }

    /// Every lease, in the order of the presences' ids.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let mut lines: Vec<_> =
            self.leases.keys().filter_map(|presence| self.line(presence)).collect();
        lines.sort_by(|a, b| a.presence.cmp(&b.presence));
        lines
    }

    /// A presence's lease.
    #[must_use]
    pub fn line(&self, presence: &PresenceId) -> Option<Line> {
        let entry = self.leases.get(presence)?;
        Some(Line {
            presence: presence.clone(),
            epoch: entry.epoch,
            state: entry.state,
            expires_ms: entry.expires_ms,
            is_indexed: self.sessions.get(&entry.identity) == Some(presence),
        })
    }

    /// Whether the presence is remembered as one that ended.
    #[must_use]
    pub fn has_ended(&self, now_ms: u64, presence: &PresenceId) -> bool {
        self.ended.get(now_ms, presence).is_some()
    }

    /// Whether forgetting these books changes nothing but that a clock which stands, in a
    /// mesh that nobody has been in for as long as ends are remembered, goes with them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty() && self.ended.is_empty()
    }

    /// Panics if the indexes disagree.
    pub fn check_invariants(&self) {
        assert_eq!(self.leases.len(), self.online.len() + self.grace.len());
        for (presence, entry) in &self.leases {
            let key = (entry.expires_ms, presence.clone());
            let is_online = entry.state == LeaseState::Online;
            assert_eq!(self.online.contains(&key), is_online, "{presence}");
            assert_eq!(self.grace.contains(&key), !is_online, "{presence}");
            assert_eq!(entry.record.online, is_online, "{presence}");
            assert_eq!(entry.record.epoch, entry.epoch, "{presence}");
            let is_indexed = self.sessions.get(&entry.identity) == Some(presence);
            assert!(is_indexed || !is_online, "{presence} is open and cannot be reattached to");
        }
        for (identity, presence) in &self.sessions {
            let entry = self.leases.get(presence);
            assert!(entry.is_some_and(|entry| entry.identity == *identity), "{presence}");
        }
        self.ended.check_invariants();
    }

    fn reattach(
        &mut self,
        now_ms: u64,
        times: LeaseTimes,
        by: &PresenceRecord,
    ) -> Option<Acquired> {
        let presence = self.sessions.get(&by.identity())?.clone();
        let entry = self.leases.get_mut(&presence)?;
        let epoch = now_ms.max(entry.epoch + 1).max(by.epoch + 1);
        set_node(&mut entry.record, &by.node);
        self.move_to(&presence, LeaseState::Online, epoch, now_ms + times.ttl_ms);
        let record = self.leases.get(&presence)?.record.as_ref().clone();
        Some(Acquired::Reattached { lease: lease_ref(&record, epoch), record: Box::new(record) })
    }

    /// Those that would end first of themselves, among the `wanted` first.
    fn yielding(&self, now_ms: u64, times: LeaseTimes, wanted: usize) -> Vec<PresenceId> {
        let silent = self.online.iter().take_while(|(expires_ms, _)| *expires_ms <= now_ms);
        let silent = silent.map(|(expires_ms, presence)| (expires_ms + times.grace_ms, presence));
        let grace = self.grace.iter().map(|(expires_ms, presence)| (*expires_ms, presence));
        let mut yielding: Vec<_> = silent.take(wanted).chain(grace.take(wanted)).collect();
        yielding.sort();
        yielding.into_iter().take(wanted).map(|(_, presence)| presence.clone()).collect()
    }

    fn at_capacity(&self, now_ms: u64, times: LeaseTimes) -> Acquired {
        let mut live = self.online.iter().skip_while(|(expires_ms, _)| *expires_ms <= now_ms);
        let first_ms = live.next().map_or(now_ms + times.ttl_ms, |(expires_ms, _)| *expires_ms);
        Acquired::AtCapacity {
            current: u32::try_from(self.leases.len()).unwrap_or(u32::MAX),
            retry_after_ms: first_ms - now_ms,
        }
    }

    fn held(&self, lease: &LeaseRef) -> Option<&Entry> {
        self.leases.get(&lease.presence).filter(|entry| entry.epoch == lease.epoch)
    }

    fn insert(
        &mut self,
        mut record: Arc<PresenceRecord>,
        epoch: u64,
        state: LeaseState,
        expires: u64,
    ) {
        let identity = record.identity();
        debug_assert!(!self.leases.contains_key(&record.id), "a presence has one lease");
        stamp(&mut record, epoch, state);
        self.sessions.entry(identity.clone()).or_insert_with(|| record.id.clone());
        self.index_of(state).insert((expires, record.id.clone()));
        let presence = record.id.clone();
        let entry = Entry { record, identity, epoch, state, expires_ms: expires };
        self.leases.insert(presence, entry);
    }

    fn move_to(&mut self, presence: &PresenceId, state: LeaseState, epoch: u64, expires_ms: u64) {
        let Some(entry) = self.leases.get_mut(presence) else { return };
        let (from, from_ms) = (entry.state, entry.expires_ms);
        entry.state = state;
        entry.epoch = epoch;
        entry.expires_ms = expires_ms;
        stamp(&mut entry.record, epoch, state);
        self.index_of(from).remove(&(from_ms, presence.clone()));
        self.index_of(state).insert((expires_ms, presence.clone()));
    }

    fn end(&mut self, now_ms: u64, presence: &PresenceId) -> Option<PresenceRecord> {
        let record = self.remove(presence)?;
        self.ended.add(now_ms, presence, End::Left);
        Some(record)
    }

    fn remove(&mut self, presence: &PresenceId) -> Option<PresenceRecord> {
        let entry = self.leases.remove(presence)?;
        self.index_of(entry.state).remove(&(entry.expires_ms, presence.clone()));
        if self.sessions.get(&entry.identity) == Some(presence) {
            self.sessions.remove(&entry.identity);
        }
        let mut record = Arc::unwrap_or_clone(entry.record);
        record.online = false;
        Some(record)
    }

    fn index_of(&mut self, state: LeaseState) -> &mut BTreeSet<(u64, PresenceId)> {
        match state {
            LeaseState::Online => &mut self.online,
            LeaseState::Released | LeaseState::Lost => &mut self.grace,
        }
    }
}

fn stamp(record: &mut Arc<PresenceRecord>, epoch: u64, state: LeaseState) {
    let online = state == LeaseState::Online;
    if (record.epoch, record.online) != (epoch, online) {
        let record = Arc::make_mut(record);
        (record.epoch, record.online) = (epoch, online);
    }
}

fn set_node(record: &mut Arc<PresenceRecord>, node: &str) {
    if record.node != node {
        node.clone_into(&mut Arc::make_mut(record).node);
    }
}

fn lease_ref(record: &PresenceRecord, epoch: u64) -> LeaseRef {
    LeaseRef { mesh: record.mesh.clone(), presence: record.id.clone(), epoch }
}
