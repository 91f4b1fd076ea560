//! Messages whose time has come: sent in the names of the members that scheduled them.
//!
//! Every node tries; a message is sent by the one whose transaction takes it out of its
//! row. What is decided here is what would be looked at if the member sent it now: who
//! it is, whom it may write to, how much it may send, how much may wait. A task of its
//! own that sleeps until something is due; [`jobs`](super) start it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::clock::{Timestamp, cron};
use crate::delivery::addressee::{self, InNameOf, Reached};
use crate::delivery::deliver;
use crate::delivery::refusal::Refusal;
use crate::id::{self, MeshId, MessageId};
use crate::limits;
use crate::presence;
use crate::protocol::Priority;
use crate::rates::Whom;
use crate::registry::Room;
use crate::store::{
    Due, Envelope, Fate, Fired, Firing, Holder, Marks, NewEnvelope, Properties, Reach, Result,
    Schedules, Stores,
};

/// Another node may have died that knew of one which is due earlier.
const SLEEP_MAX: Duration = Duration::from_secs(5);
/// Others have in hand what is due.
const ELSEWHERE_PAUSE: Duration = Duration::from_millis(100);
/// The store did not answer.
const AWAY_PAUSE: Duration = Duration::from_secs(1);
/// A message is put off for so long where its member sends faster than it may, in all or to
/// those whom it is for.
const RATE_PAUSE_MS: i64 = 5_000;
/// The same where as much waits as may, the disk is nearly full, or the store refuses it.
const FULL_PAUSE_MS: i64 = 60_000;

/// Sends what is due until the node stops.
pub(super) async fn run(stores: &Stores, parts: &Arc<presence::Parts>) {
    let life = &parts.life;
    while !life.stopped.is_cancelled() {
        let pause = match fire_due(stores, parts).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(%error, "scheduled messages wait for the store");
                AWAY_PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = life.scheduled.notified() => {}
            () = life.stopped.cancelled() => return,
        }
    }
}

/// Sends what is due now; says when to look again.
async fn fire_due(stores: &Stores, parts: &Arc<presence::Parts>) -> Result<Duration> {
    let schedules = &*stores.schedules;
    loop {
        let now = Timestamp::now();
        let due = schedules.due(now, limits::SCHEDULES_FIRED_AT_ONCE).await?;
        if due.is_empty() {
            return until_next(schedules).await;
        }
        let mut firings = decide(stores, parts, now, due).await?;
        let fired = fire(schedules, now, &mut firings).await?;
        let is_elsewhere = fired.iter().all(|fired| *fired == Fired::Elsewhere);
        for (firing, fired) in firings.into_iter().zip(fired) {
            sent(parts, now, firing, fired);
        }
        if is_elsewhere {
            return Ok(ELSEWHERE_PAUSE);
        }
        if parts.life.stopped.is_cancelled() {
            return Ok(Duration::ZERO);
        }
    }
}

