//! `client_ack` and `message_status`.

use super::listing::{Cursor, cursor_of, listed};
use super::moderators::is_moderator;
use super::{Context, Refusal};
use crate::clock::Timestamp;
use crate::delivery::drain;
use crate::delivery::policy::Target;
use crate::limits;
use crate::logging::milestone;
use crate::paging::{Page, from_cursor, page};
use crate::presence::changes;
use crate::protocol::{
    Ack, ClientAck, MessageStatus, MessageStatusResult, Recipient, RecipientStatus,
};
use crate::rates::cost;
use crate::record::PresenceRecord;
use crate::store::{self, Confirm, MessageState};

/// The peer is done with a delivery.
pub(super) fn client_ack(context: &Context<'_>, ack: &ClientAck) -> Result<Ack, Refusal> {
    let session = context.session;
    let given = |id: &Option<String>| id.clone().filter(|id| !id.is_empty());
    let (broker_id, client_id) = (given(&ack.broker_message_id), given(&ack.client_message_id));
    if broker_id.is_none() && client_id.is_none() {
        return Err(Refusal::invalid("name the message: brokerMessageId"));
    }
    let (known, is_first) = {
        let mut inbox = session.inbox.lock();
        let is_first = !inbox.confirms();
        (inbox.confirm(broker_id.as_deref(), client_id.as_deref()), is_first)
    };
    if is_first {
        tell_that_it_confirms(context);
    }
    if known {
        if let Some(message_id) = &broker_id {
            tracing::debug!(
                name: milestone::CONFIRMED,
                %message_id, mesh = %session.mesh, presence = %session.presence,
                "message confirmed"
            );
        }
        context.parts.confirmations.report(session);
    } else if session.budget.lock().take(session.age_ms(), cost::OF_STRAY_CONFIRMATION).is_err() {
        // It is offered again, and confirmed then.
        context.parts.metrics.rejected("request_rate");
    } else {
        // Delivered on an earlier socket, perhaps by another node.
        let (mesh, member_key) = (session.mesh.clone(), session.member_key.clone());
        let session_key = session.session_key.clone();
        context.parts.confirmations.report_stray(match (broker_id, client_id) {
            (Some(id), _) => Confirm::Message { mesh, id: id.into(), member_key, session_key },
            (None, client_id) => Confirm::ClientMessage {
                mesh,
                client_message_id: client_id.unwrap_or_default(),
                member_key,
                session_key,
            },
        });
    }
    if session.wants_drain() {
        drain::request(&context.parts.presence.delivery, context.room, session);
    }
    Ok(context.done())
}

/// Others choose it before those that do not; the cluster's directory learns of it
/// with the next renewal.
fn tell_that_it_confirms(context: &Context<'_>) {
    let confirms = |record: &mut PresenceRecord| {
        record.has_confirmed = true;
        true
    };
    if let Some(record) = context.room.update(context.session, confirms) {
        changes::publish(&context.parts.presence, context.room, &record, None);
    }
}

/// What became of a message: for its sender, its recipients and admins.
pub(super) async fn status(
    context: &Context<'_>,
    ask: MessageStatus,
) -> Result<MessageStatusResult, Refusal> {
    let MessageStatus { message_id, cursor } = ask;
    let length = message_id.chars().count();
    if !(8..=32).contains(&length) || !message_id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        let text = format!("messageId must be 8-32 base62 chars (got {length})");
        return Err(Refusal::invalid(text));
    }
    let after = from_cursor::<Cursor>(cursor.as_deref())?;
    match find_visible(context, &message_id).await?.as_slice() {
        [] => Err(Refusal::new("not_found", "message not found")),
        [state] => Ok(describe(context, message_id, state, after.as_ref())),
        _ => {
            let text = "prefix matched 2 messages — use a longer id";
            Err(Refusal::new("ambiguous_prefix", text))
        }
    }
}

