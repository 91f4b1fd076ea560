//! `client_ack` and `withdraw`: how far a message came, and that it shall not.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::json;

use super::context::{Parts, Work};
use super::dispatch::pays;
use super::{Context, Refusal, receipts};
use crate::clock::Timestamp;
use crate::delivery::drain;
use crate::delivery::policy::Target;
use crate::id::MemberId;
use crate::limits;
use crate::logging::milestone;
use crate::presence::changes;
use crate::protocol::{
    Ack, ClientAck, Reached, Stage, SystemEvent, Unasked, Withdraw, WithdrawResult,
};
use crate::rates::cost;
use crate::record::PresenceRecord;
use crate::session::inbox::Landed;
use crate::store::{Confirm, Surfaced, Wished};

/// The peer says how far deliveries are. What it has is noted at once, and written soon;
/// before the answer where there is one. What its model or person was given is written first.
pub(super) fn client_ack<'a>(context: Context<'a>, ack: ClientAck) -> Option<Work<'a>> {
    let stage = ack.stage.unwrap_or_default();
    let named = match named(ack) {
        Ok(named) => named,
        Err(refusal) => {
            context.refuse(Unasked::Silent, refusal);
            return None;
        }
    };
    let (mut landed, mut ids, mut strays) = (Vec::new(), Vec::new(), Vec::new());
    for (broker_id, client_id) in named {
        let known = confirm(&context, broker_id.as_deref(), client_id, &mut strays);
        ids.extend(broker_id.or_else(|| known.as_ref().map(|known| known.id.to_string())));
        landed.extend(known);
    }
    if context.session.wants_drain() {
        drain::request(&context.parts.presence.delivery, context.room, context.session);
    }
    let wished: Vec<Wished> = landed.into_iter().filter_map(wished).collect();
    if !wished.is_empty() {
        receipts::tell(&context, Reached::Confirmed, wished);
    }
    let confirmations = &context.parts.confirmations;
    if context.req_id.is_none() {
        confirmations.report_strays(std::mem::take(&mut strays));
        if stage == Reached::Confirmed {
            return None;
        }
    }
    Some(Box::pin(async move {
        if pays(&context, cost::of_names(ids.len())).await {
            let result = reach(&context, stage, ids, strays).await;
            context.settle(Unasked::Silent, result);
        } else {
            context.parts.confirmations.report_strays(strays);
        }
    }))
}

/// Writes how far the messages are, where that is to be answered or was given to somebody.
async fn reach(
    context: &Context<'_>,
    stage: Reached,
    ids: Vec<String>,
    strays: Vec<Confirm>,
) -> Result<Ack, Refusal> {
    if context.req_id.is_some() {
        let Parts { confirmations, stores, .. } = &**context.parts;
        confirmations.settle_with(&*stores.mail, context.session, strays).await?;
    }
    if stage == Reached::Surfaced {
        surface(context, ids).await?;
    }
    Ok(context.done())
}

type Named = (Option<String>, Option<String>);

/// The messages that an ack names.
fn named(ack: ClientAck) -> Result<Vec<Named>, Refusal> {
    let given = |id: Option<String>| id.filter(|id| !id.is_empty());
    let ids = ack.message_ids.unwrap_or_default();
    if ids.len() > limits::CONFIRMED_AT_ONCE_MAX {
        let most = limits::CONFIRMED_AT_ONCE_MAX;
        return Err(Refusal::invalid(format!("messageIds: at most {most} at once")));
    }
    let mut named: Vec<Named> = ids.into_iter().map(|id| (given(Some(id)), None)).collect();
    named.push((given(ack.broker_message_id), given(ack.client_message_id)));
    named.retain(|(broker_id, client_id)| broker_id.is_some() || client_id.is_some());
    if named.is_empty() {
        return Err(Refusal::invalid("name the message: brokerMessageId"));
    }
    Ok(named)
}

