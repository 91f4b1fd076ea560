//! Frames of other nodes: what each leads to on this one.
//!
//! Nothing here waits for the store or the cluster between two frames, so that none
//! overtakes another and none is held up. Run by [`app`](crate::app).

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::{BusMessage, ClusterEvent, ClusterEvents};
use crate::delivery::{deliver, drain, rosters};
use crate::events::{self, shared, streams};
use crate::presence::{Parts, changes, members, said, servers, status};
use crate::protocol::CloseReason;
use crate::registry::Room;

/// Reads what arrives until the node stops or the cluster is closed. What it
/// leads to is not cut off: it may be at work in the database.
pub(crate) async fn run(parts: Arc<Parts>, mut events: ClusterEvents) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = parts.life.stopped.cancelled() => return,
        };
        let Some(event) = event else { return };
        match event {
            ClusterEvent::Message { mesh, message } => match parts.registry.mirror(&mesh) {
                Some((room, true)) => apply(&parts, &room, *message),
                Some((room, false)) => apply_early(&parts, &room, *message),
                None => {}
            },
            ClusterEvent::Gap { mesh } => {
                parts.metrics.bus_gaps.inc();
                // Before the next frame is looked at: it must not overtake what
                // is missing.
                if let Some((room, _)) = parts.registry.mirror(&mesh) {
                    drain::request_all(&parts.delivery, &room);
                    shared::catch_up(&parts.shared, &room);
                    let parts = Arc::clone(&parts);
                    let tasks = parts.life.tasks.clone();
                    tasks.spawn(async move { catch_up(&parts, &room).await });
                }
            }
        }
    }
}

