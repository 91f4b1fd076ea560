//! Messages that are sent later, in the name of the member that scheduled them.
//!
//! What may be sent is looked at here, and once more when it is sent. Nothing is sent
//! from here: [`jobs`](crate::jobs) do that.

use super::shapes::{filled, may_begin_an_id, named, no_larger_than, the_one_of};
use super::{Context, Refusal};
use crate::clock::{Timestamp, cron};
use crate::delivery::addressee::{self, InNameOf};
use crate::delivery::properties::{self, Replier};
use crate::id;
use crate::limits;
use crate::paging;
use crate::protocol::{
    CancelScheduled, CancelScheduledAck, ListScheduled, Schedule, ScheduledAck, ScheduledList,
    ScheduledRow,
};
use crate::store::{NewSchedule, Scheduled};

/// The only thing that a scheduled message may call itself.
const REMINDER: &str = "reminder";

/// A message to send later.
pub(super) async fn schedule(
    context: &Context<'_>,
    ask: Schedule,
) -> Result<ScheduledAck, Refusal> {
    let now = Timestamp::now();
    let mut new = planned(context, now, ask)?;
    let (parts, session) = (context.parts, context.session);
    let (delivery, mesh) = (&parts.presence.delivery, context.room.mesh());
    let by = Replier::from(&**session);
    let hop = properties::hop(delivery, &by, new.reply_to_id.as_deref()).await?;
    new.hop = hop.map_err(|refusal| Refusal::new(refusal.reason, refusal.text))?;
    let sent = InNameOf {
        member: &session.member,
        key: &session.member_key,
        target: &new.to,
        // Whom it mentions is looked at when it is sent.
        ciphertext: "",
        is_sealed: new.nonce.is_some(),
    };
    let reach = addressee::reach(delivery, Some(context.room), mesh, &sent).await?;
    reach.map_err(|refusal| Refusal::new(refusal.reason, refusal.text))?;
    parts.stores.schedules.schedule(now, &context.author(), &new).await?;
    parts.life.scheduled.notify_one();
    Ok(ScheduledAck {
        scheduled_id: new.id,
        deliver_at: new.deliver_at.as_ms(),
        cron: new.cron,
        timezone: new.timezone,
    })
}

fn planned(context: &Context<'_>, now: Timestamp, ask: Schedule) -> Result<NewSchedule, Refusal> {
    let Schedule {
        to,
        message,
        ciphertext,
        nonce,
        deliver_at,
        subtype,
        cron,
        timezone,
        reply_to_id,
    } = ask;
    named("to", &to)?;
    let (message, nonce) = match (message, ciphertext) {
        (Some(message), None) => (message, None),
        (None, Some(ciphertext)) => (ciphertext, Some(nonce.unwrap_or_default())),
        (Some(_), Some(_)) => {
            return Err(Refusal::invalid("either `message` or `ciphertext`, not both"));
        }
        (None, None) => return Err(Refusal::invalid("`message` is needed, or `ciphertext`")),
    };
    sized(context, &message, nonce.as_deref())?;
    let subtype = filled(subtype);
    if subtype.as_deref().is_some_and(|subtype| subtype != REMINDER) {
        return Err(Refusal::invalid(format!("`subtype` is \"{REMINDER}\", or left out")));
    }
    let (cron, timezone) = (filled(cron), filled(timezone));
    let deliver_at = match &cron {
        Some(cron) => first_of(now, cron, timezone.as_deref())?,
        None => once(now, deliver_at)?,
    };
    let reply_to_id = filled(reply_to_id);
    if let Some(id) = &reply_to_id {
        no_larger_than("replyToId", id.len(), limits::CLIENT_MESSAGE_ID_BYTES_MAX)?;
    }
    let texts = [Some(&to), Some(&message), nonce.as_ref(), reply_to_id.as_ref()];
    for text in texts.into_iter().flatten() {
        if text.contains('\0') {
            return Err(Refusal::invalid("NUL cannot be kept"));
        }
    }
    let id = id::random();
    let hop = 0;
    Ok(NewSchedule {
        id,
        to,
        message,
        nonce,
        deliver_at,
        cron,
        timezone,
        subtype,
        reply_to_id,
        hop,
    })
}

