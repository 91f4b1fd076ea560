//! A visit: a connection that comes to do one thing.
//!
//! It has a place in the mesh while its socket is open, and nothing else that a
//! presence has: no row, no audit rows, no events, no grace.

use std::sync::Arc;

use super::place::let_go;
use super::record::hello_ack;
use super::{Active, Proven, Refusal, activate, anothers_key};
use crate::admission::Parts;
use crate::cluster::{LeaseRef, PresenceRecord, Release};
use crate::codec::Codec;
use crate::delivery::drain;
use crate::presence::changes;
use crate::registry::RoomGuard;
use crate::session::outbox::Outbox;

/// The lease says what others need to know; they are told of its key, so that
/// answers find it.
pub(super) async fn begin(
    parts: &Arc<Parts>,
    codec: Codec,
    outbox: &Outbox,
    room: RoomGuard,
    proven: Proven,
    mut record: PresenceRecord,
    lease: LeaseRef,
) -> Result<Active, Box<Refusal>> {
    record.epoch = lease.epoch;
    let ack = hello_ack(parts, &proven, &record, false);
    let held = lease.clone();
    let Ok(active) = activate(parts, codec, outbox, room, proven, record, lease, 0, &ack) else {
        // Nobody was told of it.
        let_go(parts, &held, Release::Now).await;
        return Err(anothers_key());
    };
    if let Some(record) = active.room.record(&active.session.presence) {
        changes::publish(&parts.presence, &active.room, &record, None);
    }
    drain::start(&parts.presence.delivery, &active.room, &active.session);
    parts.presence.metrics.connections.inc();
    Ok(active)
}
