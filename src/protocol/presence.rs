//! Who is here and how they are: `list_peers` and the setters.

use serde::{Deserialize, Serialize};

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
    /// As on the wire and in the tables.
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
    /// As in the tables.
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
    /// As on the wire and in the tables.
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

/// `leave_group`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupRequest {
    /// The group's name.
    pub name: String,
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
        /// As there.
        status: Status,
    },
    /// `set_summary`.
    Summary {
        /// As there.
        summary: String,
    },
    /// `set_visible`.
    Visible {
        /// As there.
        visible: bool,
    },
    /// `set_profile`.
    Profile {
        /// As there.
        profile: SetProfile,
    },
    /// `join_group`.
    JoinGroup {
        /// As there.
        group: Group,
    },
    /// `leave_group`.
    LeaveGroup {
        /// The group's name.
        name: String,
    },
}

impl Said {
    /// Whether older brokers answered it also without a `_reqId`.
    #[must_use]
    pub fn is_always_answered(&self) -> bool {
        matches!(self, Self::Visible { .. } | Self::Profile { .. })
    }
}

/// `set_visible`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SetVisible {
    /// Hidden peers are not listed and get no multicasts.
    pub visible: bool,
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

/// What a request for a list may say besides: `list_peers`, `list_bans`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PageRequest {
    /// From an answer that was cut: the list goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
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
    /// What it says it is doing.
    pub summary: Option<String>,
    /// The groups it is in.
    pub groups: Vec<Group>,
    /// The client's own name for the session.
    pub session_id: String,
    /// When the presence began.
    pub connected_at: Timestamp,
    /// Its working directory.
    pub cwd: String,
    /// What kind of connection it is.
    pub peer_role: PeerRole,
    /// Its machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `ai`, `human`, `connector` ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<String>,
    /// Which client it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The model it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its counters, once it reported some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<Stats>,
    /// Whether others see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<bool>,
    /// What it says of itself, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}
