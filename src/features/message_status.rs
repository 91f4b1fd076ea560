//! `message_status`: how far a message is with each of its recipients.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::listing::{Cursor, cursor_of, listed};
use super::moderators::is_moderator;
use super::{Context, Refusal};
use crate::clock::Timestamp;
use crate::delivery::policy::Target;
use crate::id::PresenceId;
use crate::limits;
use crate::paging::{Page, from_cursor, page};
use crate::protocol::{MessageStatus, MessageStatusResult, Recipient, RecipientStatus, Stage};
use crate::record::PresenceRecord;
use crate::store::{self, MessageState, Progress};

/// What became of a message: for its sender, its recipients and admins.
pub(super) async fn tell(
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
        [state] => Ok(describe(context, message_id, state, after.as_ref()).await?),
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

async fn describe(
    context: &Context<'_>,
    asked: String,
    state: &MessageState,
    after: Option<&Cursor>,
) -> store::Result<MessageStatusResult> {
    let (delivered, Page { rows: recipients, cursor }) = match Target::parse(&state.target_spec) {
        Target::Key(key) => {
            let recipient = one(context, state, key);
            (recipient.stage.is_delivered(), Page { rows: vec![recipient], cursor: None })
        }
        target => many(context, state, target, after).await?,
    };
    Ok(MessageStatusResult {
        message_id: asked,
        target_spec: state.target_spec.clone(),
        delivered,
        // When each of many had it is not known.
        delivered_at: state.delivered_at.filter(|_| delivered && !state.multicast),
        recipients,
        more: cursor.is_some(),
        cursor,
    })
}

fn one(context: &Context<'_>, state: &MessageState, key: &str) -> Recipient {
    let now = Timestamp::now();
    let mut here = context.room.addressed_by(key);
    // Whether a hidden one is there is nobody's business.
    here.retain(|candidate| is_seen(context, &candidate.record));
    // The presence that has it or is about to, else one of the member's.
    let presence = here
        .iter()
        .find(|candidate| Some(&candidate.record.id) == state.claimed_by.as_ref())
        .or_else(|| here.iter().find(|candidate| candidate.record.online))
        .or(here.first());
    let is_given_up = state.delivered_at.is_none()
        && now.ms_since(state.created_at) > limits::UNDELIVERED_RETENTION_MS;
    let (stage, at) = if is_given_up { (Stage::Expired, None) } else { state.stage(now) };
    let status = match (stage, presence) {
        (Stage::Confirmed | Stage::Surfaced, _) => RecipientStatus::Delivered,
        (Stage::Expired | Stage::Withdrawn | Stage::Blocked, _) => RecipientStatus::Expired,
        // Older brokers know no more of a client that never says what it has.
        (Stage::Pushed, _) if state.delivered_at.is_some() => RecipientStatus::Delivered,
        (Stage::Kept | Stage::Pushed, Some(_)) => RecipientStatus::Held,
        (Stage::Kept | Stage::Pushed, None) => RecipientStatus::Disconnected,
    };
    let (name, pubkey) = match presence {
        Some(candidate) => {
            (candidate.record.display_name.clone(), candidate.record.routing_key().to_string())
        }
        None => ("unknown".to_owned(), key.chars().take(16).collect()),
    };
    let peer_status = presence.map(|candidate| does(&candidate.record));
    Recipient { name, pubkey, status, stage, at, peer_status }
}

/// What the peer does now.
fn does(record: &PresenceRecord) -> Cow<'static, str> {
    Cow::Borrowed(if record.online { record.status.as_str() } else { "away" })
}

fn is_seen(context: &Context<'_>, record: &PresenceRecord) -> bool {
    record.visible || record.member == context.session.member
}

/// Those that were there when the message was accepted and whom its target names now, and
/// whether all of them have it.
async fn many(
    context: &Context<'_>,
    state: &MessageState,
    target: Target<'_>,
    after: Option<&Cursor>,
) -> store::Result<(bool, Page<Recipient>)> {
    let roster = match target {
        Target::Topic(topic) => {
            let topics = &context.parts.stores.topic_mail;
            let roster = topics.roster(context.room.mesh(), &topic.into()).await?;
            Some(roster.unwrap_or_default())
        }
        _ => None,
    };
    // Who cannot open it was not given it.
    let sealed_for = match roster {
        Some(_) => None,
        None => context.parts.presence.delivery.mail.sealed_for(&state.id).await?,
    };
    let is_for = |record: &PresenceRecord| {
        let is_named = match &roster {
            Some(roster) => roster.includes(&record.member, state.seq),
            None => target.includes(record),
        };
        let opens = sealed_for
            .as_ref()
            .is_none_or(|keys| record.opens_sealed && keys.contains(&record.member_key));
        let was_there = roster.is_some() || record.connected_at <= state.created_at;
        is_named && opens && was_there && record.member != state.sender_member
    };
    let mut all = listed(context, None);
    all.retain(|record| is_for(record));
    let presences: Vec<PresenceId> = all.iter().map(|record| record.id.clone()).collect();
    let progress = context.parts.stores.stages.places(&presences).await?;
    let now = Timestamp::now();
    let recipient = |record: &PresenceRecord| of_many(state, record, &progress, now);
    let delivered =
        !all.is_empty() && all.iter().all(|record| recipient(record).stage.is_delivered());
    let mut rest: Vec<Arc<PresenceRecord>> = match after {
        None => all,
        Some(_) => listed(context, after),
    };
    rest.retain(|record| is_for(record));
    Ok((delivered, page(rest, |record| cursor_of(record), |record| recipient(record))))
}

fn of_many(
    state: &MessageState,
    record: &PresenceRecord,
    progress: &HashMap<PresenceId, Progress>,
    now: Timestamp,
) -> Recipient {
    let progress = progress.get(&record.id).copied().unwrap_or_default();
    let is_over = state.expires_at.is_some_and(|at| at <= now);
    let (has, is_given) = (progress.confirmed >= state.seq, progress.surfaced >= state.seq);
    let stage = match state.ended {
        _ if is_given => Stage::Surfaced,
        // Who took it back does not know who had it by then.
        Some(end) => end,
        None if has && record.confirms() => Stage::Confirmed,
        None if has => Stage::Pushed,
        None if is_over => Stage::Expired,
        None => Stage::Kept,
    };
    let status = match stage {
        Stage::Surfaced | Stage::Confirmed | Stage::Pushed => RecipientStatus::Delivered,
        Stage::Expired | Stage::Withdrawn | Stage::Blocked => RecipientStatus::Expired,
        Stage::Kept if record.online => RecipientStatus::Held,
        Stage::Kept => RecipientStatus::Disconnected,
    };
    Recipient {
        name: record.display_name.clone(),
        pubkey: record.routing_key().to_string(),
        status,
        stage,
        at: None,
        peer_status: Some(does(record)),
    }
}
