//! Presences as those look for them who do not know their ids.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, PresenceId};
use crate::protocol::handshake::About;
use crate::protocol::{Group, PeerRole, Profile, Stats, Status, StatusSource};
use crate::store::Result;

/// Presences as those look for them who do not know their ids.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait PresenceSearch: Send + Sync + 'static {
    /// Presences that are not ended and were last heard of before that
    /// instant, with enough to list them and to let their sessions reattach.
    async fn unheard(&self, before: Timestamp) -> Result<Vec<StoredPresence>>;

    /// Open presences in that directory, of any mesh: those with that process id
    /// first (0 is no process), then the newest first.
    async fn in_folder(&self, cwd: &str, pid: i32, limit: u32) -> Result<Vec<PresenceAt>>;

    /// Open presences of sessions that call themselves so, of any mesh, newest
    /// first.
    async fn called(&self, session_id: &str, limit: u32) -> Result<Vec<PresenceAt>>;
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
