//! Whom a key leads to, whether or not anybody is there; and how far something reaches
//! that is sent in a member's name while it is away.

use std::sync::Arc;

use super::policy::{self, Capability, NO_GRANT, NO_PEER, Target};
use super::posts::{self, Posting};
use super::refusal::Refusal;
use super::sealed;
use crate::clock::Timestamp;
use crate::delivery::Parts;
use crate::id::{Key, MemberId, MeshId};
use crate::limits;
use crate::record::PresenceRecord;
use crate::registry::Room;
use crate::store::{Admission, Member, Reach, Result};

/// The member that a key leads to: by its own key, or by that of a session which it has or
/// had. `record`: a presence that the key addresses now.
pub(crate) async fn of(
    parts: &Parts,
    room: Option<&Room>,
    mesh: &MeshId,
    key: &str,
    record: Option<&PresenceRecord>,
) -> Result<Option<Arc<Member>>> {
    if let Some(record) = record {
        if let Some(member) = room.and_then(|room| room.member(&record.member)) {
            return Ok(Some(member));
        }
        return enrolled(parts, mesh, record.member_key.as_str(), record.member.as_str()).await;
    }
    if let Some(member) = room.and_then(|room| room.member_by_key(key)) {
        return Ok(Some(member));
    }
    if !crate::auth::is_public_key(key) {
        return Ok(None);
    }
    if let Some(member) = enrolled(parts, mesh, key, "").await? {
        return Ok(Some(member));
    }
    let since = Timestamp::now().plus_ms(-limits::SESSION_KEY_MEMORY_MS);
    let Some(id) = parts.members.addressee_of_session_key(mesh, key, since).await? else {
        return Ok(None);
    };
    if let Some(member) = room.and_then(|room| room.member(&id)) {
        return Ok(Some(member));
    }
    let members = parts.members.active(mesh).await?;
    Ok(members.into_iter().find(|member| member.id == id).map(Arc::new))
}

/// The member as the store has it: another node may have enrolled it a moment
/// ago, and what it told of that may still be on its way.
async fn enrolled(
    parts: &Parts,
    mesh: &MeshId,
    key: &str,
    member: &str,
) -> Result<Option<Arc<Member>>> {
    Ok(match parts.members.admit(mesh, key, member).await? {
        Admission::Member(admitted) => Some(Arc::new(admitted.member)),
        _ => None,
    })
}

/// What is sent in a member's name while it may be away.
pub(crate) struct InNameOf<'a> {
    pub(crate) member: &'a MemberId,
    pub(crate) key: &'a Key,
    /// To whom.
    pub(crate) target: &'a str,
    /// As what stands in the envelope.
    pub(crate) ciphertext: &'a str,
    pub(crate) is_sealed: bool,
}

/// How far something reaches, and to which member, if it is for one.
pub(crate) struct Reached {
    pub(crate) reach: Reach,
    pub(crate) to: Option<MemberId>,
}

impl Reached {
    fn many(reach: Reach) -> Self {
        Self { reach, to: None }
    }
}

/// How far something reaches that a member sends in its own name, whoever is there: to
/// itself as well, if it names its own key; or why it may not send that. What a
/// multicast's recipients grant is looked at when it is delivered.
pub(crate) async fn reach(
    parts: &Parts,
    room: Option<&Room>,
    mesh: &MeshId,
    sent: &InNameOf<'_>,
) -> Result<std::result::Result<Reached, Refusal>> {
    let target = Target::parse(sent.target);
    if let Err(refusal) = sealed::is_allowed(parts, room, mesh, (target, sent.is_sealed)).await? {
        return Ok(Err(refusal));
    }
    let key = match target {
        Target::Everyone | Target::Group(_) => return Ok(Ok(Reached::many(Reach::Multicast))),
        Target::Topic(named) => {
            let posting = Posting {
                member: sent.member,
                body_version: Some(if sent.is_sealed { 2 } else { 1 }),
                mentions: None,
                ciphertext: sent.ciphertext,
            };
            let planned = posts::plan(parts, room, mesh, named, posting).await?;
            return Ok(planned.map(|post| Reached::many(Reach::Topic(Box::new(post)))));
        }
        Target::Key(key) => key,
    };
    let candidates = room.map(|room| room.addressed_by(key)).unwrap_or_default();
    let record = candidates.first().map(|candidate| &*candidate.record);
    let Some(member) = of(parts, room, mesh, key, record).await? else {
        return Ok(Err(Refusal::new("no_peer", NO_PEER)));
    };
    if !policy::grants(&member, sent.key, None, Capability::Dm) {
        return Ok(Err(Refusal::new("grants", NO_GRANT)));
    }
    let reach = Reach::Direct { claim: None, note: None };
    Ok(Ok(Reached { reach, to: Some(member.id.clone()) }))
}
