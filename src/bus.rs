//! Frames of other nodes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cluster::{BusMessage, ClusterEvent, ClusterEvents};
use crate::delivery::deliver;
use crate::delivery::drain;
use crate::id::MeshId;
use crate::node::Node;
use crate::presence::{changes, said, status};
use crate::protocol::CloseReason;
use crate::registry::Room;

/// Reads what arrives until the node stops or the cluster is closed. What it
/// leads to is not cut off: it may be at work in the database.
pub async fn run(node: Arc<Node>, mut events: ClusterEvents) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = node.stopped.cancelled() => return,
        };
        let Some(event) = event else { return };
        match event {
            ClusterEvent::Message { mesh, message } => match node.registry.mirror(&mesh) {
                Some((room, true)) => apply(&node, &room, *message),
                Some((room, false)) => apply_early(&node, &room, *message),
                None => {}
            },
            ClusterEvent::Gap { mesh } => {
                node.metrics.bus_gaps.inc();
                // Before the next frame is looked at: it must not overtake what
                // is missing.
                if let Some((room, _)) = node.registry.mirror(&mesh) {
                    drain::request_all(&node, &room);
                    let node = Arc::clone(&node);
                    let tasks = node.tasks.clone();
                    tasks.spawn(async move { catch_up(&node, &room).await });
                }
            }
        }
    }
}

/// At once: the next frame does not wait for the store or the cluster.
fn apply(node: &Arc<Node>, room: &Arc<Room>, message: BusMessage) {
    match message {
        BusMessage::Presence { record, event } => {
            let entered = room.mirror(*record);
            if entered.is_refused {
                return doubt(node, room);
            }
            if let Some(replaced) = entered.replaced {
                replaced.outbox.close(CloseReason::SESSION_REPLACED);
            }
            changes::end_claims(node, room, entered.claims);
            if let Some(event) = &event {
                changes::announce(room, event);
            }
        }
        BusMessage::Ended { presence, close, event } => {
            let close = close.as_deref().and_then(CloseReason::by_reason);
            let record = room.record(&presence);
            changes::close_here(room, &presence, close);
            if let Some(event) = &event {
                changes::announce(room, event);
            }
            if let Some(record) = record.filter(|record| !record.visitor) {
                deliver::drain_addressed(node, room, &record.member_key);
            }
        }
        BusMessage::Close { presence, close } => {
            if let (Some(session), Some(reason)) =
                (room.session(&presence), CloseReason::by_reason(&close))
            {
                session.outbox.close(reason);
            }
        }
        BusMessage::Direct { presence, delivery } => {
            deliver::direct_from_bus(node, room, presence, delivery);
        }
        BusMessage::Multicast(multicast) => deliver::multicast_arrives(node, room, *multicast),
        BusMessage::MailFor { keys, many } => {
            if many {
                drain::request_all(node, room);
            }
            for key in &keys {
                deliver::drain_addressed(node, room, key);
            }
        }
        BusMessage::HookStatus { presence, status, at } => {
            status::hook_from_bus(node, room, &presence, status, at);
        }
        BusMessage::HookFrom { presence, status, at, client } => {
            let session = room.session(&presence).zip(client.parse().ok());
            if session.is_some_and(|(session, client)| session.is_open_from(client)) {
                status::hook_from_bus(node, room, &presence, status, at);
            }
        }
        BusMessage::Said { presence, said: message } => {
            if let Some(session) = room.session(&presence) {
                said::begin(node, room, session, *message);
            }
        }
        BusMessage::MembersChanged => begin_refresh(node, room),
    }
}

/// While the room is being read: nobody of it is here yet.
fn apply_early(node: &Arc<Node>, room: &Arc<Room>, message: BusMessage) {
    match message {
        BusMessage::Presence { record, .. } => {
            room.mirror(*record);
        }
        BusMessage::Ended { presence, .. } => {
            room.end(&presence);
        }
        BusMessage::MembersChanged => begin_refresh(node, room),
        // Of sessions here, or to them: they will read the store.
        BusMessage::Close { .. }
        | BusMessage::Direct { .. }
        | BusMessage::Multicast(_)
        | BusMessage::MailFor { .. }
        | BusMessage::HookStatus { .. }
        | BusMessage::HookFrom { .. }
        | BusMessage::Said { .. } => {}
    }
}

