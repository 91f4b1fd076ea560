//! A cluster of one: everything in this process's memory.
//!
//! It keeps the same rules as the shared state does, expiry of leases
//! included: a node that stood still for longer than its leases finds the
//! sessions in grace, not gone. What is lost with the process is what the
//! store can give back ([`Cluster::adopt`]).

mod digest_file;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use self::digest_file::DigestFile;
use super::books::buckets::Buckets;
use super::books::once::Digests;
use super::books::pending::PendingStatuses;
use super::books::{LeaseTimes, MeshBooks, Renewal, close_ended};
use super::clock::MonotonicClock;
use super::{
    Acquired, BusMessage, ClockChange, ClockTurn, Cluster, ClusterEvent, ClusterEvents,
    ClusterHealth, Draw, Drawn, HeldLease, LeaseRef, LeaseView, NodeRecord, PresenceRecord,
    Release, Result, SimClock,
};
use crate::id::{MeshId, NodeId, PresenceId};
use crate::protocol::Status;

/// Events that wait for the node. The only ones are requests to close sockets
/// whose presence has ended; one that does not fit is sent at the next renewal.
const EVENTS_MAX: usize = 1024;

/// What used hellos are kept in, beside the database.
const DIGEST_FILE: &str = "hellos.used";

/// The cluster of one node.
#[derive(Debug)]
pub struct SingleCluster {
    times: LeaseTimes,
    clock: MonotonicClock,
    state: Mutex<State>,
    events: mpsc::Sender<ClusterEvent>,
}

#[derive(Debug, Default)]
struct State {
    meshes: HashMap<MeshId, MeshBooks>,
    digests: Digests,
    /// Where the digests outlive the process, if they do.
    digest_file: Option<DigestFile>,
    buckets: Buckets,
    pending: PendingStatuses,
    /// What nodes said, each until it is forgotten. There is one of them, so
    /// this needs no bound.
    nodes: BTreeMap<NodeId, (u64, NodeRecord)>,
}

impl SingleCluster {
    /// An empty cluster of this node, and the channel of its events.
    #[must_use]
    pub fn new(times: LeaseTimes) -> (Arc<Self>, ClusterEvents) {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let clock = MonotonicClock::start();
        let cluster = Self { times, clock, state: Mutex::default(), events };
        (Arc::new(cluster), receiver)
    }

    /// As [`Self::new`], with the used hellos of an earlier life, which are kept in
    /// that folder. Without the file it is as a new one: hellos go before.
    #[must_use]
    pub fn remembering(times: LeaseTimes, folder: &Path) -> (Arc<Self>, ClusterEvents) {
        let (cluster, events) = Self::new(times);
        {
            let mut state = cluster.state.lock();
            let State { digests, digest_file, .. } = &mut *state;
            match DigestFile::open(&folder.join(DIGEST_FILE), cluster.clock.now_ms(), digests) {
                Ok(file) => *digest_file = Some(file),
                Err(error) => {
                    tracing::warn!(%error, "used hellos are not kept over a restart");
                }
            }
        }
        (cluster, events)
    }

    /// Panics if the indexes of any mesh disagree.
    pub fn check_invariants(&self) {
        self.state.lock().meshes.values().for_each(MeshBooks::check_invariants);
    }

    /// Runs `change` on a mesh's books, and drops them once they say nothing.
    fn with_books<T>(&self, mesh: &MeshId, change: impl FnOnce(&mut MeshBooks, u64) -> T) -> T {
        let now = self.clock.now_ms();
        let mut state = self.state.lock();
        let books = match state.meshes.get_mut(mesh) {
            Some(books) => books,
            None => state.meshes.entry(mesh.clone()).or_default(),
        };
        let answer = change(books, now);
        if cfg!(debug_assertions) {
            books.check_invariants();
        }
        if books.is_empty() {
            state.meshes.remove(mesh);
        }
        answer
    }

    fn directory_of(&self, mesh: &MeshId) -> Vec<PresenceRecord> {
        let state = self.state.lock();
        state.meshes.get(mesh).map(MeshBooks::directory).unwrap_or_default()
    }
}

#[async_trait]
impl Cluster for SingleCluster {
    async fn acquire(&self, record: &PresenceRecord, cap: u32) -> Result<Acquired> {
        Ok(self.with_books(&record.mesh, |books, now| books.acquire(now, self.times, record, cap)))
    }

    async fn renew(&self, held: &[HeldLease]) -> Result<Vec<LeaseRef>> {
        let mut replaced = Vec::new();
        for held in held {
            let mesh = &held.lease.mesh;
            match self.with_books(mesh, |books, now| books.renew(now, self.times, held)) {
                Renewal::Held => {}
                Renewal::Replaced => replaced.push(held.lease.clone()),
                Renewal::Ended => {
                    let _ = self.events.try_send(close_ended(&held.lease));
                }
            }
        }
        Ok(replaced)
    }

