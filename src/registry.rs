//! This node's live sessions, and the directory that it mirrors.
//!
//! A [`Room`] is a mesh that this node serves: the presences of the whole
//! mesh (mirrored from the cluster), the members as the store has them, and
//! the sessions whose sockets are here. Routing reads only this. Locks are
//! synchronous, short, and never held across an await.

mod directory;
pub mod order;
mod room;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

pub use order::Arrival;
pub use room::{Candidate, Replaced, Room};

use crate::cluster::{Cluster, ClusterError};
use crate::id::MeshId;
use crate::store::{Store, StoreError};

/// How long a room outlives its last session here: a lone peer that
/// reconnects should not cost a subscription each time.
const ROOM_LINGER: Duration = Duration::from_secs(30);

/// Why a mesh could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cluster did not answer.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

#[derive(Default)]
struct Slot {
    room: Arc<OnceCell<Arc<Room>>>,
    /// Sessions that use the room or are about to.
    users: usize,
    empty_since: Option<Instant>,
}

/// Every room of this node.
#[derive(Default)]
pub struct Registry {
    slots: Mutex<HashMap<MeshId, Slot>>,
}

/// A session's hold on a room: while one exists the room stays.
pub struct RoomGuard {
    registry: Arc<Registry>,
    room: Arc<Room>,
}

impl std::ops::Deref for RoomGuard {
    type Target = Arc<Room>;

    fn deref(&self) -> &Arc<Room> {
        &self.room
    }
}

impl Drop for RoomGuard {
    fn drop(&mut self) {
        self.registry.leave(self.room.mesh());
    }
}

impl Registry {
    /// The mesh's room, made on first use: subscribed first, read second, so
    /// that nothing falls between.
    ///
    /// # Errors
    ///
    /// [`EnterError`]; the next caller tries again.
    pub async fn enter(
        self: &Arc<Self>,
        mesh: &MeshId,
        store: &dyn Store,
        cluster: &dyn Cluster,
    ) -> Result<RoomGuard, EnterError> {
        let cell = {
            let mut slots = self.slots.lock();
            let slot = slots.entry(mesh.clone()).or_default();
            slot.users += 1;
            slot.empty_since = None;
            Arc::clone(&slot.room)
        };
        let made = cell
            .get_or_try_init(|| async {
                let records = cluster.join_mesh(mesh).await?;
                let members = store.members(mesh).await?;
                let newest = store.newest_place(mesh).await?;
                let room = Room::new(mesh.clone(), members, records, newest);
                Ok::<_, EnterError>(Arc::new(room))
            })
            .await;
        match made {
            Ok(room) => Ok(RoomGuard { registry: Arc::clone(self), room: Arc::clone(room) }),
            Err(error) => {
                self.leave(mesh);
                Err(error)
            }
        }
    }

    fn leave(&self, mesh: &MeshId) {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get_mut(mesh) {
            slot.users = slot.users.saturating_sub(1);
            if slot.users == 0 {
                slot.empty_since = Some(Instant::now());
            }
        }
    }

    /// The mesh's room, if this node serves it.
    #[must_use]
    pub fn room(&self, mesh: &MeshId) -> Option<Arc<Room>> {
        self.slots.lock().get(mesh).and_then(|slot| slot.room.get().cloned())
    }

    /// Every room.
    #[must_use]
    pub fn rooms(&self) -> Vec<Arc<Room>> {
        self.slots.lock().values().filter_map(|slot| slot.room.get().cloned()).collect()
    }

    /// Forgets rooms that nobody used for a while; the caller unsubscribes
    /// from what is returned.
    #[must_use]
    pub fn take_unused(&self, now: Instant) -> Vec<MeshId> {
        let mut slots = self.slots.lock();
        let unused: Vec<MeshId> = slots
            .iter()
            .filter(|(_, slot)| {
                slot.users == 0 && slot.empty_since.is_none_or(|since| now - since >= ROOM_LINGER)
            })
            .map(|(mesh, _)| mesh.clone())
            .collect();
        for mesh in &unused {
            slots.remove(mesh);
        }
        unused
    }

    /// Sockets open on this node.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.rooms().iter().map(|room| room.session_count()).sum()
    }
}
