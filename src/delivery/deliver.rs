//! After the commit: to sockets here, to nodes elsewhere. No database read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::allowance::Allowance;
use super::policy::{Capability, Target};
use super::{Parts, audience, drain, push, rosters};
use crate::clock::Timestamp;
use crate::cluster::{BusDelivery, BusMessage, Multicast, MulticastSender, TopicNote};
use crate::id::{Key, MemberId, MessageId, PresenceId};
use crate::logging::milestone;
use crate::metrics::PriorityLabel;
use crate::protocol::Push;
use crate::registry::{Arrival, Room};
use crate::session::Session;
use crate::session::inbox::Route;
use crate::store::{Envelope, NewEnvelope, Post, Reach, StoredEnvelope, TopicPost};

/// Whom an accepted message is for.
#[derive(Clone, Debug)]
pub(crate) enum Recipient {
    /// Everyone that the target names gets the message.
    Many,
    One {
        /// The key it is addressed to.
        key: Key,
        /// The member behind the key.
        member: MemberId,
        /// The presence that has the claim on it, if one takes it now.
        presence: Option<PresenceId>,
    },
}

/// What is remembered of a send while it is committed.
pub(crate) struct Sent {
    /// The sender's mesh.
    pub(crate) room: Arc<Room>,
    pub(crate) sender: Arc<Session>,
    pub(crate) recipient: Recipient,
    /// What it took of its sender's rates.
    pub(crate) allowance: Allowance,
    /// Of one that is sealed for many: the keys of members that are here and get nothing.
    pub(crate) unsealed: Vec<Key>,
}

/// Delivers what was just accepted.
pub(crate) fn deliver(
    parts: &Arc<Parts>,
    sent: Sent,
    stored: StoredEnvelope,
    previous_multicast: i64,
) {
    let begun = Instant::now();
    let room = &sent.room;
    match sent.recipient {
        Recipient::Many => {
            let resumed = sent.sender.is_first_since_resumed(None);
            multicast(parts, room, stored, previous_multicast, resumed);
        }
        Recipient::One { key, member, presence } => {
            let resumed = sent.sender.is_first_since_resumed(Some(&key));
            direct(parts, room, stored, key, &member, presence, resumed);
        }
    }
    parts.metrics.deliver_seconds.observe(begun.elapsed().as_secs_f64());
}

// --- one recipient -----------------------------------------------------------

fn direct(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    envelope: StoredEnvelope,
    key: Key,
    member: &MemberId,
    presence: Option<PresenceId>,
    resumed: bool,
) {
    let (seq, id) = (envelope.seq, envelope.id.clone());
    let Some(presence) = presence else {
        // Nobody took it when it was planned; somebody may have come since,
        // here or on a node that this one's directory does not know of yet.
        return drain::mail_for(parts, room, key);
    };
    let Some(record) = room.record(&presence) else {
        return give_back(parts, room, presence, id, key);
    };
    match room.session(&presence) {
        Some(session) => {
            if !session.outbox.is_open() {
                return give_back(parts, room, presence, id, key);
            }
            let push = Box::new(push::direct(envelope, member));
            offer_direct(parts, room, &session, BusDelivery { seq, push, resumed });
        }
        // It went into grace while the message was committed.
        None if !record.online => give_back(parts, room, presence, id, key),
        None => {
            let push = Box::new(push::direct(envelope, member));
            let delivery = BusDelivery { seq, push, resumed };
            parts.cluster.publish(room.mesh(), &BusMessage::Direct { presence, delivery });
        }
    }
}

/// A direct message from another node, for a session here.
pub(crate) fn direct_from_bus(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    presence: PresenceId,
    from: BusDelivery,
) {
    let id = from.push.message_id.clone();
    let Some(session) = room.session(&presence) else { return };
    if !session.outbox.is_open() {
        let key = session.member_key.clone();
        return give_back(parts, room, presence, id, key);
    }
    offer_direct(parts, room, &session, from);
}

/// To a session here, behind what its sender sent before.
fn offer_direct(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    BusDelivery { push, resumed, .. }: BusDelivery,
) {
    if !resumed && !room.multicasts_wait() {
        session.offer(&push::delivery(*push, Route::Direct));
        return;
    }
    // An earlier message of the same sender may have gone missing, or be among
    // the multicasts that wait for another node's. The store has all, in order.
    session.inbox.lock().mark_behind();
    drain::request(parts, room, session);
}

