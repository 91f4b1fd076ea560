//! This room's parts with mocks behind them, for unit tests here and further up. What a
//! test does not expect of a mock, nothing may ask of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::cluster::bus::BusMessage;
use crate::cluster::{Cluster, MockCluster};
use crate::config::Config;
use crate::delivery;
use crate::events::shared;
use crate::id::PresenceId;
use crate::record::PresenceRecord;
use crate::registry::RoomGuard;
use crate::relay::Relay;
use crate::store::MockStores;
use crate::store::testing;
use crate::store::{Member, Stores};
use crate::writers::presences::{self, Openings, PresenceWriter};

/// What stands behind the parts; an expectation is set before they are made.
#[derive(Default)]
pub(crate) struct Fakes {
    pub(crate) stores: MockStores,
    pub(crate) cluster: MockCluster,
    /// What happened, in its order: frames, and the ends of leases.
    pub(crate) told: Arc<Mutex<Vec<Told>>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Told {
    Frame(BusMessage),
    Revoked(PresenceId),
}

impl Fakes {
    /// They write down what the cluster is told.
    pub(crate) fn new() -> Self {
        let mut fakes = Self::default();
        let told = Arc::clone(&fakes.told);
        fakes.cluster.expect_publish().returning(move |_, message| {
            told.lock().push(Told::Frame(message.clone()));
        });
        let told = Arc::clone(&fakes.told);
        fakes.cluster.expect_revoke().returning(move |_, presence| {
            told.lock().push(Told::Revoked(presence.clone()));
            Ok(())
        });
        fakes
    }

    /// The mesh is read once, and has those members and presences.
    pub(crate) fn has(&mut self, members: Vec<Member>, records: Vec<PresenceRecord>) {
        self.stores.members.expect_active().times(1).return_once(move |_| Ok(members));
        self.cluster.expect_join_mesh().times(1).return_once(move |_| Ok(records));
        self.stores.mail.expect_newest_seq().returning(|_| Ok(0));
    }

    /// The parts, whose writer of new presences runs.
    pub(crate) fn parts(self) -> Arc<Parts> {
        let config = Config::for_tests(Path::new("/nowhere"));
        let stores = self.stores.stores();
        let (parts, openings) = parts(&config, &stores, Arc::new(self.cluster));
        tokio::spawn(async move {
            let stop = CancellationToken::new();
            presences::run_openings(openings, &*stores.presences, stop).await;
        });
        Arc::new(parts)
    }
}

/// The parts over those stores, and what the writer of new presences would read.
pub(crate) fn parts(
    config: &Config,
    stores: &Stores,
    cluster: Arc<dyn Cluster>,
) -> (Parts, Openings) {
    let (members, mail) = (Arc::clone(&stores.members), Arc::clone(&stores.mail));
    let message = config.message.clone();
    let (topics, bus) = (Arc::clone(&stores.topic_mail), Arc::clone(&cluster));
    let (delivery, _lane) = delivery::testing::parts(message, members, mail, topics, bus);
    let (writer, openings) = PresenceWriter::new();
    let shared = shared::Parts {
        states: Arc::clone(&stores.states),
        tasks: Arc::clone(&stores.tasks),
        contexts: Arc::clone(&stores.contexts),
        mail: Arc::clone(&stores.mail),
        cluster: Arc::clone(&cluster),
        life: Arc::clone(&delivery.life),
    };
    let parts = Parts {
        config: config.presence.clone(),
        members: Arc::clone(&stores.members),
        presences: Arc::clone(&stores.presences),
        mcp_servers: Arc::clone(&stores.mcp_servers),
        relay: Arc::new(Relay::new(config.node.id.clone(), Arc::clone(&cluster))),
        cluster,
        registry: Arc::default(),
        writer,
        shared: Arc::new(shared),
        metrics: Arc::clone(&delivery.metrics),
        life: Arc::clone(&delivery.life),
        delivery: Arc::new(delivery),
        member_changes: AtomicU64::new(0),
        unsettled_ends: Mutex::default(),
    };
    (parts, openings)
}

/// A hold on the mesh's room, as [`Fakes::has`] has it.
pub(crate) async fn entered(parts: &Parts) -> RoomGuard {
    let (members, mail) = (&*parts.members, &*parts.delivery.mail);
    let room = parts.registry.enter(&testing::mesh(), members, mail, &*parts.cluster).await;
    room.expect("a room")
}

/// A presence of that member on another node, under an id that is its name.
pub(crate) fn record(member: &Member) -> PresenceRecord {
    PresenceRecord {
        id: PresenceId::from(member.id.as_str()),
        node: "elsewhere".to_owned(),
        ..testing::record(member)
    }
}
