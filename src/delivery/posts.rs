//! Posts to topics: who may post, for whom a post is, what a session's member missed.
//!
//! A post is a multicast to the members of its topic, in the mesh's order like all
//! others. What differs: a node hands it out by its roster of the topic, which must be as
//! new as the post says; and members that were away read it from the topic's history.

use std::sync::Arc;

use super::policy::Capability;
use super::send::{Refusal, not_read};
use super::{Parts, audience, drain, mentions, push};
use crate::cluster::{BusMessage, MulticastSender, TopicNote};
use crate::id::{MeshId, TopicId};
use crate::limits;
use crate::protocol::{Push, Send};
use crate::record::PresenceRecord;
use crate::registry::Room;
use crate::session::Session;
use crate::session::inbox::Route;
use crate::store::{Post, TopicPost};

/// What a send to a topic is beside its envelope.
pub(super) async fn plan(
    parts: &Parts,
    room: &Room,
    session: &Session,
    named: &str,
    send: &Send<'_>,
) -> Result<Post, Refusal> {
    let found = parts.topics.addressed(room.mesh(), named, &session.member).await;
    let topic = match found.map_err(not_read)? {
        Some(topic) if topic.is_member => topic,
        // Both are words that end a daemon's retries.
        Some(topic) if topic.is_public => {
            let text = format!("forbidden: only members of #{0} may post; join #{0}", topic.name);
            return Err(Refusal::new("topic", text));
        }
        _ => {
            let text = format!("invalid target \"#{named}\": there is no such topic");
            return Err(Refusal::new("topic", text));
        }
    };
    let body_version = send.body_version.unwrap_or(1);
    if !(1..=2).contains(&body_version) {
        return Err(Refusal::new("invalid", "invalid send: bodyVersion is 1 or 2"));
    }
    if room.roster(&topic.id, topic.roster).is_none() {
        read_roster(parts, room, &topic.id).await;
    }
    let names = mentions::of(send.mentions.as_deref(), body_version, send.ciphertext.as_text());
    let mut mentioned = room.members_named(&names);
    mentioned.retain(|member| *member != session.member);
    mentioned.sort();
    mentioned.truncate(limits::MENTIONED_MEMBERS_MAX);
    Ok(Post { topic: topic.id, name: topic.name, body_version, mentions: mentioned })
}

/// To every session here whose member is in the topic. Where the roster is not known as
/// it was at the commit, everybody reads the store, which knows.
pub(super) fn fan_out(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    note: TopicNote,
    sender: &MulticastSender,
    seq: i64,
    push: Push,
) {
    let Some(roster) = room.roster(&note.id, note.roster) else {
        changed(parts, room, note.id);
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
        if is_wanted(parts, room, &record, sender) {
            let notice = notice.as_ref().filter(|_| reads_no_seals(&record));
            session.offer(notice.unwrap_or(&delivery));
        } else {
            session.inbox.lock().pass_over(seq);
        }
    }
}

/// Whether a post of a member's topic is to go to this presence of it: not to the sender,
/// not past its grants, and not where its daemon, which keeps one inbox for all its
/// sessions, has it too.
pub(super) fn is_wanted(
    parts: &Parts,
    room: &Room,
    record: &PresenceRecord,
    sender: &MulticastSender,
) -> bool {
    // Daemons read what they missed, too: whatever the seq, an open one has it.
    let is_in_daemons = room.is_in_daemons_inbox(record, |_| true, i64::MAX);
    record.member != sender.member
        && !is_in_daemons
        && audience::is_granted(parts, room, &record.member, sender, Capability::Dm)
}

/// What a presence gets of a post that a drain found.
pub(super) fn push_for(record: &PresenceRecord, post: TopicPost) -> Push {
    let push = push::post(post);
    let notice = if reads_no_seals(record) { push::notice(&push) } else { None };
    notice.unwrap_or(push)
}

/// Whether its program shows sealed text as it is: daemons and what they carry for
/// sessions.
fn reads_no_seals(record: &PresenceRecord) -> bool {
    record.is_daemon() || record.is_session_of_daemon()
}

/// Who is in a topic has changed, or is not known here: it is read again, beside what
/// else is done.
pub(crate) fn changed(parts: &Arc<Parts>, room: &Arc<Room>, topic: TopicId) {
    let (parts, room) = (Arc::clone(parts), Arc::clone(room));
    let tasks = parts.life.tasks.clone();
    tasks.spawn(async move { read_roster(&parts, &room, &topic).await });
}

/// This node changed who is in a topic: the others are told, and then this one reads it.
pub(crate) async fn roster_changed(parts: &Parts, room: &Room, topic: &TopicId) {
    let message = BusMessage::RosterChanged { topic: topic.clone() };
    parts.cluster.publish(room.mesh(), &message);
    read_roster(parts, room, topic).await;
}

/// A failure is made up for by the next post: it says that the roster here is old.
async fn read_roster(parts: &Parts, room: &Room, topic: &TopicId) {
    match parts.topics.roster(room.mesh(), topic).await {
        Ok(Some(roster)) => room.set_roster(topic, roster),
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, %topic, "a roster waits for the next post"),
    }
}

/// Posts that other programs wrote get their place, and whoever they are for reads them.
pub(crate) async fn adopt(parts: &Arc<Parts>, room: &Arc<Room>) {
    let mesh: &MeshId = room.mesh();
    loop {
        let now = crate::clock::Timestamp::now();
        match parts.topics.adopt(now, mesh, limits::ADOPTED_POSTS_MAX).await {
            Ok(None) => return,
            Ok(Some(last)) => {
                room.skip_to(last, || drain::request_all(parts, room));
                let message = BusMessage::MailFor { keys: Vec::new(), many: true };
                parts.cluster.publish(mesh, &message);
            }
            Err(error) => {
                return tracing::warn!(%error, %mesh, "posts of other programs wait");
            }
        }
    }
}

#[cfg(test)]
mod tests;
