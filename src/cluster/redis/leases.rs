//! Calls to the lease scripts: arguments in, answers out.
//!
//! The keys are those of `books.lua`; each script's header says what it takes
//! and returns.

mod restore;

use std::collections::BTreeSet;
use std::sync::Arc;

use redis::{Cmd, RedisError, RedisResult, Script, Value};

use super::clock::SharedClock;
use super::keys::Keys;
use super::link::Link;
use super::rows::{Found, Row, by_mesh, encode, ended};
use super::scripts::{self, Scripts};
use super::seals::Seals;
use crate::clock::Timestamp;
use crate::cluster::books::LeaseTimes;
use crate::cluster::{Acquired, HeldLease, LeaseRef, LeaseView, Release};
use crate::id::{MeshId, PresenceId};
use crate::record::PresenceRecord;

/// Records of one call that adopts or restores. More: another call.
const RECORDS_PER_CALL_MAX: usize = 256;

/// Calls of one round trip. More: another one.
const CALLS_PER_BATCH_MAX: usize = 256;

/// Meshes that one reaping looks into. More: the next one does.
const MESHES_PER_REAP_MAX: usize = 256;

/// How much earlier a mesh is looked at than it is due by this node's clock,
/// which lags behind the server's. The script decides by the server's.
const DUE_SLACK_MS: u64 = 100;

/// The books in Redis.
pub(super) struct Leases {
    pub(super) link: Arc<Link>,
    pub(super) keys: Keys,
    pub(super) seals: Arc<Seals>,
    pub(super) scripts: Scripts,
    pub(super) times: LeaseTimes,
    pub(super) clock: SharedClock,
}

/// An answer with the number of leases that the mesh then had.
pub(super) struct Counted<T> {
    pub(super) answer: T,
    pub(super) count: u32,
}

/// What became of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Released {
    Held,
    /// Somebody else has it, or it has ended.
    NotHeld,
    /// The books have never heard of it: they were lost.
    Unknown,
}

/// What became of a batch of renewals, by position in the batch.
#[derive(Default)]
pub(super) struct Renewed {
    pub(super) replaced: Vec<usize>,
    pub(super) ended: Vec<usize>,
    /// Leases of each mesh.
    pub(super) counts: Vec<(MeshId, u32)>,
    /// Where Redis had forgotten leases, which are written again.
    pub(super) restored: BTreeSet<MeshId>,
}

impl Leases {
    /// A session whose entry leads to what no node wrote for it begins anew: its
    /// entry is not believed, and taken out.
    pub(super) async fn acquire(
        &self,
        record: &PresenceRecord,
        cap: u32,
        epoch_min: u64,
    ) -> RedisResult<Counted<Acquired>> {
        if let Some(acquired) = self.try_acquire(record, cap, epoch_min).await? {
            return Ok(acquired);
        }
        let mut forget = redis::cmd("HDEL");
        forget.arg(self.keys.sessions(&record.mesh)).arg(record.identity().as_str());
        self.link.query::<Value>(&forget).await?;
        self.try_acquire(record, cap, epoch_min).await?.ok_or_else(not_believed)
    }

    /// `None`: it reattached to a presence that is not the session's.
    async fn try_acquire(
        &self,
        record: &PresenceRecord,
        cap: u32,
        epoch_min: u64,
    ) -> RedisResult<Option<Counted<Acquired>>> {
        let mesh = &record.mesh;
        let mut call = self.call(&self.scripts.acquire, mesh);
        call.arg(record.id.as_str()).arg(record.identity().as_str()).arg(&record.node);
        call.arg(encode(&self.seals, &record.id, record)).arg(cap).arg(epoch_min);
        type Reply = (String, String, u64, u32, u64, u64, u64, Vec<Row>);
        let reply: Reply = self.link.query(&call).await?;
        let (outcome, presence, epoch, count, retry_after_ms, now, due, rows) = reply;
        self.clock.see(now);
        self.note_due(mesh, due).await;
        let lease = LeaseRef { mesh: mesh.clone(), presence: presence.into(), epoch };
        let answer = match outcome.as_str() {
            "new" => {
                Acquired::New { lease, yielded: self.records(mesh, rows).map(ended).collect() }
            }
            "reattached" => {
                let found = rows.into_iter().next().map(|row| row.read(&self.seals, mesh));
                let record = match found.unwrap_or(Found::Unsigned) {
                    Found::Record(found) if found.identity() == record.identity() => found,
                    Found::Record(_) => {
                        self.seals.refuse("session");
                        return Ok(None);
                    }
                    Found::Unsigned => return Ok(None),
                    // The session's own words stand in for it.
                    Found::OfALaterRelease => Box::new(PresenceRecord {
                        id: lease.presence.clone(),
                        epoch,
                        online: true,
                        ..record.clone()
                    }),
                };
                Acquired::Reattached { lease, record }
            }
            _ => Acquired::AtCapacity { current: count, retry_after_ms },
        };
        Ok(Some(Counted { answer, count }))
    }

