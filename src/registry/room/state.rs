//! What a room lets in: who may be there under which name, and whose a session key
//! is. Decided under the room's lock, so that two that come at once meet.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::directory::Entry;
use super::super::reading::Heard;
use super::{Candidate, Caught, Change, State};
use crate::id::{MeshId, PresenceId};
use crate::record::PresenceRecord;

impl State {
    /// Whether the members allow that a presence of that record exists: not under
    /// a member's name with another's key. One whose member is not known may have
    /// just joined.
    pub(super) fn fits(&self, mesh: &MeshId, record: &PresenceRecord) -> bool {
        let member = self.members.get(&record.member);
        record.mesh == *mesh && member.is_none_or(|member| member.key == record.member_key)
    }

    pub(super) fn forget_misfits(&mut self, mesh: &MeshId) {
        let misfits = self.directory.entries().filter(|entry| entry.session.is_none());
        let misfits = misfits.filter(|entry| !self.fits(mesh, &entry.record));
        let misfits: Vec<PresenceId> = misfits.map(|entry| entry.record.id.clone()).collect();
        for presence in &misfits {
            self.directory.remove(presence);
        }
    }

    /// Whether it merely names a session key, in a plain `hello`, that is another
    /// member's: its own key, or one that a session of that member has proven.
    pub(super) fn claims_anothers_key(&self, record: &PresenceRecord) -> bool {
        let Some(key) = record.claimed_key() else { return false };
        let of_member = self.member_by_key.get(key).is_some_and(|id| *id != record.member);
        of_member
            || self.directory.addressed_by(key.as_str()).any(|entry| {
                entry.record.member != record.member && entry.record.proven_key() == Some(key)
            })
    }

    /// It has proven its session key: other members' claims of that key leave.
    pub(super) fn end_claims(&mut self, record: &PresenceRecord) -> Vec<Candidate> {
        let Some(key) = record.proven_key() else { return Vec::new() };
        let claims = self.directory.addressed_by(key.as_str()).filter(|entry| {
            entry.record.member != record.member && entry.record.claimed_key() == Some(key)
        });
        let claims: Vec<Candidate> = claims.map(Candidate::from).collect();
        for claim in &claims {
            self.readings.note(&claim.record.id, Heard::Ended);
            self.directory.remove(&claim.record.id);
        }
        claims
    }

    pub(super) fn take_over(
        &mut self,
        mesh: &MeshId,
        reading: u64,
        mut records: Vec<PresenceRecord>,
    ) -> Caught {
        records.retain(|record| self.fits(mesh, record));
        let Self { directory, readings, .. } = self;
        if !readings.take(reading) {
            return Caught::default();
        }
        let heard = |presence: &PresenceId| readings.heard_since(reading, presence);
        let stale = |entry: &&Entry| entry.session.is_none() && heard(&entry.record.id).is_none();
        let mut stale: HashMap<PresenceId, Arc<PresenceRecord>> = directory
            .entries()
            .filter(stale)
            .map(|entry| (entry.record.id.clone(), Arc::clone(&entry.record)))
            .collect();
        for presence in stale.keys() {
            directory.remove(presence);
        }
        let mut hosts = Vec::new();
        for record in records {
            let known = match (directory.get(&record.id), heard(&record.id)) {
                (Some(here), _) if here.session.is_some() => continue,
                (None, Some(Heard::Ended)) => continue,
                (Some(known), _) => Some(Arc::clone(&known.record)),
                (None, Some(Heard::Is(heard))) => Some(Arc::clone(heard)),
                (None, None) => None,
            };
            let is_newer = known.as_ref().is_some_and(|known| known.epoch >= record.epoch);
            if let (true, Some(known)) = (is_newer, &known) {
                directory.put(Arc::clone(known), None);
                continue;
            }
            let (was, is) = (stale.remove(&record.id).or(known), Arc::new(record));
            let hosts_or_did = was.iter().chain([&is]).any(|host| !host.mcp_servers.is_empty());
            directory.put(Arc::clone(&is), None);
            hosts.extend(hosts_or_did.then_some(Change { was, is }));
        }
        let proven = directory.entries().filter(|entry| entry.record.proven_key().is_some());
        let proven: Vec<_> = proven.map(|entry| Arc::clone(&entry.record)).collect();
        let claims = proven.iter().flat_map(|record| self.end_claims(record));
        let claims = claims.filter(|claim| claim.session.is_some()).collect();
        Caught { claims, hosts }
    }
}
