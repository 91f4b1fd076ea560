//! What a node does by itself while Redis is away.
//!
//! It keeps books of its own leases all the time, in the same form as the
//! single cluster. While Redis is there they only follow. While it is away they
//! decide: a newcomer is admitted if this node holds less than its share of the
//! cap, or if the free places that the mesh last had, split among the nodes,
//! are not used up. Their leases are written to Redis when it is back.
//!
//! Bounded by the sockets of this node, and by those bounds that the parts have
//! of their own.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cluster::books::buckets::Buckets;
use crate::cluster::books::once::Digests;
use crate::cluster::books::pending::PendingStatuses;
use crate::cluster::books::{LeaseTimes, Line, MeshBooks, Renewal};
use crate::cluster::{Acquired, HeldLease, LeaseRef, LeaseView, Release};
use crate::id::{MeshId, PresenceId};
use crate::record::PresenceRecord;

/// How far provisional epochs are ahead of the shared clock: a call that timed
/// out may have run, and must not win against what was done instead.
const EPOCH_LEAD_MS: u64 = 10_000;

/// Presences that ended here while Redis was away, to be ended there. More:
/// the rest expires by itself.
const ENDED_MAX: usize = 4096;

/// This node's own books.
#[derive(Debug)]
pub struct Fallback {
    times: LeaseTimes,
    state: Mutex<State>,
}

/// Another node that knows the same.
impl Clone for Fallback {
    fn clone(&self) -> Self {
        Self { times: self.times, state: Mutex::new(self.state.lock().clone()) }
    }
}

/// What a node knows of one mesh by itself: for whoever checks it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Knowledge {
    /// The node's own leases.
    pub lines: Vec<Line>,
    /// Leases of the whole mesh when Redis last said, and this node's then.
    pub seen: Option<(u32, u32)>,
    /// Presences that Redis is to be told of as ended.
    pub ended: Vec<Ended>,
}

#[derive(Clone, Debug, Default)]
struct State {
    meshes: HashMap<MeshId, OwnMesh>,
    ended: Vec<Ended>,
    digests: Digests,
    buckets: Buckets,
    pending: PendingStatuses,
}

#[derive(Clone, Debug, Default)]
struct OwnMesh {
    books: MeshBooks,
    /// Leases of the whole mesh when Redis last said, and this node's then.
    seen: Option<(u32, u32)>,
    /// Leases that this node gave by itself and Redis does not have: their
    /// epochs.
    given: HashMap<PresenceId, u64>,
}

impl OwnMesh {
    fn own(&self) -> u32 {
        u32::try_from(self.books.len()).unwrap_or(u32::MAX)
    }

    /// How many leases of the mesh this node may hold by its own decision.
    fn share(&self, cap: u32, nodes: u32) -> u32 {
        let even = cap / nodes;
        let (total, own) = self.seen.unwrap_or((0, 0));
        let with_free_places = own + cap.saturating_sub(total) / nodes;
        even.max(with_free_places).max(1)
    }
}

/// A presence that ended here while Redis was away.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// This holding of it. Its session may have come back elsewhere: a newer
    /// holding stays.
    Holding(LeaseRef),
    /// Whoever holds it.
    Presence(MeshId, PresenceId),
}

impl Ended {
    fn mesh(&self) -> &MeshId {
        match self {
            Self::Holding(lease) => &lease.mesh,
            Self::Presence(mesh, _) => mesh,
        }
    }
}

/// What to write to Redis when it is back.
#[derive(Debug)]
pub struct Reseed {
    /// Leases of open sockets.
    pub open: Vec<HeldLease>,
    /// Presences whose grace began here.
    pub in_grace: Vec<PresenceRecord>,
    /// Presences that ended here.
    pub ended: Vec<Ended>,
}

impl Fallback {
    /// A node that knows of no mesh.
    #[must_use]
    pub fn new(times: LeaseTimes) -> Self {
        Self { times, state: Mutex::default() }
    }

    // ---- Redis is there: follow ----

    // Answers may come late and in another order than they were given: what a
    // newer holding changed here stays.

    /// A lease that Redis has given.
    pub fn follow(&self, now_ms: u64, held: &HeldLease) {
        self.with_mesh(&held.lease.mesh, |mesh, times| {
            if !mesh.books.has_newer(&held.lease) {
                mesh.given.remove(&held.lease.presence);
                mesh.books.put(now_ms, times, held);
            }
        });
    }

    /// A lease that Redis has renewed. One that was let go meanwhile stays so.
    pub fn follow_renewal(&self, now_ms: u64, held: &HeldLease) {
        self.with_mesh(&held.lease.mesh, |mesh, times| {
            let books = &mut mesh.books;
            if !books.has_let_go(now_ms, &held.lease) && !books.has_newer(&held.lease) {
                mesh.given.remove(&held.lease.presence);
                books.put(now_ms, times, held);
            }
        });
    }

