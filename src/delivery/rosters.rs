//! Rosters: who is in a topic, read from the store when that changes.

use std::sync::Arc;

use super::Parts;
use crate::cluster::BusMessage;
use crate::id::TopicId;
use crate::registry::Room;
use crate::store::Roster;

/// Who is in a topic has changed, or is not known here: it is read again, beside what
/// else is done.
pub(crate) fn changed(parts: &Arc<Parts>, room: &Arc<Room>, topic: TopicId) {
    let (parts, room) = (Arc::clone(parts), Arc::clone(room));
    let tasks = parts.life.tasks.clone();
    tasks.spawn(async move { read(&parts, &room, &topic).await });
}

/// This node changed who is in a topic: the others are told, and then this one reads it.
pub(crate) async fn changed_here(parts: &Parts, room: &Room, topic: &TopicId) {
    let message = BusMessage::RosterChanged { topic: topic.clone() };
    parts.cluster.publish(room.mesh(), &message);
    read(parts, room, topic).await;
}

/// The topic's roster in that version or a later one, read if it is not known here.
pub(super) async fn as_new_as(
    parts: &Parts,
    room: &Room,
    topic: &TopicId,
    version: i64,
) -> Option<Arc<Roster>> {
    if let Some(known) = room.roster(topic, version) {
        return Some(known);
    }
    read(parts, room, topic).await;
    room.roster(topic, version)
}

/// A failure is made up for by the next post: it says that the roster here is old.
async fn read(parts: &Parts, room: &Room, topic: &TopicId) {
    match parts.topics.roster(room.mesh(), topic).await {
        Ok(Some(roster)) => room.set_roster(topic, roster),
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, %topic, "a roster waits for the next post"),
    }
}