/// The presence that had the claim is gone: the claim is taken back, so that
/// whoever else the key addresses need not wait for it to run out.
fn give_back(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    presence: PresenceId,
    message: MessageId,
    key: Key,
) {
    let (parts, room) = (Arc::clone(parts), Arc::clone(room));
    let tasks = parts.life.tasks.clone();
    tasks.spawn(async move {
        if let Err(error) = parts.mail.unclaim(&presence, &[message]).await {
            tracing::debug!(%error, "a claim stays until it runs out");
        }
        drain::mail_for(&parts, &room, key);
    });
}

/// A message was sent again. The node that took it may have died before it told
/// anybody of it: whoever it is for reads the store.
pub(crate) fn deliver_again(parts: &Arc<Parts>, sent: Sent) {
    let Sent { room, recipient, .. } = sent;
    match recipient {
        Recipient::One { key, .. } => drain::mail_for(parts, &room, key),
        Recipient::Many => {
            drain::request_all(parts, &room);
            let message = BusMessage::MailFor { keys: Vec::new(), many: true };
            parts.cluster.publish(room.mesh(), &message);
        }
    }
}

/// Where and when a commit put something.
pub(crate) struct Place {
    /// Its seq.
    pub(crate) seq: i64,
    /// For what is for many: the seq of the multicast before it.
    pub(crate) previous_multicast: i64,
    /// For a post: the version of its topic's roster.
    pub(crate) roster: i64,
    /// When it was accepted.
    pub(crate) created_at: Timestamp,
}

/// Counts and logs what was accepted, whoever brought it.
pub(super) fn note_accepted(
    parts: &Parts,
    room: Option<&Room>,
    envelope: &Envelope,
    (seq, created_at): (i64, Timestamp),
) {
    let priority = envelope.priority.as_str();
    parts.metrics.messages_routed.get_or_create(&PriorityLabel { priority }).inc();
    if let Some(room) = room {
        room.note_accepted();
    }
    tracing::debug!(
        name: milestone::ACCEPTED,
        message_id = %envelope.id, mesh = %envelope.mesh, seq, priority,
        created_at = created_at.as_ms(),
        "message accepted"
    );
}

/// Delivers what was accepted in the name of a member that need not be here, in a mesh
/// that this node need not serve.
pub(crate) fn deliver_later(
    parts: &Arc<Parts>,
    room: Option<&Arc<Room>>,
    NewEnvelope { envelope, reach }: NewEnvelope,
    sender_key: Key,
    place: Place,
) {
    let Place { seq, previous_multicast: previous, roster, created_at } = place;
    note_accepted(parts, room.map(|room| &**room), &envelope, (seq, created_at));
    let mesh = &envelope.mesh.clone();
    let stored = StoredEnvelope::fresh(envelope, seq, sender_key, created_at);
    let multicast = match reach {
        Reach::Direct { .. } => {
            let key = Key::from(stored.envelope.target_spec);
            return match room {
                Some(room) => drain::mail_for(parts, room, key),
                None => {
                    let message = BusMessage::MailFor { keys: vec![key], many: false };
                    parts.cluster.publish(mesh, &message);
                }
            };
        }
        Reach::Multicast => multicast_of(stored, previous, false),
        Reach::Topic(post) => post_of(stored, *post, roster, previous, false),
    };
    match room {
        Some(room) => tell_all(parts, room, multicast),
        None => parts.cluster.publish(mesh, &BusMessage::Multicast(Box::new(multicast))),
    }
}

// --- many recipients -----------------------------------------------------------

fn multicast(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    envelope: StoredEnvelope,
    previous: i64,
    resumed: bool,
) {
    tell_all(parts, room, multicast_of(envelope, previous, resumed));
}

fn multicast_of(mut envelope: StoredEnvelope, previous: i64, resumed: bool) -> Multicast {
    let sealed_keys = envelope.envelope.take_sealed_keys();
    let group = match Target::parse(&envelope.target_spec) {
        Target::Group(group) => Some(group.to_owned()),
        _ => None,
    };
    let (sender, seq) = (audience::sender_of(&envelope), envelope.seq);
    let delivery = BusDelivery { seq, push: Box::new(push::multicast(envelope)), resumed };
    Multicast { group, topic: None, sealed_keys, sender, previous, delivery }
}

/// Delivers a post that was just accepted, under that version of its topic's roster.
pub(crate) fn post(
    parts: &Arc<Parts>,
    sent: &Sent,
    envelope: StoredEnvelope,
    post: Post,
    roster: i64,
    previous: i64,
) {
    let begun = Instant::now();
    let resumed = sent.sender.is_first_since_resumed(None);
    tell_all(parts, &sent.room, post_of(envelope, post, roster, previous, resumed));
    parts.metrics.deliver_seconds.observe(begun.elapsed().as_secs_f64());
}

