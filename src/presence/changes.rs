//! How a presence changes and how it ends: here, in the store, on every node, and for
//! its peers.
//!
//! A presence ends once in the cluster, and the peers hear of that from whoever changed
//! its row. Nothing here tells anybody of a hidden one. Called by whatever changes a
//! presence: [`admission`](crate::admission), [`features`](crate::features),
//! [`bus`](crate::bus), [`jobs`](crate::jobs) and operators' requests.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::json;

use super::{Parts, UnsettledEnd};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::cluster::bus::Announcement;
use crate::cluster::{BusMessage, LeaseRef};
use crate::delivery::drain;
use crate::events;
use crate::id::{MeshId, PresenceId};
use crate::limits;
use crate::protocol::CloseReason;
use crate::record::PresenceRecord;
use crate::registry::{Candidate, Room};
use crate::session::Session;
use crate::store::{Admission, AuditEntry, EndPresence, PresenceChange, StoreError};

pub(crate) fn peer_left(record: &PresenceRecord) -> Announcement {
    let data = json!({ "name": record.display_name, "pubkey": record.routing_key() });
    events::announcement("peer_left", record, data, false)
}

/// Tells every node of the mesh how a presence is now, and its peers of it if
/// there is something to tell.
pub(crate) fn publish(
    parts: &Parts,
    room: &Room,
    record: &PresenceRecord,
    announcement: Option<Announcement>,
) {
    if let Some(announcement) = &announcement {
        events::announce(room, announcement);
    }
    publish_to_others(parts, record, announcement);
}

fn publish_to_others(parts: &Parts, record: &PresenceRecord, event: Option<Announcement>) {
    let message = BusMessage::Presence { record: Box::new(record.clone()), event };
    parts.cluster.publish(&record.mesh, &message);
}

/// Changes a session's record everywhere: here, in the cluster's directory,
/// in the store, on other nodes. The announcement, if any, is made from the
/// changed record. An edit that finds nothing to change says `false`, and then
/// nobody is told anything.
pub(crate) async fn change(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    change: PresenceChange,
    edit: impl FnOnce(&mut PresenceRecord) -> bool,
    announcement: impl FnOnce(&PresenceRecord) -> Option<Announcement>,
) {
    let Some(record) = room.update(session, edit) else { return };
    note(parts, &record, change);
    let announcement = announcement(&record);
    if let Some(announcement) = &announcement {
        events::announce(room, announcement);
    }
    tell_others(parts, &session.lease, &record, announcement).await;
}

/// Gives it that value; whether that changes anything.
pub(crate) fn replace<T: PartialEq>(known: &mut T, given: T) -> bool {
    let changes = *known != given;
    *known = given;
    changes
}

/// Something changed about a presence that has a row; a visitor has none.
pub(crate) fn note(parts: &Parts, record: &PresenceRecord, change: PresenceChange) {
    if !record.visitor {
        parts.writer.change(change);
    }
}

/// Tells the cluster's directory and the other nodes how a record is now.
pub(crate) async fn tell_others(
    parts: &Parts,
    lease: &LeaseRef,
    record: &PresenceRecord,
    announcement: Option<Announcement>,
) {
    if let Err(error) = parts.cluster.write_record(lease, record).await {
        // The next renewal writes it.
        tracing::debug!(%error, presence = %record.id, "a record waits for its renewal");
    }
    publish_to_others(parts, record, announcement);
}

/// A presence to end, and why.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) record: PresenceRecord,
    /// What to close its socket with, if one is open.
    pub(crate) close: Option<CloseReason>,
    /// Audit rows that say who ended it, before its `peer_left`.
    pub(crate) audit: Vec<AuditEntry>,
}

impl Ending {
    /// An end that nobody has to answer for.
    pub(crate) fn of(record: &PresenceRecord, close: Option<CloseReason>) -> Self {
        Self { record: record.clone(), close, audit: Vec::new() }
    }
}

/// Ends presences, each at most once in the cluster: whoever changes the row
/// tells the peers. Their leases must be gone or be ended by the caller. One
/// whose session came back on another node meanwhile is that node's, and stays.
///
/// # Errors
///
/// As [`Presences::end`](crate::store::Presences::end): nothing ended; the caller tries
/// again.
pub(crate) async fn end(
    parts: &Arc<Parts>,
    mesh: &MeshId,
    endings: &[Ending],
) -> crate::store::Result<Vec<PresenceId>> {
    let row = |ending: &Ending| EndPresence {
        node: Some(ending.record.node.clone()),
        ..ended_row(&ending.record, &ending.audit)
    };
    let ended = end_rows(parts, endings, endings.iter().map(row).collect()).await?;
    let over = over_already(parts, endings, &ended).await;
    for ending in endings {
        let room = parts.registry.room(mesh);
        let won = ended.contains(&ending.record.id);
        if won || over.contains(&ending.record.id) || ending.record.visitor {
            // Who ended a row that is over told its peers, and maybe not every node: a
            // shared state that is older than that lists it still. A visitor has no row
            // that could say who ended it: whoever reaps it did.
            told(parts, mesh, room.as_ref(), ending, won);
        } else if let Some(room) = room {
            // Here it is over; the node that holds it speaks to others.
            close_here(&room, &ending.record.id, ending.close);
        }
    }
    rehome_all(parts, mesh, endings, &ended);
    Ok(ended)
}

