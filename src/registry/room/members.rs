//! Who is a member of the mesh, as the store said last.
//!
//! Reads overtake each other: each has a number, and what a later one found is never
//! undone by an earlier one. Called by whoever reads members: hellos one of them,
//! [`presence::members`](crate::presence::members) all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Room;
use crate::id::MemberId;
use crate::protocol::SealingPolicy;
use crate::store::Member;

impl Room {
    /// A number for a read of the members that begins now.
    #[must_use]
    pub fn begin_refresh(&self) -> u64 {
        self.reads.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Takes over the active members, and what the mesh asks of messages to many, as the
    /// store had them at that read; `false` if a later read came first. What a hello read
    /// later by itself stays.
    pub fn set_members(&self, read: u64, members: Vec<Member>, sealing: SealingPolicy) -> bool {
        let mut members: HashMap<MemberId, Arc<Member>> =
            members.into_iter().map(|member| (member.id.clone(), Arc::new(member))).collect();
        let mut state = self.state.write();
        if read < state.members_read {
            return false;
        }
        state.members_read = read;
        state.sealing = sealing;
        state.read_alone.retain(|_, alone| *alone > read);
        for id in state.read_alone.keys() {
            if let Some(member) = state.members.get(id) {
                members.insert(id.clone(), Arc::clone(member));
            }
        }
        state.member_by_key =
            members.values().map(|member| (member.key.clone(), member.id.clone())).collect();
        state.members = members;
        state.forget_misfits(&self.mesh);
        true
    }

    /// Takes over one member, as a hello found it at that read; `false` if a later
    /// read came first: then what that one said of the member holds, also that it
    /// is none.
    pub fn set_member(&self, read: u64, member: Member) -> bool {
        let mut state = self.state.write();
        let alone = state.read_alone.get(&member.id).copied().unwrap_or(0);
        if read < state.members_read.max(alone) {
            return false;
        }
        state.read_alone.insert(member.id.clone(), read);
        state.member_by_key.insert(member.key.clone(), member.id.clone());
        state.members.insert(member.id.clone(), Arc::new(member));
        true
    }

    /// What the mesh asks of messages to many, as the store said last.
    #[must_use]
    pub fn sealing(&self) -> SealingPolicy {
        self.state.read().sealing
    }

    /// Whether the caller is to find out if records that do not fit the members
    /// do so after all; until [`Self::end_doubt`] nobody else is.
    #[must_use]
    pub fn begin_doubt(&self) -> bool {
        !self.doubts.swap(true, Ordering::AcqRel)
    }

    /// Notes that the reading of members is done.
    pub fn end_doubt(&self) {
        self.doubts.store(false, Ordering::Release);
    }

    /// The active member with that id.
    #[must_use]
    pub fn member(&self, id: &MemberId) -> Option<Arc<Member>> {
        self.state.read().members.get(id).cloned()
    }

    /// The active members, in no order.
    #[must_use]
    pub(crate) fn members(&self) -> Vec<Arc<Member>> {
        self.state.read().members.values().cloned().collect()
    }

    /// The active members of those names, whatever their case; `names` is in lower case.
    #[must_use]
    pub(crate) fn members_named(&self, names: &[String]) -> Vec<MemberId> {
        if names.is_empty() {
            return Vec::new();
        }
        let state = self.state.read();
        let is_named = |member: &&Arc<Member>| names.contains(&member.display_name.to_lowercase());
        state.members.values().filter(is_named).map(|member| member.id.clone()).collect()
    }

    /// The active member with that key.
    #[must_use]
    pub fn member_by_key(&self, key: &str) -> Option<Arc<Member>> {
        let state = self.state.read();
        state.member_by_key.get(key).and_then(|id| state.members.get(id)).cloned()
    }

    /// The active member whose key that is, or one of whose presences it addresses.
    #[must_use]
    pub fn member_behind(&self, key: &str) -> Option<Arc<Member>> {
        let state = self.state.read();
        let of_presence = || state.directory.addressed_by(key).next().map(|it| &it.record.member);
        let id = state.member_by_key.get(key).or_else(of_presence)?;
        state.members.get(id).cloned()
    }
}
