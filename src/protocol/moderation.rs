//! `kick`, `disconnect`, `ban`, `unban`, `list_bans`.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// `kick` and `disconnect`. Precedence: `all`, then `stale`, then `target`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct KickRequest {
    /// A name, a key, or at least eight digits that begin one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Everybody not heard of for this many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<f64>,
    /// Everybody but the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
}

/// `ban` and `unban`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TargetRequest {
    /// A name, a key, or at least eight digits that begin one.
    #[serde(default)]
    pub target: Option<String>,
    /// Why; carried into the audit trail by nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answers `kick`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KickAck {
    /// Names of those that went.
    pub kicked: Vec<String>,
    /// The same again, for older clients.
    pub affected: Vec<String>,
    /// Names that matched and were spared: not sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_control_plane: Option<Vec<String>>,
    /// Whether more were affected than are named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// How many went; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<usize>,
}

/// Answers `disconnect`.
pub type DisconnectAck = KickAck;

/// Answers `ban`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BanAck {
    /// The member's name.
    pub banned: String,
}

/// Answers `unban`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnbanAck {
    /// The member's name.
    pub unbanned: String,
}

/// Answers `list_bans`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BansList {
    /// Everyone whose membership is revoked.
    pub bans: Vec<BanEntry>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One revoked member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BanEntry {
    /// The member's name.
    pub name: String,
    /// The member's key.
    pub pubkey: String,
    /// Since when.
    pub revoked_at: Timestamp,
}
