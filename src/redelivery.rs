//! Drains: a session reads its mail from the store.
//!
//! On connect and reattach, when its status turns idle, when something may
//! have been missed, when deliveries were not confirmed in time. Each runs in
//! a task of its own that nobody cancels.

pub mod places;

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::cluster::{MulticastSender, PresenceRecord};
use crate::id::Key;
use crate::limits;
use crate::node::Node;
use crate::registry::Room;
use crate::router::deliver;
use crate::router::policy::{self, Capability, Target};
use crate::session::Session;
use crate::session::inbox::{DrainPlan, Place};
use crate::store::{ClaimRequest, Result, StoredEnvelope};

/// Wants a session's mail read. If it is being read already, that goes round
/// once more.
pub fn request(node: &Arc<Node>, room: &Arc<Room>, session: &Arc<Session>) {
    if session.inbox.lock().begin_drain() {
        start(node, room, session);
    }
}

/// Every session of a mesh here reads its mail and the multicasts it may have
/// missed.
pub fn request_all(node: &Arc<Node>, room: &Arc<Room>) {
    for (session, _) in room.sessions() {
        session.inbox.lock().mark_behind();
        request(node, room, &session);
    }
}

/// Starts the first drain of a session, whose inbox begins as draining.
pub fn start(node: &Arc<Node>, room: &Arc<Room>, session: &Arc<Session>) {
    let (node, room, session) = (Arc::clone(node), Arc::clone(room), Arc::clone(session));
    let tasks = node.tasks.clone();
    tasks.spawn(async move { drain(&node, &room, &session).await });
}