/// Up to two messages that begin so and that the caller may see: what it may not
/// see does not count.
async fn find_visible(context: &Context<'_>, prefix: &str) -> store::Result<Vec<MessageState>> {
    let mut visible = Vec::new();
    let mut after = None;
    for _ in 0..limits::FIND_PAGES_MAX {
        let store = &context.parts.stores;
        let page = store.messages.find(context.room.mesh(), prefix, after.as_ref()).await?;
        after = page.last().map(|state| state.id.clone());
        let is_last = page.len() < limits::FIND_MESSAGES_MAX as usize;
        visible.extend(page.into_iter().filter(|state| may_see(context, state)));
        if is_last || visible.len() > 1 {
            break;
        }
    }
    Ok(visible)
}

fn may_see(context: &Context<'_>, state: &MessageState) -> bool {
    let session = context.session;
    let is_recipient = || match Target::parse(&state.target_spec) {
        Target::Everyone => true,
        Target::Key(key) => {
            key == session.member_key.as_str()
                || session.session_key.as_ref().is_some_and(|own| own.as_str() == key)
        }
        target if session.visitor => {
            // Its member asks through it.
            let own = context.room.addressed_by(session.member_key.as_str());
            own.iter()
                .any(|own| own.record.member == session.member && target.includes(&own.record))
        }
        target => {
            context.room.record(&session.presence).is_some_and(|record| target.includes(&record))
        }
    };
    state.sender_member == session.member || is_recipient() || is_moderator(context)
}

fn describe(
    context: &Context<'_>,
    asked: String,
    state: &MessageState,
    after: Option<&Cursor>,
) -> MessageStatusResult {
    let expired = state.delivered_at.is_none()
        && Timestamp::now().ms_since(state.created_at) > limits::UNDELIVERED_RETENTION_MS;
    let Page { rows: recipients, cursor } = match Target::parse(&state.target_spec) {
        Target::Key(key) => Page { rows: vec![one(context, state, key, expired)], cursor: None },
        target => many(context, target, after),
    };
    MessageStatusResult {
        message_id: asked,
        target_spec: state.target_spec.clone(),
        delivered: state.delivered_at.is_some(),
        delivered_at: state.delivered_at,
        recipients,
        more: cursor.is_some(),
        cursor,
    }
}

fn one(context: &Context<'_>, state: &MessageState, key: &str, expired: bool) -> Recipient {
    let mut here = context.room.addressed_by(key);
    // Whether a hidden one is there is nobody's business.
    here.retain(|candidate| is_seen(context, &candidate.record));
    // The presence that has it or is about to, else one of the member's.
    let presence = here
        .iter()
        .find(|candidate| Some(&candidate.record.id) == state.claimed_by.as_ref())
        .or_else(|| here.iter().find(|candidate| candidate.record.online))
        .or(here.first());
    let status = match (state.delivered_at, presence) {
        (Some(_), _) => RecipientStatus::Delivered,
        _ if expired => RecipientStatus::Expired,
        (None, Some(_)) => RecipientStatus::Held,
        (None, None) => RecipientStatus::Disconnected,
    };
    let (name, pubkey) = match presence {
        Some(candidate) => {
            (candidate.record.display_name.clone(), candidate.record.routing_key().to_string())
        }
        None => ("unknown".to_owned(), key.chars().take(16).collect()),
    };
    Recipient { name, pubkey, status }
}

fn is_seen(context: &Context<'_>, record: &PresenceRecord) -> bool {
    record.visible || record.member == context.session.member
}

/// Everybody whom the target names now. Those in grace get it on return.
fn many(context: &Context<'_>, target: Target<'_>, after: Option<&Cursor>) -> Page<Recipient> {
    let mut records = listed(context, after);
    records.retain(|record| target.includes(record));
    page(
        records,
        |record| cursor_of(record),
        |record| Recipient {
            name: record.display_name.clone(),
            pubkey: record.routing_key().to_string(),
            status: if record.online { RecipientStatus::Delivered } else { RecipientStatus::Held },
        },
    )
}
