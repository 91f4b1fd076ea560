//! Drains: a session reads its mail from the store.
//!
//! On connect and reattach, when its status turns idle, when something may
//! have been missed, when deliveries were not confirmed in time. Each runs in
//! a task of its own that nobody cancels.

mod lists;
mod reading;
pub(crate) mod rewind;

use std::sync::Arc;

use self::lists::{Found, directs, newer_of_senders, to_many};
use self::reading::Readings;
use crate::clock::Timestamp;
use crate::cluster::BusMessage;
use crate::delivery::policy::{self, Capability};
use crate::delivery::{Parts, audience, push};
use crate::id::{Key, MessageId};
use crate::protocol::Push;
use crate::registry::Room;
use crate::session::Session;
use crate::session::inbox::{DrainPlan, Route};
use crate::store::{Result, StoredEnvelope};

/// Wants a session's mail read. If it is being read already, that goes round
/// once more.
pub(crate) fn request(parts: &Arc<Parts>, room: &Arc<Room>, session: &Arc<Session>) {
    if session.inbox.lock().begin_drain() {
        start(parts, room, session);
    }
}

/// Every session of a mesh here reads its mail and the multicasts it may have
/// missed.
pub(crate) fn request_all(parts: &Arc<Parts>, room: &Arc<Room>) {
    room.note_posts();
    for (session, _) in room.sessions() {
        session.inbox.lock().mark_behind();
        request(parts, room, &session);
    }
}

/// Starts the first drain of a session, whose inbox begins as draining.
pub(crate) fn start(parts: &Arc<Parts>, room: &Arc<Room>, session: &Arc<Session>) {
    let (parts, room, session) = (Arc::clone(parts), Arc::clone(room), Arc::clone(session));
    let tasks = parts.life.tasks.clone();
    tasks.spawn(async move { drain(&parts, &room, &session).await });
}

/// Mail lies in the store for this key: whoever it addresses reads it, here
/// and on every other node.
pub(crate) fn mail_for(parts: &Arc<Parts>, room: &Arc<Room>, key: Key) {
    request_addressed(parts, room, &key);
    let message = BusMessage::MailFor { keys: vec![key], many: false };
    parts.cluster.publish(room.mesh(), &message);
}

/// The sessions here that a key addresses read their mail. Daemons leave it to
/// an idle session of their member, on whichever node that is.
pub(crate) fn request_addressed(parts: &Arc<Parts>, room: &Arc<Room>, key: &Key) {
    let candidates = room.addressed_by(key.as_str());
    for candidate in policy::takers(&candidates) {
        if let Some(session) = &candidate.session {
            request(parts, room, session);
        }
    }
}

async fn drain(parts: &Arc<Parts>, room: &Arc<Room>, session: &Arc<Session>) {
    parts.metrics.drains.inc();
    // Whatever a round reads finds room at once, or is read again: while a peer
    // is slow, nothing but its outbox is held for it.
    let mut readings = Readings::default();
    loop {
        let turn = parts.drains.acquire().await;
        let Some(plan) = session.plan_drain() else { return };
        let done = round(parts, room, session, plan, &mut readings).await;
        drop(turn);
        match done {
            Ok(found_all) => {
                if session.end_drain(found_all) {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, presence = %session.presence, "a drain waits for the store");
                session.inbox.lock().abandon_drain();
                return;
            }
        }
    }
}

/// Reads once and sends what was found; whether that was all.
async fn round(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    plan: DrainPlan,
    readings: &mut Readings,
) -> Result<bool> {
    // Without room, multicasts that are not for the session go by, and may make some. No
    // direct message is read then, so none that would have to wait for it may go out.
    let has_room = plan.room > 0;
    // Several lists are read, one after the other, while messages go on being
    // accepted: what is beyond this line may be in one and missing in
    // another, and is left to the gate or to the next round.
    let newest = if session.visitor {
        Some(i64::MAX)
    } else {
        let believed = room.last_multicast().max(session.inbox.lock().multicast_seen());
        rewind::newest(parts, room, believed).await?
    };
    let Some(newest) = newest else { return Ok(false) };
    let (directs, all_directs) =
        directs(parts, room, session, &plan, &mut readings.directs).await?;
    // Multicasts that were sent before these may still be on their way here.
    let reads_multicasts = !session.visitor && (plan.behind || !directs.is_empty());
    let ((multicasts, all_groups), (posts, all_posts)) = if reads_multicasts {
        let read = to_many(parts, room, session, &plan, readings).await;
        read.inspect_err(|_| session.inbox.lock().mark_behind())?
    } else {
        ((Vec::new(), true), (Vec::new(), true))
    };
    let all_multicasts = all_groups && all_posts;
    // A list that was cut says nothing about what comes after its end.
    let horizon = |list: &[Found], is_all: bool| {
        if is_all { i64::MAX } else { list.last().map_or(i64::MAX, Found::seq) }
    };
    let multicasts_until = horizon(&multicasts, all_groups).min(horizon(&posts, all_posts));
    let mut until = horizon(&directs, all_directs).min(multicasts_until);
    let mut found: Vec<Found> = directs.into_iter().chain(multicasts).chain(posts).collect();
    found.sort_by_key(Found::seq);
    let newer = newer_of_senders(&found);
    let mut sent_all = true;
    let (mut refused, mut blocked) = (Vec::new(), Vec::new());
    // More must not go out than is worth remembering: going round again would
    // find the same messages again. The multicasts among them go on.
    let mut gives_up = false;
    for (message, newer) in found.into_iter().zip(newer) {
        if gives_up && matches!(message, Found::Direct(_)) {
            continue;
        }
        if !has_room && !matches!(message, Found::Past(_)) {
            sent_all = false;
            break;
        }
        if message.seq() > until.min(newest) {
            if message.seq() <= until && message.comes_live(session) {
                continue;
            }
            sent_all = false;
            break;
        }
        match send(parts, room, session, message, newer) {
            Sent::Yes => {}
            Sent::Full => {
                sent_all = false;
                break;
            }
            Sent::Refused(id, why) => {
                gives_up |= !session.inbox.lock().refuse(id.clone());
                match why {
                    Why::NotItsOwn => refused.push(id),
                    Why::NotGranted => blocked.push(id),
                }
            }
        }
        if gives_up {
            until = multicasts_until;
        }
    }
    if reads_multicasts {
        let mut inbox = session.inbox.lock();
        if sent_all && all_multicasts {
            inbox.drained_all_multicasts();
        } else {
            inbox.mark_behind();
        }
    }
    // Their claims are taken back, for whoever else they are addressed to.
    if !refused.is_empty()
        && let Err(error) = parts.mail.unclaim(&session.presence, &refused).await
    {
        tracing::debug!(%error, "claims stay until they run out");
    }
    if !blocked.is_empty() {
        block(parts, room, &blocked).await;
    }
    Ok(has_room && sent_all && (all_directs || gives_up) && all_multicasts)
}

