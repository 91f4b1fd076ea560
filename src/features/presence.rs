//! `list_peers` and the setters.

use super::listing::{Cursor, cursor_of, listed};
use super::on_behalf::{pass_on, spoken_for};
use super::{Context, Refusal};
use crate::cluster::ClusterHealth;
use crate::limits;
use crate::paging::{Page, from_cursor, page};
use crate::presence::changes::{change, replace};
use crate::presence::said;
use crate::protocol::budget::{cut, cut_string, groups_within, value_bytes};
use crate::protocol::{Ack, ListPeers, PeerInfo, PeersList, Said, SetStats};
use crate::record::PresenceRecord;
use crate::registry::Candidate;
use crate::store::PresenceChange;

/// Every presence of the mesh that the asker may see.
pub(super) async fn list_peers(
    context: &Context<'_>,
    ask: ListPeers,
) -> Result<PeersList, Refusal> {
    let after = from_cursor::<Cursor>(ask.cursor.as_deref())?;
    let records = listed(context, after.as_ref());
    let is_deaf = is_deaf(context);
    let Page { rows: peers, cursor } =
        page(records, |record| cursor_of(record), |record| row(context, record, is_deaf));
    Ok(PeersList { peers, more: cursor.is_some(), cursor })
}

/// Whether this node may know less than others of the presences that they hold.
fn is_deaf(context: &Context<'_>) -> bool {
    context.parts.cluster.health() == ClusterHealth::Degraded || context.room.is_behind()
}

/// A presence's row, with the name that its member was enrolled under.
fn row(context: &Context<'_>, record: &PresenceRecord, is_deaf: bool) -> PeerInfo {
    let mut info = record.to_peer_info();
    info.stale = is_deaf && context.room.session(&record.id).is_none();
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

/// What a session says of itself, or a visitor for a session of its member: every
/// setter but that of the counters.
pub(super) async fn say(context: &Context<'_>, ask: impl Into<Said>) -> Result<Ack, Refusal> {
    let said = ask.into();
    let session = match spoken_for(context) {
        None => context.session,
        Some(Candidate { session: Some(session), .. }) => &session.clone(),
        Some(Candidate { record, session: None }) => return pass_on(context, &record, said),
    };
    let applied = said::apply(&context.parts.presence, context.room, session, said).await;
    applied.map(|()| context.done()).map_err(Refusal::invalid)
}

/// The counters that a session reports.
pub(super) async fn set_stats(context: &Context<'_>, ask: SetStats) -> Result<Ack, Refusal> {
    let Context { parts, room, session, .. } = context;
    let stats = Some(ask.stats);
    let written = PresenceChange { stats, ..PresenceChange::of(session.presence.clone()) };
    let edit = |record: &mut PresenceRecord| replace(&mut record.stats, stats);
    change(&parts.presence, room, session, written, edit, |_| None).await;
    Ok(context.done())
}
