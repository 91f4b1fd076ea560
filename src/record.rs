//! One presence: as its node, the mirrors of the others, the shared state and the
//! tables know it.
//!
//! A record only says; who changes it, [`presence`](crate::presence) knows.

mod shared;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::shared::{Shared, SharedChange};
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, PresenceId};
use crate::protocol::{
    Group, McpTool, PeerInfo, PeerRole, Priority, Profile, Stats, Status, StatusSource,
};

/// What makes two connections the same session: mesh, member, kind of hello
/// and session key; without a session key, the client's session id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionIdentity(Arc<str>);

impl SessionIdentity {
    /// The identity as one string, unique within its mesh.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One presence: what every node of its mesh mirrors.
///
/// It travels as a MessagePack map with named fields; unknown fields are
/// ignored and missing ones default, so that two releases can share a
/// cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PresenceRecord {
    /// The presence's id, which a reattach keeps.
    pub id: PresenceId,
    /// The presence's mesh.
    pub mesh: MeshId,
    /// The presence's member.
    pub member: MemberId,
    /// The member's key.
    pub member_key: Key,
    /// The session's own key, if it has one.
    #[serde(default)]
    pub session_key: Option<Key>,
    /// What kind of connection it is.
    pub role: PeerRole,
    /// The client's own name for the session.
    pub session_id: String,
    /// The session's name, else the member's.
    pub display_name: String,
    /// What it is doing.
    #[serde(default)]
    pub status: Status,
    /// Where the status came from.
    #[serde(default)]
    pub status_source: StatusSource,
    /// When the status was set.
    #[serde(default)]
    pub status_updated_at: Timestamp,
    /// Since when it has been that one, however often it was set to it. `None` if that is
    /// not known, as of a presence of an earlier release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_since: Option<Timestamp>,
    /// What it says it is doing.
    #[serde(default)]
    pub summary: Option<String>,
    /// The groups it is in.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// When it began.
    pub connected_at: Timestamp,
    /// When its newest socket said hello; in grace, when that socket was last
    /// heard of, as far as its node could tell the others.
    #[serde(default)]
    pub last_seen_at: Timestamp,
    /// The peer's working directory.
    #[serde(default)]
    pub cwd: String,
    /// The peer's process.
    #[serde(default)]
    pub pid: i32,
    /// The peer's machine.
    #[serde(default)]
    pub hostname: Option<String>,
    /// `ai`, `human`, `connector` ...
    #[serde(default)]
    pub peer_type: Option<String>,
    /// The client program.
    #[serde(default)]
    pub channel: Option<String>,
    /// The model it runs.
    #[serde(default)]
    pub model: Option<String>,
    /// The peer's counters, once it reported some.
    #[serde(default)]
    pub stats: Option<Stats>,
    /// Whether others see it.
    #[serde(default = "yes")]
    pub visible: bool,
    /// What it says of itself.
    #[serde(default)]
    pub profile: Profile,
    /// The node that holds its socket, or last held it.
    pub node: String,
    /// The epoch of the lease's holding.
    #[serde(default)]
    pub epoch: u64,
    /// Whether a socket is open; `false` in grace.
    #[serde(default)]
    pub online: bool,
    /// Whether it is here for one thing only: it gets what is addressed to its own
    /// key, and is nobody to everybody else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub visitor: bool,
    /// Whether it has confirmed a delivery, whatever its channel promised.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_confirmed: bool,
    /// Its mesh's multicasts after this seq are its own to get. `None` if that
    /// is not known, as of a presence of an earlier release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins_after: Option<i64>,
    /// Whether it asked for `stages`: it tells what was surfaced, and is told what becomes
    /// of what it sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stages: bool,
    /// Whether it asked for `holds`: its client keeps what its session is too busy for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub holds: bool,
    /// Whether it asked for `sealed_multicast`: it opens messages to many that are sealed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opens_sealed: bool,
    /// When it last said that something was surfaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surfaced_at: Option<Timestamp>,
    /// What stands for the client address of its socket, where other nodes have to
    /// tell whether a call comes from there. Of a single node, `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_mark: Option<String>,
    /// Whether it wants to be told of what becomes of tasks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watches_tasks: bool,
    /// The streams that it subscribes to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<String>,
    /// The servers that it hosts for its mesh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp_servers: Vec<McpServer>,
}

/// A server that a presence hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct McpServer {
    /// The name that others call it by.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// What can be called.
    #[serde(default)]
    pub tools: Vec<McpTool>,
    /// Whether it is listed when its host has gone.
    #[serde(default)]
    pub persistent: bool,
    /// When it was registered: of several of one name the latest counts.
    #[serde(default)]
    pub registered_at: Timestamp,
}

/// The channel of a member's daemon.
const DAEMON: &str = "claudemesh-daemon";
/// The channel of a session whose socket its member's daemon holds.
const SESSION_OF_DAEMON: &str = "claudemesh-session";

fn yes() -> bool {
    true
}

