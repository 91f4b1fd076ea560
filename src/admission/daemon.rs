//! A daemon that was started again.
//!
//! It names itself anew, so it is another presence than before. Its old one waits
//! in grace for a process that is gone.

use std::sync::Arc;

use crate::admission::Parts;
use crate::clock::Timestamp;
use crate::presence::changes;
use crate::record::PresenceRecord;
use crate::registry::Room;
use crate::store::ReattachPresence;

/// Ends the presences in grace that this daemon had before. Returns how far the
/// one that was left last had come in the mesh's multicasts: its sessions pass
/// over those that are in its inbox, so this daemon goes on from there.
pub(super) async fn take_over(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    record: &PresenceRecord,
) -> Option<i64> {
    if !record.is_daemon() || record.hostname.is_none() || record.session_key.is_some() {
        return None;
    }
    let mut old = room.addressed_by(record.member_key.as_str());
    old.retain(|candidate| {
        let other = &candidate.record;
        !other.online
            && other.id != record.id
            && other.session_key.is_none()
            && record.shares_inbox_of(other)
    });
    let last = old.iter().max_by_key(|candidate| candidate.record.last_seen_at)?;
    let position = position_of(parts, &last.record).await;
    let endings: Vec<_> =
        old.iter().map(|candidate| changes::Ending::of(&candidate.record, None)).collect();
    match changes::remove(&parts.presence, room.mesh(), &endings).await {
        Ok(_) => position,
        Err(error) => {
            tracing::debug!(%error, "a daemon's earlier presence stays until its grace is over");
            None
        }
    }
}

/// `None` if the presence has ended, or the store does not say.
async fn position_of(parts: &Parts, record: &PresenceRecord) -> Option<i64> {
    let unchanged = ReattachPresence {
        member: Some(record.member.clone()),
        session_id: None,
        cwd: record.cwd.clone(),
        pid: record.pid,
        display_name: None,
        node: record.node.clone(),
    };
    let position = parts.presences.reattach(Timestamp::now(), &record.id, &unchanged).await;
    position.ok().flatten()
}
