//! `kick`, `disconnect`, `ban`, `unban`, `list_bans`.

use serde::{Deserialize, Serialize};

use super::ask::{Answer, Ask, Unasked};
use crate::clock::Timestamp;

/// `kick`: these sessions are not to come back by themselves.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kick(pub KickRequest);

impl Ask for Kick {
    const TYPE: &'static str = "kick";
    const UNASKED: Unasked = Unasked::Refused;
    type Answer = KickAck;
}

/// `disconnect`: these sessions may come back.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Disconnect(pub KickRequest);

impl Ask for Disconnect {
    const TYPE: &'static str = "disconnect";
    const UNASKED: Unasked = Unasked::Refused;
    type Answer = DisconnectAck;
}

/// Whom `kick` and `disconnect` mean. Precedence: `all`, then `stale`, then `target`.
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

/// `ban`: the membership is revoked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ban(pub TargetRequest);

impl Ask for Ban {
    const TYPE: &'static str = "ban";
    const UNASKED: Unasked = Unasked::Refused;
    type Answer = BanAck;
}

/// `unban`: the membership holds again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unban(pub TargetRequest);

impl Ask for Unban {
    const TYPE: &'static str = "unban";
    const UNASKED: Unasked = Unasked::Refused;
    type Answer = UnbanAck;
}

/// Whom `ban` and `unban` mean.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TargetRequest {
    /// A name, a key, or at least eight digits that begin one.
    #[serde(default)]
    pub target: Option<String>,
    /// The caller's reason, which the audit trail does not keep.
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

impl Answer for KickAck {
    const TYPE: &'static str = "kick_ack";
}

/// Answers `disconnect`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DisconnectAck(pub KickAck);

impl Answer for DisconnectAck {
    const TYPE: &'static str = "disconnect_ack";
}

/// Answers `ban`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BanAck {
    /// The member's name.
    pub banned: String,
}

impl Answer for BanAck {
    const TYPE: &'static str = "ban_ack";
}

/// Answers `unban`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnbanAck {
    /// The member's name.
    pub unbanned: String,
}

impl Answer for UnbanAck {
    const TYPE: &'static str = "unban_ack";
}

/// `list_bans`: who is shut out, those first who have been longest.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListBans {
    /// From an answer that was cut: the list goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for ListBans {
    const TYPE: &'static str = "list_bans";
    type Answer = BansList;
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

impl Answer for BansList {
    const TYPE: &'static str = "list_bans_result";
}

/// One revoked member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BanEntry {
    /// The member's name.
    pub name: String,
    /// The member's key.
    pub pubkey: String,
    /// When the membership was revoked.
    pub revoked_at: Timestamp,
}
