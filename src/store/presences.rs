//! Presences: rows that begin, change and end.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, PresenceId};
use crate::protocol::handshake::About;
use crate::protocol::{Group, PeerRole, Profile, Stats, Status, StatusSource};
use crate::store::{AuditEntry, PeerState, Result};

/// Presences: rows that begin, change and end.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Presences: Send + Sync + 'static {
    /// Writes presences that begin, each with its `peer_joined` audit row,
    /// and returns for each the mesh's multicast position: later multicasts
    /// are for it, earlier ones are not.
    async fn open(&self, now: Timestamp, opened: &[OpenPresence]) -> Result<Vec<i64>>;

    /// Brings a presence back that a new socket reattached to. Returns the
    /// multicast position to go on from; `None` if the row is gone (the
    /// caller opens a new one under the same id).
    async fn reattach(
        &self,
        now: Timestamp,
        presence: &PresenceId,
        about: &ReattachPresence,
    ) -> Result<Option<i64>>;

    /// Writes what changed about open presences.
    async fn update(&self, now: Timestamp, changes: &[PresenceChange]) -> Result<()>;

    /// These presences were heard of, those among them that are open.
    async fn touch(&self, now: Timestamp, presences: &[PresenceId]) -> Result<()>;

    /// A presence's socket closed and its grace began: saves the member's
    /// last state, keeps the multicast position, and lets go of deliveries
    /// addressed to the member (those to the session's own key stay its own).
    async fn suspend(&self, now: Timestamp, closed: &SuspendPresence) -> Result<()>;

    /// Ends presences, each at most once however many nodes try: sets
    /// `disconnected_at`, lets go of what they had claimed, and writes the
    /// audit rows given. Returns those that this call ended.
    async fn end(&self, now: Timestamp, ended: &[EndPresence]) -> Result<Vec<PresenceId>>;

    /// Which of these presences have no open row, each with the instant of its
    /// end; `None` where there is no row at all.
    async fn ended(&self, presences: &[PresenceId])
    -> Result<Vec<(PresenceId, Option<Timestamp>)>>;
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

/// The column `attributes`.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::store) struct Attributes {
    pub(in crate::store) hostname: Option<String>,
    pub(in crate::store) peer_type: Option<String>,
    pub(in crate::store) channel: Option<String>,
    pub(in crate::store) model: Option<String>,
    pub(in crate::store) visible: Option<bool>,
    pub(in crate::store) profile: Option<Profile>,
    pub(in crate::store) stats: Option<Stats>,
}