async fn drain(node: &Arc<Node>, room: &Arc<Room>, session: &Arc<Session>) {
    node.metrics.drains.inc();
    loop {
        if !session.outbox.has_room().await {
            return;
        }
        let plan = session.inbox.lock().plan_drain();
        match round(node, room, session, plan).await {
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

/// One thing that a drain found, in the mesh's order.
enum Found {
    Direct(StoredEnvelope),
    Multicast(StoredEnvelope),
    /// A multicast that is not for this session.
    Past(i64),
}

impl Found {
    fn seq(&self) -> i64 {
        match self {
            Self::Direct(envelope) | Self::Multicast(envelope) => envelope.seq,
            Self::Past(seq) => *seq,
        }
    }

    /// Whether it need not be sent by this round: it waits behind the gate
    /// anyway, or is nothing.
    fn comes_live(&self, session: &Session) -> bool {
        match self {
            Self::Direct(envelope) | Self::Multicast(envelope) => {
                session.inbox.lock().is_gated(&envelope.id)
            }
            Self::Past(_) => true,
        }
    }
}

/// Reads once and sends what was found; whether that was all.
async fn round(
    node: &Arc<Node>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    plan: DrainPlan,
) -> Result<bool> {
    let room_left = plan.room;
    // Two lists are read, one after the other, while messages go on being
    // accepted: what is beyond this line may be in one and missing in the
    // other, and is left to the gate or to the next round.
    let newest = if session.visitor {
        Some(i64::MAX)
    } else {
        let believed = room.last_multicast().max(session.inbox.lock().multicast_seen());
        places::newest(node, room, believed).await?
    };
    let Some(newest) = newest else { return Ok(false) };
    let (directs, all_directs) = directs(node, room, session, &plan).await?;
    // Multicasts that were sent before these may still be on their way here.
    let reads_multicasts = !session.visitor && (plan.behind || !directs.is_empty());
    let (multicasts, all_multicasts) = if reads_multicasts {
        let read = multicasts(node, room, session, plan.multicasts_after).await;
        read.inspect_err(|_| session.inbox.lock().mark_behind())?
    } else {
        (Vec::new(), true)
    };
    // A list that was cut says nothing about what comes after its end.
    let horizon = |list: &[Found], is_all: bool| {
        if is_all { i64::MAX } else { list.last().map_or(i64::MAX, Found::seq) }
    };
    let until = horizon(&directs, all_directs).min(horizon(&multicasts, all_multicasts));
    let mut found: Vec<Found> = directs.into_iter().chain(multicasts).collect();
    found.sort_by_key(Found::seq);
    let mut sent_all = true;
    for one in found {
        if one.seq() > until.min(newest) {
            if one.seq() <= until && one.comes_live(session) {
                continue;
            }
            sent_all = false;
            break;
        }
        match send(node, room, session, one).await {
            Sent::Yes => {}
            Sent::Full => {
                sent_all = false;
                break;
            }
            // Going round again would find the same messages again.
            Sent::GiveUp => return Ok(true),
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
    Ok(sent_all && all_directs && (all_multicasts || room_left == 0))
}

async fn directs(
    node: &Node,
    room: &Room,
    session: &Session,
    plan: &DrainPlan,
) -> Result<(Vec<Found>, bool)> {
    // A visitor leaves its member's mail alone.
    let member_key = (!session.visitor).then(|| session.member_key.clone());
    if plan.room == 0 || (member_key.is_none() && session.session_key.is_none()) {
        return Ok((Vec::new(), true));
    }
    let Some(record) = room.record(&session.presence) else { return Ok((Vec::new(), true)) };
    let now = Timestamp::now();
    let ask = ClaimRequest {
        presence: session.presence.clone(),
        mesh: session.mesh.clone(),
        member_key,
        session_key: own_session_key(node, session, &record, now).await?,
        urgent_only: !policy::admits(record.status, crate::protocol::Priority::Next),
        in_flight: plan.in_flight.clone(),
        until: now.plus_ms(node.config.message.claim_ms),
        limit: plan.room,
    };
    let rows = node.store.claim(now, &ask).await?;
    let is_all = rows.len() < plan.room as usize;
    Ok((rows.into_iter().map(Found::Direct).collect(), is_all))
}

/// The session key whose stored mail the session may have: one that it has proven,
/// or one that it merely named and that the store remembers as its member's. A
/// claim that somebody else has proven is on its way out, and until then gets what
/// is live at most: what is stored waits for its owner.
async fn own_session_key(
    node: &Node,
    session: &Session,
    record: &PresenceRecord,
    now: Timestamp,
) -> Result<Option<Key>> {
    let claimed = record.claimed_key().filter(|_| !session.visitor);
    let Some(claimed) = claimed else { return Ok(session.session_key.clone()) };
    let since = now.plus_ms(-limits::SESSION_KEY_MEMORY_MS);
    let owner = node.store.member_of_session_key(&session.mesh, claimed.as_str(), since).await?;
    Ok(owner.filter(|owner| *owner == session.member).map(|_| claimed.clone()))
}

async fn multicasts(
    node: &Node,
    room: &Room,
    session: &Session,
    after: i64,
) -> Result<(Vec<Found>, bool)> {
    let page = limits::DRAIN_BATCH_ENVELOPES_MAX;
    let limit = u32::try_from(page).unwrap_or(u32::MAX);
    let mut after = after;
    let mut found: Vec<Found> = Vec::new();
    let mut wanted = 0;
    loop {
        let rows = node.store.multicasts_after(room.mesh(), after, limit).await?;
        let is_last = rows.len() < page;
        for row in rows {
            after = row.seq;
            if is_for(node, room, session, &row) {
                wanted += 1;
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
        if wanted >= page {
            return Ok((found, false));
        }
    }
}

fn is_for(node: &Node, room: &Room, session: &Session, row: &StoredEnvelope) -> bool {
    if row.sender_member == session.member {
        return false;
    }
    let Some(record) = room.record(&session.presence) else { return false };
    let sender = MulticastSender {
        member: row.sender_member.clone(),
        member_key: row.sender_key.clone(),
        session_key: row.sender_session_key.clone(),
    };
    deliver::is_for(room, Target::parse(&row.target_spec), &record, row.seq)
        && deliver::multicast_granted(node, room, &session.member, &sender)
}

/// What became of one thing found.
enum Sent {
    /// It went out, or it is not for this session.
    Yes,
    /// The session takes no more now.
    Full,
    /// The mailbox begins with more messages that must not go out than are
    /// worth remembering.
    GiveUp,
}

async fn send(node: &Arc<Node>, room: &Arc<Room>, session: &Arc<Session>, found: Found) -> Sent {
    if !session.outbox.has_room().await {
        return Sent::Full;
    }
    let delivery = match found {
        Found::Past(seq) => {
            session.inbox.lock().drained_past(seq);
            return Sent::Yes;
        }
        Found::Multicast(envelope) => {
            let place = Place::Multicast(envelope.seq);
            deliver::delivery(deliver::multicast_push(room, envelope), place)
        }
        Found::Direct(envelope) => {
            if !may_have(node, room, session, &envelope) {
                return refuse(node, session, envelope).await;
            }
            let push = deliver::direct_push(room, envelope, &session.member);
            deliver::delivery(push, Place::Direct)
        }
    };
    if session.inbox.lock().is_full() {
        return Sent::Full;
    }
    session.offer_drained(&delivery);
    Sent::Yes
}

/// Whether a direct message may go to this session: not if it sent it itself,
/// not if the member's grants have changed since.
fn may_have(node: &Node, room: &Room, session: &Session, envelope: &StoredEnvelope) -> bool {
    let own = envelope.sender_member == session.member
        && envelope.sender_session_key == session.session_key;
    let granted = room.member(&session.member).is_some_and(|member| {
        let session_key = envelope.sender_session_key.as_ref();
        policy::grants(&member, &envelope.sender_key, session_key, Capability::Dm)
    });
    if !granted {
        deliver::count_dropped(node, Capability::Dm);
    }
    granted && !own
}

/// The claim is taken back, for whoever else the message addresses.
async fn refuse(node: &Node, session: &Session, envelope: StoredEnvelope) -> Sent {
    let remembered = session.inbox.lock().refuse(envelope.id.clone());
    if let Err(error) = node.store.unclaim(&session.presence, &[envelope.id]).await {
        tracing::debug!(%error, "a claim stays until it runs out");
    }
    if remembered { Sent::Yes } else { Sent::GiveUp }
}
