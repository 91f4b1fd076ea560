//! Parts of mocks, for the tests of the jobs: what a test expects of the store and the
//! cluster, and rooms with sessions whose mail is read from them.

use std::path::Path;
use std::sync::Arc;

use crate::cluster::{ClusterError, MockCluster};
use crate::config::Config;
use crate::id::{Key, MeshId, PresenceId};
use crate::presence::fakes;
use crate::record::PresenceRecord;
use crate::registry::{Registry, RoomGuard};
use crate::session::Session;
use crate::store::MockStores;
use crate::store::testing;
use crate::store::{Member, MockMail, MockMembers, Stores};
use crate::{delivery, presence};

pub(super) fn cluster_away() -> ClusterError {
    ClusterError::Unavailable("on purpose".to_owned())
}

/// A session of the mesh, with a key of its own that is called as the session is.
pub(super) fn record(mesh: &str, id: &str) -> PresenceRecord {
    PresenceRecord {
        id: PresenceId::from(id),
        mesh: MeshId::from(mesh),
        session_key: Some(Key::from(format!("{id}-key"))),
        has_confirmed: true,
        ..testing::record(&member(id))
    }
}

/// The member of the session that is called so.
pub(super) fn member(of: &str) -> Member {
    testing::member(&format!("{of}-member"))
}

/// What is asked of the stores and the cluster; whatever a test does not expect is a
/// failure.
#[derive(Default)]
pub(super) struct Mocks {
    pub(super) stores: MockStores,
    pub(super) cluster: MockCluster,
}

/// The parts that the jobs work with.
pub(super) struct Scene {
    pub(super) stores: Stores,
    pub(super) presence: Arc<presence::Parts>,
}

impl Mocks {
    pub(super) fn scene(self) -> Scene {
        self.scene_with(|_| {})
    }

    pub(super) fn scene_with(self, edit: impl FnOnce(&mut Config)) -> Scene {
        let mut config = Config::for_tests(Path::new("."));
        edit(&mut config);
        let stores = self.stores.stores();
        let (presence, _openings) = fakes::parts(&config, &stores, Arc::new(self.cluster));
        Scene { stores, presence: Arc::new(presence) }
    }
}

impl Scene {
    pub(super) fn registry(&self) -> &Registry {
        &self.presence.registry
    }

    /// A room that stays while it is held, read from a store in which there is nothing.
    pub(super) async fn enter(&self, mesh: &str) -> RoomGuard {
        let (mut members, mut mail, mut cluster) =
            (MockMembers::new(), MockMail::new(), MockCluster::new());
        members.expect_active().returning(|_| Ok(Vec::new()));
        testing::with_its_first_policy(&mut members);
        mail.expect_newest_seq().returning(|_| Ok(0));
        cluster.expect_join_mesh().returning(|_| Ok(Vec::new()));
        let mesh = MeshId::from(mesh);
        let entered = self.presence.registry.enter(&mesh, &members, &mail, &cluster).await;
        entered.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A session in that room that has read its mail.
    pub(super) fn session(&self, room: &RoomGuard, id: &str) -> Arc<Session> {
        self.attach(room, record(room.mesh().as_str(), id))
    }

    pub(super) fn attach(&self, room: &RoomGuard, record: PresenceRecord) -> Arc<Session> {
        let session = delivery::testing::session(&record);
        let entered = room.attach(record, Arc::clone(&session), || {});
        assert!(!entered.is_refused);
        session
    }

    /// How many drains were begun, once all that was begun has ended.
    pub(super) async fn drains(&self) -> u64 {
        self.presence.life.settled().await;
        self.presence.metrics.drains.get()
    }
}
