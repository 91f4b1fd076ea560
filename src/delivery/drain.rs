//! Drains: a session reads its mail from the store.
//!
//! On connect and reattach, when its status turns idle, when something may
//! have been missed, when deliveries were not confirmed in time. Each runs in
//! a task of its own that nobody cancels.

mod reading;
pub(crate) mod rewind;

use std::collections::HashMap;
use std::sync::Arc;

use self::reading::{Reading, Readings, bytes_of};
use crate::clock::Timestamp;
use crate::cluster::BusMessage;
use crate::delivery::policy::{self, Capability, Target};
use crate::delivery::{Parts, audience, push};
use crate::id::{Key, MemberId, MessageId};
use crate::limits;
use crate::protocol::Priority;
use crate::record::PresenceRecord;
use crate::registry::Room;
use crate::session::Session;
use crate::session::inbox::{DrainPlan, Route};
use crate::store::{ClaimRequest, Result, StoredEnvelope, TopicPost};

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

/// A message that a drain found, in the mesh's order.
enum Found {
    Direct(StoredEnvelope),
    Multicast(StoredEnvelope),
    Post(TopicPost),
    /// A multicast that is not for this session.
    Past(i64),
}

impl Found {
    fn seq(&self) -> i64 {
        match self {
            Self::Direct(envelope) | Self::Multicast(envelope) => envelope.seq,
            Self::Post(post) => post.envelope.seq,
            Self::Past(seq) => *seq,
        }
    }

    fn envelope(&self) -> Option<&StoredEnvelope> {
        match self {
            Self::Direct(envelope) | Self::Multicast(envelope) => Some(envelope),
            Self::Post(post) => Some(&post.envelope),
            Self::Past(_) => None,
        }
    }

    /// Whether it need not be sent by this round: it waits behind the gate
    /// anyway, or is nothing.
    fn comes_live(&self, session: &Session) -> bool {
        match self {
            Self::Direct(envelope) | Self::Multicast(envelope) => {
                session.inbox.lock().is_gated(&envelope.id)
            }
            Self::Post(post) => session.inbox.lock().is_gated(&post.envelope.id),
            Self::Past(_) => true,
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
                let message = BusMessage::MailFor { keys: vec![key], many: false };
                parts.cluster.publish(room.mesh(), &message);
            }
        }
        Err(error) => tracing::debug!(%error, "what grants keep away is looked at again"),
    }
}

/// For each message, how many newer ones of its sender were found.
fn newer_of_senders(found: &[Found]) -> Vec<u32> {
    let mut of_sender: HashMap<&MemberId, u32> = HashMap::new();
    let mut newer: Vec<u32> = found
        .iter()
        .rev()
        .map(|message| {
            let Some(envelope) = message.envelope() else { return 0 };
            let count = of_sender.entry(&envelope.sender_member).or_default();
            std::mem::replace(count, count.saturating_add(1))
        })
        .collect();
    newer.reverse();
    newer
}

async fn directs(
    parts: &Parts,
    room: &Room,
    session: &Session,
    plan: &DrainPlan,
    reading: &mut Reading,
) -> Result<(Vec<Found>, bool)> {
    // A visitor leaves its member's mail alone.
    let member_key = (!session.visitor).then(|| session.member_key.clone());
    if plan.room == 0 || (member_key.is_none() && session.session_key.is_none()) {
        return Ok((Vec::new(), true));
    }
    let Some(record) = room.record(&session.presence) else { return Ok((Vec::new(), true)) };
    let now = Timestamp::now();
    let limit = plan.room.min(u32::try_from(reading.envelopes).unwrap_or(u32::MAX));
    let ask = ClaimRequest {
        presence: session.presence.clone(),
        mesh: session.mesh.clone(),
        member_key,
        session_key: own_session_key(parts, session, &record, now).await?,
        urgent_only: !record.admits(Priority::Next),
        in_flight: plan.in_flight.clone(),
        until: now.plus_ms(parts.config.claim_ms),
        limit,
    };
    let rows = parts.mail.claim(now, &ask).await?;
    let is_all = rows.len() < limit as usize;
    reading.learn(rows.len(), rows.iter().map(bytes_of).sum());
    Ok((rows.into_iter().map(Found::Direct).collect(), is_all))
}

