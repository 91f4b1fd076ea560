//! What is written into the audit trail: the events and their payloads.

mod names;

use serde_json::{Value, json};

use super::{Anchor, canonical_json};
use crate::auth::push_string;
use crate::id::{Key, MemberId, MessageId, TopicId};
use crate::limits;
use crate::protocol::budget::groups_within;
use crate::protocol::{ApiCapability, Group, Priority, SealingPolicy};

/// What happened. The actor, the mesh and the time stand beside it in the row.
#[derive(Clone, Debug, PartialEq)]
pub enum AuditEvent {
    /// A member connected with its own key.
    PeerJoined {
        /// The member's key.
        pubkey: Key,
        /// The session's groups.
        groups: Vec<Group>,
        /// Whether it found its last-known state again.
        restored: bool,
    },
    /// A session that a member vouches for connected.
    SessionJoined {
        /// The member's key.
        pubkey: Key,
        /// The session's key.
        session_pubkey: Key,
        /// The session's groups.
        groups: Vec<Group>,
    },
    /// A presence ended, whatever ended it.
    PeerLeft,
    /// An envelope was accepted.
    MessageSent {
        /// The target as the sender spelled it.
        target: String,
        /// The message's priority.
        priority: Priority,
    },
    /// Connections of a member were closed; it may come back.
    PeerKicked {
        /// The target as the actor spelled it.
        target: String,
        /// The member's key.
        target_pubkey: Key,
    },
    /// A member was shut out.
    MemberBanned {
        /// The target as the actor spelled it.
        target: String,
        /// The member's key.
        target_pubkey: Key,
    },
    /// The mesh got another slug, which is its name, too.
    MeshRenamed {
        /// The new slug.
        slug: String,
    },
    /// The mesh was archived; the actor is missing for an operator at the command line.
    MeshArchived,
    /// Which of their own fields members may edit was set.
    MeshPolicyChanged {
        /// The fields that they may.
        self_editable: Vec<String>,
    },
    /// What the mesh asks of messages to many was set; the actor is missing for an operator
    /// at the command line.
    MeshSealingChanged {
        /// What it asks now.
        sealing: SealingPolicy,
    },
    /// A member has made a key that members hold in common.
    CommonKeyMade {
        /// Of the mesh, or of which topic.
        scope: String,
        /// Its number.
        epoch: i64,
    },
    /// A member has sealed such a key for others.
    CommonKeyShared {
        /// Of the mesh, or of which topic.
        scope: String,
        /// Its number.
        epoch: i64,
        /// For how many.
        members: u64,
    },
    /// What a member may do by a dashboard was set.
    MemberPermissionsChanged {
        /// The member's key.
        target_pubkey: Key,
        /// The permissions that were named.
        fields: Vec<String>,
    },
    /// A member's account left the mesh; the actor is that member.
    MemberLeft {
        /// The member's key.
        pubkey: Key,
    },
    /// A member was let in again.
    MemberUnbanned {
        /// The target as the actor spelled it.
        target: String,
    },
    /// A member was made an admin or an ordinary member.
    MemberRoleChanged {
        /// The member's key.
        target_pubkey: Key,
        /// The new role's name.
        role: &'static str,
    },
    /// What a member says of itself was changed, by itself or an admin.
    MemberProfileChanged {
        /// The member's key.
        target_pubkey: Key,
        /// The fields that were given; their values are nobody's business.
        fields: Vec<&'static str>,
    },
    /// Somebody joined the mesh; the actor is the new member.
    MemberJoined {
        /// The new member's key.
        pubkey: Key,
        /// The new member's role.
        role: &'static str,
    },
    /// An envelope was given up undelivered; the actor is its sender.
    Expired {
        /// The envelope.
        message_id: MessageId,
        /// The target as the sender spelled it.
        target: String,
    },
    /// A message was taken back before anybody had it; the actor is its sender.
    Withdrawn {
        /// The message.
        message_id: MessageId,
    },
    /// A recipient's grants kept a message away that waited for it; the actor is its
    /// sender.
    Blocked {
        /// The message.
        message_id: MessageId,
        /// The target as the sender spelled it.
        target: String,
    },
    /// A stream was made.
    StreamCreated {
        /// Under which name.
        name: String,
    },
    /// A stream was deleted.
    StreamDeleted {
        /// The stream's name.
        name: String,
    },
    /// A shared state value was set.
    StateSet {
        /// Under which key; the value is nobody's business.
        key: String,
    },
    /// A shared state value was removed.
    StateRemoved {
        /// Its key.
        key: String,
    },
    /// A topic was made.
    TopicCreated {
        /// The topic.
        topic: TopicId,
        /// Its name, if everybody may see it.
        name: Option<String>,
    },
    /// A member joined a topic.
    TopicJoined {
        /// The topic.
        topic: TopicId,
    },
    /// A member left a topic.
    TopicLeft {
        /// The topic.
        topic: TopicId,
    },
    /// A member may join a topic that is not public.
    TopicInvited {
        /// The topic.
        topic: TopicId,
        /// Who is invited.
        member: MemberId,
    },
    /// A member sealed a topic's key for one that is in the topic.
    TopicKeySealed {
        /// The topic.
        topic: TopicId,
        /// For whom.
        member: MemberId,
    },
    /// A member gave a topic that had none a key.
    TopicKeyClaimed {
        /// The topic.
        topic: TopicId,
    },
    /// A webhook was made.
    WebhookCreated {
        /// What it is called; its secrets are nobody's business.
        name: String,
    },
    /// A webhook was deleted.
    WebhookDeleted {
        /// What it was called.
        name: String,
    },
    /// Another program called a webhook; the actor is the webhook's maker.
    WebhookReceived {
        /// What it is called.
        name: String,
        /// How large the body was.
        bytes: usize,
    },
    /// A server was registered that outlives its host.
    McpRegistered {
        /// The server's name.
        server_name: String,
    },
    /// Such a server was given up.
    McpUnregistered {
        /// The server's name.
        server_name: String,
    },
    /// A message was scheduled.
    ScheduleCreated {
        /// What is scheduled.
        schedule_id: String,
        /// The target as the sender spelled it.
        target: String,
    },
    /// A scheduled message was taken back.
    ScheduleCancelled {
        /// What was scheduled.
        schedule_id: String,
    },
    /// The time of a scheduled message came, and it could not be sent.
    ScheduleDropped {
        /// What was scheduled.
        schedule_id: String,
        /// Why, in a word.
        reason: &'static str,
    },
    /// A task came to be.
    TaskCreated {
        /// The task.
        task_id: String,
    },
    /// A member does a task.
    TaskClaimed {
        /// The task.
        task_id: String,
    },
    /// A member does a task no more.
    TaskReleased {
        /// The task.
        task_id: String,
    },
    /// A claim was not renewed in time; the actor is whose it was.
    TaskClaimRanOut {
        /// The task.
        task_id: String,
    },
    /// What a task says was changed.
    TaskUpdated {
        /// The task.
        task_id: String,
    },
    /// A task is done.
    TaskCompleted {
        /// The task.
        task_id: String,
    },
    /// The mesh was given something to remember.
    MemoryStored {
        /// The memory's id; what it says is nobody's business.
        id: String,
    },
    /// The mesh forgot something.
    MemoryForgotten {
        /// The memory's id.
        id: String,
    },
    /// A skill was shared.
    SkillShared {
        /// The skill's name.
        name: String,
    },
    /// A skill was removed.
    SkillRemoved {
        /// The skill's name.
        name: String,
    },
    /// The actor said what it works on.
    ContextShared,
    /// A member keeps something in its vault.
    VaultSet {
        /// Under which key.
        key: String,
    },
    /// A member removed something from its vault.
    VaultDeleted {
        /// The key.
        key: String,
    },
    /// A member made an API key.
    ApikeyCreated {
        /// The key's id; its secret is nobody's business.
        key_id: String,
        /// What the key is for.
        label: String,
        /// What its holder may do.
        capabilities: Vec<ApiCapability>,
    },
    /// An API key was revoked.
    ApikeyRevoked {
        /// The key's id.
        key_id: String,
    },
    /// A node signed where the chain ended before this row.
    HeadSigned(Anchor),
    /// The mesh was made.
    Genesis {
        /// The key that signs its invites.
        owner: Key,
    },
}

