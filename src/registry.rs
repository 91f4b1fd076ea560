//! This node's live sessions, and the directory that it mirrors.
//!
//! A [`Room`] is a mesh that this node serves: the presences of the whole
//! mesh (mirrored from the cluster), the members as the store has them, and
//! the sessions whose sockets are here. Routing reads only this. Locks are
//! synchronous, short, and never held across an await.

mod directory;
mod heads;
pub mod order;
mod reading;
mod room;
mod told;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

pub(crate) use heads::ShownHeads;
pub use order::Arrival;
pub use room::{Candidate, Caught, Change, Entered, Hosted, Reading, Room};

use crate::cluster::{Cluster, ClusterError};
use crate::id::MeshId;
use crate::store::{Mail, Members, StoreError};

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

struct Slot {
    room: Arc<Room>,
    /// Set when the room has been read.
    is_read: Arc<OnceCell<()>>,
    /// Sessions that use the room or are about to.
    users: usize,
    empty_since: Option<Instant>,
}

impl Slot {
    fn new(mesh: &MeshId, reads: &Arc<AtomicU64>) -> Self {
        let room = Arc::new(Room::new(mesh.clone(), Arc::clone(reads)));
        Self { room, is_read: Arc::default(), users: 0, empty_since: None }
    }

    fn read_room(&self) -> Option<&Arc<Room>> {
        self.is_read.initialized().then_some(&self.room)
    }
}

/// Every room of this node.
#[derive(Default)]
pub struct Registry {
    slots: Mutex<HashMap<MeshId, Slot>>,
    /// Reads of members that have begun, in all rooms: a hello reads its member
    /// before it is known whether there is a room.
    reads: Arc<AtomicU64>,
    /// What sessions that come are shown of their mesh's audit chain.
    pub(crate) heads: ShownHeads,
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
    /// The mesh's room, read on first use: subscribed first, read second, and
    /// what is heard meanwhile counts ([`Registry::mirror`]), so that nothing
    /// falls between.
    ///
    /// # Errors
    ///
    /// [`EnterError`]; the next caller tries again.
    pub async fn enter(
        self: &Arc<Self>,
        mesh: &MeshId,
        members: &dyn Members,
        mail: &dyn Mail,
        cluster: &dyn Cluster,
    ) -> Result<RoomGuard, EnterError> {
        let (guard, is_read) = self.hold(mesh);
        is_read.get_or_try_init(|| read(&guard, members, mail, cluster)).await?;
        Ok(guard)
    }

    /// The guard comes before anything that can fail, panic or be dropped: the
    /// room is let go of however its reading ends.
    fn hold(self: &Arc<Self>, mesh: &MeshId) -> (RoomGuard, Arc<OnceCell<()>>) {
        let mut slots = self.slots.lock();
        let slot = slots.entry(mesh.clone()).or_insert_with(|| Slot::new(mesh, &self.reads));
        slot.users += 1;
        slot.empty_since = None;
        let guard = RoomGuard { registry: Arc::clone(self), room: Arc::clone(&slot.room) };
        (guard, Arc::clone(&slot.is_read))
    }

    /// A number for a read of members that begins now, of whichever mesh.
    #[must_use]
    pub fn begin_refresh(&self) -> u64 {
        self.reads.fetch_add(1, Ordering::AcqRel) + 1
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
        self.slots.lock().get(mesh).and_then(|slot| slot.read_room().cloned())
    }

    /// The mesh's room for what other nodes say, and whether it has been read:
    /// until then only who is in the mesh concerns it.
    #[must_use]
    pub fn mirror(&self, mesh: &MeshId) -> Option<(Arc<Room>, bool)> {
        let slots = self.slots.lock();
        let slot = slots.get(mesh)?;
        Some((Arc::clone(&slot.room), slot.is_read.initialized()))
    }

    /// Every room.
    #[must_use]
    pub fn rooms(&self) -> Vec<Arc<Room>> {
        self.slots.lock().values().filter_map(|slot| slot.read_room().cloned()).collect()
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

async fn read(
    room: &Arc<Room>,
    members: &dyn Members,
    mail: &dyn Mail,
    cluster: &dyn Cluster,
) -> Result<(), EnterError> {
    let (reading, members_read) = (room.begin_reading(), room.begin_refresh());
    let records = cluster.join_mesh(room.mesh()).await?;
    let sealing = members.sealing(room.mesh()).await?;
    let members = members.active(room.mesh()).await?;
    let newest = mail.newest_seq(room.mesh()).await?;
    // The members first: what the directory says has to fit them.
    room.set_members(members_read, members, sealing);
    reading.finish(records);
    // Sessions here read what is up to it from the store; their own positions
    // may be far behind it.
    room.skip_to(newest, || {});
    // Whoever comes now reads what is shared; later changes are told.
    room.shared_is_read(newest);
    Ok(())
}

#[cfg(test)]
mod tests;
