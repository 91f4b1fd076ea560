//! The signed heads of audit chains: which are due, and the newest of each mesh.

pub(super) mod postgres;
pub(super) mod sqlite;

use async_trait::async_trait;

use crate::audit::{Anchor, AuditEvent};
use crate::auth::SecretKey;
use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::columns::{Columns, unreadable};
use crate::store::{AuditEntry, Result};

/// The signed heads of audit chains.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait AuditHeads: Send + Sync + 'static {
    /// Meshes whose chains have grown since their newest signed head, where the next one
    /// is due.
    async fn due(&self, pace: HeadPace, limit: i64) -> Result<Vec<MeshId>>;

    /// Signs where the mesh's chain ends and appends that to it, if it is due still: of
    /// many nodes that do it at once one does. What was signed.
    async fn sign(
        &self,
        now: Timestamp,
        mesh: &MeshId,
        pace: HeadPace,
        key: &SecretKey,
    ) -> Result<Option<Anchor>>;

    /// The newest signed head of each mesh, of those that were signed then or later, oldest
    /// first.
    async fn newest(&self, since: Timestamp, limit: i64) -> Result<Vec<Anchor>>;
}

/// When the next head of a chain is due; of one that has not grown none is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadPace {
    /// After so many rows; at least 1.
    pub rows: i64,
    /// Where the newest one was signed then or before.
    pub signed_before: Timestamp,
}

/// The last row of a chain whose next head is due.
pub(in crate::store) struct DueHead {
    row_id: i64,
    hash: String,
    name_hash: Option<Vec<u8>>,
}

impl DueHead {
    pub(in crate::store) fn read(row: &impl Columns) -> Result<Self> {
        let name_hash = row.optional_bytes("name_hash")?;
        Ok(Self { row_id: row.int("id")?, hash: row.text("hash")?, name_hash })
    }

    pub(in crate::store) fn signed(
        self,
        now: Timestamp,
        mesh: &MeshId,
        key: &SecretKey,
    ) -> (Anchor, AuditEntry) {
        let Self { row_id, hash, name_hash } = self;
        let anchor = Anchor {
            mesh_id: mesh.clone(),
            row_id,
            hash,
            name_hash: name_hash.map(hex::encode),
            taken_at: now,
            public_key: None,
            signature: None,
        };
        let anchor = anchor.signed(key);
        let event = AuditEvent::HeadSigned(anchor.clone());
        (anchor, AuditEntry { mesh: mesh.clone(), actor: None, actor_name: None, event })
    }
}

/// As the table keeps it.
pub(in crate::store) fn written(anchor: &Anchor) -> Result<String> {
    serde_json::to_string(anchor).map_err(|_| unreadable("anchor"))
}

/// As both databases answer; what is no anchor, which somebody else wrote, is none.
pub(in crate::store) fn read(row: &impl Columns) -> Result<Option<Anchor>> {
    Ok(serde_json::from_str(row.str("anchor")?).ok())
}
