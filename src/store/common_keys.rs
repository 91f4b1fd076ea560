//! Keys that members hold in common, sealed for each by their clients. Nothing here is ever
//! unsealed.

pub(super) mod postgres;
pub(super) mod sqlite;

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, TopicId};
use crate::protocol::{CommonKey, KeyCopy};
use crate::store::columns::Columns;
use crate::store::{Author, Result};

/// Keys that members hold in common.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait CommonKeys: Send + Sync + 'static {
    /// The newest key of a scope, with the member's copy of it, if it has one.
    async fn get(
        &self,
        mesh: &MeshId,
        scope: &KeyScope,
        member: &MemberId,
    ) -> Result<Option<HeldCommonKey>>;

    /// Those that the scope is for and that are active members, and whether each has a copy:
    /// those without first, then by id, at most `limit`.
    async fn holders(
        &self,
        mesh: &MeshId,
        scope: &KeyScope,
        limit: i64,
    ) -> Result<Vec<CommonKeyHolder>>;

    /// Makes the next key of a scope: by who has a copy of the newest, or where nobody else
    /// has one any more; with copies for all that have one but those it leaves out.
    async fn make(
        &self,
        now: Timestamp,
        author: &Author,
        scope: &KeyScope,
        new: &NewCommonKey,
    ) -> Result<KeyMaking>;

    /// Keeps copies for members that the scope is for and that have none. By who has one.
    async fn share(
        &self,
        now: Timestamp,
        author: &Author,
        scope: &KeyScope,
        shared: &SharedCommonKey,
    ) -> Result<KeySharing>;

    /// Forgets the copy of a member, which cannot open it.
    async fn drop_copy(&self, mesh: &MeshId, scope: &KeyScope, member: &MemberId) -> Result<()>;
}

/// For whom a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyScope {
    /// All members of the mesh.
    Mesh,
    /// The members of a topic.
    Topic(TopicId),
}

impl KeyScope {
    /// The word in the tables and in signatures.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Mesh => "mesh",
            Self::Topic(topic) => topic.as_str(),
        }
    }
}

/// The newest key of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldCommonKey {
    /// Its number.
    pub epoch: i64,
    /// What everybody may know of it.
    pub key: CommonKey,
    /// It, sealed for the member that asked.
    pub copy: Option<KeyCopy>,
    /// Whether somebody has a copy whom the scope is not for any more.
    pub is_stale: bool,
}

/// A member that a scope is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonKeyHolder {
    /// The member.
    pub member: MemberId,
    /// Its key.
    pub key: Key,
    /// Whether it has a copy of the newest key.
    pub has_copy: bool,
}

/// A key to make.
#[derive(Clone, Debug)]
pub struct NewCommonKey {
    /// Its number.
    pub epoch: i64,
    /// What everybody may know of it.
    pub key: CommonKey,
    /// It, sealed for members, by their keys.
    pub copies: BTreeMap<Key, String>,
    /// Members that have the newest and get none of this, by their keys.
    pub leaves_out: Vec<Key>,
}

/// A key to share.
#[derive(Clone, Debug)]
pub struct SharedCommonKey {
    /// Its number.
    pub epoch: i64,
    /// The member that has sealed the copies, by its key.
    pub sealed_by: Key,
    /// It, sealed for members, by their keys.
    pub copies: BTreeMap<Key, String>,
}

/// What became of making a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMaking {
    /// It is the newest now.
    Made,
    /// The newest is of that epoch, and the next is another.
    Overtaken {
        /// The epoch of the newest.
        epoch: i64,
    },
    /// Others have a copy of the newest, and the author has none.
    NotHeld,
    /// Somebody would lose what it reads: it has a copy of the newest, and none of this.
    Incomplete,
}

/// What became of sharing a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySharing {
    /// So many members have a copy now that had none.
    Shared(u64),
    /// It is not the newest any more.
    Overtaken {
        /// The epoch of the newest.
        epoch: i64,
    },
    /// The author has no copy of it.
    NotHeld,
}

impl HeldCommonKey {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        let sealed = row.optional_text("sealed")?.zip(row.optional_id("sealed_by")?);
        Ok(Self {
            epoch: row.int("epoch")?,
            key: CommonKey {
                key_hash: row.text("key_hash")?,
                maker: row.id("maker_key")?,
                signature: row.text("signature")?,
                earlier: row.optional_text("earlier")?,
            },
            copy: sealed.map(|(sealed, sealed_by)| KeyCopy { sealed, sealed_by }),
            is_stale: row.flag("is_stale")?,
        })
    }

    /// Why its holder, or nobody else, may not make the next with these copies.
    fn refusal(
        held: Option<&Self>,
        holders: &[CommonKeyHolder],
        new: &NewCommonKey,
    ) -> Option<KeyMaking> {
        let epoch = held.map_or(0, |held| held.epoch);
        if new.epoch != epoch + 1 {
            return Some(KeyMaking::Overtaken { epoch });
        }
        let mut holding = holders.iter().filter(|holder| holder.has_copy);
        if held.is_some_and(|held| held.copy.is_none()) && holding.next().is_some() {
            return Some(KeyMaking::NotHeld);
        }
        let mut losing = holders.iter().filter(|holder| holder.has_copy);
        let loses = losing.any(|holder| {
            !new.copies.contains_key(&holder.key) && !new.leaves_out.contains(&holder.key)
        });
        loses.then_some(KeyMaking::Incomplete)
    }
}

impl SharedCommonKey {
    /// Why a member with that copy may not share it.
    fn refusal(&self, held: Option<&HeldCommonKey>) -> Option<KeySharing> {
        match held {
            Some(held) if held.epoch == self.epoch => {
                held.copy.is_none().then_some(KeySharing::NotHeld)
            }
            held => Some(KeySharing::Overtaken { epoch: held.map_or(0, |held| held.epoch) }),
        }
    }
}

impl CommonKeyHolder {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        let key = row.id("peer_pubkey")?;
        Ok(Self { member: row.id("id")?, key, has_copy: row.flag("has_copy")? })
    }
}
