//! Whom a key leads to, whether or not anybody is there; and whether a member may write to
//! them, for what is sent in its name while it is away.

use std::sync::Arc;

use super::policy::{self, Capability, NO_GRANT, NO_PEER, Target};
use crate::clock::Timestamp;
use crate::delivery::Parts;
use crate::id::{Key, MeshId};
use crate::limits;
use crate::record::PresenceRecord;
use crate::registry::Room;
use crate::store::{Admission, Member, Result};

/// The member that a key leads to: by its own key, or by that of a session which it has or
/// had. `record`: a presence that the key addresses now.
pub(super) async fn of(
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

/// Why something is not sent later: a stable word, and a sentence.
pub(crate) type Unsendable = (&'static str, &'static str);

/// Whether a member may send to that target in its own name, whoever is there: itself
/// included, if it names its own key. What a multicast's recipients grant is looked at
/// when it is delivered.
pub(crate) async fn may_send(
    parts: &Parts,
    room: Option<&Room>,
    mesh: &MeshId,
    target: &str,
    sender_key: &Key,
) -> Result<std::result::Result<(), Unsendable>> {
    let key = match Target::parse(target) {
        Target::Everyone | Target::Group(_) => return Ok(Ok(())),
        Target::Topic(_) => {
            return Ok(Err((
                "topic",
                "invalid target: what is sent to a topic cannot be scheduled",
            )));
        }
        Target::Key(key) => key,
    };
    let candidates = room.map(|room| room.addressed_by(key)).unwrap_or_default();
    let record = candidates.first().map(|candidate| &*candidate.record);
    let Some(member) = of(parts, room, mesh, key, record).await? else {
        return Ok(Err(("no_peer", NO_PEER)));
    };
    let is_granted = policy::grants(&member, sender_key, None, Capability::Dm);
    Ok(is_granted.then_some(()).ok_or(("grants", NO_GRANT)))
}