async fn end_rows(
    parts: &Parts,
    endings: &[Ending],
    rows: Vec<EndPresence>,
) -> crate::store::Result<Vec<PresenceId>> {
    for ending in endings {
        parts.writer.forget(&ending.record.id);
    }
    let at = Timestamp::now();
    let ended = parts.presences.end(at, &rows).await;
    if let Err(StoreError::Unknown(_)) = &ended {
        let mut unsettled = parts.unsettled_ends.lock();
        let room = limits::UNSETTLED_ENDS_MAX.saturating_sub(unsettled.len());
        unsettled.extend(endings.iter().take(room).map(|ending| UnsettledEnd {
            record: ending.record.clone(),
            close: ending.close,
            at,
        }));
    }
    ended
}

/// Of those that did not end now: which had ended before, or have no row.
async fn over_already(
    parts: &Parts,
    endings: &[Ending],
    ended: &[PresenceId],
) -> HashSet<PresenceId> {
    let others = endings.iter().map(|ending| &ending.record.id).filter(|id| !ended.contains(*id));
    let others: Vec<PresenceId> = others.cloned().collect();
    if others.is_empty() {
        return HashSet::new();
    }
    match parts.presences.ended(&others).await {
        Ok(over) => over.into_iter().map(|(presence, _)| presence).collect(),
        Err(error) => {
            tracing::debug!(%error, "other nodes forget a presence at their next reading");
            HashSet::new()
        }
    }
}

/// Asks again for ends whose answer was lost: what ended by this node is told to its
/// peers, by this node and nobody else.
pub(crate) async fn settle_ends(parts: &Arc<Parts>) {
    let unsettled = std::mem::take(&mut *parts.unsettled_ends.lock());
    if unsettled.is_empty() {
        return;
    }
    for (done, batch) in unsettled.chunks(limits::PRESENCE_BATCH_MAX).enumerate() {
        let ids: Vec<PresenceId> =
            batch.iter().map(|unsettled| unsettled.record.id.clone()).collect();
        let ended: HashMap<PresenceId, _> = match parts.presences.ended(&ids).await {
            Ok(ended) => ended.into_iter().collect(),
            Err(error) => {
                tracing::debug!(%error, "ends of presences are asked for again");
                let rest = unsettled.iter().skip(done * limits::PRESENCE_BATCH_MAX).cloned();
                parts.unsettled_ends.lock().extend(rest);
                return;
            }
        };
        for UnsettledEnd { record, close, at } in batch {
            if ended.get(&record.id) == Some(&Some(*at)) {
                let (ending, room) =
                    (Ending::of(record, *close), parts.registry.room(&record.mesh));
                told(parts, &record.mesh, room.as_ref(), &ending, true);
                if let Some(room) = room {
                    rehome(parts, &room, record);
                }
            }
        }
    }
}

/// Presences that the cluster lists and whose rows have ended: every node forgets
/// them, and their places come free.
pub(crate) async fn forget_ended(parts: &Arc<Parts>, room: &Arc<Room>) {
    let mesh = room.mesh();
    let away = room.records().into_iter().filter(|record| room.session(&record.id).is_none());
    let away: Vec<PresenceId> = away.map(|record| record.id.clone()).collect();
    for batch in away.chunks(limits::PRESENCE_BATCH_MAX) {
        let ended = match parts.presences.ended(batch).await {
            Ok(ended) => ended,
            Err(error) => return tracing::debug!(%error, "ended presences are listed for now"),
        };
        // One without a row may be about to get it.
        for (presence, _) in ended.iter().filter(|(_, at)| at.is_some()) {
            let Some(record) = room.record(presence) else { continue };
            // Whoever ended it says why. A socket that hears this first may come again,
            // and learns it then.
            let close = Some(CloseReason::TRY_AGAIN_LATER);
            told(parts, mesh, Some(room), &Ending::of(&record, close), false);
            if let Err(error) = parts.cluster.revoke(mesh, presence).await {
                tracing::debug!(%error, "an ended presence's lease stays until it expires");
            }
        }
    }
}

