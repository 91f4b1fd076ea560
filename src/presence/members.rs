//! Who is a member of a mesh, read again whenever that may have changed.
//!
//! A ban that a node heard of is never lost with one query: the members are read until
//! that works, and the sessions of those who are gone are closed. Called by
//! [`bus`](crate::bus), by features that change members, and by
//! [`jobs`](crate::jobs) when another program did.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Parts;
use super::changes::{self, Ending};
use crate::cluster::BusMessage;
use crate::events;
use crate::id::{MemberId, MeshId};
use crate::protocol::{CloseReason, SealingPolicy, SystemEvent};
use crate::registry::Room;
use crate::store::{Member, Result};

/// Who is a member has changed: every other node is told, and then this one reads it
/// again. In this order: the others wait for no query of this node's.
pub(crate) async fn changed(parts: &Arc<Parts>, mesh: &MeshId) {
    parts.cluster.publish(mesh, &BusMessage::MembersChanged);
    if let Some(room) = parts.registry.room(mesh) {
        refresh(parts, &room).await;
    }
}

/// Tells the sessions of a member something, on every node.
pub(crate) fn tell(parts: &Arc<Parts>, mesh: &MeshId, member: &MemberId, event: SystemEvent) {
    if let Some(room) = parts.registry.room(mesh) {
        events::tell_member(&room, member, &event);
    }
    let message = BusMessage::ToMember { member: member.clone(), event };
    parts.cluster.publish(mesh, &message);
}

/// After the members could not be read.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// Reads the members again until that works; sessions of members who are gone
/// are closed. A ban that this node heard of must not be lost with one query.
pub(crate) async fn refresh(parts: &Arc<Parts>, room: &Arc<Room>) {
    parts.member_changes.fetch_add(1, Ordering::AcqRel);
    if try_refresh(parts, room).await {
        return;
    }
    let (parts, room) = (Arc::clone(parts), Arc::clone(room));
    let tasks = parts.life.tasks.clone();
    tasks.spawn(async move {
        while !parts.life.stopped.is_cancelled() {
            tokio::time::sleep(REFRESH_PAUSE).await;
            if try_refresh(&parts, &room).await {
                return;
            }
        }
    });
}

async fn read_members(parts: &Parts, mesh: &MeshId) -> Result<(Vec<Member>, SealingPolicy)> {
    Ok((parts.members.active(mesh).await?, parts.members.sealing(mesh).await?))
}

async fn try_refresh(parts: &Arc<Parts>, room: &Arc<Room>) -> bool {
    let read = room.begin_refresh();
    let members = match read_members(parts, room.mesh()).await {
        Ok(members) => members,
        Err(error) => {
            tracing::warn!(%error, mesh = %room.mesh(), "the members could not be read again");
            return false;
        }
    };
    let (members, sealing) = members;
    if !room.set_members(read, members, sealing) {
        return true;
    }
    let mut endings = Vec::new();
    for record in room.records() {
        if room.member(&record.member).is_some() {
            // A member may have joined whose key a session of another merely named.
            let owner = record.claimed_key().and_then(|key| room.member_by_key(key.as_str()));
            if owner.is_some_and(|owner| owner.id != record.member) {
                endings.push(Ending::of(&record, Some(CloseReason::BAD_SESSION_PUBKEY)));
            }
            continue;
        }
        match changes::is_admitted(parts, &record).await {
            Ok(true) => {}
            Ok(false) => endings.push(Ending::of(&record, Some(CloseReason::BANNED))),
            Err(error) => {
                tracing::warn!(%error, "a revoked member could not be checked");
                return false;
            }
        }
    }
    if let Err(error) = changes::remove(parts, room.mesh(), &endings).await {
        tracing::warn!(%error, "revoked members' presences could not be ended");
        return false;
    }
    for (session, _) in room.sessions() {
        session.inbox.lock().forget_refused();
    }
    true
}