    /// A presence that Redis has ended, whoever held it. A renewal that is under
    /// way does not bring it back.
    pub fn follow_revocation(&self, now_ms: u64, mesh: &MeshId, presence: &PresenceId) {
        self.with_mesh(mesh, |mesh, _| {
            mesh.given.remove(presence);
            mesh.books.revoke(now_ms, presence);
        });
    }

    /// Whether this node gave the lease by itself, and Redis does not have it.
    #[must_use]
    pub fn gave(&self, lease: &LeaseRef) -> bool {
        let state = self.state.lock();
        let mesh = state.meshes.get(&lease.mesh);
        mesh.is_some_and(|mesh| mesh.given.get(&lease.presence) == Some(&lease.epoch))
    }

    /// Redis has been told of these.
    pub(super) fn note_written(&self, held: &[HeldLease]) {
        for HeldLease { lease, .. } in held {
            self.with_mesh(&lease.mesh, |mesh, _| {
                if mesh.given.get(&lease.presence) == Some(&lease.epoch) {
                    mesh.given.remove(&lease.presence);
                }
            });
        }
    }

    /// What an acquiring of this session must exceed: an epoch given here may
    /// not have reached Redis yet.
    #[must_use]
    pub fn epoch_of(&self, record: &PresenceRecord) -> u64 {
        let state = self.state.lock();
        let mesh = state.meshes.get(&record.mesh);
        mesh.and_then(|mesh| mesh.books.epoch_of(&record.identity())).unwrap_or(0)
    }

    /// The record of a lease that this node holds or has in grace.
    #[must_use]
    pub fn record_of(&self, lease: &LeaseRef) -> Option<PresenceRecord> {
        let state = self.state.lock();
        state.meshes.get(&lease.mesh)?.books.record_of(lease)
    }

    /// Whether this node has released the lease, however Redis has it.
    #[must_use]
    pub fn has_let_go(&self, now_ms: u64, lease: &LeaseRef) -> bool {
        let state = self.state.lock();
        let mesh = state.meshes.get(&lease.mesh);
        mesh.is_some_and(|mesh| mesh.books.has_let_go(now_ms, lease))
    }

    /// A lease that is no longer this node's.
    pub fn forget(&self, lease: &LeaseRef) {
        self.with_mesh(&lease.mesh, |mesh, _| {
            if !mesh.books.has_newer(lease) {
                mesh.given.remove(&lease.presence);
                mesh.books.forget(&lease.presence);
            }
        });
    }

    /// How many leases the mesh has.
    pub fn see_count(&self, mesh: &MeshId, count: u32) {
        self.with_mesh(mesh, |mesh, _| mesh.seen = Some((count, mesh.own())));
    }

    // ---- Either way ----

    /// Lets go of a lease; whether this node held it.
    pub fn release(&self, now_ms: u64, lease: &LeaseRef, how: Release) -> bool {
        self.with_mesh(&lease.mesh, |mesh, times| {
            let held = mesh.books.release(now_ms, times, lease, how);
            if held {
                mesh.given.remove(&lease.presence);
            }
            held
        })
    }

    /// Replaces the record of a lease, if it is held here; whether it is.
    pub fn write_record(&self, lease: &LeaseRef, record: &PresenceRecord) -> bool {
        self.with_mesh(&lease.mesh, |mesh, _| mesh.books.write_record(lease, record))
    }

    // ---- Redis is away: decide ----

    /// Enters a mesh by this node's own decision, within its share.
    pub fn acquire(&self, now_ms: u64, record: &PresenceRecord, cap: u32, nodes: u32) -> Acquired {
        let epoch = record.epoch.max(now_ms + EPOCH_LEAD_MS);
        let record = PresenceRecord { epoch, ..record.clone() };
        let acquired = self.with_mesh(&record.mesh, |mesh, times| {
            let share = mesh.share(cap, nodes.max(1));
            let acquired = mesh.books.acquire(now_ms, times, &record, share);
            if let Acquired::New { lease, .. } | Acquired::Reattached { lease, .. } = &acquired {
                mesh.given.insert(lease.presence.clone(), lease.epoch);
            }
            if let Acquired::New { yielded, .. } = &acquired {
                for record in yielded {
                    mesh.given.remove(&record.id);
                }
            }
            acquired
        });
        if let Acquired::New { yielded, .. } = &acquired {
            yielded.iter().for_each(|record| self.note_ended(Ended::Holding(lease_of(record))));
        }
        acquired
    }

    /// Renews a lease in these books alone.
    pub fn renew(&self, now_ms: u64, held: &HeldLease) -> Renewal {
        self.with_mesh(&held.lease.mesh, |mesh, times| mesh.books.renew(now_ms, times, held))
    }

    /// Ends a presence whoever holds it.
    pub fn revoke(&self, now_ms: u64, mesh: &MeshId, presence: &PresenceId) {
        self.with_mesh(mesh, |mesh, _| {
            mesh.given.remove(presence);
            mesh.books.revoke(now_ms, presence);
        });
        self.note_ended(Ended::Presence(mesh.clone(), presence.clone()));
    }