fn rehome_all(parts: &Arc<Parts>, mesh: &MeshId, endings: &[Ending], ended: &[PresenceId]) {
    let Some(room) = parts.registry.room(mesh) else { return };
    for ending in endings.iter().filter(|ending| ended.contains(&ending.record.id)) {
        rehome(parts, &room, &ending.record);
    }
}

/// Ends presences whoever holds them: their leases too.
pub(crate) async fn remove(
    parts: &Arc<Parts>,
    mesh: &MeshId,
    endings: &[Ending],
) -> crate::store::Result<Vec<PresenceId>> {
    if endings.is_empty() {
        return Ok(Vec::new());
    }
    // The lease goes last: a node that found it gone before it heard why would
    // close the socket with the wrong reason.
    let rows = endings.iter().map(|ending| ended_row(&ending.record, &ending.audit)).collect();
    let ended = end_rows(parts, endings, rows).await?;
    let room = parts.registry.room(mesh);
    for ending in endings {
        told(parts, mesh, room.as_ref(), ending, ended.contains(&ending.record.id));
    }
    rehome_all(parts, mesh, endings, &ended);
    for ending in endings {
        if let Err(error) = parts.cluster.revoke(mesh, &ending.record.id).await {
            tracing::warn!(%error, "a removed session's lease stays until it expires");
        }
    }
    Ok(ended)
}

/// Ends claims of a session key that another member has proven; the room has let go
/// of them already. Their sockets close now, their rows and leases follow.
pub(crate) fn end_claims(parts: &Arc<Parts>, room: &Arc<Room>, claims: Vec<Candidate>) {
    if claims.is_empty() {
        return;
    }
    let ending = |claim: Candidate| {
        if let Some(session) = &claim.session {
            session.outbox.close(CloseReason::BAD_SESSION_PUBKEY);
        }
        Ending::of(&claim.record, Some(CloseReason::BAD_SESSION_PUBKEY))
    };
    let endings: Vec<Ending> = claims.into_iter().map(ending).collect();
    let (parts, mesh) = (Arc::clone(parts), room.mesh().clone());
    let tasks = parts.life.tasks.clone();
    tasks.spawn(async move {
        if let Err(error) = remove(&parts, &mesh, &endings).await {
            tracing::warn!(%error, %mesh, "claims of a proven session key wait for the sweep");
        }
    });
}

/// Whether the store still admits a presence's member.
pub(crate) async fn is_admitted(
    parts: &Parts,
    record: &PresenceRecord,
) -> crate::store::Result<bool> {
    let (key, member) = (record.member_key.as_str(), record.member.as_str());
    let admission = parts.members.admit(&record.mesh, key, member).await?;
    Ok(matches!(admission, Admission::Member(admitted) if admitted.member.id == record.member))
}

/// The end of a presence, whichever node holds it: after `before`, its audit row.
pub(crate) fn ended_row(record: &PresenceRecord, before: &[AuditEntry]) -> EndPresence {
    let left = AuditEntry {
        mesh: record.mesh.clone(),
        actor: Some(record.member.clone()),
        actor_name: Some(record.display_name.clone()),
        event: AuditEvent::PeerLeft,
    };
    EndPresence {
        id: record.id.clone(),
        mesh: record.mesh.clone(),
        member: Some(record.member.clone()),
        node: None,
        audit: before.iter().cloned().chain([left]).collect(),
    }
}

fn told(parts: &Parts, mesh: &MeshId, room: Option<&Arc<Room>>, ending: &Ending, won: bool) {
    // Nobody saw a hidden one, so nobody sees it leave.
    let event = (won && ending.record.visible).then(|| peer_left(&ending.record));
    if let Some(room) = room {
        close_here(room, &ending.record.id, ending.close);
        if let Some(event) = &event {
            events::announce(room, event);
        }
    }
    let message = BusMessage::Ended {
        presence: ending.record.id.clone(),
        close: ending.close.map(|close| close.reason.to_owned()),
        event,
    };
    parts.cluster.publish(mesh, &message);
}

/// Forgets a presence here, closing its socket if it has one.
pub(crate) fn close_here(room: &Room, presence: &PresenceId, close: Option<CloseReason>) {
    if let Some(gone) = room.end(presence)
        && let Some(session) = gone.session
    {
        session.outbox.close(close.unwrap_or(CloseReason::DISCONNECTED));
    }
}

/// What was on its way to a presence that is gone, and was addressed to its
/// member, goes to another session of the member.
pub(crate) fn rehome(parts: &Arc<Parts>, room: &Arc<Room>, record: &PresenceRecord) {
    let of_member = room.addressed_by(record.member_key.as_str());
    if of_member.iter().any(|other| other.record.id != record.id) {
        drain::mail_for(&parts.delivery, room, record.member_key.clone());
    }
}
