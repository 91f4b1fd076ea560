//! What a transaction of firings writes: gathered from those whose rows it holds. Pure.

use std::collections::HashSet;

use super::{Fate, Fired, Firing};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId, MessageId};
use crate::store::{Accepted, NewEnvelope};

/// A row that moves on.
pub(super) struct Moved<'a> {
    pub(super) id: &'a str,
    pub(super) due_at: Timestamp,
    /// The instant that is shown; `None`: as before.
    pub(super) deliver_at: Option<Timestamp>,
    /// Whether its message was sent.
    pub(super) is_sent: bool,
}

/// An audit row of one that is dropped.
pub(super) struct Dropped<'a> {
    pub(super) mesh: &'a MeshId,
    pub(super) member: &'a MemberId,
    pub(super) name: &'a str,
    pub(super) event: AuditEvent,
}

/// What a message says of itself beside what every message says.
pub(super) struct Marked<'a> {
    pub(super) id: &'a MessageId,
    pub(super) subtype: Option<&'a str>,
    pub(super) late: bool,
}

/// All that is to be written.
#[derive(Default)]
pub(super) struct Work<'a> {
    pub(super) envelopes: Vec<NewEnvelope>,
    pub(super) marked: Vec<Marked<'a>>,
    pub(super) gone: Vec<&'a str>,
    pub(super) moved: Vec<Moved<'a>>,
    pub(super) dropped: Vec<Dropped<'a>>,
}

impl<'a> Work<'a> {
    /// Of the firings whose rows are held.
    pub(super) fn of(firings: &'a [Firing], held: &HashSet<String>) -> Self {
        let mut work = Self::default();
        for Firing { due, fate } in firings.iter().filter(|firing| is_held(firing, held)) {
            let id = due.scheduled.id.as_str();
            let moved = |next, is_sent| Moved { id, due_at: next, deliver_at: Some(next), is_sent };
            match fate {
                Fate::Send { envelope, next } => {
                    work.envelopes.push(NewEnvelope::clone(envelope));
                    if let Some(scheduled) = &envelope.scheduled {
                        let (subtype, late) = (scheduled.subtype.as_deref(), scheduled.late);
                        work.marked.push(Marked { id: &envelope.id, subtype, late });
                    }
                    match next {
                        Some(next) => work.moved.push(moved(*next, true)),
                        None => work.gone.push(id),
                    }
                }
                Fate::Skip { next } => work.moved.push(moved(*next, false)),
                Fate::PutOff { until } => {
                    let (due_at, deliver_at, is_sent) = (*until, None, false);
                    work.moved.push(Moved { id, due_at, deliver_at, is_sent });
                }
                Fate::Drop { reason } => {
                    work.gone.push(id);
                    let schedule_id = id.to_owned();
                    work.dropped.push(Dropped {
                        mesh: &due.mesh,
                        member: &due.member,
                        name: &due.member_name,
                        event: AuditEvent::ScheduleDropped { schedule_id, reason },
                    });
                }
            }
        }
        work
    }
}

/// What became of each, in their order; what was accepted is in the order of those that
/// are held.
pub(super) fn fired(
    firings: &[Firing],
    held: &HashSet<String>,
    accepted: &[Accepted],
) -> Vec<Fired> {
    let mut accepted = accepted.iter();
    let of = |firing: &Firing| match &firing.fate {
        _ if !is_held(firing, held) => Fired::Elsewhere,
        Fate::Send { .. } => accepted.next().map_or(Fired::Settled, Fired::of),
        Fate::Skip { .. } | Fate::Drop { .. } | Fate::PutOff { .. } => Fired::Settled,
    };
    firings.iter().map(of).collect()
}

fn is_held(firing: &Firing, held: &HashSet<String>) -> bool {
    held.contains(&firing.due.scheduled.id)
}
