//! `kick`, `disconnect`, `ban`, `unban`, `list_bans`.

mod whom;

use std::sync::Arc;

use self::whom::{Candidate, Meaning, meant};
use super::moderators::only_moderators;
use super::{Context, Refusal};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::MemberId;
use crate::limits;
use crate::paging::{Budget, Page, from_cursor, page};
use crate::presence::changes::{Ending, remove};
use crate::presence::members;
use crate::protocol::budget::cut;
use crate::protocol::{
    Ask, Ban, BanAck, BanEntry, BansList, CloseReason, Disconnect, DisconnectAck, Kick, KickAck,
    KickRequest, ListBans, PeerRole, TargetRequest, Unban, UnbanAck,
};
use crate::record::PresenceRecord;
use crate::store::{AuditEntry, Member, Moderation};

/// How sessions are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    /// `kick`: they are not to come back by themselves.
    Kick,
    /// `disconnect`: they may.
    Disconnect,
}

impl Removal {
    const fn verb(self) -> &'static str {
        match self {
            Self::Kick => Kick::TYPE,
            Self::Disconnect => Disconnect::TYPE,
        }
    }

    const fn close(self, stale: bool) -> CloseReason {
        match (self, stale) {
            (Self::Kick, false) => CloseReason::KICKED,
            (Self::Kick, true) => CloseReason::KICKED_STALE,
            (Self::Disconnect, false) => CloseReason::DISCONNECTED,
            (Self::Disconnect, true) => CloseReason::DISCONNECTED_STALE,
        }
    }
}

/// `kick`.
pub(super) async fn kick(context: &Context<'_>, ask: Kick) -> Result<KickAck, Refusal> {
    end_sessions(context, &ask.0, Removal::Kick).await
}

pub(super) async fn disconnect(
    context: &Context<'_>,
    ask: Disconnect,
) -> Result<DisconnectAck, Refusal> {
    end_sessions(context, &ask.0, Removal::Disconnect).await.map(DisconnectAck)
}

async fn end_sessions(
    context: &Context<'_>,
    ask: &KickRequest,
    removal: Removal,
) -> Result<KickAck, Refusal> {
    only_moderators(context, removal.verb())?;
    let (mut chosen, stale) = choose(context, ask)?;
    let mut spared = Vec::new();
    if removal == Removal::Kick {
        chosen.retain(|record| {
            let is_session = record.role != PeerRole::ControlPlane;
            if !is_session {
                spared.push(record.display_name.clone());
            }
            is_session
        });
    }
    // The caller may name itself: its answer must leave before its close.
    let (own, others): (Vec<Ending>, Vec<Ending>) = chosen
        .iter()
        .map(|record| Ending {
            record: PresenceRecord::clone(record),
            close: Some(removal.close(stale)),
            audit: vec![kicked_row(context, record)],
        })
        .partition(|ending| ending.record.id == context.session.presence);
    let presence = &context.parts.presence;
    remove(presence, context.room.mesh(), &others).await?;
    if !own.is_empty() {
        let (presence, mesh) = (Arc::clone(presence), context.room.mesh().clone());
        context.afterwards(async move {
            if let Err(error) = remove(&presence, &mesh, &own).await {
                tracing::warn!(%error, "a session that removed itself could not be ended");
            }
        });
    }
    let names = chosen.iter().map(|record| record.display_name.clone()).collect();
    Ok(kick_ack(names, spared))
}

/// Names as many as an answer holds. It cannot be paged: to ask again would be to
/// kick again.
fn kick_ack(names: Vec<String>, spared: Vec<String>) -> KickAck {
    let mut budget = Budget::default();
    let kicked = budget.texts(&names, 2);
    let shown = budget.texts(&spared, 1);
    let more = kicked.len() < names.len() || shown.len() < spared.len();
    KickAck {
        affected: kicked.clone(),
        kicked,
        skipped_control_plane: (!shown.is_empty()).then_some(shown),
        more,
        total: more.then_some(names.len()),
    }
}

/// Precedence: all, stale, target. The first two spare the caller. Refused: the target
/// may mean more than one member. Visitors are listed for nobody, and gone before
/// anybody could name them; a ban ends them.
fn choose(
    context: &Context<'_>,
    ask: &KickRequest,
) -> Result<(Vec<Arc<PresenceRecord>>, bool), Refusal> {
    let mut records = context.room.records();
    records.retain(|record| !record.visitor);
    let caller = &context.session.presence;
    let stale_ms = ask.stale.filter(|ms| ms.is_finite() && *ms != 0.0);
    if ask.all == Some(true) {
        records.retain(|record| record.id != *caller);
        return Ok((records, false));
    }
    if let Some(stale_ms) = stale_ms {
        let now = Timestamp::now();
        let oldest = now.plus_ms(-(stale_ms as i64));
        records.retain(|record| {
            let heard = match context.room.session(&record.id) {
                Some(session) => session.last_heard(),
                // When, only its own node knows; that one pings it, and closes
                // what does not answer.
                None if record.online => now,
                None => record.last_seen_at,
            };
            record.id != *caller && heard < oldest
        });
        return Ok((records, true));
    }
    let target = ask.target.as_deref().unwrap_or_default();
    let members: Vec<_> =
        records.iter().map(|record| context.room.member(&record.member)).collect();
    let choices = records.iter().zip(&members).map(|(record, member)| {
        (Arc::clone(record), Candidate::of_presence(record, member.as_deref()))
    });
    match meant(target, choices) {
        Meaning::These(records) => Ok((records, false)),
        Meaning::Nobody => Ok((Vec::new(), false)),
        Meaning::Ambiguous(text) => Err(Refusal::new("ambiguous", text)),
    }
}

