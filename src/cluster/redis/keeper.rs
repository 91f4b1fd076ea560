//! Background work: is Redis there, who else is, and what to do when it comes
//! back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{Cmd, RedisResult};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::bus::Bus;
use super::fallback::{Ended, Fallback, Reseed};
use super::leases::Leases;
use super::{members, scripts};
use crate::cluster::LeaseRef;
use crate::id::MeshId;

/// Between two signs of life of this node, which are also how it learns that
/// Redis is away while nothing else asks.
const SIGN_INTERVAL: Duration = Duration::from_secs(2);

/// How long a node counts as there after its last sign.
const NODE_LIFE_MS: u64 = 30_000;

/// Between two readings of who else is in the joined meshes.
const MEMBERS_INTERVAL: Duration = Duration::from_secs(10);

/// How long a node counts as being in a mesh after it last said so.
const MEMBER_LIFE_MS: u64 = 40_000;

/// Between two beats of the bus.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Meshes whose nodes are read in one round trip.
const MESHES_PER_READING_MAX: usize = 256;

/// Looks after the cluster's shared state for one node.
pub(super) struct Keeper {
    pub(super) leases: Arc<Leases>,
    pub(super) fallback: Arc<Fallback>,
    pub(super) bus: Arc<Bus>,
    /// Nodes that gave a sign lately, this one included.
    pub(super) nodes: AtomicU32,
    /// Nodes that sign otherwise, or were never there.
    pub(super) strangers: AtomicU32,
    /// The link has a new connection.
    pub(super) link_is_up: Notify,
    /// Redis is there and has what this node holds: for whoever waits for its
    /// start.
    pub(super) ready: Notify,
}

impl Keeper {
    /// Works until `stop`.
    pub(super) async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.beat() => {}
            () = self.watch() => {}
        }
    }

    async fn beat(&self) {
        let mut tick = tokio::time::interval(BEAT_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.bus.beat();
        }
    }

    async fn watch(&self) {
        let mut tick = tokio::time::interval(SIGN_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None;
        let mut read_at: Option<Instant> = None;
        loop {
            let rejoin = tokio::select! {
                _ = tick.tick() => false,
                () = self.link_is_up.notified() => false,
                () = self.bus.rejoin.notified() => true,
            };
            let is_back = match self.look_after(&mut told).await {
                Ok(is_back) => is_back,
                Err(error) => {
                    tracing::debug!(%error, "Redis is away");
                    told = None;
                    continue;
                }
            };
            let rejoin = rejoin || is_back;
            if rejoin || read_at.is_none_or(|at| at.elapsed() >= MEMBERS_INTERVAL) {
                read_at = match self.read_members(&self.bus.joined(), rejoin).await {
                    Ok(()) => Some(Instant::now()),
                    Err(error) => {
                        tracing::debug!(%error, "the nodes of the meshes are read later");
                        None
                    }
                };
            }
        }
    }

    /// Gives a sign of life, and tells Redis what this node holds if that has
    /// not happened on this connection (`told`) or an error came between; says
    /// whether it did. What ended in a call that failed after that is told too.
    async fn look_after(&self, told: &mut Option<u64>) -> RedisResult<bool> {
        self.give_sign().await?;
        let (generation, _) = self.leases.link.connection()?;
        if *told == Some(generation) {
            self.end(&self.fallback.take_ended()).await?;
            return Ok(false);
        }
        self.reseed().await?;
        *told = Some(generation);
        self.ready.notify_one();
        Ok(true)
    }

    /// Says that this node is there, and counts those who are.
    async fn give_sign(&self) -> RedisResult<()> {
        let key = self.leases.keys.nodes();
        let members: Vec<String> =
            self.leases.link.query(&self.members_call(&key, NODE_LIFE_MS)).await?;
        self.leases.link.note_write();
        let (nodes, strangers) = members::read(&self.leases.seals, &key, &members);
        let nodes = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        self.nodes.store(nodes.max(1), Ordering::Relaxed);
        if self.strangers.swap(strangers, Ordering::Relaxed) == 0 && strangers > 0 {
            tracing::error!(
                strangers,
                "nodes here sign otherwise and are not heard: see that all have the same \
                 CLUSTER_SECRET"
            );
        }
        Ok(())
    }

    /// Says that this node is in these meshes, and reads who else is.
    pub(super) async fn read_members(&self, meshes: &[MeshId], announce: bool) -> RedisResult<()> {
        for meshes in meshes.chunks(MESHES_PER_READING_MAX) {
            let keys = meshes.iter().map(|mesh| self.leases.keys.mesh_nodes(mesh));
            let keys: Vec<_> = keys.collect();
            let calls = keys.iter().map(|key| self.members_call(key, MEMBER_LIFE_MS));
            let members: Vec<Vec<String>> = self.leases.link.query_all(calls.collect()).await?;
            for ((mesh, key), members) in meshes.iter().zip(&keys).zip(members) {
                let (nodes, _) = members::read(&self.leases.seals, key, &members);
                self.bus.see_members(mesh, nodes);
                if announce {
                    self.bus.announce(mesh);
                }
            }
        }
        Ok(())
    }

    /// Says that this node is no longer in these meshes.
    pub(super) async fn leave(&self, meshes: &[MeshId]) {
        let calls = meshes.iter().map(|mesh| {
            let key = self.leases.keys.mesh_nodes(mesh);
            let mut remove = redis::cmd("ZREM");
            remove.arg(&key).arg(members::write(&self.leases.seals, &key, self.bus.origin()));
            remove
        });
        if let Err(error) = self.leases.link.query_all::<u32>(calls.collect()).await {
            tracing::debug!(%error, "the meshes' sets of nodes forget this one later");
        }
    }

    /// Redis is back, perhaps empty: writes what this node holds, and has every
    /// mesh looked at again.
    async fn reseed(&self) -> RedisResult<()> {
        let reseed = self.fallback.take_reseed();
        let Reseed { open, in_grace, ended } = &reseed;
        self.end(ended).await?;
        let has_let_go =
            |lease: &LeaseRef| self.fallback.has_let_go(self.leases.clock.now_ms(), lease);
        let renewed = self.leases.renew(open, has_let_go).await?;
        for lost in renewed.replaced.iter().chain(&renewed.ended) {
            self.fallback.forget(&open[*lost].lease);
        }
        self.fallback.note_written(open);
        let records = open.iter().map(|held| (&held.lease, held.record.as_ref()));
        self.leases.write_records(records).await?;
        self.leases.put_in_grace(in_grace).await?;
        let restored = renewed.restored.into_iter();
        let restored = restored.chain(in_grace.iter().map(|record| record.mesh.clone()));
        restored.collect::<BTreeSet<_>>().iter().for_each(|mesh| self.bus.note_untold(mesh));
        let (open, in_grace, ended) = (open.len(), in_grace.len(), ended.len());
        tracing::info!(open, in_grace, ended, "Redis has this node's leases");
        self.bus.note_gap_everywhere();
        Ok(())
    }

    /// Has what ended without Redis ended there, or keeps it for later.
    async fn end(&self, ended: &[Ended]) -> RedisResult<()> {
        let result = self.leases.end(ended).await;
        if result.is_err() {
            self.fallback.put_back_ended(ended);
        }
        result
    }

    fn members_call(&self, key: &str, life_ms: u64) -> Cmd {
        let mut call = scripts::call(&self.leases.scripts.members, &[key.to_owned()]);
        call.arg(members::write(&self.leases.seals, key, self.bus.origin())).arg(life_ms);
        call
    }
}
