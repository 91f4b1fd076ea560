//! Posts: who may write to a topic, and whom what is written mentions.
//!
//! A post is a multicast to the members of its topic, in the mesh's order like all
//! others. What differs: a node hands it out by its roster of the topic, which must be as
//! new as the post says; and members that were away read it from the topic's history.

use std::result::Result as Outcome;
use std::sync::Arc;

use super::refusal::Refusal;
use super::{Parts, mentions, rosters};
use crate::id::{MemberId, MeshId};
use crate::limits;
use crate::registry::Room;
use crate::store::{AddressedTopic, Post, Result};

/// What a member wants to post.
pub(crate) struct Posting<'a> {
    /// In whose name.
    pub(crate) member: &'a MemberId,
    pub(crate) body_version: Option<i32>,
    /// Names that the sender says it mentions.
    pub(crate) mentions: Option<&'a [String]>,
    /// Base64.
    pub(crate) ciphertext: &'a str,
}

/// Whether a post of that version is sealed with a key of its topic's members.
pub(crate) fn is_sealed(body_version: Option<i32>) -> bool {
    body_version == Some(SEALED_VERSION)
}

/// The version of posts that are sealed; those in clear have 1.
const SEALED_VERSION: i32 = 2;

/// What a post is beside its envelope, or why it may not be written. `room`: the mesh's,
/// where this node serves it; `named`: the topic, by its id or its name.
pub(crate) async fn plan(
    parts: &Parts,
    room: Option<&Room>,
    mesh: &MeshId,
    named: &str,
    posting: Posting<'_>,
) -> Result<Outcome<Post, Refusal>> {
    let topic = match parts.topics.addressed(mesh, named, posting.member).await? {
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
    if !(1..=2).contains(&posting.body_version.unwrap_or(1)) {
        return Ok(Err(Refusal::new("invalid", "invalid send: bodyVersion is 1 or 2")));
    }
    plan_in(parts, room, mesh, topic, posting).await.map(Ok)
}

/// What a post is in a topic that was found, whose member the sender is.
pub(crate) async fn plan_in(
    parts: &Parts,
    room: Option<&Room>,
    mesh: &MeshId,
    topic: AddressedTopic,
    posting: Posting<'_>,
) -> Result<Post> {
    let Posting { member, body_version, mentions, ciphertext } = posting;
    let body_version = body_version.unwrap_or(1);
    let known = match room {
        Some(room) => rosters::as_new_as(parts, room, &topic.id, topic.roster).await,
        None => None,
    };
    let names = mentions::of(mentions, body_version, ciphertext);
    let mut mentioned = members_named(parts, room, mesh, &names).await?;
    mentioned.retain(|mentioned| mentioned != member);
    // Before they are counted: others of the same name take nobody's place. The commit
    // looks once more, for who leaves meanwhile.
    if !topic.is_public && !mentioned.is_empty() {
        let roster = match known {
            Some(known) => known,
            None => Arc::new(parts.topics.roster(mesh, &topic.id).await?.unwrap_or_default()),
        };
        mentioned.retain(|mentioned| roster.members.contains_key(mentioned));
    }
    mentioned.sort();
    mentioned.truncate(limits::MENTIONED_MEMBERS_MAX);
    Ok(Post { topic: topic.id, name: topic.name, body_version, mentions: mentioned })
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::delivery::testing::{Fakes, World};
    use crate::id::TopicId;
    use crate::store::testing::{member, mesh};
    use crate::store::{Member, Roster};

    fn topic(is_public: bool) -> AddressedTopic {
        let (id, name) = (TopicId::from("topic"), "deploys".to_owned());
        AddressedTopic { id, name, is_public, is_member: true, roster: 1 }
    }

    /// A mesh in which the topic is found once, and its roster read once: `ada` is in it,
    /// and the last of all that are called `bob`.
    fn world(is_public: bool) -> World {
        let mut fakes = Fakes::default();
        let found = topic(is_public);
        fakes.topics.expect_addressed().once().return_once(|_, _, _| Ok(Some(found)));
        fakes.topics.expect_roster().once().returning(|_, _| {
            let members = ["ada", "the last"].map(|id| (MemberId::from(id), 0));
            Ok(Some(Roster { version: 1, members: HashMap::from(members) }))
        });
        let world = fakes.world();
        let bobs = (0..=limits::MENTIONED_MEMBERS_MAX).map(|at| format!("bob-{at}"));
        let bobs = bobs.chain(["the last".to_owned()]);
        let bob = |id: String| Member { display_name: "bob".to_owned(), ..member(&id) };
        world.enrol_as(bobs.map(bob).chain([member("ada")]).collect());
        world
    }

    async fn mentioned(world: &World) -> Vec<MemberId> {
        let (sender, names) = (MemberId::from("ada"), ["bob".to_owned(), "ada".to_owned()]);
        let posting =
            Posting { member: &sender, body_version: None, mentions: Some(&names), ciphertext: "" };
        let planned = plan(&world.parts, Some(&world.room), &mesh(), "deploys", posting).await;
        planned.expect("a store").map_err(|refusal| refusal.text).expect("a post").mentions
    }

    #[tokio::test]
    async fn whoever_may_not_read_a_topic_takes_no_place_among_those_mentioned_in_it() {
        assert_eq!(mentioned(&world(false)).await, ["the last".into()]);
        assert_eq!(mentioned(&world(true)).await.len(), limits::MENTIONED_MEMBERS_MAX);
    }
}