/// The session key whose stored mail the session may have: one that it has proven,
/// or one that it merely named and that the store remembers as its member's. A
/// claim that somebody else has proven is on its way out, and until then gets what
/// is live at most: what is stored waits for its owner.
async fn own_session_key(
    parts: &Parts,
    session: &Session,
    record: &PresenceRecord,
    now: Timestamp,
) -> Result<Option<Key>> {
    let claimed = record.claimed_key().filter(|_| !session.visitor);
    let Some(claimed) = claimed else { return Ok(session.session_key.clone()) };
    let since = now.plus_ms(-limits::SESSION_KEY_MEMORY_MS);
    let owner = parts.members.of_session_key(&session.mesh, claimed.as_str(), since).await?;
    Ok(owner.filter(|owner| *owner == session.member).map(|_| claimed.clone()))
}

/// A list, and whether that was all of it.
type List = (Vec<Found>, bool);

/// What was sent to groups and to everyone, and what was posted to topics.
async fn to_many(
    parts: &Parts,
    room: &Room,
    session: &Session,
    plan: &DrainPlan,
    readings: &mut Readings,
) -> Result<(List, List)> {
    let Readings { multicasts: reading, posts: of_posts, .. } = readings;
    let others = multicasts(parts, room, session, plan.others_after, reading).await?;
    let posts = posts(parts, room, session, plan.multicasts_after, of_posts).await?;
    Ok((others, posts))
}

/// Posts of the member's topics.
async fn posts(
    parts: &Parts,
    room: &Room,
    session: &Session,
    mut after: i64,
    reading: &mut Reading,
) -> Result<List> {
    let Some(record) = room.record(&session.presence) else { return Ok((Vec::new(), true)) };
    let mut found: Vec<Found> = Vec::new();
    let (mut wanted, mut wanted_bytes) = (0, 0);
    loop {
        let page = reading.left(wanted, wanted_bytes).min(reading.envelopes).max(1);
        let limit = u32::try_from(page).unwrap_or(u32::MAX);
        let rows = parts.topics.posts_after(room.mesh(), &session.member, after, limit).await?;
        let is_last = rows.len() < page;
        reading.learn(rows.len(), rows.iter().map(|post| bytes_of(&post.envelope)).sum());
        for row in rows {
            after = row.envelope.seq;
            session.inbox.lock().note_post(after);
            if audience::wants_post(parts, room, &record, &audience::sender_of(&row.envelope)) {
                wanted += 1;
                wanted_bytes += bytes_of(&row.envelope);
                found.push(Found::Post(row));
            } else {
                found.push(Found::Past(after));
            }
        }
        if is_last || reading.left(wanted, wanted_bytes) == 0 {
            return Ok((found, is_last));
        }
    }
}

async fn multicasts(
    parts: &Parts,
    room: &Room,
    session: &Session,
    after: i64,
    reading: &mut Reading,
) -> Result<(Vec<Found>, bool)> {
    let mut after = after;
    let mut found: Vec<Found> = Vec::new();
    let (mut wanted, mut wanted_bytes) = (0, 0);
    loop {
        let page = reading.left(wanted, wanted_bytes).min(reading.envelopes).max(1);
        let limit = u32::try_from(page).unwrap_or(u32::MAX);
        let rows = parts.mail.multicasts_after(room.mesh(), after, limit).await?;
        let is_last = rows.len() < page;
        reading.learn(rows.len(), rows.iter().map(bytes_of).sum());
        for row in rows {
            after = row.seq;
            if matches!(Target::parse(&row.target_spec), Target::Topic(_)) {
                // The post's place. What it says is in the list of posts.
                continue;
            }
            if is_for(parts, room, session, &row) {
                wanted += 1;
                wanted_bytes += bytes_of(&row);
                found.push(Found::Multicast(row));
            } else if let Some(Found::Past(seq)) = found.last_mut() {
                *seq = row.seq;
            } else {
                found.push(Found::Past(row.seq));
            }
        }
        if is_last {
            return Ok((found, true));
        }
        if reading.left(wanted, wanted_bytes) == 0 {
            return Ok((found, false));
        }
    }
}

fn is_for(parts: &Parts, room: &Room, session: &Session, row: &StoredEnvelope) -> bool {
    if row.sender_member == session.member || row.is_expired(Timestamp::now()) {
        return false;
    }
    let Some(record) = room.record(&session.presence) else { return false };
    let sender = audience::sender_of(row);
    audience::includes(room, Target::parse(&row.target_spec), &record, row.seq)
        && audience::is_granted(parts, room, &session.member, &sender, Capability::Broadcast)
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
        Found::Multicast(envelope) => (Route::Multicast(envelope.seq), push::multicast(envelope)),
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
