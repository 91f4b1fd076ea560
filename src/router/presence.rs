//! What peers are told of each other, and how a presence ends.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::json;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::cluster::bus::Announcement;
use crate::cluster::{BusMessage, PresenceRecord};
use crate::codec::SharedFrame;
use crate::id::{Key, MeshId, PresenceId};
use crate::node::Node;
use crate::outbox::Subject;
use crate::protocol::{CloseReason, ServerMessage, SystemEvent};
use crate::registry::Room;
use crate::session::Session;
use crate::store::{Admission, AuditEntry, EndPresence, PresenceChange};

use super::deliver;

/// An event about a presence. `to_own_member`: its member's other sessions
/// are told too.
#[must_use]
pub fn announcement(
    event: &'static str,
    record: &PresenceRecord,
    data: serde_json::Value,
    to_own_member: bool,
) -> Announcement {
    Announcement {
        event: SystemEvent { event: Cow::Borrowed(event), data },
        about: record.id.clone(),
        except_member: (!to_own_member).then(|| record.member.clone()),
    }
}

/// `peer_left` for a presence.
#[must_use]
pub fn peer_left(record: &PresenceRecord) -> Announcement {
    let data = json!({ "name": record.display_name, "pubkey": record.routing_key() });
    announcement("peer_left", record, data, false)
}

/// Tells the sessions here. One that is behind with reading is told the newest
/// of each kind about each presence, as far as there is room for events.
pub fn announce(room: &Room, announcement: &Announcement) {
    let subject = Arc::new(Subject {
        about: announcement.about.clone(),
        event: announcement.event.event.clone(),
    });
    let push = announcement.event.clone().into_push(room.mesh().clone(), Timestamp::now());
    let frame = SharedFrame::new(ServerMessage::Push(Box::new(push)));
    for (session, _) in room.sessions() {
        let told = session.presence != announcement.about
            && announcement.except_member.as_ref() != Some(&session.member);
        if told {
            session.outbox.tell(frame.bytes(session.codec), &subject);
        }
    }
}

/// Tells every node of the mesh how a presence is now, and its peers of it if
/// there is something to tell.
pub fn publish(
    node: &Node,
    room: &Room,
    record: &PresenceRecord,
    announcement: Option<Announcement>,
) {
    if let Some(announcement) = &announcement {
        announce(room, announcement);
    }
    let record = Box::new(record.clone());
    let message = BusMessage::Presence { record, event: announcement };
    node.cluster.publish(room.mesh(), &message);
}

/// Changes a session's record everywhere: here, in the cluster's directory,
/// in the store, on other nodes. The announcement, if any, is made from the
/// changed record.
pub async fn change(
    node: &Arc<Node>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    change: PresenceChange,
    edit: impl FnOnce(&mut PresenceRecord),
    announcement: impl FnOnce(&PresenceRecord) -> Option<Announcement>,
) {
    let edit = |record: &mut PresenceRecord| {
        edit(record);
        true
    };
    let Some(record) = room.update(session, edit) else { return };
    node.journal.change(change);
    spread(node, room, session, &record, announcement(&record)).await;
}

/// Tells the cluster's directory and the other nodes how a session's record is
/// now.
pub async fn spread(
    node: &Node,
    room: &Room,
    session: &Session,
    record: &PresenceRecord,
    announcement: Option<Announcement>,
) {
    if let Err(error) = node.cluster.write_record(&session.lease, record).await {
        // The next renewal writes it.
        tracing::debug!(%error, presence = %session.presence, "a record waits for its renewal");
    }
    publish(node, room, record, announcement);
}

/// A presence to end, and why.
#[derive(Clone, Debug)]
pub struct Ending {
    /// What was known of it.
    pub record: PresenceRecord,
    /// What to close its socket with, if one is open.
    pub close: Option<CloseReason>,
    /// Audit rows that say who ended it, before its `peer_left`.
    pub audit: Vec<AuditEntry>,
}

/// Ends presences, each at most once in the cluster: whoever changes the row
/// tells the peers. Their leases must be gone or be ended by the caller. One
/// whose session came back on another node meanwhile is that node's, and stays.
///
/// # Errors
///
/// As [`Store::end_presences`](crate::store::Store::end_presences): nothing
/// ended; the caller tries again.
pub async fn end(
    node: &Arc<Node>,
    mesh: &MeshId,
    endings: &[Ending],
) -> crate::store::Result<Vec<PresenceId>> {
    let row = |ending: &Ending| EndPresence {
        node: Some(ending.record.node.clone()),
        ..ended_row(&ending.record, &ending.audit)
    };
    let ended = end_rows(node, endings, endings.iter().map(row).collect()).await?;
    for ending in endings {
        let room = node.registry.room(mesh);
        if ended.contains(&ending.record.id) {
            told(node, mesh, room.as_ref(), ending, true);
        } else if let Some(room) = room {
            // Here it is over; whoever ended it, or holds it, speaks to others.
            close_here(&room, &ending.record.id, ending.close);
        }
    }
    rehome_all(node, mesh, endings, &ended);
    Ok(ended)
}

