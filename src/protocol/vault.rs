//! The vault: `vault_set`, `vault_list`, `vault_get`, `vault_delete`.
//!
//! What a member keeps for itself, sealed by its own client. Fields are spelled in
//! snake case, as older brokers had them.

use serde::{Deserialize, Serialize};

use super::ask::{Answer, Ask};

/// What an entry becomes where it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VaultEntryType {
    /// A variable of the environment.
    #[default]
    Env,
    /// A file.
    File,
}

impl VaultEntryType {
    /// As on the wire and in the tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::File => "file",
        }
    }

    /// The type of that name; rows of other programs that name another one are
    /// variables.
    #[must_use]
    pub fn of(name: Option<&str>) -> Self {
        if name == Some("file") { Self::File } else { Self::Env }
    }
}

/// `vault_set`: keeps an entry, in place of one under the same key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultSet {
    /// The key.
    pub key: String,
    /// The value, sealed.
    pub ciphertext: String,
    /// The number used once that the value was sealed with.
    pub nonce: String,
    /// The key that the value was sealed with, sealed to the member.
    pub sealed_key: String,
    /// What the entry becomes.
    #[serde(default)]
    pub entry_type: VaultEntryType,
    /// Where a file goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<String>,
    /// What the member says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl Ask for VaultSet {
    const TYPE: &'static str = "vault_set";
    type Answer = VaultAck;
}

/// `vault_delete`: removes an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultDelete {
    /// The key.
    pub key: String,
}

impl Ask for VaultDelete {
    const TYPE: &'static str = "vault_delete";
    type Answer = VaultAck;
}

/// Answers `vault_set` and `vault_delete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultAck {
    /// The key.
    pub key: String,
    /// What became of it.
    pub action: VaultAction,
}

impl Answer for VaultAck {
    const TYPE: &'static str = "vault_ack";
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VaultAction {
    /// The entry is on disk.
    Stored,
    /// The entry is gone.
    Deleted,
    /// There was none.
    NotFound,
}

/// `vault_list`: what the member keeps, without the sealed values; by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultList {
    /// From an answer that was cut: the list goes on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for VaultList {
    const TYPE: &'static str = "vault_list";
    type Answer = VaultListResult;
}

/// Answers `vault_list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultListResult {
    /// The entries.
    pub entries: Vec<VaultListed>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for VaultListResult {
    const TYPE: &'static str = "vault_list_result";
}

/// An entry as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultListed {
    /// The key.
    pub key: String,
    /// What the entry becomes.
    pub entry_type: VaultEntryType,
    /// Where a file goes.
    pub mount_path: Option<String>,
    /// What the member says of it.
    pub description: Option<String>,
    /// When it was last written, in ISO 8601.
    pub updated_at: String,
}

/// `vault_get`: the entries under these keys, as they were sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultGet {
    /// The keys.
    pub keys: Vec<String>,
    /// From an answer that was cut: the entries go on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Ask for VaultGet {
    const TYPE: &'static str = "vault_get";
    type Answer = VaultGetResult;
}

/// Answers `vault_get`: those that there are, by key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultGetResult {
    /// The entries.
    pub entries: Vec<VaultSealed>,
    /// Whether there are more than fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// With which the next ones are asked for; only with `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Answer for VaultGetResult {
    const TYPE: &'static str = "vault_get_result";
}

/// An entry as it was sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultSealed {
    /// The key.
    pub key: String,
    /// The value, sealed.
    pub ciphertext: String,
    /// The number used once that the value was sealed with.
    pub nonce: String,
    /// The key that the value was sealed with, sealed to the member.
    pub sealed_key: String,
    /// What the entry becomes.
    pub entry_type: VaultEntryType,
    /// Where a file goes.
    pub mount_path: Option<String>,
}
