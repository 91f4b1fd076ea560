//! What a newcomer costs its member.

use std::sync::Arc;

use super::{Proven, Refusal};
use crate::admission::Parts;
use crate::limits;
use crate::protocol::budget::cut;
use crate::rates::cost;
use crate::registry::RoomGuard;

/// A new presence is written down and told to everybody, so it is metered like
/// what a session asks. A session that comes back is neither, and costs nothing.
pub(super) async fn charge(
    parts: &Arc<Parts>,
    room: &RoomGuard,
    proven: &Proven,
) -> Result<(), Box<Refusal>> {
    if comes_back(room, proven) {
        return Ok(());
    }
    let cost = cost::of_new_presence(room.presences());
    let member = &proven.admitted.member.id;
    parts.rates.may_ask(&*parts.presence.cluster, member, cost).await.map_err(Refusal::too_many)
}

/// Whether the mesh knows a presence of this very session.
fn comes_back(room: &RoomGuard, proven: &Proven) -> bool {
    let member = &proven.admitted.member;
    let session_id = cut(&proven.about.session_id, limits::HELLO_TEXT_BYTES_MAX);
    let key = proven.session_key.as_ref().unwrap_or(&member.key);
    room.addressed_by(key.as_str()).iter().any(|candidate| {
        let record = &candidate.record;
        record.member == member.id
            && record.role == proven.role
            && !proven.visitor
            && record.session_key == proven.session_key
            && (record.session_key.is_some() || record.session_id == session_id)
    })
}
