//! Who is there.

use super::AuditEntry;
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, PresenceId};
use crate::protocol::handshake::About;
use crate::protocol::{Group, PeerRole, Profile, RestoredStats, Stats, Status, StatusSource};

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
    /// Only if it is this member's; `None`: whosever it is.
    pub member: Option<MemberId>,
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
    /// Its mesh: a row of another is not touched.
    pub mesh: MeshId,
    /// Only if it is this member's; `None`: whosever it is.
    pub member: Option<MemberId>,
    /// Only if this node was the last to hold it; `None`: whoever holds it.
    pub node: Option<String>,
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

/// An open presence that a hook may mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceAt {
    /// The presence.
    pub id: PresenceId,
    /// Its mesh.
    pub mesh: MeshId,
    /// Its member.
    pub member: MemberId,
    /// The client's own name for the session.
    pub session_id: String,
    /// Its directory.
    pub cwd: String,
    /// Its process.
    pub pid: i32,
    /// When it began.
    pub connected_at: Timestamp,
}
