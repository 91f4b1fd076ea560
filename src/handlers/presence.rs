//! `list_peers` and the setters.

use serde_json::json;

use crate::clock::Timestamp;
use crate::cluster::PresenceRecord;
use crate::limits;
use crate::protocol::{
    Group, PeerRole, PeersList, ServerMessage, SetProfile, Stats, Status, StatusSource,
};
use crate::router::presence::{announcement, change};
use crate::router::said::{merged, with_group};
use crate::router::status;
use crate::store::PresenceChange;

use super::Context;

/// Every presence of the mesh: those that are here before those in grace, sessions
/// before control planes, then oldest first. Clients write to the first of a name.
/// Hidden ones only to sessions of the same member, visitors only to themselves.
pub async fn list_peers(context: &Context<'_>) {
    // A large answer waits for what the peer has not read yet.
    if !context.session.outbox.has_room().await {
        return;
    }
    let (own, caller) = (&context.session.member, &context.session.presence);
    let mut records = context.room.records();
    records.sort_by_key(|record| (!record.online, record.role != PeerRole::Session));
    let peers = records
        .iter()
        .filter(|record| record.visible || record.member == *own)
        .filter(|record| !record.visitor || record.id == *caller)
        .map(|record| record.to_peer_info())
        .collect();
    context.reply(&ServerMessage::PeersList(PeersList { peers }));
}

/// `set_status`: the peer's own word.
pub async fn set_status(context: &Context<'_>, status: Status) {
    let Context { node, room, session, .. } = context;
    status::set(node, room, session, status, StatusSource::Manual, Timestamp::now()).await;
    context.done_if_asked();
}

/// `set_summary`. Old clients could not be told that it is too long.
pub async fn set_summary(context: &Context<'_>, mut summary: String) {
    summary.truncate(summary.floor_char_boundary(limits::SUMMARY_BYTES_MAX));
    let written = PresenceChange { summary: Some(summary.clone()), ..of(context) };
    apply(context, written, |record| record.summary = Some(summary)).await;
    context.done_if_asked();
}

/// `set_stats`.
pub async fn set_stats(context: &Context<'_>, stats: Stats) {
    let written = PresenceChange { stats: Some(stats), ..of(context) };
    apply(context, written, |record| record.stats = Some(stats)).await;
    context.done_if_asked();
}

/// `set_profile`: what is given replaces, the rest stays.
pub async fn set_profile(context: &Context<'_>, given: SetProfile) {
    let Some(record) = context.room.record(&context.session.presence) else { return };
    let profile = match merged(&record, given) {
        Ok(profile) => profile,
        Err(text) => return context.refuse_if_asked("invalid_argument", text),
    };
    let written = PresenceChange { profile: Some(profile.clone()), ..of(context) };
    apply(context, written, |record| record.profile = profile).await;
    context.done();
}

/// `set_visible`: the mesh is told.
pub async fn set_visible(context: &Context<'_>, visible: bool) {
    let Context { node, room, session, .. } = context;
    let event = if visible { "peer_visible" } else { "peer_hidden" };
    let written = PresenceChange { visible: Some(visible), ..of(context) };
    change(
        node,
        room,
        session,
        written,
        |record| record.visible = visible,
        |record| {
            let data = json!({ "name": record.display_name, "pubkey": record.routing_key() });
            (!record.visitor).then(|| announcement(event, record, data, true))
        },
    )
    .await;
    context.done();
}

/// `join_group`: by name; joining again replaces the role.
pub async fn join_group(context: &Context<'_>, group: Group) {
    let Some(record) = context.room.record(&context.session.presence) else { return };
    match with_group(&record, group) {
        Ok(groups) => set_groups(context, groups).await,
        Err(text) => context.refuse_if_asked("invalid_argument", text),
    }
}

/// `leave_group`.
pub async fn leave_group(context: &Context<'_>, name: &str) {
    let Some(record) = context.room.record(&context.session.presence) else { return };
    let groups = record.groups.iter().filter(|own| own.name != name).cloned().collect();
    set_groups(context, groups).await;
}

async fn set_groups(context: &Context<'_>, groups: Vec<Group>) {
    let written = PresenceChange { groups: Some(groups.clone()), ..of(context) };
    apply(context, written, |record| record.groups = groups).await;
    context.done_if_asked();
}

fn of(context: &Context<'_>) -> PresenceChange {
    PresenceChange::of(context.session.presence.clone())
}

async fn apply(
    context: &Context<'_>,
    written: PresenceChange,
    edit: impl FnOnce(&mut PresenceRecord),
) {
    let Context { node, room, session, .. } = context;
    change(node, room, session, written, edit, |_| None).await;
}
