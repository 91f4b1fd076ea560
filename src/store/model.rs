//! What the store takes and gives: domain records, not rows.

use std::collections::HashMap;

use serde_json::Value;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, MessageId, PresenceId};
use crate::protocol::handshake::About;
use crate::protocol::{
    Group, PeerRole, Priority, Profile, RestoredStats, Stats, Status, StatusSource,
};

/// What a member may do in its mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May moderate.
    Admin,
    /// May not.
    Member,
}

impl Role {
    /// As in the tables and in invites.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    /// The role with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "admin" => Some(Self::Admin),
            "member" => Some(Self::Member),
            _ => None,
        }
    }
}

/// A mesh.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Its id.
    pub id: MeshId,
    /// Its short name, as commands take it. Not unique among archived ones.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// The key that signs its invites.
    pub owner_key: Option<Key>,
    /// The secret of that key, where the mesh was made by a dashboard that
    /// keeps it (128 hex digits). Never printed.
    pub owner_secret_key: Option<String>,
    /// A shared secret that invites carry to clients. Never printed.
    pub root_key: Option<String>,
    /// Which of its own fields a member may edit.
    pub self_editable: Value,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was archived, if it was.
    pub archived_at: Option<Timestamp>,
}

/// A line of `mesh list`.
#[derive(Clone, Debug)]
pub struct MeshSummary {
    /// The mesh.
    pub mesh: Mesh,
    /// Active members.
    pub members: i64,
    /// Presences that are not ended.
    pub presences: i64,
    /// Undelivered envelopes.
    pub queued: i64,
}

/// Capabilities that a recipient gives to single senders, by the sender's key.
pub type Grants = HashMap<String, Vec<String>>;

/// A member of a mesh.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its key. Members enrolled by a dashboard may have one that is no
    /// ed25519 key; those can be addressed and cannot connect.
    pub key: Key,
    /// Its name.
    pub display_name: String,
    /// What it may do.
    pub role: Role,
    /// Whether it owns the mesh: its key signs the invites, or its user owns
    /// the mesh in the dashboard.
    pub is_owner: bool,
    /// A label that admins give.
    pub role_tag: Option<String>,
    /// Groups that a new session starts in.
    pub default_groups: Vec<Group>,
    /// `push`, `inbox` or `off`.
    pub message_mode: String,
    /// Whom it lets do what.
    pub grants: Grants,
    /// When it joined.
    pub joined_at: Timestamp,
    /// When its membership was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// What a hello finds.
#[derive(Clone, Debug)]
pub enum Admission {
    /// An active member of a mesh that is not archived.
    Member(Box<AdmittedMember>),
    /// The key's membership was revoked; the mesh's name (else slug, else id)
    /// for the sentence that says so.
    Revoked {
        /// What to call the mesh.
        mesh_label: String,
    },
    /// No such mesh, or no such key in it, or the mesh is archived.
    Unknown,
}

/// An active member, with what its last session left.
#[derive(Clone, Debug)]
pub struct AdmittedMember {
    /// The member.
    pub member: Member,
    /// The mesh's policy.
    pub self_editable: Value,
    /// What an earlier session left.
    pub saved: Option<PeerState>,
}

/// What a member's last session left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerState {
    /// Its groups.
    pub groups: Vec<Group>,
    /// What it said of itself.
    pub profile: Profile,
    /// Whether others saw it.
    pub visible: bool,
    /// What it said it was doing.
    pub last_summary: Option<String>,
    /// Its name.
    pub last_display_name: Option<String>,
    /// Counters over all sessions.
    pub stats: RestoredStats,
    /// When it was last here.
    pub last_seen_at: Option<Timestamp>,
}

/// A presence that begins.
#[derive(Clone, Debug)]
pub struct OpenPresence {
    /// Its id, made by the lease.
    pub id: PresenceId,
    /// Its mesh.
    pub mesh: MeshId,
    /// Its member.
    pub member: MemberId,
    /// Its own key, if it has one.
    pub session_key: Option<Key>,
    /// What kind of connection it is.
    pub role: PeerRole,
    /// What it says of itself; `about.groups` is not read.
    pub about: About,
    /// The groups it starts in.
    pub groups: Vec<Group>,
    /// The status it starts with.
    pub status: Status,
    /// Where that came from.
    pub status_source: StatusSource,
    /// Whether others see it.
    pub visible: bool,
    /// What it said of itself before.
    pub profile: Profile,
    /// The node that holds it.
    pub node: String,
    /// The member's name, for the audit row.
    pub actor_name: String,
    /// The audit row.
    pub audit: AuditEvent,
}

