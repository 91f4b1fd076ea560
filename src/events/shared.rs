//! Changes of what a mesh shares: told to its sessions on every node.
//!
//! A change is on disk before anybody is told of it. What a node missed, it reads from
//! the store; a session that is behind with reading is told the newest of each thing, as
//! far as there is room for events. Visitors are told of nothing.

use std::sync::Arc;

use crate::cluster::{BusMessage, Cluster};
use crate::codec::SharedFrame;
use crate::id::MeshId;
use crate::life::Life;
use crate::limits;
use crate::protocol::{ServerMessage, StateChange};
use crate::record::{Shared, SharedChange};
use crate::registry::Room;
use crate::session::outbox::Subject;
use crate::store::{Result, States};

/// What the functions of this room work with.
pub(crate) struct Parts {
    /// Where each kind of thing is read from.
    pub(crate) states: Arc<dyn States>,
    /// The way to the other nodes.
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) life: Arc<Life>,
}

/// A change was made here: the sessions here and the other nodes are told.
pub(crate) fn publish(parts: &Arc<Parts>, room: &Arc<Room>, change: SharedChange) {
    let message = BusMessage::Shared(Box::new(change));
    parts.cluster.publish(room.mesh(), &message);
    if let BusMessage::Shared(change) = message {
        hear(parts, room, &change);
    }
}

/// A change is heard of, from here or from another node.
pub(crate) fn hear(parts: &Arc<Parts>, room: &Arc<Room>, change: &SharedChange) {
    if tell(room, change) {
        catch_up(parts, room);
    }
}

/// Changes may have been missed: they are read from the store. One reading at a time.
pub(crate) fn catch_up(parts: &Arc<Parts>, room: &Arc<Room>) {
    if !room.begin_catch_up() {
        return;
    }
    let (parts, room) = (Arc::clone(parts), Arc::clone(room));
    let tasks = parts.life.tasks.clone();
    tasks.spawn(async move {
        loop {
            if let Err(error) = read(&parts, &room).await {
                tracing::debug!(%error, mesh = %room.mesh(), "shared things wait for the next gap");
            }
            if !room.end_catch_up() || !room.begin_catch_up() {
                return;
            }
        }
    });
}

async fn read(parts: &Parts, room: &Room) -> Result<()> {
    loop {
        let place = room.shared_place();
        let (changes, is_all) = parts.changed_since(room.mesh(), place).await?;
        for change in &changes {
            tell(room, change);
        }
        if let Some(last) = changes.last() {
            room.shared_is_read(last.seq);
        }
        if is_all {
            return Ok(());
        }
    }
}

impl Parts {
    /// What is otherwise since that seq, in the order of the changes, and whether that is
    /// all.
    async fn changed_since(&self, mesh: &MeshId, seq: i64) -> Result<(Vec<SharedChange>, bool)> {
        let limit = limits::SHARED_CHANGES_READ;
        let changes = self.states.changed_since(mesh, seq, limit).await?;
        let is_all = changes.len() < usize::try_from(limit).unwrap_or(usize::MAX);
        Ok((changes, is_all))
    }
}

/// Tells the sessions here, if it is news.
fn tell(room: &Room, change: &SharedChange) -> bool {
    let thing = change.what.thing();
    room.tell_shared(&thing, change.seq, || {
        let frame = SharedFrame::new(frame(&change.what));
        let subject = Arc::new(Subject::new(&thing, "shared"));
        room.for_each_session(|session, _| {
            if !session.visitor && Some(&session.presence) != change.by.as_ref() {
                session.outbox.tell(frame.bytes(session.codec), &subject);
            }
        });
    })
}

fn frame(what: &Shared) -> ServerMessage {
    match what {
        Shared::State { key, value, version, updated_by } => {
            ServerMessage::StateChange(Box::new(StateChange {
                key: key.clone(),
                value: value.clone(),
                version: *version,
                updated_by: updated_by.clone(),
            }))
        }
    }
}
