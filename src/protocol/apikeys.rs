//! API keys, by which programs call the HTTP API: `apikey_create`, `apikey_list`,
//! `apikey_revoke`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ask::{Answer, Ask};

/// What the holder of a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiCapability {
    /// Post messages.
    Send,
    /// Read.
    Read,
    /// Write shared state.
    StateWrite,
    /// All of it.
    Admin,
}

impl ApiCapability {
    /// As on the wire and in the tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Read => "read",
            Self::StateWrite => "state_write",
            Self::Admin => "admin",
        }
    }
}

/// `apikey_create`: makes a key in the name of the member that asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApikeyCreate {
    /// What the key is for.
    #[serde(default)]
    pub label: String,
    /// What its holder may do.
    #[serde(default)]
    pub capabilities: Vec<ApiCapability>,
    /// The names of the topics that it is good for; left out: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_scopes: Option<Vec<String>>,
    /// Until when the key is good, in ISO 8601; left out: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

impl Ask for ApikeyCreate {
    const TYPE: &'static str = "apikey_create";
    type Answer = ApikeyCreated;
}

/// Answers `apikey_create`: the only time that the secret is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApikeyCreated {
    /// The key's id.
    pub id: String,
    /// What its holder shows.
    pub secret: ShownOnce,
    /// What the key is for.
    pub label: String,
    /// The secret's beginning, by which keys are told apart.
    pub prefix: String,
    /// What its holder may do.
    pub capabilities: Vec<ApiCapability>,
    /// The topics that it is good for; null: all of them.
    pub topic_scopes: Option<Vec<String>>,
    /// When it was made, in ISO 8601.
    pub created_at: String,
    /// Until when it is good, if it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

impl Answer for ApikeyCreated {
    const TYPE: &'static str = "apikey_created";
}

/// A secret on its way to its holder; it does not print.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShownOnce(pub String);

impl fmt::Debug for ShownOnce {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[redacted]")
    }
}

/// `apikey_list`: the asker's keys, to moderators all of the mesh; the newest first,
/// those that ended a short while ago too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApikeyList {
    /// From an answer that was cut: the list goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for ApikeyList {
    const TYPE: &'static str = "apikey_list";
    type Answer = ApikeyListResponse;
}

/// Answers `apikey_list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApikeyListResponse {
    /// The keys.
    pub keys: Vec<ListedApikey>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for ApikeyListResponse {
    const TYPE: &'static str = "apikey_list_response";
}

/// A key as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedApikey {
    /// The key's id.
    pub id: String,
    /// What the key is for.
    pub label: String,
    /// The secret's beginning.
    pub prefix: String,
    /// What its holder may do.
    pub capabilities: Vec<ApiCapability>,
    /// The topics that it is good for; null: all of them.
    pub topic_scopes: Option<Vec<String>>,
    /// When it was made, in ISO 8601.
    pub created_at: String,
    /// When it was last used, to the minute.
    pub last_used_at: Option<String>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<String>,
    /// Until when it is good, if it ends by itself.
    pub expires_at: Option<String>,
    /// The name of the member that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_by: Option<String>,
}

/// `apikey_revoke`: a key is good no longer, on any node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApikeyRevoke {
    /// The key's id, or a beginning that no other key's id has.
    #[serde(default)]
    pub id: String,
}

impl Ask for ApikeyRevoke {
    const TYPE: &'static str = "apikey_revoke";
    type Answer = ApikeyRevokeResponse;
}

/// Answers `apikey_revoke`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApikeyRevokeResponse {
    /// What became of it.
    pub status: ApikeyRevoked,
    /// The key's whole id; with `revoked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How many ids begin so, at least; with `not_unique`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<u32>,
}

impl Answer for ApikeyRevokeResponse {
    const TYPE: &'static str = "apikey_revoke_response";

    fn refusal(&self) -> Option<&str> {
        match self.status {
            ApikeyRevoked::Revoked => None,
            ApikeyRevoked::NotFound => Some("there is no such key"),
            ApikeyRevoked::NotUnique => Some("more than one key's id begins so"),
        }
    }
}

/// What became of a key that was to be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApikeyRevoked {
    /// The key is revoked, now or since before.
    Revoked,
    /// There is no such key.
    NotFound,
    /// More than one key's id begins so.
    NotUnique,
}