    async fn release(&self, lease: &LeaseRef, how: Release) -> Result<bool> {
        Ok(self.with_books(&lease.mesh, |books, now| books.release(now, self.times, lease, how)))
    }

    async fn revoke(&self, mesh: &MeshId, presence: &PresenceId) -> Result<()> {
        self.with_books(mesh, |books, now| books.revoke(now, presence));
        Ok(())
    }

    async fn reap(&self, limit: usize) -> Result<Vec<PresenceRecord>> {
        let now = self.clock.now_ms();
        let mut state = self.state.lock();
        let mut ended = Vec::new();
        for books in state.meshes.values_mut() {
            ended.extend(books.reap(now, self.times, limit - ended.len()));
            if cfg!(debug_assertions) {
                books.check_invariants();
            }
        }
        state.meshes.retain(|_, books| !books.is_empty());
        Ok(ended)
    }

    async fn adopt(&self, records: &[PresenceRecord]) -> Result<()> {
        for record in records {
            self.with_books(&record.mesh, |books, now| books.adopt(now, self.times, record));
        }
        Ok(())
    }

    async fn write_record(&self, lease: &LeaseRef, record: &PresenceRecord) -> Result<bool> {
        Ok(self.with_books(&lease.mesh, |books, _| books.write_record(lease, record)))
    }

    async fn join_mesh(&self, mesh: &MeshId) -> Result<Vec<PresenceRecord>> {
        Ok(self.directory_of(mesh))
    }

    async fn directory(&self, mesh: &MeshId) -> Result<Vec<PresenceRecord>> {
        Ok(self.directory_of(mesh))
    }

    async fn leave_mesh(&self, _mesh: &MeshId) {}

    fn publish(&self, _mesh: &MeshId, _message: &BusMessage) {}

    async fn use_once(&self, digest: &[u8; 32], ttl_ms: u64) -> Result<bool> {
        let now_ms = self.clock.now_ms();
        let mut state = self.state.lock();
        let State { digests, digest_file, .. } = &mut *state;
        let is_first = digests.use_once(now_ms, digest, ttl_ms);
        if let (true, Some(file)) = (is_first, digest_file) {
            // A few bytes into the system's cache: cheaper than handing them on.
            file.keep(digest, now_ms + ttl_ms, digests);
        }
        Ok(is_first)
    }

    async fn take_tokens(&self, owner: &str, draws: &[Draw]) -> Result<Vec<Drawn>> {
        let now = self.clock.now_ms();
        Ok(self.state.lock().buckets.draw_all(now, owner, draws))
    }

    async fn put_pending_status(&self, pid: i32, cwd: &str, status: Status) -> Result<()> {
        self.state.lock().pending.put(self.clock.now_ms(), pid, cwd, status);
        Ok(())
    }

    async fn take_pending_status(&self, pid: i32, cwd: &str) -> Result<Option<Status>> {
        Ok(self.state.lock().pending.take(self.clock.now_ms(), pid, cwd))
    }

    async fn announce_node(&self, record: &NodeRecord, ttl_ms: u64) -> Result<()> {
        let until = self.clock.now_ms() + ttl_ms;
        self.state.lock().nodes.insert(record.id.clone(), (until, record.clone()));
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>> {
        let now = self.clock.now_ms();
        let mut state = self.state.lock();
        state.nodes.retain(|_, (until, _)| *until > now);
        Ok(state.nodes.values().map(|(_, record)| record.clone()).collect())
    }

    async fn nodes_heard(&self) -> Result<BTreeSet<NodeId>> {
        Ok(self.nodes().await?.into_iter().map(|record| record.id).collect())
    }

    async fn change_clock(&self, mesh: &MeshId, change: ClockChange) -> Result<Option<SimClock>> {
        Ok(self.with_books(mesh, |books, now| books.change_clock(now, change)))
    }

    async fn clocks(&self, meshes: &[MeshId]) -> Result<Vec<Option<SimClock>>> {
        let state = self.state.lock();
        let clock = |mesh| state.meshes.get(mesh).and_then(MeshBooks::sim_clock);
        Ok(meshes.iter().map(clock).collect())
    }

    async fn tick_clocks(&self, known: &[(MeshId, SimClock)]) -> Result<Vec<ClockTurn>> {
        let turn = |(mesh, known): &(MeshId, SimClock)| {
            self.with_books(mesh, |books, now| books.tick_clock(now, known))
        };
        Ok(known.iter().map(turn).collect())
    }

    async fn leases(&self, mesh: &MeshId) -> Result<Vec<LeaseView>> {
        let state = self.state.lock();
        Ok(state.meshes.get(mesh).map(MeshBooks::views).unwrap_or_default())
    }

    fn bus_lag(&self) -> Option<Duration> {
        None
    }

    fn health(&self) -> ClusterHealth {
        ClusterHealth::Single
    }

    async fn close(&self) {}
}