/// At once: the next frame does not wait for the store or the cluster.
fn apply(parts: &Arc<Parts>, room: &Arc<Room>, message: BusMessage) {
    match message {
        BusMessage::Presence { record, event } => {
            let presence = record.id.clone();
            let entered = room.mirror(*record);
            if entered.is_refused {
                return doubt(parts, room);
            }
            if let Some(replaced) = entered.replaced {
                replaced.outbox.close(CloseReason::SESSION_REPLACED);
            }
            changes::end_claims(parts, room, entered.claims);
            if let Some(record) = room.record(&presence) {
                parts.relay.heard(&record);
                servers::displace(parts, room, &record);
            }
            if let Some(change) = &entered.change {
                servers::tell_missed(room, change, event.as_ref());
            }
            let was_told = |event: &_| {
                entered.change.as_ref().is_some_and(|change| servers::was_told(change, event))
            };
            if let Some(event) = event.filter(|event| !was_told(event)) {
                events::announce(room, &event);
            }
        }
        BusMessage::Ended { presence, close, event } => {
            let close = close.as_deref().and_then(CloseReason::by_reason);
            let record = room.record(&presence);
            parts.relay.over(&presence);
            changes::close_here(room, &presence, close);
            if let Some(event) = &event {
                events::announce(room, event);
            }
            if let Some(record) = record.filter(|record| !record.visitor) {
                drain::request_addressed(&parts.delivery, room, &record.member_key);
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
            deliver::direct_from_bus(&parts.delivery, room, presence, delivery);
        }
        BusMessage::Multicast(multicast) => {
            deliver::multicast_arrives(&parts.delivery, room, *multicast)
        }
        BusMessage::MailFor { keys, many } => {
            if many {
                drain::request_all(&parts.delivery, room);
            }
            for key in &keys {
                drain::request_addressed(&parts.delivery, room, key);
            }
        }
        BusMessage::HookStatus { presence, status, at } => {
            status::hook_from_bus(parts, room, &presence, status, at);
        }
        BusMessage::HookFrom { presence, status, at, client } => {
            let session = room.session(&presence).zip(client.parse().ok());
            if session.is_some_and(|(session, client)| session.is_open_from(client)) {
                status::hook_from_bus(parts, room, &presence, status, at);
            }
        }
        BusMessage::Said { presence, said: message } => {
            if let Some(session) = room.session(&presence) {
                said::begin(parts, room, session, *message);
            }
        }
        BusMessage::Asked { call, host, epoch, forward, deadline_ms } => {
            parts.relay.asked(room, (call, host), epoch, &forward, deadline_ms);
        }
        BusMessage::Answered { call, reply } => parts.relay.answered(&call, *reply),
        BusMessage::MembersChanged => begin_refresh(parts, room),
        BusMessage::RosterChanged { topic } => rosters::changed(&parts.delivery, room, topic),
        BusMessage::ToMember { member, event } => events::tell_member(room, &member, &event),
        BusMessage::SimClock { clock, has_ticked } => {
            room.see_clock(clock, !has_ticked);
            if has_ticked {
                events::tick(room, &clock);
            }
        }
        BusMessage::Shared(change) => shared::hear(&parts.shared, room, &change),
        BusMessage::Published(published) => streams::tell(room, published),
        BusMessage::Posted(push) => events::post(room, *push),
    }
}

/// While the room is being read: nobody of it is here yet.
fn apply_early(parts: &Arc<Parts>, room: &Arc<Room>, message: BusMessage) {
    match message {
        BusMessage::Presence { record, .. } => {
            room.mirror(*record);
        }
        BusMessage::Ended { presence, .. } => {
            room.end(&presence);
        }
        BusMessage::MembersChanged => begin_refresh(parts, room),
        BusMessage::SimClock { clock, .. } => room.see_clock(clock, true),
        // Of sessions here, or to them: they will read the store, and whoever waits for
        // an answer hears that there is none.
        BusMessage::Close { .. }
        | BusMessage::Direct { .. }
        | BusMessage::Multicast(_)
        | BusMessage::MailFor { .. }
        | BusMessage::HookStatus { .. }
        | BusMessage::HookFrom { .. }
        | BusMessage::Said { .. }
        | BusMessage::RosterChanged { .. }
        | BusMessage::Asked { .. }
        | BusMessage::Answered { .. }
        | BusMessage::ToMember { .. }
        | BusMessage::Shared(_)
        | BusMessage::Published(_)
        | BusMessage::Posted(_) => {}
    }
}

/// Of two at a time, the later read counts.
fn begin_refresh(parts: &Arc<Parts>, room: &Arc<Room>) {
    let (parts, room) = (Arc::clone(parts), Arc::clone(room));
    let tasks = parts.life.tasks.clone();
    tasks.spawn(async move { members::refresh(&parts, &room).await });
}

/// Frames may have been missed: fetch the directory again, and let every
/// session here read the store.
async fn catch_up(parts: &Arc<Parts>, room: &Arc<Room>) {
    hear_who_is_there(parts, room).await;
    changes::forget_ended(parts, room).await;
    members::refresh(parts, room).await;
    drain::request_all(&parts.delivery, room);
}

/// Reads the directory until that succeeds: a cluster that has just come back may not answer
/// at once, and nothing else asks again before the next gap.
async fn hear_who_is_there(parts: &Arc<Parts>, room: &Arc<Room>) {
    while !read_directory(parts, room).await && room.is_behind() {
        tokio::select! {
            () = tokio::time::sleep(READING_PAUSE) => {}
            () = parts.life.stopped.cancelled() => return,
        }
    }
}

/// After the cluster did not tell who is there.
const READING_PAUSE: Duration = Duration::from_secs(2);

/// Whether the cluster told who is there.
async fn read_directory(parts: &Arc<Parts>, room: &Arc<Room>) -> bool {
    let (reading, mesh) = (room.begin_reading(), room.mesh());
    match parts.cluster.directory(mesh).await {
        Ok(records) => {
            let caught = reading.finish(records);
            changes::end_claims(parts, room, caught.claims);
            for host in &caught.hosts {
                servers::displace(parts, room, &host.is);
                servers::tell_missed(room, host, None);
            }
            true
        }
        Err(error) => {
            drop(reading);
            tracing::debug!(%error, %mesh, "the directory is not read yet");
            false
        }
    }
}

/// A record does not fit the members that are known here: either a member's key
/// was replaced a moment ago, or somebody writes what is not so. One look at a
/// time, however many such records come.
fn doubt(parts: &Arc<Parts>, room: &Arc<Room>) {
    if !room.begin_doubt() {
        return;
    }
    let (parts, room) = (Arc::clone(parts), Arc::clone(room));
    let tasks = parts.life.tasks.clone();
    tasks.spawn(async move {
        tracing::debug!(mesh = %room.mesh(), "a record of a presence does not fit its member");
        members::refresh(&parts, &room).await;
        read_directory(&parts, &room).await;
        room.end_doubt();
    });
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::cluster::ClusterError;
    use crate::id::Key;
    use crate::presence::fakes::{Fakes, entered, record};
    use crate::record::PresenceRecord;
    use crate::store::testing::{member, mesh};

    #[tokio::test]
    async fn a_directory_that_could_not_be_read_after_a_gap_is_read_again_until_it_is() {
        let mut fakes = Fakes::new();
        let (bob, carol) = (member("bob"), member("carol"));
        let listed = vec![record(&bob), record(&carol)];
        fakes.has(vec![bob, carol], vec![listed[0].clone()]);
        let away = |_: &_| Err(ClusterError::Unavailable("away".to_owned()));
        fakes.cluster.expect_directory().times(1).returning(away);
        let missed = listed[1].id.clone();
        fakes.cluster.expect_directory().times(1).return_once(move |_| Ok(listed));
        let parts = fakes.parts();
        let room = entered(&parts).await;
        hear_who_is_there(&parts, &room).await;
        assert!(room.record(&missed).is_some(), "nobody has to wait for another gap");
        assert!(!room.is_behind());
    }

    #[tokio::test]
    async fn records_that_do_not_fit_their_members_are_looked_into_once_at_a_time() {
        let mut fakes = Fakes::new();
        let bob = member("bob");
        let (known, again) = (record(&bob), bob.clone());
        fakes.has(vec![bob], vec![known.clone()]);
        fakes.stores.members.expect_active().times(1).return_once(move |_| Ok(vec![again]));
        let listed = vec![known.clone()];
        fakes.cluster.expect_directory().times(1).return_once(move |_| Ok(listed));
        let parts = fakes.parts();
        let room = entered(&parts).await;
        let (sender, events) = mpsc::channel(3);
        for _ in 0..3 {
            let forged = PresenceRecord { member_key: Key::from("eve-key"), ..known.clone() };
            let message = BusMessage::Presence { record: Box::new(forged), event: None };
            let event = ClusterEvent::Message { mesh: mesh(), message: Box::new(message) };
            sender.send(event).await.expect("there is room");
        }
        drop(sender);
        run(Arc::clone(&parts), events).await;
        parts.life.settled().await;
        assert_eq!(room.record(&known.id).expect("it is listed").member_key, known.member_key);
        assert!(room.begin_doubt(), "the next of them is looked into again");
    }
}
