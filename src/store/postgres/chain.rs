//! The audit chain: what is appended, and reading it.
//!
//! The functions `mesh.broker_append_v2` and its callers take the lock of each
//! chain ([`chain_lock_key`]), read where it ends and append, all in one round
//! trip: a chain cannot fork, and no lock is held while a node thinks.

use std::borrow::Cow;

use crate::audit::{AuditEvent, chain_lock_key};
use crate::id::{MemberId, MeshId};
use crate::store::postgres::row::{clean_json, clean_optional};

/// Rows to append, as the parameters of one statement: an array per column.
#[derive(Default)]
pub(in crate::store) struct Entries<'a> {
    pub(in crate::store) mesh: Vec<&'a str>,
    pub(in crate::store) actor: Vec<Option<&'a str>>,
    pub(in crate::store) name: Vec<Option<Cow<'a, str>>>,
    pub(in crate::store) event: Vec<&'static str>,
    pub(in crate::store) payload: Vec<String>,
}

impl<'a> Entries<'a> {
    pub(in crate::store) fn push(
        &mut self,
        mesh: &'a MeshId,
        actor: Option<&'a MemberId>,
        actor_name: Option<&'a str>,
        event: &AuditEvent,
    ) {
        self.mesh.push(mesh.as_str());
        self.actor.push(actor.map(MemberId::as_str));
        self.name.push(clean_optional(actor_name));
        self.event.push(event.event_type());
        self.payload.push(clean_json(&event.canonical_payload()).into_owned());
    }

    /// The locks of the chains, in the order in which everybody takes them.
    pub(in crate::store) fn locks(&self) -> Vec<i64> {
        locks(self.mesh.iter().copied())
    }
}

/// The locks of these meshes' chains, in the order in which everybody takes
/// them.
pub(in crate::store) fn locks<'a>(meshes: impl IntoIterator<Item = &'a str>) -> Vec<i64> {
    let mut meshes: Vec<&str> = meshes.into_iter().collect();
    meshes.sort_unstable();
    meshes.dedup();
    let mut locks: Vec<i64> = meshes.into_iter().map(chain_lock_key).collect();
    locks.sort_unstable();
    locks.dedup();
    locks
}
