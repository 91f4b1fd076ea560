//! Mail by the clock: deliveries that nobody confirmed in time, and mail that nobody
//! told this node of.
//!
//! Nothing here sends a message: a session is only asked to read its mail from the
//! store, so that what it has confirmed cannot come again.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::delivery::{self, deliver, drain};
use crate::id::{Key, MeshId};
use crate::registry::Registry;

/// Missed multicasts looked at in one go.
const MISSED_MAX: u32 = 64;

/// Deliveries that nobody confirmed in time, and sessions that have room
/// again after they stalled.
pub(super) fn redeliver(registry: &Registry, delivery: &Arc<delivery::Parts>) {
    let claim_ms = delivery.config.claim_ms;
    for room in registry.rooms() {
        let mut due = Vec::new();
        room.for_each_session(|session, _| {
            let expired = {
                let mut inbox = session.inbox.lock();
                !inbox.is_settled() && inbox.expire(session.age_ms() - claim_ms)
            };
            if expired {
                delivery.metrics.messages_redelivered.inc();
            }
            if expired || session.wants_drain() {
                due.push(Arc::clone(session));
            }
        });
        for session in due {
            drain::request(delivery, &room, &session);
        }
    }
}

/// Mail that nobody told this node of: rows that another program wrote, and
/// claims that ran out with their node.
pub(super) async fn look_for_mail(registry: &Registry, delivery: &Arc<delivery::Parts>) {
    let mut mailboxes: Vec<(MeshId, Key)> = Vec::new();
    for room in registry.rooms() {
        room.for_each_session(|session, record| {
            for key in record.keys() {
                mailboxes.push((session.mesh.clone(), key.clone()));
            }
        });
    }
    mailboxes.sort();
    mailboxes.dedup();
    if mailboxes.is_empty() {
        return;
    }
    look_for_multicasts(registry, delivery).await;
    match delivery.mail.waiting(Timestamp::now(), &mailboxes).await {
        Ok(waiting) => {
            for (mesh, key) in waiting {
                if let Some(room) = registry.room(&mesh) {
                    deliver::drain_addressed(delivery, &room, &key);
                }
            }
        }
        Err(error) => tracing::debug!(%error, "mail could not be looked for"),
    }
}

/// Mail that another node claimed for a session here and cannot tell it of.
pub(super) async fn look_for_claimed(registry: &Registry, delivery: &Arc<delivery::Parts>) {
    let rooms = registry.rooms();
    let mut mailboxes = Vec::new();
    for room in &rooms {
        room.for_each_session(|session, record| {
            for key in record.keys() {
                mailboxes.push((session.mesh.clone(), key.clone(), session.presence.clone()));
            }
        });
    }
    let claimed = match delivery.mail.claimed(&mailboxes).await {
        Ok(claimed) => claimed,
        Err(error) => return tracing::debug!(%error, "claimed mail could not be looked for"),
    };
    for room in &rooms {
        for session in claimed.iter().filter_map(|presence| room.session(presence)) {
            drain::request(delivery, room, &session);
        }
    }
}

/// Multicasts that this node was not told of.
async fn look_for_multicasts(registry: &Registry, delivery: &Arc<delivery::Parts>) {
    for room in registry.rooms() {
        let after = room.last_multicast();
        match delivery.mail.multicasts_after(room.mesh(), after, MISSED_MAX).await {
            Ok(missed) => {
                if let Some(newest) = missed.last() {
                    room.skip_to(newest.seq, || drain::request_all(delivery, &room));
                }
            }
            Err(error) => return tracing::debug!(%error, "multicasts could not be looked for"),
        }
    }
}

/// Rooms whose places the database may have given back.
pub(super) async fn check_places(registry: &Registry, delivery: &Arc<delivery::Parts>) {
    for room in registry.rooms() {
        drain::rewind::check(delivery, &room).await;
    }
}
