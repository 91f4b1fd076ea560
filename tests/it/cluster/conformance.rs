//! What every `Cluster` must keep: one list of properties, run against each
//! implementation.
//!
//! A subject gives two nodes of one cluster (the single one gives itself
//! twice), and can lose all shared state.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ends;
mod expiry;
mod extras;
mod loss;
mod places;
mod random;
mod sim_clock;
mod views;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::cluster::books::LeaseTimes;
use claudemesh_broker::cluster::redis::{RedisCluster, RedisSettings};
use claudemesh_broker::cluster::single::SingleCluster;
use claudemesh_broker::cluster::{
    Acquired, Cluster, ClusterEvent, ClusterEvents, ClusterHealth, Draw, Drawn, HeldLease,
    LeaseRef, Release,
};
use claudemesh_broker::id::{MeshId, NodeId, PresenceId};
use claudemesh_broker::protocol::{McpTool, Status, StatusSource};
use claudemesh_broker::record::{McpServer, PresenceRecord};

use super::session;
use crate::harness::redis::{PrivateRedis, test_key};

const CAP: u32 = 5;

/// Nothing expires within a test.
const LONG: LeaseTimes = LeaseTimes { grace_ms: 60_000, ttl_ms: 60_000 };

/// Leases of silent nodes expire within a test, grace does not.
const SHORT_TTL: LeaseTimes = LeaseTimes { grace_ms: 60_000, ttl_ms: 200 };

/// Everything expires within a test.
const SHORT: LeaseTimes = LeaseTimes { grace_ms: 200, ttl_ms: 200 };

/// Longer than the short times.
const LATER: Duration = Duration::from_millis(260);

/// Two nodes of one cluster.
#[async_trait]
trait Subject: Send {
    async fn start(times: LeaseTimes) -> Self
    where
        Self: Sized;
    fn nodes(&self) -> [Arc<dyn Cluster>; 2];
    fn events_of_first(&mut self) -> &mut ClusterEvents;
    /// The shared state is gone; the nodes go on.
    async fn lose_everything(&mut self);
    fn check_invariants(&self);
}

struct Single {
    times: LeaseTimes,
    cluster: Arc<SingleCluster>,
    events: ClusterEvents,
}

#[async_trait]
impl Subject for Single {
    async fn start(times: LeaseTimes) -> Self {
        let (cluster, events) = SingleCluster::new(times);
        Self { times, cluster, events }
    }

    fn nodes(&self) -> [Arc<dyn Cluster>; 2] {
        [self.cluster.clone(), self.cluster.clone()]
    }

    fn events_of_first(&mut self) -> &mut ClusterEvents {
        &mut self.events
    }

    async fn lose_everything(&mut self) {
        (self.cluster, self.events) = SingleCluster::new(self.times);
    }

    fn check_invariants(&self) {
        self.cluster.check_invariants();
    }
}

/// Two nodes over a server of their own: one server, or a Redis Cluster.
struct OverRedis<const IS_CLUSTER: bool> {
    nodes: [Arc<RedisCluster>; 2],
    events: [ClusterEvents; 2],
    server: PrivateRedis,
}

#[async_trait]
impl<const IS_CLUSTER: bool> Subject for OverRedis<IS_CLUSTER> {
    async fn start(times: LeaseTimes) -> Self {
        let server = if IS_CLUSTER { PrivateRedis::start_cluster() } else { PrivateRedis::start() };
        let connect = async |name: &str| {
            RedisCluster::connect(RedisSettings {
                url: server.url(),
                cluster_mode: IS_CLUSTER,
                ca_file: None,
                node: NodeId::from(name),
                region: None,
                lease_grace_ms: times.grace_ms,
                lease_ttl_ms: times.ttl_ms,
                key_prefix: "test".to_owned(),
                cluster_key: test_key(),
            })
            .await
            .unwrap()
        };
        let (first, first_events) = connect("first").await;
        let (second, second_events) = connect("second").await;
        assert_eq!((first.health(), second.health()), (ClusterHealth::Up, ClusterHealth::Up));
        Self { nodes: [first, second], events: [first_events, second_events], server }
    }

    fn nodes(&self) -> [Arc<dyn Cluster>; 2] {
        let [first, second] = &self.nodes;
        [first.clone(), second.clone()]
    }

    fn events_of_first(&mut self) -> &mut ClusterEvents {
        &mut self.events[0]
    }

    async fn lose_everything(&mut self) {
        self.server.flush_all();
    }

    /// The parts of every mesh's books have the same members.
    fn check_invariants(&self) {
        let keys: Vec<String> = self.server.query(redis::cmd("KEYS").arg("test:{*}:leases"));
        for leases in keys {
            let part = |name: &str| leases.replace(":leases", &format!(":{name}"));
            let read = |command: &str, key: String| -> BTreeSet<String> {
                let mut read = redis::cmd(command);
                read.arg(key);
                if command == "ZRANGE" {
                    read.arg(0).arg(-1);
                }
                self.server.query(&read)
            };
            let all = read("HKEYS", leases.clone());
            let (online, grace) = (read("ZRANGE", part("online")), read("ZRANGE", part("grace")));
            assert!(online.is_disjoint(&grace), "{online:?} {grace:?}");
            assert_eq!(&online | &grace, all);
            assert_eq!(read("HKEYS", part("records")), all);
            let indexed = read("HVALS", part("sessions"));
            assert!(online.is_subset(&indexed) && indexed.is_subset(&all), "{indexed:?} {all:?}");
        }
    }
}

