//! What a database tells of itself: how busy it is, what other programs changed.

use crate::id::MeshId;

/// Connections to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// In use now.
    pub in_use: u32,
    /// At most.
    pub max: u32,
}

/// What another program changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Nothing changed.
    None,
    /// Something changed in these meshes.
    Meshes(Vec<MeshId>),
    /// Something changed, and the store cannot tell what.
    Unknown,
}
