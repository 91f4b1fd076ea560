//! What a visitor says for a session of its member.
//!
//! A command that runs inside a session says how that does on a connection of its
//! own, with the session's id. What it says of itself is meant for the session: the
//! open one of the same member with that id, on whichever node its socket is. If
//! there is none, it is about the visitor.

use super::{Context, Refusal};
use crate::cluster::{BusMessage, ClusterHealth};
use crate::presence::said::{merged, with_group};
use crate::protocol::{Ack, Said};
use crate::record::PresenceRecord;
use crate::registry::Candidate;

/// The session that a visitor speaks for.
pub(super) fn spoken_for(context: &Context<'_>) -> Option<Candidate> {
    if !context.session.visitor {
        return None;
    }
    let visitor = context.room.record(&context.session.presence)?;
    context.room.spoken_for(&visitor)
}

/// To the node that holds the session. What that would refuse is refused here, by
/// what is known of the session.
pub(super) fn pass_on(
    context: &Context<'_>,
    record: &PresenceRecord,
    said: Said,
) -> Result<Ack, Refusal> {
    let refused = match &said {
        Said::Profile { profile } => merged(record, profile.clone()).err(),
        Said::JoinGroup { group } => with_group(record, group.clone()).err(),
        _ => None,
    };
    if let Some(text) = refused {
        return Err(Refusal::invalid(text));
    }
    if context.parts.cluster.health() == ClusterHealth::Degraded {
        let text = "the node that holds the session cannot be reached right now; try again";
        return Err(Refusal::new("unavailable", text));
    }
    let message = BusMessage::Said { presence: record.id.clone(), said: Box::new(said) };
    context.parts.cluster.publish(context.room.mesh(), &message);
    Ok(context.done())
}
