//! The newest signed head of each mesh's audit chain, as this node last read them: what a
//! hello shows costs no read.

use std::collections::HashMap;

use parking_lot::RwLock;

use crate::id::MeshId;
use crate::limits;
use crate::protocol::SignedHead;

/// Heads by mesh.
#[derive(Default)]
pub(crate) struct ShownHeads(RwLock<HashMap<MeshId, SignedHead>>);

impl ShownHeads {
    /// The mesh's, if there is one.
    pub(crate) fn newest(&self, mesh: &MeshId) -> Option<Box<SignedHead>> {
        self.0.read().get(mesh).cloned().map(Box::new)
    }

    /// Notes what was read, which is newer than what is here.
    pub(crate) fn note(&self, mesh: MeshId, head: SignedHead) {
        let mut heads = self.0.write();
        if heads.len() < limits::AUDIT_HEADS_SHOWN_MAX || heads.contains_key(&mesh) {
            heads.insert(mesh, head);
        }
    }
}
