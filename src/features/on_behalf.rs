//! What a visitor says for a session of its member.
//!
//! A command that runs inside a session says `set_status` on a connection of its
//! own, with the session's id. What it says of itself is meant for the session: the
//! open one of the same member with that id, on whichever node its socket is. If
//! there is none, it is about the visitor.

use super::{Asker, Context, handle_other};
use crate::cluster::{BusMessage, ClusterHealth, PresenceRecord};
use crate::presence::said::{merged, with_group};
use crate::protocol::{ClientMessage, Said};
use crate::registry::Candidate;

/// A visitor's request.
pub(super) async fn handle(context: &Context<'_>, message: ClientMessage<'_>) {
    let session = said_by(&message).and_then(|said| Some((said, spoken_for(context)?)));
    match session {
        None => handle_other(context, message).await,
        Some((_, Candidate { session: Some(session), .. })) => {
            let asker = Asker::Visitor(context.session);
            let req_id = context.req_id.clone();
            let context = Context { session: &session, req_id, asker, ..*context };
            handle_other(&context, message).await;
        }
        Some((said, Candidate { record, session: None })) => pass_on(context, &record, said),
    }
}

fn spoken_for(context: &Context<'_>) -> Option<Candidate> {
    let visitor = context.room.record(&context.session.presence)?;
    context.room.spoken_for(&visitor)
}

fn said_by(message: &ClientMessage<'_>) -> Option<Said> {
    Some(match message {
        ClientMessage::SetStatus(status) => Said::Status { status: *status },
        ClientMessage::SetSummary(summary) => Said::Summary { summary: summary.clone() },
        ClientMessage::SetVisible(visible) => Said::Visible { visible: *visible },
        ClientMessage::SetProfile(profile) => Said::Profile { profile: profile.clone() },
        ClientMessage::JoinGroup(group) => Said::JoinGroup { group: group.clone() },
        ClientMessage::LeaveGroup(name) => Said::LeaveGroup { name: name.clone() },
        _ => return None,
    })
}

/// To the node that holds the session. What that would refuse is refused here, by
/// what is known of the session.
fn pass_on(context: &Context<'_>, record: &PresenceRecord, said: Said) {
    let refused = match &said {
        Said::Profile { profile } => merged(record, profile.clone()).err(),
        Said::JoinGroup { group } => with_group(record, group.clone()).err(),
        _ => None,
    };
    if let Some(text) = refused {
        return context.refuse_if_asked("invalid_argument", text);
    }
    if context.node.cluster.health() == ClusterHealth::Degraded {
        let text = "the node that holds the session cannot be reached right now; try again";
        return context.refuse_if_asked("unavailable", text);
    }
    let is_always_answered = said.is_always_answered();
    let message = BusMessage::Said { presence: record.id.clone(), said: Box::new(said) };
    context.node.cluster.publish(context.room.mesh(), &message);
    if is_always_answered { context.done() } else { context.done_if_asked() }
}