async fn end_rows(
    node: &Node,
    endings: &[Ending],
    rows: Vec<EndPresence>,
) -> crate::store::Result<Vec<PresenceId>> {
    for ending in endings {
        node.journal.forget(&ending.record.id);
    }
    node.store.end_presences(Timestamp::now(), &rows).await
}

fn rehome_all(node: &Arc<Node>, mesh: &MeshId, endings: &[Ending], ended: &[PresenceId]) {
    let Some(room) = node.registry.room(mesh) else { return };
    for ending in endings.iter().filter(|ending| ended.contains(&ending.record.id)) {
        rehome(node, &room, &ending.record);
    }
}

/// Ends presences whoever holds them: their leases too.
///
/// # Errors
///
/// As [`end`].
pub async fn remove(
    node: &Arc<Node>,
    mesh: &MeshId,
    endings: &[Ending],
) -> crate::store::Result<Vec<PresenceId>> {
    if endings.is_empty() {
        return Ok(Vec::new());
    }
    // The lease goes last: a node that found it gone before it heard why would
    // close the socket with the wrong reason.
    let rows = endings.iter().map(|ending| ended_row(&ending.record, &ending.audit)).collect();
    let ended = end_rows(node, endings, rows).await?;
    let room = node.registry.room(mesh);
    for ending in endings {
        told(node, mesh, room.as_ref(), ending, ended.contains(&ending.record.id));
    }
    rehome_all(node, mesh, endings, &ended);
    for ending in endings {
        if let Err(error) = node.cluster.revoke(mesh, &ending.record.id).await {
            tracing::warn!(%error, "a removed session's lease stays until it expires");
        }
    }
    Ok(ended)
}

/// Whether the store still admits a presence's member.
///
/// # Errors
///
/// The store's.
pub async fn is_admitted(node: &Node, record: &PresenceRecord) -> crate::store::Result<bool> {
    let (key, member) = (record.member_key.as_str(), record.member.as_str());
    let admission = node.store.admit(&record.mesh, key, member).await?;
    Ok(matches!(admission, Admission::Member(admitted) if admitted.member.id == record.member))
}

/// The end of a presence, whichever node holds it: after `before`, its audit row.
#[must_use]
pub fn ended_row(record: &PresenceRecord, before: &[AuditEntry]) -> EndPresence {
    let left = AuditEntry {
        mesh: record.mesh.clone(),
        actor: Some(record.member.clone()),
        actor_name: Some(record.display_name.clone()),
        event: AuditEvent::PeerLeft,
    };
    EndPresence {
        id: record.id.clone(),
        mesh: record.mesh.clone(),
        node: None,
        audit: before.iter().cloned().chain([left]).collect(),
    }
}

fn told(node: &Node, mesh: &MeshId, room: Option<&Arc<Room>>, ending: &Ending, won: bool) {
    let event = won.then(|| peer_left(&ending.record));
    if let Some(room) = room {
        close_here(room, &ending.record.id, ending.close);
        if let Some(event) = &event {
            announce(room, event);
        }
    }
    let message = BusMessage::Ended {
        presence: ending.record.id.clone(),
        close: ending.close.map(|close| close.reason.to_owned()),
        event,
    };
    node.cluster.publish(mesh, &message);
}

/// Forgets a presence here, closing its socket if it has one.
pub fn close_here(room: &Room, presence: &PresenceId, close: Option<CloseReason>) {
    if let Some(gone) = room.end(presence)
        && let Some(session) = gone.session
    {
        session.outbox.close(close.unwrap_or(CloseReason::DISCONNECTED));
    }
}

/// What was on its way to a presence that is gone, and was addressed to its
/// member, goes to another session of the member.
pub fn rehome(node: &Arc<Node>, room: &Arc<Room>, record: &PresenceRecord) {
    let others: Vec<Key> = room
        .addressed_by(record.member_key.as_str())
        .iter()
        .filter(|other| other.record.id != record.id)
        .map(|_| record.member_key.clone())
        .take(1)
        .collect();
    for key in others {
        deliver::mail_for(node, room, key);
    }
}
