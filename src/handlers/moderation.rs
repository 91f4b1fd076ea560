//! `kick`, `disconnect`, `ban`, `unban`, `list_bans`.

use std::sync::Arc;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::cluster::{BusMessage, PresenceRecord};
use crate::protocol::{
    BanAck, BanEntry, BansList, CloseReason, KickAck, KickRequest, PeerRole, ServerMessage,
    TargetRequest, UnbanAck,
};
use crate::router::bus::refresh_members;
use crate::router::presence::{Ending, remove};
use crate::store::{AuditEntry, Member, Moderation, Role};

use super::Context;

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
    let (mut chosen, stale) = choose(context, ask);
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
    if let Err(error) = remove(context.node, context.room.mesh(), &others).await {
        return context.store_failed(&error);
    }
    let names: Vec<String> = chosen.iter().map(|record| record.display_name.clone()).collect();
    let answer = KickAck {
        kicked: names.clone(),
        affected: names,
        skipped_control_plane: (!spared.is_empty()).then_some(spared),
    };
    context.reply(&match removal {
        Removal::Kick => ServerMessage::KickAck(answer),
        Removal::Disconnect => ServerMessage::DisconnectAck(answer),
    });
    if let Err(error) = remove(context.node, context.room.mesh(), &own).await {
        tracing::warn!(%error, "a session that removed itself could not be ended");
    }
}

/// Precedence: all, stale, target. The first two spare the caller. Visitors are
/// listed for nobody, and gone before anybody could name them; a ban ends them.
fn choose(context: &Context<'_>, ask: &KickRequest) -> (Vec<Arc<PresenceRecord>>, bool) {
    let mut records = context.room.records();
    records.retain(|record| !record.visitor);
    let caller = &context.session.presence;
    let stale_ms = ask.stale.filter(|ms| ms.is_finite() && *ms != 0.0);
    if ask.all == Some(true) {
        records.retain(|record| record.id != *caller);
        return (records, false);
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
        return (records, true);
    }
    let target = ask.target.as_deref().unwrap_or_default();
    records.retain(|record| {
        !target.is_empty()
            && (record.display_name == target || record.member_key.as_str().starts_with(target))
    });
    (records, false)
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
    let store = &context.node.store;
    let found = match store.find_members(context.room.mesh(), &target).await {
        Ok(found) => found,
        Err(error) => return context.store_failed(&error),
    };
    // A whole name or key means that member, whoever else's begins so.
    let exact = found
        .iter()
        .position(|member| member.display_name == target || member.key.as_str() == target);
    let Some(member) = found.into_iter().nth(exact.unwrap_or(0)) else {
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
    if let Err(error) = store.ban(Timestamp::now(), &moderation(context, &member, event)).await {
        return context.store_failed(&error);
    }
    members_changed(context).await;
    context.reply(&ServerMessage::BanAck(BanAck { banned: member.display_name }));
}

/// `unban`: by name or whole key.
pub async fn unban(context: &Context<'_>, ask: TargetRequest) {
    if !allowed(context, "unban") {
        return;
    }
    let Some(target) = ask.target.filter(|target| !target.is_empty()) else {
        return context.refuse("invalid", "target required");
    };
    let store = &context.node.store;
    let bans = match store.bans(context.room.mesh()).await {
        Ok(bans) => bans,
        Err(error) => return context.store_failed(&error),
    };
    let banned = bans
        .into_iter()
        .find(|member| member.display_name == target || member.key.as_str() == target);
    let Some(member) = banned else {
        return context.refuse("not_found", format!("no banned peer \"{target}\""));
    };
    let event = AuditEvent::MemberUnbanned { target: target.clone() };
    if let Err(error) = store.unban(Timestamp::now(), &moderation(context, &member, event)).await {
        return context.store_failed(&error);
    }
    members_changed(context).await;
    context.reply(&ServerMessage::UnbanAck(UnbanAck { unbanned: member.display_name }));
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

/// Here at once, and on every other node.
async fn members_changed(context: &Context<'_>) {
    context.node.cluster.publish(context.room.mesh(), &BusMessage::MembersChanged);
    refresh_members(context.node, context.room).await;
}

/// `list_bans`: open to every member.
pub async fn list_bans(context: &Context<'_>) {
    match context.node.store.bans(context.room.mesh()).await {
        Ok(members) => {
            let bans = members
                .into_iter()
                .map(|member| BanEntry {
                    name: member.display_name,
                    pubkey: member.key.to_string(),
                    revoked_at: member.revoked_at.unwrap_or_default(),
                })
                .collect();
            context.reply(&ServerMessage::ListBansResult(BansList { bans }));
        }
        Err(error) => context.store_failed(&error),
    }
}
