//! What events are called in the chain.

use super::AuditEvent;
use crate::audit::{GENESIS_EVENT, HEAD_EVENT};
use crate::protocol::{Ask as _, VaultSet};

impl AuditEvent {
    /// The event's name in the row and in the hash.
    #[must_use]
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::PeerJoined { .. } | Self::SessionJoined { .. } => "peer_joined",
            Self::PeerLeft => "peer_left",
            Self::MessageSent { .. } => "message_sent",
            Self::PeerKicked { .. } => "peer_kicked",
            Self::MemberBanned { .. } => "member_banned",
            Self::MeshRenamed { .. } => "mesh_renamed",
            Self::MeshArchived => "mesh_archived",
            Self::MeshPolicyChanged { .. } => "mesh_policy_changed",
            Self::MeshSealingChanged { .. } => "mesh_sealing_changed",
            Self::CommonKeyMade { .. } => "common_key_made",
            Self::CommonKeyShared { .. } => "common_key_shared",
            Self::MemberPermissionsChanged { .. } => "member_permissions_changed",
            Self::MemberLeft { .. } => "member_left",
            Self::MemberUnbanned { .. } => "member_unbanned",
            Self::MemberRoleChanged { .. } => "member_role_changed",
            Self::MemberProfileChanged { .. } => "member_profile_changed",
            Self::MemberJoined { .. } => "member_joined",
            Self::Expired { .. } => "expired",
            Self::Withdrawn { .. } => "message_withdrawn",
            Self::Blocked { .. } => "message_blocked",
            Self::StateSet { .. } => "state_set",
            Self::StreamCreated { .. } => "stream_created",
            Self::StreamDeleted { .. } => "stream_deleted",
            Self::StateRemoved { .. } => "state_removed",
            Self::TopicCreated { .. } => "topic_created",
            Self::TopicJoined { .. } => "topic_joined",
            Self::TopicLeft { .. } => "topic_left",
            Self::TopicInvited { .. } => "topic_invited",
            Self::TopicKeySealed { .. } => "topic_key_sealed",
            Self::TopicKeyClaimed { .. } => "topic_key_claimed",
            Self::WebhookCreated { .. } => "webhook_created",
            Self::WebhookDeleted { .. } => "webhook_deleted",
            Self::WebhookReceived { .. } => "webhook_received",
            Self::McpRegistered { .. } => "mcp_registered",
            Self::McpUnregistered { .. } => "mcp_unregistered",
            Self::ScheduleCreated { .. } => "schedule_created",
            Self::ScheduleCancelled { .. } => "schedule_cancelled",
            Self::ScheduleDropped { .. } => "schedule_dropped",
            Self::TaskCreated { .. } => "task_created",
            Self::TaskClaimed { .. } => "task_claimed",
            Self::TaskReleased { .. } => "task_released",
            Self::TaskClaimRanOut { .. } => "task_claim_ran_out",
            Self::TaskUpdated { .. } => "task_updated",
            Self::TaskCompleted { .. } => "task_completed",
            Self::MemoryStored { .. } => "memory_stored",
            Self::MemoryForgotten { .. } => "memory_forgotten",
            Self::SkillShared { .. } => "skill_shared",
            Self::SkillRemoved { .. } => "skill_removed",
            Self::ContextShared => "context_shared",
            Self::VaultSet { .. } => VaultSet::TYPE,
            Self::VaultDeleted { .. } => "vault_deleted",
            Self::ApikeyCreated { .. } => "apikey_created",
            Self::ApikeyRevoked { .. } => "apikey_revoked",
            Self::HeadSigned(_) => HEAD_EVENT,
            Self::Genesis { .. } => GENESIS_EVENT,
        }
    }
}
