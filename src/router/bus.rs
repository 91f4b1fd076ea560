//! Frames of other nodes.

use std::sync::Arc;

use super::{deliver, presence};
use crate::cluster::{BusMessage, ClusterEvent, ClusterEvents};
use crate::handlers::status;
use crate::id::MeshId;
use crate::node::Node;
use crate::protocol::CloseReason;
use crate::redelivery;
use crate::registry::Room;

/// Reads what arrives until the cluster is closed.
pub async fn run(node: Arc<Node>, mut events: ClusterEvents) {
    while let Some(event) = events.recv().await {
        match event {
            ClusterEvent::Message { mesh, message } => {
                if let Some(room) = node.registry.room(&mesh) {
                    apply(&node, &room, *message).await;
                }
            }
            ClusterEvent::Gap { mesh } => {
                node.metrics.bus_gaps.inc();
                let node = Arc::clone(&node);
                let tasks = node.tasks.clone();
                tasks.spawn(async move { catch_up(&node, &mesh).await });
            }
        }
    }
}

async fn apply(node: &Arc<Node>, room: &Arc<Room>, message: BusMessage) {
    match message {
        BusMessage::Presence { record, event } => {
            if let Some(replaced) = room.mirror(*record) {
                replaced.outbox.close(CloseReason::SESSION_REPLACED);
            }
            if let Some(event) = &event {
                presence::announce(room, event);
            }
        }
        BusMessage::Ended { presence, close, event } => {
            let close = close.as_deref().and_then(CloseReason::by_reason);
            let record = room.record(&presence);
            presence::close_here(room, &presence, close);
            if let Some(event) = &event {
                presence::announce(room, event);
            }
            if let Some(record) = record {
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
        BusMessage::MailFor { keys } => {
            for key in &keys {
                deliver::drain_addressed(node, room, key);
            }
        }
        BusMessage::HookStatus { presence, status, at } => {
            status::apply_hook(node, room, &presence, status, at).await;
        }
        BusMessage::MembersChanged => refresh_members(node, room).await,
    }
}

/// Frames may have been missed: fetch the directory again, and let every
/// session here read the store.
async fn catch_up(node: &Arc<Node>, mesh: &MeshId) {
    let Some(room) = node.registry.room(mesh) else { return };
    match node.cluster.directory(mesh).await {
        Ok(records) => room.set_directory(records),
        Err(error) => tracing::debug!(%error, %mesh, "the directory waits for the next gap"),
    }
    refresh_members(node, &room).await;
    redelivery::request_all(node, &room);
}

/// Reads the members again; sessions of members who are gone are closed.
pub async fn refresh_members(node: &Arc<Node>, room: &Arc<Room>) {
    let members = match node.store.members(room.mesh()).await {
        Ok(members) => members,
        Err(error) => {
            tracing::warn!(%error, mesh = %room.mesh(), "the members could not be read again");
            return;
        }
    };
    room.set_members(members);
    let mut endings = Vec::new();
    for record in room.records() {
        if room.member(&record.member).is_none() {
            let record = record.as_ref().clone();
            endings.push(presence::Ending {
                record,
                close: Some(CloseReason::BANNED),
                audit: Vec::new(),
            });
        }
    }
    for ending in &endings {
        if let Err(error) = node.cluster.revoke(room.mesh(), &ending.record.id).await {
            tracing::warn!(%error, "a revoked member's lease stays until it expires");
        }
    }
    if let Err(error) = presence::end(node, room.mesh(), &endings).await {
        tracing::warn!(%error, mesh = %room.mesh(), "revoked members' presences could not be ended");
    }
    for (session, _) in room.sessions() {
        session.inbox.lock().forget_refused();
    }
}
