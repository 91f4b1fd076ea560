//! Keys that members hold in common: `get_common_key`, `make_common_key`,
//! `share_common_key`. What is kept for all of them is sealed under such a key.
//!
//! A key has a scope: the mesh's is left out; a topic that is not public has one of its own.
//! Keys of a scope are numbered by epochs, and the newest is the one that counts.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Ack;
use super::ask::{Answer, Ask};
use crate::id::Key;

/// `get_common_key`: the newest key of a scope, as it is sealed for the asker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GetCommonKey {
    /// `#topic`; left out: the mesh's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The asker's copy cannot be opened: it is forgotten, and others are asked for one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renew: bool,
}

impl Ask for GetCommonKey {
    const TYPE: &'static str = "get_common_key";
    type Answer = CommonKeyResult;
}

/// Answers `get_common_key`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommonKeyResult {
    /// What the scope is called in signatures: `mesh`, or the topic's id.
    pub scope: String,
    /// The number of the newest key, from 1; 0: there is none yet.
    pub epoch: i64,
    /// The newest key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<CommonKey>,
    /// It, sealed for the asker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<KeyCopy>,
    /// Members that should have it and have not, by key, some of them.
    pub wanting: Vec<Key>,
    /// Members that have it, by key, some of them.
    pub holding: Vec<Key>,
    /// Somebody has it who should not any more: whoever writes next makes another first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

impl Answer for CommonKeyResult {
    const TYPE: &'static str = "common_key";
}

/// What everybody may know of a key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommonKey {
    /// Its SHA-256, in hex.
    pub key_hash: String,
    /// The member that made it, by its key.
    pub maker: Key,
    /// The maker's, over mesh, scope, epoch and hash; hex.
    pub signature: String,
    /// The keys before it, sealed under it, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<String>,
}

/// What is sealed is nobody's to read in a log.
impl fmt::Debug for CommonKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[a key made by {}]", self.maker)
    }
}

/// A key, sealed for one member.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyCopy {
    /// A nonce and a box, base64.
    pub sealed: String,
    /// The member that has sealed it, by its key.
    pub sealed_by: Key,
}

/// As above.
impl fmt::Debug for KeyCopy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[a key sealed by {}]", self.sealed_by)
    }
}

/// `make_common_key`: makes the next key of a scope.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MakeCommonKey {
    /// `#topic`; left out: the mesh's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Its number: one more than the newest.
    pub epoch: i64,
    /// The key; its maker is whoever asks.
    pub key: CommonKey,
    /// It, sealed for members, by their keys; for the maker too.
    pub copies: BTreeMap<Key, String>,
    /// Members that have the newest key and get none of this, by their keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaves_out: Vec<Key>,
}

/// As above.
impl fmt::Debug for MakeCommonKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[a key of epoch {} for {} members]", self.epoch, self.copies.len())
    }
}

impl Ask for MakeCommonKey {
    const TYPE: &'static str = "make_common_key";
    type Answer = Ack;
}

/// `share_common_key`: seals the newest key for members that have none.
#[derive(Clone, Serialize, Deserialize)]
pub struct ShareCommonKey {
    /// `#topic`; left out: the mesh's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The key's number.
    pub epoch: i64,
    /// It, sealed for members, by their keys.
    pub copies: BTreeMap<Key, String>,
}

/// As above.
impl fmt::Debug for ShareCommonKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[the key of epoch {} for {} members]", self.epoch, self.copies.len())
    }
}

impl Ask for ShareCommonKey {
    const TYPE: &'static str = "share_common_key";
    type Answer = Ack;
}