impl PresenceRecord {
    /// A session that enters and has said nothing of itself: idle, in no group, seen by
    /// all; without a name, and on no node.
    #[must_use]
    pub fn new(mesh: MeshId, member: MemberId, member_key: Key, now: Timestamp) -> Self {
        Self {
            id: PresenceId::generate(),
            mesh,
            member,
            member_key,
            session_key: None,
            role: PeerRole::Session,
            session_id: String::new(),
            display_name: String::new(),
            status: Status::Idle,
            status_source: StatusSource::Jsonl,
            status_updated_at: now,
            status_since: Some(now),
            summary: None,
            groups: Vec::new(),
            connected_at: now,
            last_seen_at: now,
            cwd: String::new(),
            pid: 0,
            hostname: None,
            peer_type: None,
            channel: None,
            model: None,
            stats: None,
            visible: true,
            opens_sealed: false,
            profile: Profile::default(),
            node: String::new(),
            epoch: 0,
            online: true,
            visitor: false,
            has_confirmed: false,
            begins_after: None,
            stages: false,
            holds: false,
            surfaced_at: None,
            mcp_servers: Vec::new(),
            client_mark: None,
            watches_tasks: false,
            streams: Vec::new(),
        }
    }

    /// The key that others address: the session's, else the member's.
    #[must_use]
    pub fn routing_key(&self) -> &Key {
        self.session_key.as_ref().unwrap_or(&self.member_key)
    }

    /// Whether the peer says when it has a delivery: its client promised to, or
    /// did it once.
    #[must_use]
    pub fn confirms(&self) -> bool {
        self.has_confirmed || self.is_on(DAEMON) || self.is_on(SESSION_OF_DAEMON)
    }

    /// Whether it gets a message of that priority now. What it does not get waits until it
    /// is idle.
    #[must_use]
    pub fn admits(&self, priority: Priority) -> bool {
        self.holds || self.status == Status::Idle || priority == Priority::Now
    }

    /// Whether it is a daemon's own connection.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.role == PeerRole::ControlPlane && !self.visitor && self.is_on(DAEMON)
    }

    /// Whether a daemon of its member may hold its inbox.
    #[must_use]
    pub fn is_session_of_daemon(&self) -> bool {
        self.hostname.is_some() && self.is_on(SESSION_OF_DAEMON)
    }

    /// Whether its program shows what comes as text, also where that is sealed with another
    /// key than a peer's, or is no text: daemons and what they carry for sessions.
    #[must_use]
    pub fn shows_texts_only(&self) -> bool {
        self.is_daemon() || self.is_session_of_daemon()
    }

    /// Whether a daemon on the same host, as far as both say, keeps one inbox for
    /// itself and for this session of the same member.
    #[must_use]
    pub fn shares_inbox_of(&self, daemon: &Self) -> bool {
        daemon.is_daemon() && self.member == daemon.member && self.hostname == daemon.hostname
    }

    fn is_on(&self, channel: &str) -> bool {
        self.channel.as_deref() == Some(channel)
    }

    /// What makes another connection the same session. A visitor is none that
    /// others are.
    #[must_use]
    pub fn identity(&self) -> SessionIdentity {
        let kind = if self.visitor { "visitor" } else { self.role.as_str() };
        let identity = match &self.session_key {
            Some(key) => format!("{kind}/{}/key/{key}", self.member),
            None => format!("{kind}/{}/id/{}", self.member, self.session_id),
        };
        SessionIdentity(identity.into())
    }

    /// The session key that it has proven: it said hello by a signature with it.
    #[must_use]
    pub fn proven_key(&self) -> Option<&Key> {
        self.session_key.as_ref().filter(|_| self.role == PeerRole::Session)
    }

    /// The session key that it merely named beside its member's, in a `hello`.
    #[must_use]
    pub fn claimed_key(&self) -> Option<&Key> {
        let named = self.session_key.as_ref().filter(|key| **key != self.member_key);
        named.filter(|_| self.role != PeerRole::Session)
    }

    /// Whether both are of one member, by the same keys and kind of hello: what
    /// never changes about a presence.
    #[must_use]
    pub fn is_same_peer(&self, other: &Self) -> bool {
        let Self { mesh, member, member_key, session_key, role, .. } = self;
        *mesh == other.mesh
            && *member == other.member
            && *member_key == other.member_key
            && *session_key == other.session_key
            && *role == other.role
    }

    /// The server of that name that it hosts.
    #[must_use]
    pub fn mcp_server(&self, name: &str) -> Option<&McpServer> {
        self.mcp_servers.iter().find(|server| server.name == name)
    }

    /// The keys that address it: its member's, unless it only visits, and its own.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        let member = (!self.visitor).then_some(&self.member_key);
        let own = self.session_key.as_ref().filter(|own| **own != self.member_key);
        member.into_iter().chain(own)
    }

    /// Whether a message to `@group` is for it: the group or one below it.
    #[must_use]
    pub fn is_in_group(&self, group: &str) -> bool {
        !self.visitor
            && self.groups.iter().any(|own| {
                own.name
                    .strip_prefix(group)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    }

    /// The row that `list_peers` shows.
    #[must_use]
    pub fn to_peer_info(&self) -> PeerInfo {
        PeerInfo {
            pubkey: self.routing_key().to_string(),
            member_pubkey: self.member_key.to_string(),
            display_name: self.display_name.clone(),
            // Known to the room, not to the directory.
            member_name: None,
            status: self.status,
            status_since: self.status_since,
            // Known to the node that is asked.
            stale: false,
            summary: self.summary.clone(),
            groups: self.groups.clone(),
            session_id: self.session_id.clone(),
            surfaced_at: self.surfaced_at,
            connected_at: self.connected_at,
            cwd: self.cwd.clone(),
            peer_role: self.role,
            hostname: self.hostname.clone(),
            peer_type: self.peer_type.clone(),
            channel: self.channel.clone(),
            model: self.model.clone(),
            stats: self.stats,
            visible: Some(self.visible),
            profile: (!self.profile.is_empty()).then(|| self.profile.clone()),
        }
    }
}
