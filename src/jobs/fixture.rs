//! Parts of mocks, for the tests of the jobs: what a test expects of the store and the
//! cluster, and rooms with sessions whose mail is read from them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;

use crate::clock::Timestamp;
use crate::cluster::{ClusterError, LeaseRef, MockCluster, PresenceRecord};
use crate::codec::Codec;
use crate::config::Config;
use crate::id::{Key, MeshId, PresenceId};
use crate::life::Life;
use crate::metrics::Metrics;
use crate::protocol::CloseReason;
use crate::rates::Rates;
use crate::registry::{Registry, RoomGuard};
use crate::session::inbox::Inbox;
use crate::session::outbox::{Outbox, Taken};
use crate::session::{Identity, Session};
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
    let (mesh, member) = (MeshId::from(mesh), format!("{id}-member").as_str().into());
    let key = Key::from(format!("{id}-member-key"));
    PresenceRecord {
        id: PresenceId::from(id),
        session_key: Some(Key::from(format!("{id}-key"))),
        ..PresenceRecord::new(mesh, member, key, Timestamp::now())
    }
}

/// The member of the session that is called so.
pub(super) fn member(of: &str) -> Member {
    Member {
        id: format!("{of}-member").as_str().into(),
        key: Key::from(format!("{of}-member-key")),
        display_name: of.to_owned(),
        role: Role::Member,
        is_owner: false,
        role_tag: None,
        default_groups: Vec::new(),
        message_mode: "push".to_owned(),
        grants: Grants::default(),
        joined_at: Timestamp::default(),
        revoked_at: None,
    }
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
        let identity = Identity {
            mesh: record.mesh.clone(),
            member: record.member.clone(),
            member_key: record.member_key.clone(),
            session_key: record.session_key.clone(),
            role: record.role,
            visitor: record.visitor,
        };
        let lease = LeaseRef {
            mesh: record.mesh.clone(),
            presence: record.id.clone(),
            epoch: record.epoch,
        };
        let budget = self.presence.delivery.rates.session_budget();
        let inbox = Inbox::new(0, true);
        let session = Session::new(identity, lease, Codec::Json, Outbox::new(), inbox, budget);
        let _ = session.plan_drain();
        assert!(session.end_drain(true), "nothing waits");
        let session = Arc::new(session);
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
