//! A session's socket is gone: its grace begins. Called once for each session, by the
//! connection that had the socket.

use std::sync::Arc;

use super::Active;
use crate::admission::Parts;
use crate::clock::Timestamp;
use crate::cluster::{BusMessage, Release};
use crate::presence::changes;
use crate::protocol::{PeerRole, RestoredStats, Stats};
use crate::record::PresenceRecord;
use crate::registry::Room;
use crate::session::Session;
use crate::store::{PeerState, SuspendPresence};

/// Lets go of the socket's lease into grace and saves what must outlive it.
/// A session that was replaced or ended has nothing left to do.
pub(crate) async fn teardown(parts: &Arc<Parts>, active: Active) {
    let Active { session, room, saved } = active;
    session.outbox.retire();
    parts.presence.relay.ended(&session);
    parts.presence.metrics.connections_active.dec();
    // What the peer is done with must be known before another node drains.
    if let Err(error) = parts.confirmations.settle(&*parts.mail, &session).await {
        tracing::debug!(%error, "confirmations wait for the store");
        parts.confirmations.report(&session);
    }
    let Some(record) = room.detach(&session) else { return };
    if record.visitor {
        return visit_over(parts, &session, &room).await;
    }
    match parts.presence.cluster.release(&session.lease, Release::Grace).await {
        Ok(true) => {}
        // Another node holds it by now; what follows is that node's.
        Ok(false) => return,
        // It expires by itself, and its grace begins then.
        Err(error) => tracing::debug!(%error, "a lease stays until it expires"),
    }
    let suspended = SuspendPresence {
        id: session.presence.clone(),
        mesh: session.mesh.clone(),
        member: session.member.clone(),
        member_key: session.member_key.clone(),
        multicast_position: session.inbox.lock().position(),
        state: state_to_save(&record, saved.map(|saved| *saved)),
    };
    if let Err(error) = parts.presences.suspend(Timestamp::now(), &suspended).await {
        // A drain that runs out of time says so once, not for every session.
        if parts.presence.life.stopped.is_cancelled() {
            tracing::debug!(%error, "a session's last state was not saved");
        } else {
            tracing::warn!(%error, "a session's last state was not saved");
        }
    }
    changes::publish(&parts.presence, &room, &record, None);
    changes::rehome(&parts.presence, &room, &record);
}

/// Nothing outlives a visit, and nobody is told that it is over but nodes.
async fn visit_over(parts: &Arc<Parts>, session: &Session, room: &Room) {
    room.end(&session.presence);
    match parts.presence.cluster.release(&session.lease, Release::Now).await {
        Ok(true) => {}
        // The same key visits again, elsewhere.
        Ok(false) => return,
        Err(error) => tracing::debug!(%error, "a lease stays until it expires"),
    }
    let presence = session.presence.clone();
    let message = BusMessage::Ended { presence, close: None, event: None };
    parts.presence.cluster.publish(room.mesh(), &message);
}

/// One row per member: what a daemon set about itself is not overwritten by
/// the sessions beside it, which never set it.
fn state_to_save(record: &PresenceRecord, saved: Option<PeerState>) -> PeerState {
    let before = saved.unwrap_or(PeerState { visible: true, ..PeerState::default() });
    let own = record.role == PeerRole::ControlPlane;
    PeerState {
        groups: if own { record.groups.clone() } else { before.groups },
        profile: if own { record.profile.clone() } else { before.profile },
        visible: if own { record.visible } else { before.visible },
        last_summary: record.summary.clone().or(before.last_summary),
        last_display_name: Some(record.display_name.clone()),
        stats: record.stats.map_or(before.stats, |stats| add(before.stats, stats)),
        last_seen_at: Some(Timestamp::now()),
    }
}

/// Clients that restore their counters report totals; others start at zero.
/// A counter that is not below what was saved is a total already.
fn add(saved: RestoredStats, reported: Stats) -> RestoredStats {
    let total = |saved: f64, reported: Option<f64>| match reported {
        Some(reported) if reported >= saved => reported,
        Some(reported) if reported > 0.0 => saved + reported,
        _ => saved,
    };
    RestoredStats {
        messages_in: total(saved.messages_in, reported.messages_in),
        messages_out: total(saved.messages_out, reported.messages_out),
        tool_calls: total(saved.tool_calls, reported.tool_calls),
        errors: total(saved.errors, reported.errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_do_not_double_when_a_client_restores_its_counters() {
        let saved = RestoredStats { messages_in: 5.0, ..RestoredStats::default() };
        let restored = Stats { messages_in: Some(7.0), ..Stats::default() };
        assert_eq!(add(saved, restored).messages_in, 7.0);
        let fresh = Stats { messages_in: Some(2.0), errors: Some(1.0), ..Stats::default() };
        assert_eq!(add(saved, fresh).messages_in, 7.0);
        assert_eq!(add(saved, fresh).errors, 1.0);
        assert_eq!(add(saved, Stats::default()), saved);
    }
}