macro_rules! conformance {
    (
        $($subject:ident: $type:ty),*;
        $properties:tt
    ) => {
        $(conformance!(@module $subject: $type; $properties);)*
    };
    (@module $subject:ident: $type:ty; { $($group:ident::$property:ident),* $(,)? }) => {
        mod $subject {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $property() {
                    super::$group::$property::<$type>().await;
                }
            )*
        }
    };
}

conformance!(
    single: super::Single,
    over_redis: super::OverRedis<false>,
    over_redis_cluster: super::OverRedis<true>;
    {
    places::the_cap_is_exact_under_a_burst,
    places::a_refused_peer_learns_the_count_and_when_to_retry,
    places::a_reattach_keeps_the_presence_and_needs_no_place,
    places::an_old_epoch_can_do_nothing,
    places::grace_yields_oldest_first,
    places::those_of_one_instant_yield_in_the_order_of_their_ids,
    places::a_silent_node_yields_its_places,
    places::a_release_frees_at_once_or_keeps_the_place,
    expiry::a_late_renewal_does_not_undo_a_release,
    expiry::a_presence_is_reaped_exactly_once,
    expiry::a_silent_node_gets_its_grace_first,
    expiry::a_renewal_keeps_leases_alive,
    expiry::who_enters_during_a_reaping_is_reaped_in_turn,
    ends::a_revoked_presence_is_gone_whoever_holds_it,
    ends::an_ended_presence_is_not_brought_back,
    ends::adopted_presences_wait_in_grace,
    ends::the_last_end_of_a_presence_counts,
    loss::renewal_restores_what_was_lost,
    loss::renewal_after_a_loss_finds_out_who_took_over,
    loss::a_restored_duplicate_of_a_session_is_resolved,
    extras::the_directory_shows_what_was_written,
    extras::a_written_record_stays_with_its_holder,
    extras::a_digest_is_used_once,
    extras::tokens_are_exact,
    extras::several_buckets_are_drawn_from_at_once,
    extras::who_only_looks_takes_nothing,
    extras::a_pending_status_is_the_newest_and_expires,
    sim_clock::a_clock_is_set_paused_and_resumed_on_any_node,
    sim_clock::one_node_ticks_and_the_next_goes_on_with_the_numbers,
    sim_clock::a_clock_stands_once_the_last_presence_has_ended,
    sim_clock::a_clock_that_was_lost_goes_on_from_what_a_node_knows,
    views::nodes_are_known_for_as_long_as_they_say,
    views::nodes_are_heard_for_as_long_as_their_word_holds,
    extras::what_a_presence_hosts_outlives_its_socket,
    views::a_lease_is_shown_as_it_stands,
    }
);

// ---- Words of these tests ----------------------------------------------------

/// Enters as a new presence that makes nobody yield.
async fn enter(node: &dyn Cluster, record: &PresenceRecord) -> HeldLease {
    match node.acquire(record, CAP).await.unwrap() {
        Acquired::New { lease, yielded } => {
            assert!(yielded.is_empty());
            assert_eq!((&lease.presence, &lease.mesh), (&record.id, &record.mesh));
            let record = PresenceRecord { epoch: lease.epoch, online: true, ..record.clone() };
            HeldLease { lease, record: Arc::new(record) }
        }
        other => panic!("not new: {other:?}"),
    }
}

async fn reattach(node: &dyn Cluster, record: &PresenceRecord) -> (LeaseRef, PresenceRecord) {
    match node.acquire(record, CAP).await.unwrap() {
        Acquired::Reattached { lease, record } => (lease, *record),
        other => panic!("not reattached: {other:?}"),
    }
}

async fn refused(node: &dyn Cluster, record: &PresenceRecord) -> bool {
    matches!(node.acquire(record, CAP).await.unwrap(), Acquired::AtCapacity { .. })
}

async fn fill<S: Subject>(subject: &S, mesh: &MeshId) -> Vec<HeldLease> {
    let mut held = Vec::new();
    for number in 0..CAP {
        let node = &subject.nodes()[number as usize % 2];
        held.push(enter(&**node, &session(mesh, &format!("s{number}"))).await);
    }
    held
}

async fn directory<S: Subject>(subject: &S, mesh: &MeshId) -> Vec<PresenceRecord> {
    let [first, second] = subject.nodes();
    let rows = first.directory(mesh).await.unwrap();
    let same = second.directory(mesh).await.unwrap();
    let as_set = |rows: &[PresenceRecord]| ids(rows).into_iter().collect::<HashSet<_>>();
    assert_eq!(as_set(&rows), as_set(&same));
    rows
}

fn ids(records: &[PresenceRecord]) -> Vec<PresenceId> {
    records.iter().map(|record| record.id.clone()).collect()
}
