//! A visit: a connection that comes to do one thing.
//!
//! It has a place in the mesh while its socket is open, and nothing else that a
//! presence has: no row, no audit rows, no events, no grace.

use std::sync::Arc;

use super::place::let_go;
use super::record::hello_ack;
use super::{Active, Proven, Refusal, activate, anothers_key};
use crate::cluster::{LeaseRef, PresenceRecord, Release};
use crate::codec::Codec;
use crate::delivery::drain;
use crate::node::Node;
use crate::outbox::Outbox;
use crate::presence::changes;
use crate::registry::RoomGuard;

/// The lease says what others need to know; they are told of its key, so that
/// answers find it.
pub(super) async fn begin(
    node: &Arc<Node>,
    codec: Codec,
    outbox: &Outbox,
    room: RoomGuard,
    proven: Proven,
    mut record: PresenceRecord,
    lease: LeaseRef,
) -> Result<Active, Box<Refusal>> {
    record.epoch = lease.epoch;
    let ack = hello_ack(node, &proven, &record, false);
    let held = lease.clone();
    let Ok(active) = activate(node, codec, outbox, room, proven, record, lease, 0, &ack) else {
        // Nobody was told of it.
        let_go(node, &held, Release::Now).await;
        return Err(anothers_key());
    };
    if let Some(record) = active.room.record(&active.session.presence) {
        changes::publish(node, &active.room, &record, None);
    }
    drain::start(node, &active.room, &active.session);
    node.metrics.connections.inc();
    Ok(active)
}
