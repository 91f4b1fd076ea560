//! A mesh, its members and their presences as a store has them, and stores of mocks:
//! what the unit tests of every room build on.
//!
//! Nothing here answers by itself: a test says what a mock is asked and what it answers,
//! and whatever else is asked is a failure.

use std::collections::HashMap;

use serde_json::Value;

use super::*;
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId};
use crate::protocol::SealingPolicy;
use crate::record::PresenceRecord;

pub(crate) fn mesh() -> MeshId {
    MeshId::from("mesh")
}

/// A member that is called as its id, whose key is `<id>-key`.
pub(crate) fn member(id: &str) -> Member {
    Member {
        id: MemberId::from(id),
        key: Key::from(format!("{id}-key")),
        display_name: id.to_owned(),
        role: Role::Member,
        opens_sealed: false,
        is_owner: false,
        role_tag: None,
        default_groups: Vec::new(),
        message_mode: "push".to_owned(),
        grants: HashMap::new(),
        joined_at: Timestamp::default(),
        revoked_at: None,
    }
}

/// What a hello of that member finds.
pub(crate) fn admission(member: Member) -> Admission {
    let self_editable = Value::Null;
    Admission::Member(Box::new(AdmittedMember { member, self_editable, saved: None }))
}

/// An idle session of that member, whose socket is open.
pub(crate) fn record(member: &Member) -> PresenceRecord {
    let (id, key) = (member.id.clone(), member.key.clone());
    PresenceRecord {
        display_name: member.display_name.clone(),
        epoch: 1,
        ..PresenceRecord::new(mesh(), id, key, Timestamp::default())
    }
}

pub(crate) fn unavailable() -> StoreError {
    StoreError::Unavailable("on purpose".to_owned())
}

/// Where a test says nothing of what a mesh asks of messages to many, it is what meshes ask
/// from the beginning.
pub(crate) fn with_its_first_policy(members: &mut MockMembers) {
    members.expect_sealing().returning(|_| Ok(SealingPolicy::default()));
}

/// Where a test says nothing of topics, there are none.
pub(super) fn without_topics(topics: &mut MockTopicMail) {
    topics.expect_missed_since().returning(|_, _| Ok(None));
    topics.expect_posts_after().returning(|_, _, _, _| Ok(Vec::new()));
    topics.expect_adopt().returning(|_, _, _| Ok(None));
    topics.expect_expire_posts().returning(|_, _| Ok(0));
}