/// Does with each what was decided. Where the store refuses them all, each is done by
/// itself, so that one that cannot be kept holds up no other.
async fn fire(
    schedules: &dyn Schedules,
    now: Timestamp,
    firings: &mut [Firing],
) -> Result<Vec<Fired>> {
    match schedules.fire(now, firings).await {
        Err(error) if !error.is_retryable() => {
            tracing::error!(%error, "scheduled messages are sent one by one");
        }
        answered => return answered,
    }
    let mut fired = Vec::with_capacity(firings.len());
    for firing in firings {
        match fire_alone(schedules, now, firing).await {
            Ok(one) => fired.push(one),
            // Those before are on disk, and are told of.
            Err(error) if !fired.is_empty() => {
                tracing::warn!(%error, "scheduled messages wait for the store");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(fired)
}

async fn fire_alone(
    schedules: &dyn Schedules,
    now: Timestamp,
    firing: &mut Firing,
) -> Result<Fired> {
    let mut answer = schedules.fire(now, std::slice::from_ref(firing)).await;
    if let Err(error) = &answer
        && !error.is_retryable()
    {
        tracing::error!(%error, schedule = firing.due.scheduled.id, "a message is put off");
        firing.fate = put_off(now);
        answer = schedules.fire(now, std::slice::from_ref(firing)).await;
    }
    Ok(answer?.pop().unwrap_or(Fired::Elsewhere))
}

/// Whoever looks in a while decides anew.
fn put_off(now: Timestamp) -> Fate {
    Fate::PutOff { until: now.plus_ms(FULL_PAUSE_MS) }
}

async fn until_next(schedules: &dyn Schedules) -> Result<Duration> {
    let Some(next) = schedules.next_due().await? else { return Ok(SLEEP_MAX) };
    let wait_ms = next.ms_since(Timestamp::now()).max(0).unsigned_abs();
    Ok(Duration::from_millis(wait_ms).min(SLEEP_MAX))
}

/// What is to be done with each.
async fn decide(
    stores: &Stores,
    parts: &Arc<presence::Parts>,
    now: Timestamp,
    due: Vec<Due>,
) -> Result<Vec<Firing>> {
    let mut rooms: HashMap<MeshId, Option<Arc<Room>>> = HashMap::new();
    let mut firings = Vec::with_capacity(due.len());
    for due in due {
        let room = rooms.entry(due.mesh.clone()).or_insert_with(|| parts.registry.room(&due.mesh));
        let fate = match fate(parts, room.as_deref(), now, &due).await {
            Err(error) if !error.is_retryable() => {
                tracing::error!(%error, schedule = due.scheduled.id, "a message is put off");
                put_off(now)
            }
            decided => decided?,
        };
        firings.push(Firing { due, fate });
    }
    hold_back(stores, parts, now, &mut firings).await?;
    Ok(firings)
}

async fn fate(
    parts: &Arc<presence::Parts>,
    room: Option<&Room>,
    now: Timestamp,
    due: &Due,
) -> Result<Fate> {
    if due.is_revoked {
        return Ok(Fate::Drop { reason: "revoked" });
    }
    if due.is_archived {
        return Ok(Fate::Drop { reason: "archived" });
    }
    if parts.life.disk_low.load(Ordering::Relaxed) {
        return Ok(put_off(now));
    }
    let (delivery, next) = (&parts.delivery, next_of(now, due));
    let envelope = envelope(now, due);
    let sent = InNameOf {
        member: &due.member,
        key: &due.member_key,
        target: &due.scheduled.to,
        ciphertext: &envelope.ciphertext,
        is_sealed: due.scheduled.nonce.is_some(),
    };
    let reached = match addressee::reach(delivery, room, &due.mesh, &sent).await? {
        Ok(reached) => reached,
        Err(Refusal { reason, .. }) => {
            return Ok(next.map_or(Fate::Drop { reason }, |next| Fate::Skip { next }));
        }
    };
    let Reached { reach, to } = reached;
    let whom = to.as_ref().map_or(Whom::Many, Whom::Member);
    // What a clock sends can wait, also for an admin.
    match delivery.rates.may_send(&*delivery.cluster, &due.member, whom, false).await {
        Ok(mut counted) => counted.spend(),
        Err(_) => return Ok(Fate::PutOff { until: now.plus_ms(RATE_PAUSE_MS) }),
    }
    Ok(Fate::Send { envelope: Box::new(reaching(envelope, reach)), next })
}

/// When it is sent again; one that missed some of its times goes on with the next.
fn next_of(now: Timestamp, due: &Due) -> Option<Timestamp> {
    let zone = cron::zone(due.scheduled.timezone.as_deref())?;
    cron::Cron::parse(due.scheduled.cron.as_deref()?, zone)?.next_after(now)
}

/// A post is named by the beginning of its id, and stands under its topic's. How it came
/// about is told of direct messages and multicasts only.
fn reaching(mut envelope: Envelope, reach: Reach) -> NewEnvelope {
    if let Reach::Topic(post) = &reach {
        envelope.id = MessageId::from(id::random());
        envelope.target_spec = format!("#{}", post.topic);
        envelope.scheduled = None;
    }
    NewEnvelope { envelope, reach }
}

fn envelope(now: Timestamp, due: &Due) -> Envelope {
    let scheduled = &due.scheduled;
    let ciphertext = match scheduled.nonce {
        Some(_) => scheduled.message.clone(),
        None => STANDARD.encode(&scheduled.message),
    };
    let wanted = scheduled.deliver_at.max(scheduled.created_at);
    let late = scheduled.cron.is_none() && now.ms_since(wanted) > limits::SCHEDULE_LATE_MS;
    let subtype = scheduled.subtype.clone();
    Envelope {
        id: MessageId::generate(),
        mesh: due.mesh.clone(),
        sender_member: due.member.clone(),
        sender_name: due.member_name.clone(),
        sender_session_key: None,
        target_spec: scheduled.to.clone(),
        priority: Priority::Now,
        nonce: scheduled.nonce.clone().unwrap_or_default(),
        ciphertext,
        client_message_id: None,
        request_fingerprint: None,
        reply_to_id: scheduled.reply_to_id.clone(),
        scheduled: Some(Marks { subtype, late }),
        properties: Properties { hop: scheduled.hop, ..Properties::default() }.said(),
    }
}

/// Puts off what is for somebody, or from somebody, for or from whom as much waits as may.
async fn hold_back(
    stores: &Stores,
    parts: &presence::Parts,
    now: Timestamp,
    firings: &mut [Firing],
) -> Result<()> {
    let quotas = &parts.delivery.config.quotas;
    let mut asked = Vec::new();
    for (at, firing) in firings.iter().enumerate() {
        let Fate::Send { envelope, .. } = &firing.fate else { continue };
        if envelope.reach.is_many() {
            continue;
        }
        let (mesh, member) = (envelope.mesh.clone(), envelope.sender_member.clone());
        let target = envelope.target_spec.clone();
        let mailbox = Holder::Mailbox { mesh: mesh.clone(), target };
        let messages = quotas.mailbox_messages_max;
        asked.push((at, mailbox, messages, quotas.mailbox_bytes_max));
        let sender = Holder::Sender { mesh: mesh.clone(), member };
        asked.push((at, sender, 0, quotas.sender_bytes_max));
        asked.push((at, Holder::Mesh { mesh }, 0, quotas.mesh_bytes_max));
    }
    // A bound of 0 is none.
    asked.retain(|(_, _, messages, bytes)| *messages > 0 || *bytes > 0);
    if asked.is_empty() {
        return Ok(());
    }
    let endless = |max: u64| if max == 0 { u64::MAX } else { max };
    let holders: Vec<(Holder, u64)> = asked
        .iter()
        .map(|(_, holder, messages, bytes)| {
            let rows = endless(*bytes).div_ceil(limits::WAITING_BYTES_MIN);
            (holder.clone(), endless(*messages).min(rows))
        })
        .collect();
    let loads = stores.envelopes.waiting_load(&holders).await?;
    for ((at, _, messages, bytes), load) in asked.into_iter().zip(loads) {
        if load.messages >= endless(messages) || load.bytes >= endless(bytes) {
            firings[at].fate = put_off(now);
        }
    }
    Ok(())
}

/// What follows from one that is on disk.
fn sent(parts: &Arc<presence::Parts>, now: Timestamp, Firing { due, fate }: Firing, fired: Fired) {
    let (Fate::Send { envelope, .. }, Fired::Sent { seq, previous_multicast, roster }) =
        (fate, fired)
    else {
        return;
    };
    let room = parts.registry.room(&due.mesh);
    let place = deliver::Place { seq, previous_multicast, roster, created_at: now };
    deliver::deliver_later(&parts.delivery, room.as_ref(), *envelope, due.member_key, place);
}

#[cfg(test)]
mod tests;
