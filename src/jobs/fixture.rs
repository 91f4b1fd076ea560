//! Parts of mocks, for the tests of the jobs: what a test expects of the store and the
//! cluster, and rooms with sessions whose mail is read from them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;

use crate::cluster::{ClusterError, MockCluster};
use crate::config::Config;
use crate::delivery::testing;
use crate::id::{Key, MeshId, PresenceId};
use crate::life::Life;
use crate::metrics::Metrics;
use crate::protocol::CloseReason;
use crate::rates::Rates;
use crate::record::PresenceRecord;
use crate::registry::{Registry, RoomGuard};
use crate::session::Session;
use crate::session::outbox::Taken;
use crate::store::*;
use crate::writers::group_commit;
use crate::writers::presences::PresenceWriter;
use crate::{delivery, presence};

pub(super) fn store_away() -> StoreError {
    StoreError::Unavailable("on purpose".to_owned())
}

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
        ..testing::record(&format!("{id}-member"))
    }
}

/// The member of the session that is called so.
pub(super) fn member(of: &str) -> Member {
    testing::member(&format!("{of}-member"))
}

/// What a session's socket is to be closed with, if it is.
pub(super) fn closed_with(session: &Session) -> Option<CloseReason> {
    let mut frames = VecDeque::new();
    match session.outbox.take(&mut frames, usize::MAX).now_or_never()? {
        Taken::Close(reason) => Some(reason),
        Taken::Frames => None,
    }
}

/// What is asked of the store and the cluster; whatever a test does not expect is a
/// failure.
#[derive(Default)]
pub(super) struct Mocks {
    pub(super) database: MockDatabase,
    pub(super) members: MockMembers,
    pub(super) presences: MockPresences,
    pub(super) mail: MockMail,
    pub(super) messages: MockMessages,
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
        let cluster = Arc::new(self.cluster);
        let stores = Stores {
            database: Arc::new(self.database),
            members: Arc::new(self.members),
            presences: Arc::new(self.presences),
            mail: Arc::new(self.mail),
            messages: Arc::new(self.messages),
            bans: Arc::new(MockBans::new()),
            presence_search: Arc::new(MockPresenceSearch::new()),
            envelopes: Arc::new(MockEnvelopes::new()),
            audit: Arc::new(MockAuditTrail::new()),
            meshes: Arc::new(MockMeshes::new()),
            invites: Arc::new(MockInvites::new()),
        };
        let (metrics, life) = (Arc::new(Metrics::new()), Arc::new(Life::default()));
        let (group_commit, _lanes) = group_commit::lanes(1);
        let (writer, _openings) = PresenceWriter::new();
        let delivery = Arc::new(delivery::Parts {
            config: config.message.clone(),
            members: Arc::clone(&stores.members),
            mail: Arc::clone(&stores.mail),
            cluster: cluster.clone(),
            group_commit,
            drains: tokio::sync::Semaphore::new(1),
            rates: Arc::new(Rates::new(&config.message, 1, 1)),
            metrics: Arc::clone(&metrics),
            life: Arc::clone(&life),
        });
        let presence = Arc::new(presence::Parts {
            config: config.presence,
            members: Arc::clone(&stores.members),
            presences: Arc::clone(&stores.presences),
            cluster,
            registry: Arc::default(),
            writer,
            delivery,
            metrics,
            life,
            member_changes: Default::default(),
            unsettled_ends: Default::default(),
        });
        Scene { stores, presence }
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
        let session = testing::session(&record);
        let entered = room.attach(record, Arc::clone(&session), || {});
        assert!(!entered.is_refused);
        session
    }

    /// How many drains were begun, once all that was begun has ended.
    pub(super) async fn drains(&self) -> u64 {
        let tasks = &self.presence.life.tasks;
        tasks.close();
        tasks.wait().await;
        tasks.reopen();
        self.presence.metrics.drains.get()
    }
}
