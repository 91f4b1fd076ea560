//! The simulation clocks of all meshes, in Redis.
//!
//! Without Redis there are none: a clock that each node moved by itself would give a
//! tick's number twice. Peers are refused then, and clocks stand until Redis is back.

use std::sync::Arc;

use redis::{Cmd, RedisResult};

use super::leases::Leases;
use crate::clock::Timestamp;
use crate::cluster::sim_clock::TICKER_LEASE_MS;
use crate::cluster::{ClockChange, ClockTurn, SimClock};
use crate::id::MeshId;
use crate::protocol::Speed;

/// Clocks asked for in one round trip. More: another one.
const CLOCKS_PER_BATCH_MAX: usize = 256;

/// This node's part in them.
pub(super) struct SimClocks {
    leases: Arc<Leases>,
    /// This node's text as a ticker.
    origin: String,
}

/// What the script returns: found, speed, paused, tick, started, version, ticked, wait.
type Reply = (u8, String, u8, u64, i64, u64, u8, u64);

impl SimClocks {
    pub(super) fn new(leases: Arc<Leases>, origin: String) -> Self {
        Self { leases, origin }
    }

    pub(super) async fn change(
        &self,
        mesh: &MeshId,
        change: ClockChange,
    ) -> RedisResult<Option<SimClock>> {
        let mut call = self.call(mesh, word_of(change));
        if let ClockChange::Set(speed) = change {
            call.arg(speed.as_f64());
        }
        Ok(clock_of(&self.leases.link.query::<Reply>(&call).await?))
    }

    pub(super) async fn look(&self, meshes: &[MeshId]) -> RedisResult<Vec<Option<SimClock>>> {
        let mut clocks = Vec::with_capacity(meshes.len());
        for meshes in meshes.chunks(CLOCKS_PER_BATCH_MAX) {
            let calls = meshes.iter().map(|mesh| self.call(mesh, "look")).collect();
            let replies: Vec<Reply> = self.leases.link.query_all(calls).await?;
            clocks.extend(replies.iter().map(clock_of));
        }
        Ok(clocks)
    }

    pub(super) async fn tick(&self, known: &[(MeshId, SimClock)]) -> RedisResult<Vec<ClockTurn>> {
        let mut turns = Vec::with_capacity(known.len());
        for known in known.chunks(CLOCKS_PER_BATCH_MAX) {
            let calls = known.iter().map(|(mesh, clock)| {
                let mut call = self.call(mesh, "tick");
                call.arg(&self.origin).arg(TICKER_LEASE_MS);
                call.arg(clock.started_at.as_ms()).arg(clock.tick).arg(clock.version);
                call.arg(clock.speed.as_f64());
                call
            });
            let replies = self.leases.link.query_all::<Reply>(calls.collect()).await;
            let replies = match replies {
                Ok(replies) => replies,
                // What has ticked already is to be told.
                Err(error) if turns.is_empty() => return Err(error),
                Err(_) => break,
            };
            turns.extend(known.iter().zip(&replies).map(|((_, known), reply)| ClockTurn {
                clock: clock_of(reply).unwrap_or(*known),
                has_ticked: reply.6 == 1,
                wait_ms: reply.7,
            }));
        }
        Ok(turns)
    }

    fn call(&self, mesh: &MeshId, what: &str) -> Cmd {
        let mut call = self.leases.call(&self.leases.scripts.sim_clock, mesh);
        call.arg(what);
        call
    }
}

fn word_of(change: ClockChange) -> &'static str {
    match change {
        ClockChange::Set(_) => "set",
        ClockChange::Pause => "pause",
        ClockChange::Resume => "resume",
    }
}

fn clock_of(reply: &Reply) -> Option<SimClock> {
    let (found, speed, paused, tick, started_ms, version, ..) = reply;
    (*found == 1).then(|| SimClock {
        speed: Speed::nearest(speed.parse().unwrap_or_default()),
        is_paused: *paused == 1,
        tick: *tick,
        started_at: Timestamp::from_ms(*started_ms),
        version: *version,
    })
}