impl AuditEvent {
    /// The event's details as the row keeps them.
    #[must_use]
    pub fn payload(&self) -> Value {
        match self {
            Self::PeerJoined { pubkey, groups, restored } => with_groups(
                groups,
                json!({"pubkey": pubkey, "restored": restored, "role": "control-plane"}),
            ),
            Self::SessionJoined { pubkey, session_pubkey, groups } => with_groups(
                groups,
                json!({
                    "pubkey": pubkey, "session_pubkey": session_pubkey, "via": "session_hello",
                    "role": "session",
                }),
            ),
            Self::PeerLeft | Self::ContextShared | Self::MeshArchived => json!({}),
            Self::MessageSent { target, priority } => {
                json!({"targetSpec": target, "priority": priority})
            }
            Self::PeerKicked { target, target_pubkey }
            | Self::MemberBanned { target, target_pubkey } => {
                json!({"target": target, "targetPubkey": target_pubkey})
            }
            Self::MeshRenamed { slug } => json!({"slug": slug}),
            Self::MeshPolicyChanged { self_editable } => json!({"selfEditable": self_editable}),
            Self::MeshSealingChanged { sealing } => json!({"sealing": sealing}),
            Self::CommonKeyMade { scope, epoch } => json!({"scope": scope, "epoch": epoch}),
            Self::CommonKeyShared { scope, epoch, members } => {
                json!({"scope": scope, "epoch": epoch, "members": members})
            }
            Self::MemberPermissionsChanged { target_pubkey, fields } => {
                json!({"targetPubkey": target_pubkey, "fields": fields})
            }
            Self::MemberLeft { pubkey } => json!({"pubkey": pubkey}),
            Self::MemberUnbanned { target } => json!({"target": target}),
            Self::MemberRoleChanged { target_pubkey, role } => {
                json!({"targetPubkey": target_pubkey, "role": role})
            }
            Self::MemberProfileChanged { target_pubkey, fields } => {
                json!({"targetPubkey": target_pubkey, "fields": fields})
            }
            Self::MemberJoined { pubkey, role } => json!({"pubkey": pubkey, "role": role}),
            Self::Withdrawn { message_id } => json!({"messageId": message_id}),
            Self::Expired { message_id, target } | Self::Blocked { message_id, target } => {
                json!({"messageId": message_id, "targetSpec": target})
            }
            Self::StateSet { key }
            | Self::StateRemoved { key }
            | Self::VaultSet { key }
            | Self::VaultDeleted { key } => json!({"key": key}),
            Self::ApikeyCreated { key_id, label, capabilities } => {
                json!({"keyId": key_id, "label": label, "capabilities": capabilities})
            }
            Self::ApikeyRevoked { key_id } => json!({"keyId": key_id}),
            Self::HeadSigned(anchor) => anchor.payload(),
            Self::Genesis { owner } => json!({"ownerPubkey": owner}),
            Self::TopicCreated { topic, name: Some(name) } => {
                json!({"name": name, "topicId": topic})
            }
            Self::TopicCreated { topic, name: None }
            | Self::TopicJoined { topic }
            | Self::TopicLeft { topic }
            | Self::TopicKeyClaimed { topic } => json!({"topicId": topic}),
            Self::TopicInvited { topic, member } | Self::TopicKeySealed { topic, member } => {
                json!({"memberId": member, "topicId": topic})
            }
            Self::McpRegistered { server_name } | Self::McpUnregistered { server_name } => {
                json!({"serverName": server_name})
            }
            Self::ScheduleCreated { schedule_id, target } => {
                json!({"scheduleId": schedule_id, "targetSpec": target})
            }
            Self::ScheduleCancelled { schedule_id } => json!({"scheduleId": schedule_id}),
            Self::ScheduleDropped { schedule_id, reason } => {
                json!({"scheduleId": schedule_id, "reason": reason})
            }
            Self::TaskCreated { task_id }
            | Self::TaskClaimed { task_id }
            | Self::TaskReleased { task_id }
            | Self::TaskClaimRanOut { task_id }
            | Self::TaskUpdated { task_id }
            | Self::TaskCompleted { task_id } => json!({"taskId": task_id}),
            Self::MemoryStored { id } | Self::MemoryForgotten { id } => json!({"memoryId": id}),
            Self::SkillShared { name } | Self::SkillRemoved { name } => json!({"name": name}),
            Self::StreamCreated { name } | Self::StreamDeleted { name } => json!({"name": name}),
            Self::WebhookCreated { name } | Self::WebhookDeleted { name } => json!({"name": name}),
            Self::WebhookReceived { name, bytes } => json!({"name": name, "bytes": bytes}),
        }
    }

    /// [`Self::payload`] as the hash reads it; it is JSON, so it can be stored.
    #[must_use]
    pub fn canonical_payload(&self) -> String {
        match self {
            Self::MessageSent { target, priority } => {
                message_sent_payload(target, priority.as_str())
            }
            _ => canonical_json(&self.payload()),
        }
    }
}

/// Adds as many of the groups as a row may name: hellos must not grow the chain,
/// which is never cut.
fn with_groups(groups: &[Group], mut payload: Value) -> Value {
    let (named, left_out) = groups_within(groups, limits::AUDIT_GROUPS_BYTES_MAX);
    payload["groups"] = json!(named);
    if left_out > 0 {
        payload["groupsLeftOut"] = json!(left_out);
    }
    payload
}

/// The canonical payload of `message_sent`, without a tree in between: this
/// one is made for every envelope.
#[must_use]
pub fn message_sent_payload(target: &str, priority: &str) -> String {
    let mut out = String::with_capacity(32 + target.len() + priority.len());
    out.push_str("{\"priority\":");
    push_string(&mut out, priority);
    out.push_str(",\"targetSpec\":");
    push_string(&mut out, target);
    out.push('}');
    out
}

#[cfg(test)]
mod tests;