/// Of two at a time, the later read counts.
fn begin_refresh(node: &Arc<Node>, room: &Arc<Room>) {
    let (node, room) = (Arc::clone(node), Arc::clone(room));
    let tasks = node.tasks.clone();
    tasks.spawn(async move { refresh_members(&node, &room).await });
}

/// Frames may have been missed: fetch the directory again, and let every
/// session here read the store.
async fn catch_up(node: &Arc<Node>, room: &Arc<Room>) {
    read_directory(node, room).await;
    changes::forget_ended(node, room).await;
    refresh_members(node, room).await;
    drain::request_all(node, room);
}

async fn read_directory(node: &Arc<Node>, room: &Arc<Room>) {
    let (reading, mesh) = (room.begin_reading(), room.mesh());
    match node.cluster.directory(mesh).await {
        Ok(records) => {
            let claims = reading.finish(records);
            changes::end_claims(node, room, claims);
        }
        Err(error) => {
            drop(reading);
            tracing::debug!(%error, %mesh, "the directory waits for the next gap");
        }
    }
}

/// A record does not fit the members that are known here: either a member's key
/// was replaced a moment ago, or somebody writes what is not so. One look at a
/// time, however many such records come.
fn doubt(node: &Arc<Node>, room: &Arc<Room>) {
    if !room.begin_doubt() {
        return;
    }
    let (node, room) = (Arc::clone(node), Arc::clone(room));
    let tasks = node.tasks.clone();
    tasks.spawn(async move {
        tracing::debug!(mesh = %room.mesh(), "a record of a presence does not fit its member");
        refresh_members(&node, &room).await;
        read_directory(&node, &room).await;
        room.end_doubt();
    });
}

/// Who is a member has changed: every other node is told, and then this one reads it
/// again. In this order: the others wait for no query of this node's.
pub async fn members_changed(node: &Arc<Node>, mesh: &MeshId) {
    node.cluster.publish(mesh, &BusMessage::MembersChanged);
    if let Some(room) = node.registry.room(mesh) {
        refresh_members(node, &room).await;
    }
}

/// After the members could not be read.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// Reads the members again until that works; sessions of members who are gone
/// are closed. A ban that this node heard of must not be lost with one query.
pub async fn refresh_members(node: &Arc<Node>, room: &Arc<Room>) {
    node.member_changes.fetch_add(1, Ordering::AcqRel);
    if try_refresh(node, room).await {
        return;
    }
    let (node, room) = (Arc::clone(node), Arc::clone(room));
    let tasks = node.tasks.clone();
    tasks.spawn(async move {
        while !node.stopped.is_cancelled() {
            tokio::time::sleep(REFRESH_PAUSE).await;
            if try_refresh(&node, &room).await {
                return;
            }
        }
    });
}

async fn try_refresh(node: &Arc<Node>, room: &Arc<Room>) -> bool {
    let read = room.begin_refresh();
    let members = match node.store.members(room.mesh()).await {
        Ok(members) => members,
        Err(error) => {
            tracing::warn!(%error, mesh = %room.mesh(), "the members could not be read again");
            return false;
        }
    };
    if !room.set_members(read, members) {
        return true;
    }
    let mut endings = Vec::new();
    for record in room.records() {
        if room.member(&record.member).is_some() {
            // A member may have joined whose key a session of another merely named.
            let owner = record.claimed_key().and_then(|key| room.member_by_key(key.as_str()));
            if owner.is_some_and(|owner| owner.id != record.member) {
                endings.push(changes::Ending {
                    record: record.as_ref().clone(),
                    close: Some(CloseReason::BAD_SESSION_PUBKEY),
                    audit: Vec::new(),
                });
            }
            continue;
        }
        match changes::is_admitted(node, &record).await {
            Ok(true) => {}
            Ok(false) => endings.push(changes::Ending {
                record: record.as_ref().clone(),
                close: Some(CloseReason::BANNED),
                audit: Vec::new(),
            }),
            Err(error) => {
                tracing::warn!(%error, "a revoked member could not be checked");
                return false;
            }
        }
    }
    if let Err(error) = changes::remove(node, room.mesh(), &endings).await {
        tracing::warn!(%error, "revoked members' presences could not be ended");
        return false;
    }
    for (session, _) in room.sessions() {
        session.inbox.lock().forget_refused();
    }
    true
}
