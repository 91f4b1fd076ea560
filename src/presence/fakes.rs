//! This room's parts with fakes behind them, for unit tests here and further up. What a
//! test does not expect of a fake, nothing may ask of it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::clock::Timestamp;
use crate::cluster::MockCluster;
use crate::cluster::bus::BusMessage;
use crate::config::Config;
use crate::delivery;
use crate::id::{Key, MemberId, MeshId, PresenceId};
use crate::life::Life;
use crate::limits;
use crate::metrics::Metrics;
use crate::rates::Rates;
use crate::record::PresenceRecord;
use crate::registry::{Registry, RoomGuard};
use crate::store::{Member, MockMail, MockMembers, MockPresences, Role};
use crate::writers::group_commit;
use crate::writers::presences::{self, PresenceWriter};

/// What stands behind the parts; an expectation is set before they are made.
#[derive(Default)]
pub(crate) struct Fakes {
    pub(crate) members: MockMembers,
    pub(crate) presences: MockPresences,
    pub(crate) mail: MockMail,
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
        self.members.expect_active().times(1).return_once(move |_| Ok(members));
        self.cluster.expect_join_mesh().times(1).return_once(move |_| Ok(records));
        self.mail.expect_newest_seq().returning(|_| Ok(0));
    }

    pub(crate) fn parts(self) -> Arc<Parts> {
        let config = Config::for_tests(Path::new("/nowhere"));
        let (members, presences) = (Arc::new(self.members), Arc::new(self.presences));
        let (mail, cluster) = (Arc::new(self.mail), Arc::new(self.cluster));
        let (metrics, life) = (Arc::new(Metrics::new()), Arc::new(Life::default()));
        let rates = Arc::new(Rates::new(&config.message, 1_000, 1_000));
        let (writer, openings) = PresenceWriter::new();
        let opened_in = Arc::clone(&presences);
        tokio::spawn(async move {
            presences::run_openings(openings, &*opened_in, CancellationToken::new()).await;
        });
        let delivery = delivery::Parts {
            config: config.message.clone(),
            members: members.clone(),
            mail,
            cluster: cluster.clone(),
            group_commit: group_commit::lanes(1).0,
            drains: Semaphore::new(limits::DRAINS_READING_MAX),
            rates,
            metrics: Arc::clone(&metrics),
            life: Arc::clone(&life),
        };
        Arc::new(Parts {
            config: config.presence,
            members,
            presences,
            cluster,
            registry: Arc::default(),
            writer,
            delivery: Arc::new(delivery),
            metrics,
            life,
            member_changes: AtomicU64::new(0),
            unsettled_ends: Mutex::default(),
        })
    }
}

/// A hold on the mesh's room, as [`Fakes::has`] has it.
pub(crate) async fn entered(parts: &Parts) -> RoomGuard {
    let registry: &Arc<Registry> = &parts.registry;
    let (members, mail) = (&*parts.members, &*parts.delivery.mail);
    registry.enter(&mesh(), members, mail, &*parts.cluster).await.expect("a room")
}

/// Waits for what goes on besides.
pub(crate) async fn settled(parts: &Parts) {
    parts.life.tasks.close();
    parts.life.tasks.wait().await;
    parts.life.tasks.reopen();
}

pub(crate) fn mesh() -> MeshId {
    MeshId::from("mesh")
}

pub(crate) fn member(name: &str, key: Key) -> Member {
    Member {
        id: MemberId::from(name),
        key,
        display_name: name.to_owned(),
        role: Role::Member,
        is_owner: false,
        role_tag: None,
        default_groups: Vec::new(),
        message_mode: "push".to_owned(),
        grants: HashMap::new(),
        joined_at: Timestamp::default(),
        revoked_at: None,
    }
}

/// A presence of that member on another node, under an id that is its name.
pub(crate) fn record(member: &Member) -> PresenceRecord {
    let (id, key) = (member.id.clone(), member.key.clone());
    PresenceRecord {
        id: PresenceId::from(member.id.as_str()),
        display_name: member.display_name.clone(),
        node: "elsewhere".to_owned(),
        epoch: 1,
        ..PresenceRecord::new(mesh(), id, key, Timestamp::default())
    }
}