/// What a reattach refreshes.
#[derive(Clone, Debug)]
pub struct ReattachPresence {
    /// The client's own name for the session, if it is to change.
    pub session_id: Option<String>,
    /// Its directory.
    pub cwd: String,
    /// Its process.
    pub pid: i32,
    /// Its name, if it gave one.
    pub display_name: Option<String>,
    /// The node that holds it now.
    pub node: String,
}

/// Something changed about an open presence; `None` leaves a field.
#[derive(Clone, Debug)]
pub struct PresenceChange {
    /// Which.
    pub id: PresenceId,
    /// Its status, with where it came from and since when.
    pub status: Option<(Status, StatusSource, Timestamp)>,
    /// What it says it is doing.
    pub summary: Option<String>,
    /// The groups it is in.
    pub groups: Option<Vec<Group>>,
    /// Whether others see it.
    pub visible: Option<bool>,
    /// What it says of itself.
    pub profile: Option<Profile>,
    /// Its counters.
    pub stats: Option<Stats>,
    /// When it was last heard of.
    pub last_ping_at: Option<Timestamp>,
}

impl PresenceChange {
    /// A change of nothing yet.
    #[must_use]
    pub fn of(id: PresenceId) -> Self {
        Self {
            id,
            status: None,
            summary: None,
            groups: None,
            visible: None,
            profile: None,
            stats: None,
            last_ping_at: None,
        }
    }
}

/// A presence whose socket closed.
#[derive(Clone, Debug)]
pub struct SuspendPresence {
    /// Which.
    pub id: PresenceId,
    /// Its mesh.
    pub mesh: MeshId,
    /// Its member.
    pub member: MemberId,
    /// The member's key: claims on it are let go.
    pub member_key: Key,
    /// Every multicast up to here is done with.
    pub multicast_position: i64,
    /// What to restore for the member's next session.
    pub state: PeerState,
}

/// A presence that ends.
#[derive(Clone, Debug)]
pub struct EndPresence {
    /// Which.
    pub id: PresenceId,
    /// Its mesh.
    pub mesh: MeshId,
    /// The audit rows to write if this call is the one that ends it.
    pub audit: Vec<AuditEntry>,
}

/// A presence as the tables keep it.
#[derive(Clone, Debug)]
pub struct StoredPresence {
    /// As it was opened, with its changes since.
    pub opened: OpenPresenceState,
    /// The member's key.
    pub member_key: Key,
    /// The member's name.
    pub member_name: String,
    /// When it began.
    pub connected_at: Timestamp,
    /// When it was last heard of.
    pub last_ping_at: Timestamp,
}

/// The part of a presence that changes with its life.
#[derive(Clone, Debug)]
pub struct OpenPresenceState {
    /// Its id.
    pub id: PresenceId,
    /// Its mesh.
    pub mesh: MeshId,
    /// Its member.
    pub member: MemberId,
    /// Its own key, if it has one.
    pub session_key: Option<Key>,
    /// What kind of connection it is.
    pub role: PeerRole,
    /// What it says of itself.
    pub about: About,
    /// The groups it is in.
    pub groups: Vec<Group>,
    /// Its status, where it came from, since when.
    pub status: (Status, StatusSource, Timestamp),
    /// What it says it is doing.
    pub summary: Option<String>,
    /// Whether others see it.
    pub visible: bool,
    /// What it says of itself.
    pub profile: Profile,
    /// Its counters.
    pub stats: Option<Stats>,
    /// The node that last held it.
    pub node: Option<String>,
}

/// Where a hook's directory led.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceAt {
    /// The presence.
    pub id: PresenceId,
    /// Its mesh.
    pub mesh: MeshId,
    /// Its status.
    pub status: Status,
    /// Where that came from.
    pub status_source: StatusSource,
    /// Since when.
    pub status_updated_at: Timestamp,
}

/// How far an envelope reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One recipient. The claim says which presence is about to get it and
    /// until when no other may.
    Direct {
        /// The presence and the end of its claim, if one is open and takes it.
        claim: Option<(PresenceId, Timestamp)>,
    },
    /// Everyone connected or in grace that the target names.
    Multicast,
}