/// A message is sent as base64, which is longer by a third.
fn sized(context: &Context<'_>, message: &str, nonce: Option<&str>) -> Result<(), Refusal> {
    let bytes = message.len() + nonce.map_or(0, str::len);
    let sent_bytes_max = context.parts.presence.delivery.config.message_bytes_max;
    let bytes_max = limits::VALUE_BYTES_MAX.min(sent_bytes_max / 4 * 3);
    no_larger_than("message", bytes, bytes_max)
}

fn first_of(now: Timestamp, text: &str, timezone: Option<&str>) -> Result<Timestamp, Refusal> {
    let no_zone = || Refusal::invalid("`timezone` is no IANA name, as \"Europe/Berlin\" is one");
    let zone = cron::zone(timezone).ok_or_else(no_zone)?;
    let is_short = text.len() <= limits::SHARED_NAME_BYTES_MAX;
    let cron = is_short.then(|| cron::Cron::parse(text, zone)).flatten();
    let shown: String = text.chars().take(limits::SHARED_NAME_BYTES_MAX).collect();
    let refusal = || Refusal::new("invalid_cron", format!("Invalid cron expression: {shown}"));
    cron.and_then(|cron| cron.next_after(now)).ok_or_else(refusal)
}

fn once(now: Timestamp, deliver_at: Option<i64>) -> Result<Timestamp, Refusal> {
    let needed = || Refusal::invalid("`deliverAt` is needed, or `cron`");
    let deliver_at = Timestamp::from_ms(deliver_at.ok_or_else(needed)?);
    if deliver_at.ms_since(now) > limits::SCHEDULE_AHEAD_MS {
        return Err(Refusal::invalid("`deliverAt` is more than 366 days ahead"));
    }
    // Some dates of the past no database can hold, and none means anything here.
    Ok(deliver_at.max(Timestamp::from_ms(0)))
}

/// What the member has scheduled.
pub(super) async fn list(
    context: &Context<'_>,
    ask: ListScheduled,
) -> Result<ScheduledList, Refusal> {
    let after = paging::from_cursor::<(i64, String)>(ask.cursor.as_deref())?;
    let schedules = &context.parts.stores.schedules;
    let (mesh, member) = (context.room.mesh(), &context.session.member);
    let position = |row: &ScheduledRow| (row.created_at, row.id.clone());
    let mut listing = paging::Listing::after(after, position);
    while let Some((after, limit)) = listing.next() {
        let after = after.map(|(at, id)| (Timestamp::from_ms(at), id));
        let found = schedules.list(mesh, member, after, limit).await?;
        listing.take(found.into_iter().map(shown));
    }
    let page = listing.page();
    Ok(ScheduledList { messages: page.rows, more: page.cursor.is_some(), cursor: page.cursor })
}

fn shown(scheduled: Scheduled) -> ScheduledRow {
    let sealed = scheduled.nonce.is_some();
    ScheduledRow {
        id: scheduled.id,
        to: scheduled.to,
        message: if sealed { String::new() } else { scheduled.message },
        sealed,
        deliver_at: scheduled.deliver_at.as_ms(),
        created_at: scheduled.created_at.as_ms(),
        fired_count: scheduled.cron.is_some().then_some(scheduled.fired_count),
        cron: scheduled.cron,
        timezone: scheduled.timezone,
    }
}

/// Takes one of the member's back.
pub(super) async fn cancel(
    context: &Context<'_>,
    ask: CancelScheduled,
) -> Result<CancelScheduledAck, Refusal> {
    let (schedules, mut id) = (&context.parts.stores.schedules, ask.scheduled_id);
    let (now, author) = (Timestamp::now(), context.author());
    let mut ok = schedules.cancel(now, &author, &id).await?;
    if !ok && let Some(whole) = listed_as(context, &id).await? {
        ok = schedules.cancel(now, &author, &whole).await?;
        id = whole;
    }
    Ok(CancelScheduledAck { scheduled_id: id, ok })
}

/// The asker's message whose id begins so, among those that its list begins with: clients
/// show people the beginnings of ids.
async fn listed_as(context: &Context<'_>, beginning: &str) -> Result<Option<String>, Refusal> {
    if !may_begin_an_id(beginning) {
        return Ok(None);
    }
    let (schedules, author) = (&context.parts.stores.schedules, context.author());
    let limit = limits::SCHEDULES_SEARCHED;
    let found = schedules.list(&author.mesh, &author.member, None, limit).await?;
    Ok(the_one_of(found.into_iter().map(|scheduled| scheduled.id), beginning))
}
