//! What the store has for a session and its drain has not sent yet.

use std::collections::HashMap;

use super::reading::{Reading, Readings, bytes_of};
use crate::clock::Timestamp;
use crate::delivery::policy::{Capability, Target};
use crate::delivery::{Parts, audience};
use crate::id::{Key, MemberId, MessageId};
use crate::limits;
use crate::protocol::Priority;
use crate::record::PresenceRecord;
use crate::registry::Room;
use crate::session::Session;
use crate::session::inbox::DrainPlan;
use crate::store::{ClaimRequest, Result, StoredEnvelope, TopicPost};

/// A message that a drain found, in the mesh's order.
pub(super) enum Found {
    Direct(StoredEnvelope),
    /// With the key that opens it, if it is sealed.
    Multicast(StoredEnvelope, Option<String>),
    Post(TopicPost),
    /// A multicast that is not for this session.
    Past(i64),
}

impl Found {
    pub(super) fn seq(&self) -> i64 {
        match self {
            Self::Direct(envelope) | Self::Multicast(envelope, _) => envelope.seq,
            Self::Post(post) => post.envelope.seq,
            Self::Past(seq) => *seq,
        }
    }

    fn envelope(&self) -> Option<&StoredEnvelope> {
        match self {
            Self::Direct(envelope) | Self::Multicast(envelope, _) => Some(envelope),
            Self::Post(post) => Some(&post.envelope),
            Self::Past(_) => None,
        }
    }

    /// Whether it need not be sent by this round: it waits behind the gate
    /// anyway, or is nothing.
    pub(super) fn comes_live(&self, session: &Session) -> bool {
        match self {
            Self::Direct(envelope) | Self::Multicast(envelope, _) => {
                session.inbox.lock().is_gated(&envelope.id)
            }
            Self::Post(post) => session.inbox.lock().is_gated(&post.envelope.id),
            Self::Past(_) => true,
        }
    }
}

/// For each message, how many newer ones of its sender were found.
pub(super) fn newer_of_senders(found: &[Found]) -> Vec<u32> {
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

pub(super) async fn directs(
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
pub(super) async fn to_many(
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
        let mut keys = sealed_keys(parts, room, session, &rows).await?;
        for row in rows {
            after = row.seq;
            if matches!(Target::parse(&row.target_spec), Target::Topic(_)) {
                // The post's place. What it says is in the list of posts.
                continue;
            }
            let sealed_key = keys.remove(&row.id);
            let opens = row.seal().is_none() || sealed_key.is_some();
            if opens && is_for(parts, room, session, &row) {
                wanted += 1;
                wanted_bytes += bytes_of(&row);
                found.push(Found::Multicast(row, sealed_key));
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

/// The keys that are sealed for the session's member, of those that are sealed.
async fn sealed_keys(
    parts: &Parts,
    room: &Room,
    session: &Session,
    rows: &[StoredEnvelope],
) -> Result<HashMap<MessageId, String>> {
    let sealed = rows.iter().filter(|row| row.seal().is_some());
    let sealed: Vec<MessageId> = sealed.map(|row| row.id.clone()).collect();
    let opens = room.record(&session.presence).is_some_and(|record| record.opens_sealed);
    if sealed.is_empty() || !opens {
        return Ok(HashMap::new());
    }
    parts.mail.sealed_keys(&session.member_key, &sealed).await
}

fn is_for(parts: &Parts, room: &Room, session: &Session, row: &StoredEnvelope) -> bool {
    if row.sender_member == session.member || row.is_expired(Timestamp::now()) {
        return false;
    }
    let Some(record) = room.record(&session.presence) else { return false };
    let sender = audience::sender_of(row);
    let is_sealed = row.seal().is_some();
    audience::includes(room, Target::parse(&row.target_spec), is_sealed, &record, row.seq)
        && audience::is_granted(parts, room, &session.member, &sender, Capability::Broadcast)
}