fn kicked_row(context: &Context<'_>, record: &PresenceRecord) -> AuditEntry {
    AuditEntry {
        mesh: context.room.mesh().clone(),
        actor: Some(context.session.member.clone()),
        actor_name: own_name(context),
        event: AuditEvent::PeerKicked {
            target: record.display_name.clone(),
            target_pubkey: record.routing_key().clone(),
        },
    }
}

fn own_name(context: &Context<'_>) -> Option<String> {
    context.room.record(&context.session.presence).map(|record| record.display_name.clone())
}

/// `ban`: the membership is revoked, every socket of the member is closed.
pub(super) async fn ban(context: &Context<'_>, Ban(ask): Ban) -> Result<BanAck, Refusal> {
    only_moderators(context, Ban::TYPE)?;
    let target = named(ask)?;
    let stores = &context.parts.stores;
    let found = stores.members.find(context.room.mesh(), &target).await?;
    let not_found = || format!("peer \"{target}\" not found");
    let member = the_one(member_meant(context, &target, &found), not_found)?;
    if member.id == context.session.member {
        return Err(Refusal::new("invalid", "cannot ban yourself"));
    }
    if member.is_owner {
        return Err(Refusal::new("forbidden", "the owner cannot be banned"));
    }
    let event =
        AuditEvent::MemberBanned { target: target.clone(), target_pubkey: member.key.clone() };
    stores.bans.ban(Timestamp::now(), &moderation(context, &member, event)).await?;
    members::changed(&context.parts.presence, context.room.mesh()).await;
    Ok(BanAck { banned: name_of(&member) })
}

fn named(ask: TargetRequest) -> Result<String, Refusal> {
    let target = ask.target.filter(|target| !target.is_empty());
    target.ok_or_else(|| Refusal::new("invalid", "target required"))
}

fn the_one<T>(meaning: Meaning<T>, not_found: impl Fn() -> String) -> Result<T, Refusal> {
    let found = match meaning {
        Meaning::These(members) => members.into_iter().next(),
        Meaning::Nobody => None,
        Meaning::Ambiguous(text) => return Err(Refusal::new("ambiguous", text)),
    };
    found.ok_or_else(|| Refusal::new("not_found", not_found()))
}

/// The active member that a word means: of those that the store found by it, and
/// those whose sessions are called so.
fn member_meant(context: &Context<'_>, target: &str, found: &[Member]) -> Meaning<Member> {
    let records = context.room.records();
    let here: Vec<_> = records
        .iter()
        .filter(|record| record.display_name == target)
        .filter_map(|record| Some((record, context.room.member(&record.member)?)))
        .collect();
    let of_store = found.iter().map(|member| (member.clone(), Candidate::of_member(member)));
    let of_room = here.iter().map(|(record, member)| {
        (Member::clone(member), Candidate::of_presence(record, Some(member)))
    });
    meant(target, of_store.chain(of_room))
}

/// `unban`: by name or whole key.
pub(super) async fn unban(context: &Context<'_>, Unban(ask): Unban) -> Result<UnbanAck, Refusal> {
    only_moderators(context, Unban::TYPE)?;
    let target = named(ask)?;
    let store = &context.parts.stores.bans;
    let bans = store.banned(context.room.mesh()).await?;
    let exact = |member: &&Member| member.display_name == target || member.key.as_str() == target;
    let choices = bans.iter().filter(exact).map(|member| (member, Candidate::of_member(member)));
    let not_found = || format!("no banned peer \"{target}\"");
    let member = the_one(meant(&target, choices), not_found)?;
    let event = AuditEvent::MemberUnbanned { target: target.clone() };
    store.unban(Timestamp::now(), &moderation(context, member, event)).await?;
    members::changed(&context.parts.presence, context.room.mesh()).await;
    Ok(UnbanAck { unbanned: name_of(member) })
}

fn moderation(context: &Context<'_>, member: &Member, audit: AuditEvent) -> Moderation {
    Moderation {
        mesh: context.room.mesh().clone(),
        member: member.id.clone(),
        actor: Some(context.session.member.clone()),
        actor_name: own_name(context),
        audit,
    }
}

/// A member's name, as answers name it: a dashboard may have enrolled a longer one.
fn name_of(member: &Member) -> String {
    cut(&member.display_name, limits::DISPLAY_NAME_BYTES_MAX).to_owned()
}

/// `list_bans`: open to every member. The oldest first.
pub(super) async fn list_bans(context: &Context<'_>, ask: ListBans) -> Result<BansList, Refusal> {
    let after = from_cursor::<(Timestamp, MemberId)>(ask.cursor.as_deref())?;
    let mut members = context.parts.stores.bans.banned(context.room.mesh()).await?;
    let position = |member: &Member| (member.revoked_at.unwrap_or_default(), member.id.clone());
    members.sort_by_cached_key(position);
    members.retain(|member| after.as_ref().is_none_or(|after| position(member) > *after));
    let Page { rows: bans, cursor } = page(members, position, |member| BanEntry {
        name: name_of(member),
        pubkey: member.key.to_string(),
        revoked_at: member.revoked_at.unwrap_or_default(),
    });
    Ok(BansList { bans, more: cursor.is_some(), cursor })
}
