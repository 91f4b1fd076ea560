//! Changes of what a mesh shares: told to its sessions on every node.
//!
//! A change is on disk before anybody is told of it. What a node missed, it reads from
//! the store; a session that is behind with reading is told the newest of each thing, as
//! far as there is room for events. Of tasks only those are told who asked to be.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::json;

use crate::clock::Timestamp;
use crate::cluster::{BusMessage, Cluster};
use crate::codec::SharedFrame;
use crate::id::MeshId;
use crate::life::Life;
use crate::limits;
use crate::protocol::{CONTEXT_KEY, ServerMessage, StateChange, SystemEvent};
use crate::record::{PresenceRecord, Shared, SharedChange};
use crate::registry::Room;
use crate::session::outbox::Subject;
use crate::store::{Contexts, Result, States, Tasks};

/// What the functions of this room work with.
pub(crate) struct Parts {
    /// Where each kind of thing is read from.
    pub(crate) states: Arc<dyn States>,
    pub(crate) tasks: Arc<dyn Tasks>,
    pub(crate) contexts: Arc<dyn Contexts>,
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
        let states = self.states.changed_since(mesh, seq, limit).await?;
        let tasks = self.tasks.changed_since(mesh, seq, limit).await?;
        let contexts = self.contexts.changed_since(mesh, seq, limit).await?;
        Ok(merged([states, tasks, contexts], limit))
    }
}

/// Tells the sessions here, if it is news.
fn tell(room: &Room, change: &SharedChange) -> bool {
    let thing = change.what.thing();
    room.tell_shared(&thing, change.seq, || {
        let frame = SharedFrame::new(frame(room, &change.what));
        let subject = Arc::new(Subject::new(&thing, "shared"));
        room.for_each_session(|session, record| {
            let is_other = Some(&session.presence) != change.by.as_ref();
            if is_other && is_for(&change.what, record) {
                session.outbox.tell(frame.bytes(session.codec), &subject);
            }
        });
    })
}

/// Whether that presence is told.
fn is_for(what: &Shared, record: &PresenceRecord) -> bool {
    match what {
        Shared::State { .. } | Shared::Context { .. } => !record.visitor,
        Shared::Task { .. } => record.watches_tasks,
    }
}

fn frame(room: &Room, what: &Shared) -> ServerMessage {
    match what {
        Shared::State { key, value, version, updated_by } => {
            ServerMessage::StateChange(Box::new(StateChange {
                key: key.clone(),
                value: value.clone(),
                version: *version,
                updated_by: updated_by.clone(),
            }))
        }
        Shared::Context { name, summary, .. } => {
            ServerMessage::StateChange(Box::new(StateChange {
                key: format!("{CONTEXT_KEY}{name}"),
                value: summary.as_str().into(),
                version: None,
                updated_by: name.clone(),
            }))
        }
        Shared::Task { task_id, status, by } => {
            let data = json!({ "taskId": task_id, "status": status, "by": by });
            let event = SystemEvent { event: Cow::Borrowed("task"), data };
            let push = event.into_push(room.mesh().clone(), Timestamp::now());
            ServerMessage::Push(Box::new(push))
        }
    }
}

/// Changes of several kinds in their order, up to where all that were read whole or in
/// part have been read; and whether that is all.
fn merged(
    kinds: impl IntoIterator<Item = Vec<SharedChange>>,
    limit: i64,
) -> (Vec<SharedChange>, bool) {
    let (mut changes, mut end) = (Vec::new(), i64::MAX);
    for kind in kinds {
        if kind.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            end = end.min(kind.last().map_or(i64::MAX, |last| last.seq));
        }
        changes.extend(kind);
    }
    changes.retain(|change| change.seq <= end);
    changes.sort_by_key(|change| change.seq);
    (changes, end == i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::TaskStatus;

    fn change(seq: i64) -> SharedChange {
        let what = Shared::Task { task_id: seq.to_string(), status: TaskStatus::Open, by: None };
        SharedChange { seq, by: None, what }
    }

    fn seqs(kinds: [&[i64]; 2], limit: i64) -> (Vec<i64>, bool) {
        let kinds = kinds.map(|seqs| seqs.iter().copied().map(change).collect());
        let (changes, is_all) = merged(kinds, limit);
        (changes.iter().map(|change| change.seq).collect(), is_all)
    }

    #[test]
    fn changes_of_several_kinds_are_read_up_to_where_none_was_cut() {
        assert_eq!(seqs([&[1, 4], &[2, 9]], 3), (vec![1, 2, 4, 9], true));
        assert_eq!(seqs([&[1, 4, 5], &[2, 9]], 3), (vec![1, 2, 4, 5], false));
        assert_eq!(seqs([&[1, 4, 5], &[2, 3, 4]], 3), (vec![1, 2, 3, 4, 4], false));
        assert_eq!(seqs([&[], &[]], 3), (vec![], true));
    }
}