/// The peer has a delivery. Returns it if it was on its way on this socket; else it is one of
/// `strays`.
fn confirm(
    context: &Context<'_>,
    broker_id: Option<&str>,
    client_id: Option<String>,
    strays: &mut Vec<Confirm>,
) -> Option<Landed> {
    let session = context.session;
    let (landed, is_first) = {
        let mut inbox = session.inbox.lock();
        let is_first = !inbox.confirms();
        (inbox.confirm(broker_id, client_id.as_deref()), is_first)
    };
    if is_first {
        tell_that_it_confirms(context);
    }
    if landed.is_some() {
        if let Some(message_id) = broker_id {
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
        strays.push(match broker_id {
            Some(id) => Confirm::Message {
                mesh,
                id: id.into(),
                member_key,
                session_key,
                is_written_only: false,
            },
            None => Confirm::ClientMessage {
                mesh,
                client_message_id: client_id.unwrap_or_default(),
                member_key,
                session_key,
            },
        });
    }
    landed
}

/// What is to be told of a message that was confirmed, if its sender wished it.
fn wished(landed: Landed) -> Option<Wished> {
    let Landed { id: message, client_message_id, report_to } = landed;
    let client_message_id = client_message_id.map(|id| id.as_ref().to_owned());
    Some(Wished { message, client_message_id, sender: report_to? })
}

/// The peer's model or person was given these.
async fn surface(context: &Context<'_>, messages: Vec<String>) -> Result<(), Refusal> {
    let session = context.session;
    if messages.is_empty() {
        return Err(Refusal::invalid("what is surfaced is named by the messageId of its push"));
    }
    let now = Timestamp::now();
    let surfaced = Surfaced {
        mesh: session.mesh.clone(),
        presence: session.presence.clone(),
        member_key: session.member_key.clone(),
        session_key: session.session_key.clone(),
        messages,
    };
    let wished = context.parts.stores.stages.surface(now, &surfaced).await?;
    let notes = |record: &mut PresenceRecord| {
        record.surfaced_at = Some(now);
        true
    };
    // The cluster's directory learns of it with the next renewal.
    context.room.update(session, notes);
    if !wished.is_empty() {
        receipts::tell(context, Reached::Surfaced, wished);
    }
    Ok(())
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

/// Takes back what the member sent, as far as nobody has it. Whose client has it and has
/// not given it to anybody may still drop it: its recipients are told.
pub(super) async fn withdraw(
    context: &Context<'_>,
    ask: Withdraw,
) -> Result<WithdrawResult, Refusal> {
    let (stages, session) = (&context.parts.stores.stages, context.session);
    let id = ask.message_id.as_str().into();
    let found = stages.withdraw(Timestamp::now(), &session.mesh, &session.member, &id).await?;
    let Some(withdrawal) = found else {
        let text = "no such message of yours is kept; withdraw takes its whole id";
        return Err(Refusal::new("not_found", text));
    };
    let may_be_dropped = withdrawal.is_done || withdrawal.stage == Stage::Confirmed;
    if may_be_dropped {
        let data = json!({ "messageId": id, "clientMessageId": withdrawal.client_message_id });
        for member in recipients(context, &withdrawal.target_spec) {
            let event =
                SystemEvent { event: Cow::Borrowed("message_withdrawn"), data: data.clone() };
            receipts::to_member(context, member, event);
        }
    }
    Ok(WithdrawResult {
        message_id: ask.message_id,
        withdrawn: withdrawal.is_done,
        stage: withdrawal.stage,
    })
}

/// The members, as far as they are here, that a message to that target is for.
fn recipients(context: &Context<'_>, target_spec: &str) -> BTreeSet<MemberId> {
    let member = |record: &PresenceRecord| record.member.clone();
    match Target::parse(target_spec) {
        Target::Key(key) => {
            let addressed = context.room.addressed_by(key);
            addressed.iter().map(|candidate| member(&candidate.record)).collect()
        }
        target => {
            let records = context.room.records();
            let named = records.iter().filter(|record| target.includes(record));
            let mut members: BTreeSet<MemberId> = named.map(|record| member(record)).collect();
            while members.len() > limits::TOLD_OF_WITHDRAWAL_MAX {
                members.pop_last();
            }
            members
        }
    }
}
