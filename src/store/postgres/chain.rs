//! The audit chain: what is appended, and reading it.
//!
//! The functions `mesh.broker_append_v2` and its callers take the lock of each
//! chain ([`chain_lock_key`]), read where it ends and append, all in one round
//! trip: a chain cannot fork, and no lock is held while a node thinks.

use std::borrow::Cow;

use crate::audit::{AuditEvent, chain_lock_key};
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::store::postgres::row::{clean_json, clean_optional};

/// A statement and its parameters.
pub(in crate::store) type Query<'q> =
    sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// The part `appended` of a statement: appends those of the entries (six parameters:
/// the row that each is about, then the entry) whose row is in `$rows`.
macro_rules! appended_for {
    ($rows:literal, $entries:literal) => {
        concat!(
            "appended as materialized (
                select mesh.broker_append_v2($1, $2, $3, a.mesh, a.actor, a.name, a.event,
                    a.payload, null)
                from (
                    select array_agg(e.mesh order by e.mesh, e.at) as mesh,
                        array_agg(e.actor order by e.mesh, e.at) as actor,
                        array_agg(e.name order by e.mesh, e.at) as name,
                        array_agg(e.event order by e.mesh, e.at) as event,
                        array_agg(e.payload order by e.mesh, e.at) as payload
                    from unnest(",
            $entries,
            ") with ordinality as e (owner, mesh, actor, name, event, payload, at)
                    join ",
            $rows,
            " on ",
            $rows,
            ".id = e.owner
                ) a
                where a.mesh is not null
             ) "
        )
    };
}
pub(in crate::store) use appended_for;

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

    /// Binds what `mesh.broker_append_v2` takes, as the first eight parameters: the
    /// instant, the same as it is hashed, the chains' locks, and the rows.
    pub(in crate::store) fn bind<'q>(self, query: Query<'q>, now: Timestamp) -> Query<'q> {
        let locks = locks(self.mesh.iter().copied());
        self.bind_rows(query.bind(now.to_naive()).bind(now.to_string()).bind(locks))
    }

    /// Binds the rows, as five parameters.
    pub(in crate::store) fn bind_rows<'q>(self, query: Query<'q>) -> Query<'q> {
        query.bind(self.mesh).bind(self.actor).bind(self.name).bind(self.event).bind(self.payload)
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