/// The recipient's grants keep these away: they never come, and their senders are told.
async fn block(parts: &Arc<Parts>, room: &Arc<Room>, messages: &[MessageId]) {
    match parts.stages.block(Timestamp::now(), room.mesh(), messages).await {
        Ok(mailboxes) => {
            for (_, key) in mailboxes {
                mail_for(parts, room, key);
            }
        }
        Err(error) => tracing::debug!(%error, "what grants keep away is looked at again"),
    }
}

/// What became of one thing found.
enum Sent {
    /// The message went out, or is not for this session.
    Yes,
    /// The session takes no more now.
    Full,
    /// A direct message that the session must not get.
    Refused(MessageId, Why),
}

/// Why a session must not get a direct message.
enum Why {
    /// It may be another's of the member.
    NotItsOwn,
    /// None of the member gets it.
    NotGranted,
}

fn send(parts: &Parts, room: &Room, session: &Session, found: Found, newer: u32) -> Sent {
    let push = match found {
        Found::Past(seq) => {
            session.inbox.lock().drained_past(seq);
            return Sent::Yes;
        }
        Found::Multicast(envelope, sealed_key) => {
            let route = Route::Multicast(envelope.seq);
            (route, Push { sealed_key, ..push::multicast(envelope) })
        }
        Found::Post(post) => {
            let Some(record) = room.record(&session.presence) else { return Sent::Full };
            (Route::Multicast(post.envelope.seq), push::post_for(&record, post))
        }
        Found::Direct(envelope) => {
            if let Err(why) = may_have(parts, room, session, &envelope) {
                return Sent::Refused(envelope.envelope.id, why);
            }
            let push = push::direct(envelope, &session.member);
            let push = match room.record(&session.presence) {
                Some(record) => push::shown_to(&record, push),
                // The session is ending. What it is sent, it is sent in order.
                None => push,
            };
            (Route::Direct, push)
        }
    };
    let (route, mut push) = push;
    push.newer_from_sender = push.newer_from_sender.map(|_| newer);
    if let Route::Multicast(seq) = route {
        push.redelivered =
            session.may_have_had(push.created_at) || session.inbox.lock().is_repeat(seq);
    }
    let delivery = push::delivery(push, route);
    if session.inbox.lock().is_full() || !session.offer_drained(&delivery) {
        return Sent::Full;
    }
    Sent::Yes
}

/// Whether a direct message may go to this session: not if it sent it itself, now and not
/// for later; not if it asked for no notices; not if the member's grants have changed
/// since.
fn may_have(
    parts: &Parts,
    room: &Room,
    session: &Session,
    envelope: &StoredEnvelope,
) -> std::result::Result<(), Why> {
    if push::is_notice(envelope) {
        let record = room.record(&session.presence);
        let is_told = record.is_some_and(|record| record.stages);
        return if is_told { Ok(()) } else { Err(Why::NotItsOwn) };
    }
    let own = envelope.sender_member == session.member
        && envelope.sender_session_key == session.session_key
        && envelope.scheduled.is_none();
    let Some(member) = room.member(&session.member) else { return Err(Why::NotItsOwn) };
    let session_key = envelope.sender_session_key.as_ref();
    if !policy::grants(&member, &envelope.sender_key, session_key, Capability::Dm) {
        audience::count_dropped(parts, Capability::Dm);
        return Err(Why::NotGranted);
    }
    if own { Err(Why::NotItsOwn) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
