//! Telling Redis what it does not know, or knows otherwise: what a node holds, what
//! it let go and what ended while Redis was away, and what the store still lists.

use redis::RedisResult;

use super::{CALLS_PER_BATCH_MAX, Leases, RECORDS_PER_CALL_MAX};
use crate::cluster::redis::fallback::{Ended, lease_of};
use crate::cluster::redis::rows::{by_mesh, encode};
use crate::cluster::{LeaseRef, Release};
use crate::record::PresenceRecord;

impl Leases {
    /// Puts presences into grace that this node let go and Redis may not know
    /// of.
    pub(in crate::cluster::redis) async fn put_in_grace(
        &self,
        records: &[PresenceRecord],
    ) -> RedisResult<()> {
        self.adopt(records, true).await?;
        for records in records.chunks(CALLS_PER_BATCH_MAX) {
            let leases: Vec<_> = records.iter().map(lease_of).collect();
            let calls = leases.iter().map(|lease| self.release_call(lease, Release::Grace));
            let replies: Vec<(i32, u32, u64, u64)> = self.link.query_all(calls.collect()).await?;
            let dues = leases.into_iter().zip(replies).map(|(lease, reply)| (lease.mesh, reply.3));
            self.note_dues(&dues.collect::<Vec<_>>()).await;
        }
        Ok(())
    }

    /// Ends what ended on this node while Redis was away.
    pub(in crate::cluster::redis) async fn end(&self, ended: &[Ended]) -> RedisResult<()> {
        let mut presences = Vec::new();
        let mut leases = Vec::new();
        for ended in ended {
            match ended {
                Ended::Holding(lease) => leases.push(lease),
                Ended::Presence(mesh, presence) => presences.push((mesh.clone(), presence.clone())),
            }
        }
        self.revoke(&presences).await?;
        for leases in leases.chunks(CALLS_PER_BATCH_MAX) {
            let calls = leases.iter().map(|lease| self.release_call(lease, Release::Now));
            let replies: Vec<(i32, u32, u64, u64)> = self.link.query_all(calls.collect()).await?;
            let dues =
                leases.iter().zip(replies).map(|(lease, reply)| (lease.mesh.clone(), reply.3));
            self.note_dues(&dues.collect::<Vec<_>>()).await;
        }
        Ok(())
    }

    /// `leave_out_ended`: those of which the books know that they ended stay so.
    pub(in crate::cluster::redis) async fn adopt(
        &self,
        records: &[PresenceRecord],
        leave_out_ended: bool,
    ) -> RedisResult<()> {
        let all: Vec<usize> = (0..records.len()).collect();
        let batches = by_mesh(&all, RECORDS_PER_CALL_MAX, |index| &records[index].mesh);
        let calls = batches.iter().map(|(mesh, indexes)| {
            let mut call = self.call(&self.scripts.adopt, mesh);
            call.arg(i32::from(leave_out_ended));
            for record in indexes.iter().map(|index| &records[*index]) {
                call.arg(record.id.as_str()).arg(record.epoch).arg(record.identity().as_str());
                call.arg(&record.node).arg(encode(&self.seals, &record.id, record));
            }
            call
        });
        let replies: Vec<(u32, u64, u64)> = self.link.query_all(calls.collect()).await?;
        let dues = batches.into_iter().zip(replies).map(|((mesh, _), reply)| (mesh, reply.2));
        self.note_dues(&dues.collect::<Vec<_>>()).await;
        Ok(())
    }

    /// Returns of how many the lease is held.
    pub(in crate::cluster::redis) async fn write_records<'a>(
        &self,
        records: impl IntoIterator<Item = (&'a LeaseRef, &'a PresenceRecord)> + Send,
    ) -> RedisResult<u32> {
        let calls = records.into_iter().map(|(lease, record)| {
            let mut call = self.call(&self.scripts.write_record, &lease.mesh);
            call.arg(lease.presence.as_str()).arg(lease.epoch);
            call.arg(encode(&self.seals, &lease.presence, record));
            call
        });
        let mut calls: Vec<_> = calls.collect();
        let mut written = 0;
        while !calls.is_empty() {
            let rest = calls.split_off(calls.len().min(CALLS_PER_BATCH_MAX));
            let replies: Vec<u32> =
                self.link.query_all(std::mem::replace(&mut calls, rest)).await?;
            written += replies.iter().sum::<u32>();
        }
        Ok(written)
    }
}
