//! `list_peers` and the setters.

use std::sync::Arc;

use super::paging::{Page, from_cursor, page};
use crate::clock::Timestamp;
use crate::cluster::PresenceRecord;
use crate::id::PresenceId;
use crate::limits;
use crate::presence::changes::{change, replace};
use crate::presence::said;
use crate::protocol::budget::{cut, cut_string, groups_within, value_bytes};
use crate::protocol::{PageRequest, PeerInfo, PeerRole, PeersList, Said, ServerMessage, Stats};
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

/// What a session says of itself: every setter but `set_stats`. As a visitor elsewhere
/// says it for the session.
pub async fn say(context: &Context<'_>, said: Said) {
    let Context { node, room, session, .. } = context;
    let is_always_answered = said.is_always_answered();
    match said::apply(&node.presence, room, session, said).await {
        Err(text) => context.refuse_if_asked("invalid_argument", text),
        Ok(()) if is_always_answered => context.done(),
        Ok(()) => context.done_if_asked(),
    }
}

/// `set_stats`.
pub async fn set_stats(context: &Context<'_>, stats: Stats) {
    let Context { node, room, session, .. } = context;
    let presence = session.presence.clone();
    let written = PresenceChange { stats: Some(stats), ..PresenceChange::of(presence) };
    let edit = |record: &mut PresenceRecord| replace(&mut record.stats, Some(stats));
    change(&node.presence, room, session, written, edit, |_| None).await;
    context.done_if_asked();
}
