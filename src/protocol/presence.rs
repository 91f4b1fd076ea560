//! Who is here and how they are: `list_peers` and the setters.

use serde::{Deserialize, Deserializer, Serialize};

use super::ask::{Answer, Ask, Unasked};
use super::delivery::Ack;
use crate::clock::Timestamp;

/// What a session is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Takes everything.
    #[default]
    Idle,
    /// Takes only what is urgent.
    Working,
    /// Takes only what is urgent, until it says otherwise.
    Dnd,
}

impl Status {
    /// The word on the wire and in the tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Working => "working",
            Self::Dnd => "dnd",
        }
    }

    /// The status with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "idle" => Some(Self::Idle),
            "working" => Some(Self::Working),
            "dnd" => Some(Self::Dnd),
            _ => None,
        }
    }
}

/// Where a status came from, weakest first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum StatusSource {
    /// Inferred, or nobody said anything.
    #[default]
    Jsonl,
    /// The peer itself, by `set_status`.
    Manual,
    /// A hook on the peer's machine.
    Hook,
}

impl StatusSource {
    /// The word in the tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Manual => "manual",
            Self::Hook => "hook",
        }
    }

    /// The source with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "jsonl" => Some(Self::Jsonl),
            "manual" => Some(Self::Manual),
            "hook" => Some(Self::Hook),
            _ => None,
        }
    }
}

/// What kind of connection a presence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerRole {
    /// Came by `hello`: a daemon, a command, a connector.
    ControlPlane,
    /// Came by `session_hello`: a running coding session.
    Session,
    /// Reserved by the tables.
    Service,
}

impl PeerRole {
    /// The word on the wire and in the tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Session => "session",
            Self::Service => "service",
        }
    }

    /// The role with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "control-plane" => Some(Self::ControlPlane),
            "session" => Some(Self::Session),
            "service" => Some(Self::Service),
            _ => None,
        }
    }
}

/// A group that a presence is in. Groups are hierarchical: `@a` reaches `a/b`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Group {
    /// Without the `@`.
    pub name: String,
    /// What the peer is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// What a peer says of itself, beyond its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// A picture or an emoji.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
    /// A title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// A line or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bio: Option<String>,
    /// What it can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
}

impl Profile {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes over what `change` gives and keeps the rest.
    pub fn merge(&mut self, change: SetProfile) {
        let Profile { avatar, title, bio, capabilities } = change;
        self.avatar = avatar.or(self.avatar.take());
        self.title = title.or(self.title.take());
        self.bio = bio.or(self.bio.take());
        self.capabilities = capabilities.or(self.capabilities.take());
    }
}

/// `set_profile`: the fields given replace, the others stay.
pub type SetProfile = Profile;

/// What a session says of itself, or a visitor for a session of its member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case")]
pub enum Said {
    /// `set_status`.
    Status {
        /// The status to take.
        status: Status,
    },
    /// `set_summary`.
    Summary {
        /// The summary to show.
        summary: String,
    },
    /// `set_visible`.
    Visible {
        /// Whether others see the session.
        visible: bool,
    },
    /// `set_profile`.
    Profile {
        /// The profile's fields to replace.
        profile: SetProfile,
    },
    /// `join_group`.
    JoinGroup {
        /// The group to be in.
        group: Group,
    },
    /// `leave_group`.
    LeaveGroup {
        /// The group's name.
        name: String,
    },
}

/// `set_status`: what this session is doing.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SetStatus {
    /// Turning idle releases what was held.
    pub status: Status,
}

impl Ask for SetStatus {
    const TYPE: &'static str = "set_status";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

impl From<SetStatus> for Said {
    fn from(SetStatus { status }: SetStatus) -> Self {
        Self::Status { status }
    }
}

/// `set_summary`: what this session is doing, in words.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SetSummary {
    /// Not given, or null: none any more.
    #[serde(default, deserialize_with = "text_or_null")]
    pub summary: String,
}

impl Ask for SetSummary {
    const TYPE: &'static str = "set_summary";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

impl From<SetSummary> for Said {
    fn from(SetSummary { summary }: SetSummary) -> Self {
        Self::Summary { summary }
    }
}

fn text_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `set_visible`: shows or hides this session.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SetVisible {
    /// Hidden peers are not listed and get no multicasts.
    pub visible: bool,
}

impl Ask for SetVisible {
    const TYPE: &'static str = "set_visible";
    type Answer = Ack;
}

impl From<SetVisible> for Said {
    fn from(SetVisible { visible }: SetVisible) -> Self {
        Self::Visible { visible }
    }
}

impl Ask for SetProfile {
    const TYPE: &'static str = "set_profile";
    type Answer = Ack;
}

impl From<SetProfile> for Said {
    fn from(profile: SetProfile) -> Self {
        Self::Profile { profile }
    }
}

/// `join_group`: enters a group, or changes the role in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JoinGroup(pub Group);

impl Ask for JoinGroup {
    const TYPE: &'static str = "join_group";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

impl From<JoinGroup> for Said {
    fn from(JoinGroup(group): JoinGroup) -> Self {
        Self::JoinGroup { group }
    }
}

/// `leave_group`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeaveGroup {
    /// The group's name.
    pub name: String,
}

impl Ask for LeaveGroup {
    const TYPE: &'static str = "leave_group";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

impl From<LeaveGroup> for Said {
    fn from(LeaveGroup { name }: LeaveGroup) -> Self {
        Self::LeaveGroup { name }
    }
}

/// `set_stats`: reports counters.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct SetStats {
    /// All of them: what is not given is not known any more.
    #[serde(default)]
    pub stats: Stats,
}

impl Ask for SetStats {
    const TYPE: &'static str = "set_stats";
    const UNASKED: Unasked = Unasked::Silent;
    type Answer = Ack;
}

/// Counters that a peer reports about itself; carried, not checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    /// Messages received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_in: Option<f64>,
    /// Messages sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_out: Option<f64>,
    /// Tool calls made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<f64>,
    /// Seconds since it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime: Option<f64>,
    /// Errors seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<f64>,
}

/// `list_peers`: everyone who is here, the asker included.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListPeers {
    /// From an answer that was cut: the list goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for ListPeers {
    const TYPE: &'static str = "list_peers";
    type Answer = PeersList;
}

/// Answers `list_peers`: every presence, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeersList {
    /// One row per presence, the asker's own included.
    pub peers: Vec<PeerInfo>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for PeersList {
    const TYPE: &'static str = "peers_list";
}

/// One presence, as its mesh sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerInfo {
    /// The routing key: session key, else member key.
    pub pubkey: String,
    /// The member's key.
    pub member_pubkey: String,
    /// The session's name, else the member's. The peer's own choice: it proves
    /// nothing.
    pub display_name: String,
    /// The name that the member was enrolled under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_name: Option<String>,
    /// What it is doing.
    pub status: Status,
    /// Since when it does that, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_since: Option<Timestamp>,
    /// Whether the row may be out of date: the node that answers does not hear the others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
    /// What it says it is doing.
    pub summary: Option<String>,
    /// The groups it is in.
    pub groups: Vec<Group>,
    /// The client's own name for the session.
    pub session_id: String,
    /// When the presence began.
    pub connected_at: Timestamp,
    /// When its model, or person, was last given a message, if its client tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surfaced_at: Option<Timestamp>,
    /// The peer's working directory.
    pub cwd: String,
    /// What kind of connection it is.
    pub peer_role: PeerRole,
    /// The peer's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `ai`, `human`, `connector` ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<String>,
    /// The client program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The model it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The peer's counters, once it reported some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<Stats>,
    /// Whether others see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<bool>,
    /// What it says of itself, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}