    /// A lease that this node has let go of for good while Redis did not answer.
    pub(super) fn note_release(&self, lease: &LeaseRef) {
        self.note_ended(Ended::Holding(lease.clone()));
    }

    /// Those whose grace is over. While Redis is there the answer means
    /// nothing: it hands them out itself.
    pub fn reap(&self, now_ms: u64, limit: usize, is_up: bool) -> Vec<PresenceRecord> {
        let mut reaped = Vec::new();
        {
            let mut state = self.state.lock();
            for mesh in state.meshes.values_mut() {
                let ended = mesh.books.reap(now_ms, self.times, limit - reaped.len());
                for record in &ended {
                    mesh.given.remove(&record.id);
                }
                reaped.extend(ended);
            }
            state.meshes.retain(|_, mesh| !mesh.books.is_empty());
        }
        if !is_up {
            reaped.iter().for_each(|record| self.note_ended(Ended::Holding(lease_of(record))));
        }
        reaped
    }

    /// Every presence of the mesh that this node holds or has in grace.
    #[must_use]
    pub fn directory(&self, mesh: &MeshId) -> Vec<PresenceRecord> {
        let state = self.state.lock();
        state.meshes.get(mesh).map(|mesh| mesh.books.directory()).unwrap_or_default()
    }

    pub(super) fn leases(&self, mesh: &MeshId) -> Vec<LeaseView> {
        let state = self.state.lock();
        state.meshes.get(mesh).map(|mesh| mesh.books.views()).unwrap_or_default()
    }

    /// What this node knows of the mesh.
    #[must_use]
    pub fn knowledge(&self, mesh: &MeshId) -> Knowledge {
        let state = self.state.lock();
        let (lines, seen) = match state.meshes.get(mesh) {
            Some(own) => (own.books.lines(), own.seen),
            None => (Vec::new(), None),
        };
        let of_mesh = state.ended.iter().filter(|ended| ended.mesh() == mesh);
        Knowledge { lines, seen, ended: of_mesh.cloned().collect() }
    }

    /// Takes the presences that Redis is to be told of as ended.
    pub(super) fn take_ended(&self) -> Vec<Ended> {
        std::mem::take(&mut self.state.lock().ended)
    }

    /// Takes what must be written to Redis.
    #[must_use]
    pub fn take_reseed(&self) -> Reseed {
        let mut state = self.state.lock();
        let ended = std::mem::take(&mut state.ended);
        let records = state.meshes.values().flat_map(|mesh| mesh.books.directory());
        let (open, in_grace): (Vec<_>, Vec<_>) = records.partition(|record| record.online);
        let open = open
            .into_iter()
            .map(|record| HeldLease { lease: lease_of(&record), record: Arc::new(record) });
        Reseed { open: open.collect(), in_grace, ended }
    }

    /// Keeps ends that could not be told yet, to be told later.
    pub fn put_back_ended(&self, ended: &[Ended]) {
        ended.iter().for_each(|presence| self.note_ended(presence.clone()));
    }

    pub(super) fn with_extras<T>(
        &self,
        call: impl FnOnce(&mut Digests, &mut Buckets, &mut PendingStatuses) -> T,
    ) -> T {
        let State { digests, buckets, pending, .. } = &mut *self.state.lock();
        call(digests, buckets, pending)
    }

    fn note_ended(&self, ended: Ended) {
        let mut state = self.state.lock();
        if state.ended.len() < ENDED_MAX {
            state.ended.push(ended);
        }
    }

    fn with_mesh<T>(&self, id: &MeshId, call: impl FnOnce(&mut OwnMesh, LeaseTimes) -> T) -> T {
        let mut state = self.state.lock();
        let answer = match state.meshes.get_mut(id) {
            Some(mesh) => call(mesh, self.times),
            None => call(state.meshes.entry(id.clone()).or_default(), self.times),
        };
        if cfg!(debug_assertions)
            && let Some(mesh) = state.meshes.get(id)
        {
            mesh.books.check_invariants();
        }
        answer
    }
}

/// The holding that a record in the books stands for.
pub(super) fn lease_of(record: &PresenceRecord) -> LeaseRef {
    LeaseRef { mesh: record.mesh.clone(), presence: record.id.clone(), epoch: record.epoch }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_admits_its_share_and_its_part_of_the_free_places() {
        let share = |seen, cap, nodes| OwnMesh { seen, ..OwnMesh::default() }.share(cap, nodes);
        assert_eq!(share(None, 100, 1), 100);
        assert_eq!(share(Some((100, 60)), 100, 3), 60, "what it has it keeps");
        assert_eq!(share(Some((70, 60)), 100, 3), 70, "and a third of what is free");
        assert_eq!(share(Some((70, 0)), 100, 3), 33);
        assert_eq!(share(Some((2, 0)), 2, 3), 1, "never none");
    }
}
