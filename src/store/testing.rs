//! A mesh, its members and their presences as a store has them, and stores of mocks:
//! what the unit tests of every room build on.
//!
//! Nothing here answers by itself: a test says what a mock is asked and what it answers,
//! and whatever else is asked is a failure.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId};
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

/// What the stores are asked; an expectation is set before they are made of it.
#[derive(Default)]
pub(crate) struct MockStores {
    pub(crate) database: MockDatabase,
    pub(crate) members: MockMembers,
    pub(crate) bans: MockBans,
    pub(crate) presences: MockPresences,
    pub(crate) presence_search: MockPresenceSearch,
    pub(crate) envelopes: MockEnvelopes,
    pub(crate) mail: MockMail,
    pub(crate) messages: MockMessages,
    pub(crate) audit: MockAuditTrail,
    pub(crate) meshes: MockMeshes,
    pub(crate) invites: MockInvites,
    pub(crate) topic_mail: MockTopicMail,
    pub(crate) topics: MockTopics,
    pub(crate) states: MockStates,
    pub(crate) vault: MockVault,
    pub(crate) api_keys: MockApiKeys,
    pub(crate) workspaces: MockWorkspaces,
}

impl MockStores {
    pub(crate) fn stores(mut self) -> Stores {
        // Where a test says nothing of topics, there are none.
        self.topic_mail.expect_missed_since().returning(|_, _| Ok(None));
        self.topic_mail.expect_posts_after().returning(|_, _, _, _| Ok(Vec::new()));
        self.topic_mail.expect_adopt().returning(|_, _, _| Ok(None));
        self.topic_mail.expect_expire_posts().returning(|_, _| Ok(0));
        Stores {
            database: Arc::new(self.database),
            members: Arc::new(self.members),
            bans: Arc::new(self.bans),
            presences: Arc::new(self.presences),
            presence_search: Arc::new(self.presence_search),
            envelopes: Arc::new(self.envelopes),
            mail: Arc::new(self.mail),
            messages: Arc::new(self.messages),
            audit: Arc::new(self.audit),
            meshes: Arc::new(self.meshes),
            invites: Arc::new(self.invites),
            topic_mail: Arc::new(self.topic_mail),
            topics: Arc::new(self.topics),
            states: Arc::new(self.states),
            vault: Arc::new(self.vault),
            api_keys: Arc::new(self.api_keys),
            workspaces: Arc::new(self.workspaces),
        }
    }
}