    /// Those of the rows that a node of this cluster has written.
    fn records<'a>(
        &'a self,
        mesh: &'a MeshId,
        rows: Vec<Row>,
    ) -> impl Iterator<Item = PresenceRecord> + 'a {
        rows.into_iter().filter_map(|row| row.into_record(&self.seals, mesh))
    }

    /// Renews in one round trip, and in a second restores what was missing and
    /// has not been let go meanwhile.
    pub(super) async fn renew(
        &self,
        held: &[HeldLease],
        has_let_go: impl Fn(&LeaseRef) -> bool + Send,
    ) -> RedisResult<Renewed> {
        let mut renewed = Renewed::default();
        let all: Vec<usize> = (0..held.len()).collect();
        let mut missing = self.renew_batch(held, &all, false, &mut renewed).await?;
        missing.retain(|index| !has_let_go(&held[*index].lease));
        if !missing.is_empty() {
            renewed.counts.clear();
            renewed.restored.extend(missing.iter().map(|index| held[*index].lease.mesh.clone()));
            self.renew_batch(held, &missing, true, &mut renewed).await?;
        }
        Ok(renewed)
    }

    async fn renew_batch(
        &self,
        held: &[HeldLease],
        which: &[usize],
        with_records: bool,
        renewed: &mut Renewed,
    ) -> RedisResult<Vec<usize>> {
        let per_call = if with_records { RECORDS_PER_CALL_MAX } else { usize::MAX };
        let batches = by_mesh(which, per_call, |index| &held[index].lease.mesh);
        let calls = batches.iter().map(|(mesh, indexes)| {
            let mut call = self.call(&self.scripts.renew, mesh);
            call.arg(&held[indexes[0]].record.node);
            for index in indexes {
                let HeldLease { lease, record } = &held[*index];
                call.arg(lease.presence.as_str()).arg(lease.epoch);
                if with_records {
                    call.arg(record.identity().as_str());
                    call.arg(encode(&self.seals, &lease.presence, record));
                } else {
                    call.arg("").arg("");
                }
            }
            call
        });
        type Reply = (u32, u64, u64, Vec<usize>, Vec<usize>, Vec<usize>);
        let replies: Vec<Reply> = self.link.query_all(calls.collect()).await?;
        let mut all_missing = Vec::new();
        let mut dues = Vec::new();
        for ((mesh, indexes), reply) in batches.into_iter().zip(replies) {
            let (count, now, due, missing, replaced, ended) = reply;
            let at = |position: &usize| indexes.get(*position).copied();
            all_missing.extend(missing.iter().filter_map(at));
            renewed.replaced.extend(replaced.iter().filter_map(at));
            renewed.ended.extend(ended.iter().filter_map(at));
            self.clock.see(now);
            dues.push((mesh.clone(), due));
            renewed.counts.push((mesh, count));
        }
        self.note_dues(&dues).await;
        Ok(all_missing)
    }

    pub(super) async fn release(
        &self,
        lease: &LeaseRef,
        how: Release,
    ) -> RedisResult<Counted<Released>> {
        let call = self.release_call(lease, how);
        let (answer, count, now, due): (i32, u32, u64, u64) = self.link.query(&call).await?;
        self.clock.see(now);
        self.note_due(&lease.mesh, due).await;
        let answer = match answer {
            1 => Released::Held,
            0 => Released::NotHeld,
            _ => Released::Unknown,
        };
        Ok(Counted { answer, count })
    }

    fn release_call(&self, lease: &LeaseRef, how: Release) -> Cmd {
        let how = match how {
            Release::Grace => "grace",
            Release::Now => "now",
        };
        let mut call = self.call(&self.scripts.release, &lease.mesh);
        call.arg(lease.presence.as_str()).arg(lease.epoch).arg(how);
        call
    }

    /// Returns the number of leases that the last one's mesh then had.
    pub(super) async fn revoke(&self, ended: &[(MeshId, PresenceId)]) -> RedisResult<u32> {
        let mut last_count = 0;
        for ended in ended.chunks(CALLS_PER_BATCH_MAX) {
            let calls = ended.iter().map(|(mesh, presence)| {
                let mut call = self.call(&self.scripts.revoke, mesh);
                call.arg(presence.as_str());
                call
            });
            let replies: Vec<(u32, u64, u64)> = self.link.query_all(calls.collect()).await?;
            last_count = replies.last().map_or(0, |reply| reply.0);
            let dues = ended.iter().zip(replies).map(|((mesh, _), reply)| (mesh.clone(), reply.2));
            self.note_dues(&dues.collect::<Vec<_>>()).await;
        }
        Ok(last_count)
    }

    pub(super) async fn reap(&self, limit: usize) -> RedisResult<Vec<PresenceRecord>> {
        let mut due = redis::cmd("ZRANGEBYSCORE");
        due.arg(self.keys.due()).arg("-inf").arg(self.clock.now_ms() + DUE_SLACK_MS);
        due.arg("LIMIT").arg(0).arg(MESHES_PER_REAP_MAX);
        let meshes: Vec<String> = self.link.query(&due).await?;
        let mut reaped = Vec::new();
        for mesh in meshes.into_iter().map(MeshId::from) {
            if reaped.len() >= limit {
                break;
            }
            // What was taken out before a failure must still be handed out.
            let rows = match self.reap_mesh(&mesh, limit - reaped.len()).await {
                Ok(rows) => rows,
                Err(error) if reaped.is_empty() => return Err(error),
                Err(_) => break,
            };
            reaped.extend(self.records(&mesh, rows).map(ended));
        }
        Ok(reaped)
    }

    async fn reap_mesh(&self, mesh: &MeshId, limit: usize) -> RedisResult<Vec<Row>> {
        // Taken before the script: what others note from then on stays.
        self.take_due(mesh).await?;
        let mut call = self.call(&self.scripts.reap, mesh);
        call.arg(limit);
        type Reply = (u32, u64, u64, Vec<Row>);
        let reply: RedisResult<Reply> = self.link.query(&call).await;
        let due = reply.as_ref().map_or(self.clock.now_ms(), |reply| reply.2);
        self.note_due(mesh, due).await;
        let (_, now, _, rows) = reply?;
        self.clock.see(now);
        Ok(rows)
    }

    pub(super) async fn directory(
        &self,
        mesh: &MeshId,
    ) -> RedisResult<Counted<Vec<PresenceRecord>>> {
        let call = self.call(&self.scripts.directory, mesh);
        let (count, rows): (u32, Vec<Row>) = self.link.query(&call).await?;
        Ok(Counted { answer: self.records(mesh, rows).collect(), count })
    }

    /// Every lease of the mesh as it stands.
    pub(super) async fn views(&self, mesh: &MeshId) -> RedisResult<Vec<LeaseView>> {
        let call = self.call(&self.scripts.leases, mesh);
        let (now, rows, expiries): (u64, Vec<Row>, Vec<i64>) = self.link.query(&call).await?;
        self.clock.see(now);
        let views = rows.into_iter().zip(expiries).filter_map(|(row, expires_ms)| {
            let state = row.state();
            let expires_at = Timestamp::from_ms(expires_ms);
            row.into_record(&self.seals, mesh).map(|record| LeaseView { record, state, expires_at })
        });
        Ok(views.collect())
    }

    /// A call of a script on the mesh's books.
    pub(super) fn call(&self, script: &Script, mesh: &MeshId) -> Cmd {
        let mut call = scripts::call(script, &self.keys.books(mesh));
        call.arg(self.times.grace_ms).arg(self.times.ttl_ms).arg(mesh.as_str());
        call
    }

    async fn note_due(&self, mesh: &MeshId, due_ms: u64) {
        if self.keys.is_cluster() {
            self.note_dues(&[(mesh.clone(), due_ms)]).await;
        }
    }

    /// In a Redis Cluster the index of meshes cannot be written by the scripts.
    /// It only ever moves an entry earlier here, until a reaping takes it out;
    /// one that is lost is written again by the next renewal.
    async fn note_dues(&self, dues: &[(MeshId, u64)]) {
        let dues: Vec<_> = dues.iter().filter(|(_, due_ms)| *due_ms > 0).collect();
        if !self.keys.is_cluster() || dues.is_empty() {
            return;
        }
        let mut add = redis::cmd("ZADD");
        add.arg(self.keys.due()).arg("LT");
        for (mesh, due_ms) in dues {
            add.arg(*due_ms).arg(mesh.as_str());
        }
        if let Err(error) = self.link.query::<Value>(&add).await {
            tracing::debug!(%error, "the index of meshes waits for the next renewal");
        }
    }

    async fn take_due(&self, mesh: &MeshId) -> RedisResult<()> {
        if !self.keys.is_cluster() {
            return Ok(());
        }
        let mut take = redis::cmd("ZREM");
        take.arg(self.keys.due()).arg(mesh.as_str());
        self.link.query::<Value>(&take).await.map(|_| ())
    }
}

/// What Redis says of a session leads elsewhere twice: it is not asked again.
fn not_believed() -> RedisError {
    RedisError::from(std::io::Error::new(
        std::io::ErrorKind::InvalidData,
        "Redis leads the session to what no node wrote for it",
    ))
}
