//! The presences of a mesh in the order in which they are listed, for every feature
//! that lists some of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::Context;
use crate::clock::Timestamp;
use crate::id::{MemberId, PresenceId};
use crate::protocol::PeerRole;
use crate::record::PresenceRecord;

/// Where a presence stands in the list: those that are here before those in grace,
/// sessions before control planes, then the oldest first. Clients write to the first of
/// a name. A cursor is one of these: a presence that goes into grace or comes back
/// between two pages may be missed or shown twice.
pub(super) type Cursor = (bool, bool, Timestamp, PresenceId);

fn position(record: &PresenceRecord) -> (bool, bool, Timestamp, &PresenceId) {
    (!record.online, record.role != PeerRole::Session, record.connected_at, &record.id)
}

/// The presences that the asker may see, in the order in which they are listed; those
/// after `after`. Hidden ones are seen by sessions of their member, visitors by
/// themselves.
pub(super) fn listed(context: &Context<'_>, after: Option<&Cursor>) -> Vec<Arc<PresenceRecord>> {
    let (own, caller) = (&context.session.member, &context.session.presence);
    let mut records = context.room.records();
    records.retain(|record| record.visible || record.member == *own);
    records.retain(|record| !record.visitor || record.id == *caller);
    leave_out_followed(&mut records);
    records.sort_by(|a, b| position(a).cmp(&position(b)));
    if let Some((away, control_plane, at, id)) = after {
        let last = (*away, *control_plane, *at, id);
        let done = records.partition_point(|record| position(record) <= last);
        records.drain(..done);
    }
    records
}

/// Leaves out sessions in grace where one of the same member, name and place was opened
/// after them: whoever was started again under its name would be two of it, and could not
/// be written to by name. Mail to the key of the one that is left out is kept as ever.
fn leave_out_followed(records: &mut Vec<Arc<PresenceRecord>>) {
    if records.iter().all(|record| record.online) {
        return;
    }
    let is_session = |record: &PresenceRecord| record.role == PeerRole::Session && !record.visitor;
    let mut opened: HashMap<Called, Timestamp> = HashMap::new();
    for record in records.iter().filter(|record| record.online && is_session(record)) {
        let at = opened.entry(called(record)).or_insert(record.connected_at);
        *at = (*at).max(record.connected_at);
    }
    // One that was there beside it is another: it may well come back.
    let is_followed = |record: &PresenceRecord| {
        opened.get(&called(record)).is_some_and(|at| *at > record.last_seen_at)
    };
    records.retain(|record| record.online || !is_session(record) || !is_followed(record));
}

/// What tells a session that was started again from another of its member.
type Called = (MemberId, String, Option<String>, String);

fn called(record: &PresenceRecord) -> Called {
    let PresenceRecord { member, display_name, hostname, cwd, .. } = record;
    (member.clone(), display_name.clone(), hostname.clone(), cwd.clone())
}

/// A presence's position, to be a cursor.
pub(super) fn cursor_of(record: &PresenceRecord) -> Cursor {
    let (away, control_plane, at, id) = position(record);
    (away, control_plane, at, id.clone())
}
