//! What a session says of itself, or a visitor on any node for it.
//!
//! Called by [`features`](crate::features) where the session is, and by
//! [`bus`](crate::bus) for what was said elsewhere. Nothing here answers anybody.

use std::sync::Arc;

use futures_util::FutureExt as _;
use serde_json::json;

use super::changes::{change, replace};
use super::status::{self, Word};
use crate::clock::Timestamp;
use crate::events;
use crate::limits;
use crate::presence::Parts;
use crate::protocol::budget::{cut_string, groups_within, value_bytes};
use crate::protocol::{Group, Profile, Said, SetProfile};
use crate::record::PresenceRecord;
use crate::registry::Room;
use crate::session::Session;
use crate::store::PresenceChange;

/// Applies what a visitor on another node said. The bus, whose next frames wait for
/// nothing, goes on meanwhile. What that node found to be refused did not come this far;
/// what has come to be so since is passed over.
pub(crate) fn begin(parts: &Arc<Parts>, room: &Arc<Room>, session: Arc<Session>, said: Said) {
    let (parts, room) = (Arc::clone(parts), Arc::clone(room));
    let tasks = parts.life.tasks.clone();
    let mut work = Box::pin(async move {
        let _ = apply(&parts, &room, &session, said).await;
    });
    // Up to where it waits for others at once, so that two of these keep their order.
    if work.as_mut().now_or_never().is_none() {
        tasks.spawn(work);
    }
}

/// Changes the session's record everywhere, and tells its peers what they are told of.
/// A session that has ended says nothing any more.
pub(crate) async fn apply(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    said: Said,
) -> Result<(), String> {
    let Some(record) = room.record(&session.presence) else { return Ok(()) };
    let written = PresenceChange::of(session.presence.clone());
    match said {
        Said::Status { status } => {
            status::apply(parts, room, session, Word::Peer(status), Timestamp::now()).await;
        }
        Said::Summary { mut summary } => {
            cut_string(&mut summary, limits::SUMMARY_BYTES_MAX);
            let written = PresenceChange { summary: Some(summary.clone()), ..written };
            let edit = |record: &mut PresenceRecord| replace(&mut record.summary, Some(summary));
            change(parts, room, session, written, edit, |_| None).await;
        }
        Said::Visible { visible } => {
            let event = if visible { "peer_visible" } else { "peer_hidden" };
            let written = PresenceChange { visible: Some(visible), ..written };
            let edit = |record: &mut PresenceRecord| replace(&mut record.visible, visible);
            let told = |record: &PresenceRecord| {
                let data = json!({ "name": record.display_name, "pubkey": record.routing_key() });
                (!record.visitor).then(|| events::announcement(event, record, data, true))
            };
            change(parts, room, session, written, edit, told).await;
        }
        Said::Profile { profile } => {
            let profile = merged(&record, profile)?;
            let written = PresenceChange { profile: Some(profile.clone()), ..written };
            let edit = |record: &mut PresenceRecord| replace(&mut record.profile, profile);
            change(parts, room, session, written, edit, |_| None).await;
        }
        Said::JoinGroup { group } => {
            let groups = with_group(&record, group)?;
            set_groups(parts, room, session, groups).await;
        }
        Said::LeaveGroup { name } => {
            let groups = record.groups.iter().filter(|own| own.name != name).cloned().collect();
            set_groups(parts, room, session, groups).await;
        }
    }
    Ok(())
}

async fn set_groups(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    groups: Vec<Group>,
) {
    let id = session.presence.clone();
    let written = PresenceChange { groups: Some(groups.clone()), ..PresenceChange::of(id) };
    let edit = |record: &mut PresenceRecord| replace(&mut record.groups, groups);
    change(parts, room, session, written, edit, |_| None).await;
}

/// The profile that a change makes.
pub(crate) fn merged(record: &PresenceRecord, given: SetProfile) -> Result<Profile, String> {
    let mut profile = record.profile.clone();
    profile.merge(given);
    if value_bytes(&profile) > limits::PROFILE_BYTES_MAX {
        return Err(format!("the profile has more than {} bytes", limits::PROFILE_BYTES_MAX));
    }
    Ok(profile)
}

/// The groups with one more, or with another role in one of them.
pub(crate) fn with_group(record: &PresenceRecord, group: Group) -> Result<Vec<Group>, String> {
    let long = group.name.len() > limits::GROUP_NAME_BYTES_MAX
        || group.role.as_ref().is_some_and(|role| role.len() > limits::GROUP_NAME_BYTES_MAX);
    if group.name.is_empty() || long {
        return Err(format!("a group's name has 1 to {} bytes", limits::GROUP_NAME_BYTES_MAX));
    }
    let mut groups = record.groups.clone();
    match groups.iter().position(|own| own.name == group.name) {
        Some(at) => groups[at].role = group.role,
        None if groups.len() >= limits::GROUPS_PER_PRESENCE_MAX => {
            return Err(format!("at most {} groups", limits::GROUPS_PER_PRESENCE_MAX));
        }
        None => groups.push(group),
    }
    if groups_within(&groups, limits::GROUPS_BYTES_MAX).1 > 0 {
        return Err(format!("the list of groups has more than {} bytes", limits::GROUPS_BYTES_MAX));
    }
    Ok(groups)
}