/// An envelope to accept.
#[derive(Clone, Debug)]
pub struct NewEnvelope {
    /// Its id, made here.
    pub id: MessageId,
    /// Its mesh.
    pub mesh: MeshId,
    /// The sender.
    pub sender_member: MemberId,
    /// The sender's name, for the audit row and for pushes from the store.
    pub sender_name: String,
    /// The sender's session key, if it has one.
    pub sender_session_key: Option<Key>,
    /// As sent.
    pub target_spec: String,
    /// How far it reaches.
    pub reach: Reach,
    /// As sent.
    pub priority: Priority,
    /// As sent (base64).
    pub nonce: String,
    /// As sent (base64).
    pub ciphertext: String,
    /// As sent.
    pub client_message_id: Option<String>,
    /// As sent.
    pub request_fingerprint: Option<String>,
    /// As sent.
    pub reply_to_id: Option<String>,
}

/// What became of an envelope of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is on disk under its own id.
    New {
        /// Its place in its mesh's order of commits.
        seq: i64,
        /// For a multicast: the place of the multicast before it, 0 if none
        /// is kept.
        previous_multicast: i64,
        /// When it was accepted.
        created_at: Timestamp,
    },
    /// The same member has sent it before.
    Duplicate {
        /// The id it has.
        id: MessageId,
    },
}

/// An envelope as the queue keeps it.
#[derive(Clone, Debug)]
pub struct StoredEnvelope {
    /// Its id.
    pub id: MessageId,
    /// Its place in its mesh's order; 0 for rows that another program wrote.
    pub seq: i64,
    /// The sender.
    pub sender_member: MemberId,
    /// The sender's key.
    pub sender_key: Key,
    /// The sender's name.
    pub sender_name: String,
    /// The sender's session key, if it had one.
    pub sender_session_key: Option<Key>,
    /// As sent.
    pub target_spec: String,
    /// As sent.
    pub priority: Priority,
    /// As sent.
    pub nonce: String,
    /// As sent.
    pub ciphertext: String,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// As sent.
    pub client_message_id: Option<String>,
    /// As sent.
    pub request_fingerprint: Option<String>,
    /// As sent.
    pub reply_to_id: Option<String>,
}

/// A presence asks for its mail.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// Who asks.
    pub presence: PresenceId,
    /// In which mesh.
    pub mesh: MeshId,
    /// The member's key.
    pub member_key: Key,
    /// The session's own key.
    pub session_key: Option<Key>,
    /// Whether only [`Priority::Now`] may be given.
    pub urgent_only: bool,
    /// What is on its way to it already.
    pub in_flight: Vec<MessageId>,
    /// Until when nobody else may have them.
    pub until: Timestamp,
    /// At most this many.
    pub limit: u32,
}

/// A delivery that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// A direct envelope, by its id. Only if it was addressed to one of the
    /// keys.
    Message {
        /// Its mesh.
        mesh: MeshId,
        /// Its id.
        id: MessageId,
        /// The recipient's member key.
        member_key: Key,
        /// The recipient's session key.
        session_key: Option<Key>,
    },
    /// A direct envelope, by the sender's own id for it.
    ClientMessage {
        /// Its mesh.
        mesh: MeshId,
        /// The sender's id for it.
        client_message_id: String,
        /// The recipient's member key.
        member_key: Key,
        /// The recipient's session key.
        session_key: Option<Key>,
    },
    /// Every multicast of the mesh up to here, for one presence.
    MulticastsUpTo {
        /// The presence.
        presence: PresenceId,
        /// The position.
        position: i64,
    },
}

/// How a message stands.
#[derive(Clone, Debug)]
pub struct MessageState {
    /// Its id.
    pub id: MessageId,
    /// Its place in its mesh's order.
    pub seq: i64,
    /// The sender.
    pub sender_member: MemberId,
    /// As sent.
    pub target_spec: String,
    /// As sent.
    pub priority: Priority,
    /// Whether it went to many.
    pub multicast: bool,
    /// Bytes of its ciphertext's text.
    pub ciphertext_bytes: i64,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its delivery was confirmed.
    pub delivered_at: Option<Timestamp>,
    /// The presence that has a live claim on it.
    pub claimed_by: Option<PresenceId>,
}

/// What [`Store::expire`](super::Store::expire) deletes.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Delivered rows older than this.
    pub delivered_before: Timestamp,
    /// Undelivered rows older than this.
    pub undelivered_before: Timestamp,
    /// Idempotence keys older than this.
    pub keys_before: Timestamp,
    /// At most this many rows of each kind.
    pub limit: i64,
}

