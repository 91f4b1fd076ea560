//! `kick`, `disconnect`, `ban`, `unban`, `list_bans`.

mod whom;

use std::sync::Arc;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::cluster::PresenceRecord;
use crate::id::MemberId;
use crate::limits;
use crate::presence::changes::{Ending, remove};
use crate::presence::members;
use crate::protocol::budget::cut;
use crate::protocol::{
    BanAck, BanEntry, BansList, CloseReason, KickAck, KickRequest, PageRequest, PeerRole,
    ServerMessage, TargetRequest, UnbanAck,
};
use crate::store::{AuditEntry, Member, Moderation, Role};

use self::whom::{Candidate, Meaning, meant};
use super::Context;
use super::paging::{Budget, Page, from_cursor, page};

/// How sessions are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// `kick`: they are not to come back by themselves.
    Kick,
    /// `disconnect`: they may.
    Disconnect,
}

impl Removal {
    const fn verb(self) -> &'static str {
        match self {
            Self::Kick => "kick",
            Self::Disconnect => "disconnect",
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

/// Whether the caller may moderate: an admin, or the owner.
#[must_use]
pub fn is_moderator(context: &Context<'_>) -> bool {
    context
        .room
        .member(&context.session.member)
        .is_some_and(|member| member.role == Role::Admin || member.is_owner)
}

fn allowed(context: &Context<'_>, verb: &str) -> bool {
    let allowed = is_moderator(context);
    if !allowed {
        context.refuse("forbidden", format!("only owner or admin can {verb}"));
    }
    allowed
}

/// `kick` and `disconnect`.
pub async fn kick(context: &Context<'_>, ask: &KickRequest, removal: Removal) {
    if !allowed(context, removal.verb()) {
        return;
    }
    let (mut chosen, stale) = match choose(context, ask) {
        Ok(chosen) => chosen,
        Err(text) => return context.refuse("ambiguous", text),
    };
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
    if let Err(error) = remove(&context.node.presence, context.room.mesh(), &others).await {
        return context.store_failed(&error);
    }
    let names: Vec<String> = chosen.iter().map(|record| record.display_name.clone()).collect();
    let answer = kick_ack(names, spared);
    context.reply(&match removal {
        Removal::Kick => ServerMessage::KickAck(answer),
        Removal::Disconnect => ServerMessage::DisconnectAck(answer),
    });
    if let Err(error) = remove(&context.node.presence, context.room.mesh(), &own).await {
        tracing::warn!(%error, "a session that removed itself could not be ended");
    }
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

/// Precedence: all, stale, target. The first two spare the caller. `Err`: the target
/// may mean more than one member. Visitors are listed for nobody, and gone before
/// anybody could name them; a ban ends them.
fn choose(
    context: &Context<'_>,
    ask: &KickRequest,
) -> Result<(Vec<Arc<PresenceRecord>>, bool), String> {
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
        Meaning::Ambiguous(text) => Err(text),
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
pub async fn ban(context: &Context<'_>, ask: TargetRequest) {
    if !allowed(context, "ban") {
        return;
    }
    let Some(target) = ask.target.filter(|target| !target.is_empty()) else {
        return context.refuse("invalid", "target required");
    };
    let store = &context.node.stores;
    let found = match store.members.find(context.room.mesh(), &target).await {
        Ok(found) => found,
        Err(error) => return context.store_failed(&error),
    };
    let member = match member_meant(context, &target, &found) {
        Meaning::These(members) => members.into_iter().next(),
        Meaning::Nobody => None,
        Meaning::Ambiguous(text) => return context.refuse("ambiguous", text),
    };
    let Some(member) = member else {
        return context.refuse("not_found", format!("peer \"{target}\" not found"));
    };
    if member.id == context.session.member {
        return context.refuse("invalid", "cannot ban yourself");
    }
    if member.is_owner {
        return context.refuse("forbidden", "the owner cannot be banned");
    }
    let event =
        AuditEvent::MemberBanned { target: target.clone(), target_pubkey: member.key.clone() };
    if let Err(error) = store.bans.ban(Timestamp::now(), &moderation(context, &member, event)).await
    {
        return context.store_failed(&error);
    }
    members::changed(&context.node.presence, context.room.mesh()).await;
    context.reply(&ServerMessage::BanAck(BanAck { banned: name_of(&member) }));
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
pub async fn unban(context: &Context<'_>, ask: TargetRequest) {
    if !allowed(context, "unban") {
        return;
    }
    let Some(target) = ask.target.filter(|target| !target.is_empty()) else {
        return context.refuse("invalid", "target required");
    };
    let store = &context.node.stores;
    let bans = match store.bans.banned(context.room.mesh()).await {
        Ok(bans) => bans,
        Err(error) => return context.store_failed(&error),
    };
    let exact = |member: &&Member| member.display_name == target || member.key.as_str() == target;
    let named = bans.iter().filter(exact);
    let choices = named.map(|member| (member, Candidate::of_member(member)));
    let member = match meant(&target, choices) {
        Meaning::These(members) => members.into_iter().next(),
        Meaning::Nobody => None,
        Meaning::Ambiguous(text) => return context.refuse("ambiguous", text),
    };
    let Some(member) = member else {
        return context.refuse("not_found", format!("no banned peer \"{target}\""));
    };
    let event = AuditEvent::MemberUnbanned { target: target.clone() };
    if let Err(error) =
        store.bans.unban(Timestamp::now(), &moderation(context, member, event)).await
    {
        return context.store_failed(&error);
    }
    members::changed(&context.node.presence, context.room.mesh()).await;
    context.reply(&ServerMessage::UnbanAck(UnbanAck { unbanned: name_of(member) }));
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
pub async fn list_bans(context: &Context<'_>, ask: PageRequest) {
    // A large answer waits for what the peer has not read yet.
    if !context.session.outbox.room().await {
        return;
    }
    let cursor = ask.cursor.as_deref();
    let Ok(after) = from_cursor::<(Timestamp, MemberId)>(context, cursor) else { return };
    let mut members = match context.node.stores.bans.banned(context.room.mesh()).await {
        Ok(members) => members,
        Err(error) => return context.store_failed(&error),
    };
    let place = |member: &Member| (member.revoked_at.unwrap_or_default(), member.id.clone());
    members.sort_by_cached_key(place);
    members.retain(|member| after.as_ref().is_none_or(|after| place(member) > *after));
    let Page { rows: bans, cursor } = page(members, place, |member| BanEntry {
        name: name_of(member),
        pubkey: member.key.to_string(),
        revoked_at: member.revoked_at.unwrap_or_default(),
    });
    context.reply(&ServerMessage::ListBansResult(BansList {
        bans,
        more: cursor.is_some(),
        cursor,
    }));
}