fn post_of(
    envelope: StoredEnvelope,
    post: Post,
    roster: i64,
    previous: i64,
    resumed: bool,
) -> Multicast {
    let (sender, seq) = (audience::sender_of(&envelope), envelope.seq);
    let Post { topic: id, name: topic, body_version, .. } = post;
    let push = Box::new(push::post(TopicPost { envelope, topic, body_version }));
    let delivery = BusDelivery { seq, push, resumed };
    // Nodes of the release before take it for a group that nobody is in.
    let group = Some(format!("#{id}"));
    let topic = Some(TopicNote { id, roster });
    Multicast { group, topic, sealed_keys: BTreeMap::new(), sender, previous, delivery }
}

/// To the other nodes, and to the sessions here.
fn tell_all(parts: &Arc<Parts>, room: &Arc<Room>, multicast: Multicast) {
    let message = BusMessage::Multicast(Box::new(multicast));
    parts.cluster.publish(room.mesh(), &message);
    if let BusMessage::Multicast(multicast) = message {
        multicast_arrives(parts, room, *multicast);
    }
}

/// How long an early multicast waits for the one before it, which another
/// node has committed and not yet published.
const EARLY_WAIT: Duration = Duration::from_millis(100);

/// A multicast, from here or from another node, in the mesh's order.
pub(crate) fn multicast_arrives(parts: &Arc<Parts>, room: &Arc<Room>, multicast: Multicast) {
    let read_all = || {
        parts.metrics.bus_gaps.inc();
        drain::request_all(parts, room);
    };
    if multicast.delivery.seq <= room.last_multicast() {
        drain::rewind::look(parts, room);
    }
    match room.arrive(multicast, |multicast| fan_out(parts, room, multicast), read_all) {
        Arrival::Now(_) | Arrival::Waits { first: false } | Arrival::Lost => {}
        Arrival::Waits { first: true } => {
            let (parts, room) = (Arc::clone(parts), Arc::clone(room));
            let tasks = parts.life.tasks.clone();
            tasks.spawn(async move {
                tokio::time::sleep(EARLY_WAIT).await;
                room.give_up_waiting(|| {
                    parts.metrics.bus_gaps.inc();
                    drain::request_all(&parts, &room);
                });
            });
        }
    }
}

/// To every session here that a multicast is for. Encoded once per codec.
fn fan_out(parts: &Arc<Parts>, room: &Arc<Room>, multicast: Multicast) {
    let Multicast { group, topic, sealed_keys, sender, delivery, .. } = multicast;
    let BusDelivery { seq, push, resumed } = delivery;
    if resumed {
        // It waits behind their gates.
        drain::request_all(parts, room);
    }
    if let Some(topic) = topic {
        room.note_posts();
        return fan_out_post(parts, room, topic, &sender, seq, *push);
    }
    let target = group.as_deref().map_or(Target::Everyone, Target::Group);
    let is_sealed = push.signature.is_some();
    let delivery = push::delivery(*push, Route::Multicast(seq));
    for (session, record) in room.sessions() {
        if record.visitor {
            continue;
        }
        let wanted = record.member != sender.member
            && audience::includes(room, target, is_sealed, &record, seq)
            && audience::is_granted(parts, room, &record.member, &sender, Capability::Broadcast);
        let key = sealed_keys.get(&record.member_key);
        match (wanted, is_sealed, key) {
            (true, false, _) => {
                session.offer(&delivery);
            }
            (true, true, Some(key)) => {
                session.offer(&push::opened_by(&delivery, key));
            }
            _ => session.inbox.lock().pass_over(seq),
        }
    }
}

/// To every session here whose member is in the topic. Where the roster is not known as
/// it was at the commit, everybody reads the store, which knows.
fn fan_out_post(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    note: TopicNote,
    sender: &MulticastSender,
    seq: i64,
    push: Push,
) {
    let Some(roster) = room.roster(&note.id, note.roster) else {
        rosters::changed(parts, room, note.id);
        return drain::request_all(parts, room);
    };
    let notice = push::notice(&push).map(|push| push::delivery(push, Route::Multicast(seq)));
    let delivery = push::delivery(push, Route::Multicast(seq));
    for (session, record) in room.sessions() {
        if record.visitor {
            continue;
        }
        if !roster.includes(&record.member, seq) {
            session.inbox.lock().pass_over(seq);
            continue;
        }
        session.inbox.lock().note_post(seq);
        if audience::wants_post(parts, room, &record, sender) {
            let notice = notice.as_ref().filter(|_| record.shows_texts_only());
            session.offer(notice.unwrap_or(&delivery));
        } else {
            session.inbox.lock().pass_over(seq);
        }
    }
}

#[cfg(test)]
mod tests;