/// What [`Store::expire`](super::Store::expire) deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Delivered rows.
    pub delivered: u64,
    /// Undelivered rows.
    pub undelivered: u64,
    /// Idempotence keys.
    pub keys: u64,
}

/// A ban or its end.
#[derive(Clone, Debug)]
pub struct Moderation {
    /// The mesh.
    pub mesh: MeshId,
    /// Whose membership.
    pub member: MemberId,
    /// Who did it; `None` for an operator at the command line.
    pub actor: Option<MemberId>,
    /// The actor's name.
    pub actor_name: Option<String>,
    /// The audit row.
    pub audit: AuditEvent,
}

/// An audit row to append.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// The mesh.
    pub mesh: MeshId,
    /// Who did it.
    pub actor: Option<MemberId>,
    /// The actor's name.
    pub actor_name: Option<String>,
    /// What.
    pub event: AuditEvent,
}

/// An audit row as it stands.
#[derive(Clone, Debug)]
pub struct AuditRecord {
    /// Its place.
    pub id: i64,
    /// The mesh.
    pub mesh: MeshId,
    /// What happened.
    pub event_type: String,
    /// Who did it.
    pub actor: Option<String>,
    /// The actor's name.
    pub actor_name: Option<String>,
    /// To what.
    pub payload: Value,
    /// The hash of the row before.
    pub prev_hash: String,
    /// This row's hash.
    pub hash: String,
    /// When.
    pub created_at: Timestamp,
}

/// What another program changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Nothing.
    None,
    /// These meshes.
    Meshes(Vec<MeshId>),
    /// Something; the store cannot tell what.
    Unknown,
}

/// A mesh to create.
#[derive(Clone, Debug)]
pub struct NewMesh {
    /// Its id.
    pub id: MeshId,
    /// Its short name.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// The owner's key.
    pub owner_key: Key,
    /// The shared secret that invites carry (base64url of 32 bytes).
    pub root_key: String,
    /// The owner's member id.
    pub owner_member: MemberId,
    /// The owner's name.
    pub owner_name: String,
}

/// An invite to write.
#[derive(Clone, Debug)]
pub struct NewInvite {
    /// Its id.
    pub id: String,
    /// Its mesh.
    pub mesh: MeshId,
    /// The token: base64url of the signed payload's JSON.
    pub token: String,
    /// The role it gives.
    pub role: Role,
    /// How often it may be used.
    pub max_uses: i32,
    /// Until when.
    pub expires_at: Timestamp,
    /// Who made it: a user id of the dashboard, or the owner's member id.
    pub created_by: String,
}

/// An invite as it stands.
#[derive(Clone, Debug)]
pub struct Invite {
    /// Its id.
    pub id: String,
    /// The role it gives.
    pub role: Role,
    /// How often it may be used.
    pub max_uses: i32,
    /// How often it was.
    pub used_count: i32,
    /// Until when.
    pub expires_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// A request to enrol.
#[derive(Clone, Debug)]
pub struct Join {
    /// The invite's token.
    pub token: String,
    /// The mesh that the payload names.
    pub mesh: MeshId,
    /// The owner's key that the payload names.
    pub owner_key: String,
    /// The role that the payload gives.
    pub role: Role,
    /// The new member's id.
    pub member: MemberId,
    /// The new member's key.
    pub key: Key,
    /// The new member's name.
    pub display_name: String,
}

/// What became of a request to enrol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined {
    /// A member now.
    New(MemberId),
    /// A member already; the invite was not used.
    Already(MemberId),
    /// No.
    Refused(JoinRefusal),
}

/// Why an invite did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinRefusal {
    /// No such mesh, or archived.
    MeshNotFound,
    /// The mesh has no key to check invites against.
    MeshMissingOwnerKey,
    /// The payload was signed by somebody else.
    OwnerMismatch,
    /// No such invite.
    NotFound,
    /// It is another mesh's.
    MeshMismatch,
    /// It was revoked.
    Revoked,
    /// Its time is over.
    Expired,
    /// It was used as often as it may be.
    Exhausted,
}

impl JoinRefusal {
    /// As `/join` answers it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::MeshNotFound => "mesh_not_found",
            Self::MeshMissingOwnerKey => "mesh_missing_owner_key",
            Self::OwnerMismatch => "invite_owner_mismatch",
            Self::NotFound => "invite_not_found",
            Self::MeshMismatch => "invite_mesh_mismatch",
            Self::Revoked => "invite_revoked",
            Self::Expired => "invite_expired",
            Self::Exhausted => "invite_exhausted",
        }
    }
}
