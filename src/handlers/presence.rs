//! `list_peers` and the setters.

use serde_json::json;

use crate::clock::Timestamp;
use crate::limits;
use crate::protocol::{
    Group, PeersList, Profile, ServerMessage, SetProfile, Stats, Status, StatusSource,
};
use crate::router::presence::{announcement, change};
use crate::router::status;
use crate::store::PresenceChange;

use super::Context;

/// Every presence of the mesh, oldest first; hidden ones only to sessions of
/// the same member.
pub async fn list_peers(context: &Context<'_>) {
    // A large answer waits for what the peer has not read yet.
    if !context.session.outbox.room().await {
        return;
    }
    let own = &context.session.member;
    let records = context.room.records();
    let peers = records
        .iter()
        .filter(|record| record.visible || record.member == *own)
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
    let mut profile = record.profile.clone();
    profile.merge(given);
    if profile_bytes(&profile) > limits::PROFILE_BYTES_MAX {
        return too_long(context, "profile", limits::PROFILE_BYTES_MAX);
    }
    let written = PresenceChange { profile: Some(profile.clone()), ..of(context) };
    apply(context, written, |record| record.profile = profile).await;
    context.done();
}

/// As it is encoded: empty entries of a list count too.
fn profile_bytes(profile: &Profile) -> usize {
    serde_json::to_string(profile).map_or(usize::MAX, |text| text.len())
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
            Some(announcement(event, record, data, true))
        },
    )
    .await;
    context.done();
}

/// `join_group`: by name; joining again replaces the role.
pub async fn join_group(context: &Context<'_>, group: Group) {
    let Some(record) = context.room.record(&context.session.presence) else { return };
    let long = group.name.len() > limits::GROUP_NAME_BYTES_MAX
        || group.role.as_ref().is_some_and(|role| role.len() > limits::GROUP_NAME_BYTES_MAX);
    if group.name.is_empty() || long {
        let text = format!("a group's name has 1 to {} bytes", limits::GROUP_NAME_BYTES_MAX);
        return context.refuse_if_asked("invalid_argument", text);
    }
    let mut groups = record.groups.clone();
    match groups.iter().position(|own| own.name == group.name) {
        Some(at) => groups[at].role = group.role,
        None if groups.len() >= limits::GROUPS_PER_PRESENCE_MAX => {
            let text = format!("at most {} groups", limits::GROUPS_PER_PRESENCE_MAX);
            return context.refuse_if_asked("invalid_argument", text);
        }
        None => groups.push(group),
    }
    set_groups(context, groups).await;
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
    edit: impl FnOnce(&mut crate::cluster::PresenceRecord),
) {
    let Context { node, room, session, .. } = context;
    change(node, room, session, written, edit, |_| None).await;
}

fn too_long(context: &Context<'_>, what: &str, bytes_max: usize) {
    let text = format!("the {what} has more than {bytes_max} bytes");
    context.refuse_if_asked("invalid_argument", text);
}
