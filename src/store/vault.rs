//! The vault: what members keep for themselves, sealed by their own clients.
//!
//! An entry is its member's only: every call names the member. Nothing here is ever
//! unsealed, and a change's audit row names the key and nothing else.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::protocol::{VaultEntryType, VaultSealed, VaultSet};
use crate::store::columns::Columns;
use crate::store::{Author, Result};

/// Sealed entries of members.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Vault: Send + Sync + 'static {
    /// Keeps an entry of the author's, in place of one under the same key.
    async fn put(&self, now: Timestamp, author: &Author, entry: &VaultSet) -> Result<()>;

    /// Removes an entry of the author's. `false` if there was none.
    async fn delete(&self, now: Timestamp, author: &Author, key: &str) -> Result<bool>;

    /// What a member keeps, by key, those after `after`, at most `limit`.
    async fn list<'a>(
        &self,
        mesh: &MeshId,
        member: &MemberId,
        after: Option<&'a str>,
        limit: i64,
    ) -> Result<Vec<VaultLine>>;

    /// Of these keys those under which the member keeps something, by key.
    async fn get(
        &self,
        mesh: &MeshId,
        member: &MemberId,
        keys: &[String],
    ) -> Result<Vec<VaultSealed>>;
}

/// An entry without what is sealed in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultLine {
    /// The key.
    pub key: String,
    /// What the entry becomes.
    pub entry_type: VaultEntryType,
    /// Where a file goes.
    pub mount_path: Option<String>,
    /// What the member says of it.
    pub description: Option<String>,
    /// When it was last written.
    pub updated_at: Timestamp,
}

impl VaultLine {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        Ok(Self {
            key: row.text("key")?,
            entry_type: VaultEntryType::of(row.optional_str("entry_type")?),
            mount_path: row.optional_text("mount_path")?,
            description: row.optional_text("description")?,
            updated_at: row.time("updated_at")?,
        })
    }
}

fn read_sealed(row: &impl Columns) -> Result<VaultSealed> {
    Ok(VaultSealed {
        key: row.text("key")?,
        ciphertext: row.text("ciphertext")?,
        nonce: row.text("nonce")?,
        sealed_key: row.text("sealed_key")?,
        entry_type: VaultEntryType::of(row.optional_str("entry_type")?),
        mount_path: row.optional_text("mount_path")?,
    })
}
