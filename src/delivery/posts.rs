//! Posts: who may write to a topic, and whom what is written mentions.
//!
//! A post is a multicast to the members of its topic, in the mesh's order like all
//! others. What differs: a node hands it out by its roster of the topic, which must be as
//! new as the post says; and members that were away read it from the topic's history.

use std::result::Result as Outcome;

use super::refusal::Refusal;
use super::{Parts, mentions, rosters};
use crate::id::{MemberId, MeshId};
use crate::limits;
use crate::registry::Room;
use crate::store::{Post, Result};

/// What a member wants to post.
pub(crate) struct Posting<'a> {
    /// The topic, by its id or its name.
    pub(crate) topic: &'a str,
    /// In whose name.
    pub(crate) member: &'a MemberId,
    pub(crate) body_version: Option<i32>,
    /// Names that the sender says it mentions.
    pub(crate) mentions: Option<&'a [String]>,
    /// Base64.
    pub(crate) ciphertext: &'a str,
}

/// What a post is beside its envelope, or why it may not be written. `room`: the mesh's,
/// where this node serves it.
pub(crate) async fn plan(
    parts: &Parts,
    room: Option<&Room>,
    mesh: &MeshId,
    posting: Posting<'_>,
) -> Result<Outcome<Post, Refusal>> {
    let Posting { topic: named, member, body_version, mentions, ciphertext } = posting;
    let topic = match parts.topics.addressed(mesh, named, member).await? {
        Some(topic) if topic.is_member => topic,
        // Both are words that end a daemon's retries.
        Some(topic) if topic.is_public => {
            let text = format!("forbidden: only members of #{0} may post; join #{0}", topic.name);
            return Ok(Err(Refusal::new("topic", text)));
        }
        _ => {
            let text = format!("invalid target \"#{named}\": there is no such topic");
            return Ok(Err(Refusal::new("topic", text)));
        }
    };
    let body_version = body_version.unwrap_or(1);
    if !(1..=2).contains(&body_version) {
        return Ok(Err(Refusal::new("invalid", "invalid send: bodyVersion is 1 or 2")));
    }
    if let Some(room) = room
        && room.roster(&topic.id, topic.roster).is_none()
    {
        rosters::read(parts, room, &topic.id).await;
    }
    let names = mentions::of(mentions, body_version, ciphertext);
    let mut mentioned = members_named(parts, room, mesh, &names).await?;
    mentioned.retain(|mentioned| mentioned != member);
    mentioned.sort();
    mentioned.truncate(limits::MENTIONED_MEMBERS_MAX);
    Ok(Ok(Post { topic: topic.id, name: topic.name, body_version, mentions: mentioned }))
}

/// The active members of those names, whatever their case; `names` is in lower case.
async fn members_named(
    parts: &Parts,
    room: Option<&Room>,
    mesh: &MeshId,
    names: &[String],
) -> Result<Vec<MemberId>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(room) = room {
        return Ok(room.members_named(names));
    }
    let members = parts.members.active(mesh).await?.into_iter();
    let named = members.filter(|member| names.contains(&member.display_name.to_lowercase()));
    Ok(named.map(|member| member.id).collect())
}
