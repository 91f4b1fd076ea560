//! `list_peers` and the setters.

use std::sync::Arc;

use serde_json::json;

use super::paging::{Page, from_cursor, page};
use crate::clock::Timestamp;
use crate::cluster::PresenceRecord;
use crate::id::PresenceId;
use crate::limits;
use crate::protocol::budget::{cut, cut_string, groups_within, value_bytes};
use crate::protocol::{
    Group, PageRequest, PeerInfo, PeerRole, PeersList, ServerMessage, SetProfile, Stats, Status,
    StatusSource,
};
use crate::router::presence::{announcement, change, replace};
use crate::router::said::{merged, with_group};
use crate::router::status;
use crate::store::PresenceChange;

use super::Context;

/// Where a presence stands in the list: those that are here before those in grace,
/// sessions before control planes, then the oldest first. Clients write to the first of
/// a name. A cursor is one of these: a presence that goes into grace or comes back
/// between two pages may be missed or shown twice.
pub(super) type Place = (bool, bool, Timestamp, PresenceId);

fn place(record: &PresenceRecord) -> (bool, bool, Timestamp, &PresenceId) {
    (!record.online, record.role != PeerRole::Session, record.connected_at, &record.id)
}

/// The presences that the asker may see, in the order in which they are listed; those
/// after `after`. Hidden ones are seen by sessions of their member, visitors by
/// themselves.
pub(super) fn listed(context: &Context<'_>, after: Option<&Place>) -> Vec<Arc<PresenceRecord>> {
    let (own, caller) = (&context.session.member, &context.session.presence);
    let mut records = context.room.records();
    records.retain(|record| record.visible || record.member == *own);
    records.retain(|record| !record.visitor || record.id == *caller);
    records.sort_by(|a, b| place(a).cmp(&place(b)));
    if let Some((away, control_plane, at, id)) = after {
        let last = (*away, *control_plane, *at, id);
        let done = records.partition_point(|record| place(record) <= last);
        records.drain(..done);
    }
    records
}

/// A presence's place, to be a cursor.
pub(super) fn place_of(record: &PresenceRecord) -> Place {
    let (away, control_plane, at, id) = place(record);
    (away, control_plane, at, id.clone())
}

/// Every presence of the mesh that the asker may see.
pub async fn list_peers(context: &Context<'_>, ask: PageRequest) {
    // A large answer waits for what the peer has not read yet.
    if !context.session.outbox.room().await {
        return;
    }
    let Ok(after) = from_cursor::<Place>(context, ask.cursor.as_deref()) else { return };
    let records = listed(context, after.as_ref());
    let Page { rows: peers, cursor } =
        page(records, |record| place_of(record), |record| row(context, record));
    context.reply(&ServerMessage::PeersList(PeersList { peers, more: cursor.is_some(), cursor }));
}

/// A presence's row, with the name that its member was enrolled under.
fn row(context: &Context<'_>, record: &PresenceRecord) -> PeerInfo {
    let mut info = record.to_peer_info();
    info.member_name = context
        .room
        .member(&record.member)
        .map(|member| cut(&member.display_name, limits::DISPLAY_NAME_BYTES_MAX).to_owned());
    if value_bytes(&info) > limits::PEER_ROW_BYTES_MAX {
        fit(&mut info);
    }
    info
}

/// A record that an older node or another program wrote may be larger than what
/// this one takes.
fn fit(info: &mut PeerInfo) {
    cut_string(&mut info.display_name, limits::DISPLAY_NAME_BYTES_MAX);
    cut_string(&mut info.cwd, limits::HELLO_CWD_BYTES_MAX);
    cut_string(&mut info.session_id, limits::HELLO_TEXT_BYTES_MAX);
    let texts = [&mut info.hostname, &mut info.peer_type, &mut info.channel, &mut info.model];
    for text in texts.into_iter().flatten() {
        cut_string(text, limits::HELLO_TEXT_BYTES_MAX);
    }
    if let Some(summary) = &mut info.summary {
        cut_string(summary, limits::SUMMARY_BYTES_MAX);
    }
    let fitting = groups_within(&info.groups, limits::GROUPS_BYTES_MAX).0.len();
    info.groups.truncate(fitting);
    info.profile.take_if(|profile| value_bytes(profile) > limits::PROFILE_BYTES_MAX);
}

/// `set_status`: the peer's own word.
pub async fn set_status(context: &Context<'_>, status: Status) {
    let Context { node, room, session, .. } = context;
    status::set(node, room, session, status, StatusSource::Manual, Timestamp::now()).await;
    context.done_if_asked();
}

/// `set_summary`. Old clients could not be told that it is too long.
pub async fn set_summary(context: &Context<'_>, mut summary: String) {
    cut_string(&mut summary, limits::SUMMARY_BYTES_MAX);
    let written = PresenceChange { summary: Some(summary.clone()), ..of(context) };
    apply(context, written, |record| replace(&mut record.summary, Some(summary))).await;
    context.done_if_asked();
}

/// `set_stats`.
pub async fn set_stats(context: &Context<'_>, stats: Stats) {
    let written = PresenceChange { stats: Some(stats), ..of(context) };
    apply(context, written, |record| replace(&mut record.stats, Some(stats))).await;
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
    apply(context, written, |record| replace(&mut record.profile, profile)).await;
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
        |record| replace(&mut record.visible, visible),
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
    apply(context, written, |record| replace(&mut record.groups, groups)).await;
    context.done_if_asked();
}

fn of(context: &Context<'_>) -> PresenceChange {
    PresenceChange::of(context.session.presence.clone())
}

async fn apply(
    context: &Context<'_>,
    written: PresenceChange,
    edit: impl FnOnce(&mut PresenceRecord) -> bool,
) {
    let Context { node, room, session, .. } = context;
    change(node, room, session, written, edit, |_| None).await;
}
