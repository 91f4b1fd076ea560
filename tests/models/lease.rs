//! The protocol of leases: who holds which place, and when a peer has left.
//!
//! Two nodes, each with its own books ([`Fallback`]), and the shared books
//! ([`MeshBooks`]) behind calls that are under way for as long as it takes, run
//! although nobody waits any more, or lose their answer. Nodes are cut off from
//! the shared books, sleep, crash; the shared books are lost.
//!
//! What the model leaves out: frames on the bus (all are lost: nodes find out by
//! their renewals), revocations, and clocks that differ. "The newest holder" is the one
//! with the highest epoch, as everywhere.
//!
//! [`Fallback`]: claudemesh_broker::cluster::redis::fallback::Fallback
//! [`MeshBooks`]: claudemesh_broker::cluster::books::MeshBooks

mod node;
mod settle;
mod steps;
mod world;

use std::time::Instant;

use claudemesh_broker::cluster::redis::fallback::{Ended, Fallback};
use claudemesh_broker::cluster::{Acquired, Release};
use stateright::{Checker as _, HasDiscoveries, Model as _, Path, Property};

use self::steps::Step;
use self::world::{Grant, MESH, TIMES, World, Wrong, held, record};

/// How many steps are looked at, breadth first: `MODEL_STATES` in a build that
/// is optimized allows more.
const STATES_MAX: usize = 100_000;

/// Which faults there are.
#[derive(Clone, Copy, Debug)]
struct Faults {
    cut: bool,
    sleep: bool,
    crash: bool,
    wipe: bool,
}

impl Faults {
    const NONE: Self = Self { cut: false, sleep: false, crash: false, wipe: false };
}

/// What is wired wrongly, to see that the model would find out.
#[derive(Clone, Copy, Debug, Default)]
struct Wiring {
    renewal_ignores_the_epoch: bool,
    release_ignores_the_epoch: bool,
    reap_leaves_it_in: bool,
    ends_are_forgotten: bool,
    anybody_ends: bool,
    cap_is_off_by_one: bool,
    any_socket_replaces: bool,
}

#[derive(Clone, Copy, Debug)]
struct Model {
    sessions: usize,
    cap: u32,
    /// Of each client.
    hellos: u8,
    ticks: u64,
    /// How many faults at most, and which.
    faults_max: u8,
    faults: Faults,
    wiring: Wiring,
}

impl Model {
    fn new(sessions: usize, cap: u32, ticks: u64, faults_max: u8, faults: Faults) -> Self {
        Self { sessions, cap, hellos: 2, ticks, faults_max, faults, wiring: Wiring::default() }
    }
}

impl stateright::Model for Model {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.sessions, self.faults_max)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        self.steps(world, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut world = world.clone();
        self.apply(&mut world, step);
        world.redis.check_invariants();
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let never = |name, condition| Property::always(name, condition);
        vec![
            never(CAP, |_, world: &World| world.wrong != Some(Wrong::CapExceeded)),
            never(ONE_REAPER, |_, world| world.wrong != Some(Wrong::ReapedTwice)),
            never(NOBODY_HERE_LEAVES, |_, world| world.wrong != Some(Wrong::EndedWhileHere)),
            never(NEWEST_STAYS, |_, world| world.wrong != Some(Wrong::ReplacedByAnOlderOne)),
            never("peers are told of an end once", |_, world| {
                world.wrong != Some(Wrong::LeftWithoutAnEnd)
            }),
            never(QUIET, |model, world| world.is_under_way() || model.settled(world).is_none()),
        ]
    }
}

type Found = Option<(&'static str, Path<World, Step>)>;

/// Explores the model, and returns what is not so, with the steps that lead there.
fn explore(model: Model, states_max: usize) -> Found {
    let began = Instant::now();
    let checker = model
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::Any)
        .target_state_count(states_max)
        .spawn_bfs()
        .join();
    println!(
        "{} states, {} of them different, to depth {}; {:.1?}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    checker.discoveries().into_iter().min_by_key(|(_, path)| path.clone().into_actions().len())
}

fn check(model: Model) {
    let states_max = std::env::var("MODEL_STATES").ok().and_then(|it| it.parse().ok());
    if let Some((name, path)) = explore(model, states_max.unwrap_or(STATES_MAX)) {
        let last = path.last_state().clone();
        let settled = model.settled(&last);
        let steps: Vec<String> =
            path.into_actions().iter().map(|step| format!("{step:?}")).collect();
        let steps = steps.join("\n");
        panic!("not so: {name} ({:?}, {settled:?})\n{steps}\n{last:#?}", last.wrong);
    }
}

/// With that in its wiring the model must fail, in one of these ways.
fn check_that_it_fails(model: Model, wiring: Wiring, in_ways: &[&str]) {
    let model = Model { wiring, ..model };
    let (name, path) = explore(model, 20 * STATES_MAX).expect("it is found out");
    println!("found: {name}, after {:?}", path.into_actions());
    assert!(in_ways.contains(&name), "{name}");
}

const CRASH: Faults = Faults { crash: true, ..Faults::NONE };
const CUT: Faults = Faults { cut: true, ..Faults::NONE };
const SLEEP: Faults = Faults { sleep: true, ..Faults::NONE };
const WIPE: Faults = Faults { wipe: true, ..Faults::NONE };

#[test]
fn without_a_fault() {
    check(Model::new(2, 1, 5, 0, Faults::NONE));
}

#[test]
fn nodes_crash() {
    check(Model::new(1, 1, 6, 2, CRASH));
}

#[test]
fn nodes_sleep_beyond_their_leases() {
    check(Model::new(1, 1, 6, 2, SLEEP));
}

#[test]
fn redis_loses_everything() {
    check(Model::new(1, 1, 6, 2, WIPE));
}

#[test]
fn nodes_are_cut_off_from_redis() {
    check(Model::new(1, 1, 6, 1, CUT));
}

// --- that it can fail ------------------------------------------------------------------

const CAP: &str = "no newcomer gets a place beyond the cap";
const ONE_REAPER: &str = "a presence is handed to one reaper";
const NOBODY_HERE_LEAVES: &str = "nobody leaves who is here";
const NEWEST_STAYS: &str = "the newest holder stays";
const QUIET: &str = "when it is quiet, the books and the store say who is here";

#[test]
fn a_cap_that_is_off_by_one_is_found() {
    let wiring = Wiring { cap_is_off_by_one: true, ..Wiring::default() };
    check_that_it_fails(Model::new(2, 1, 1, 0, Faults::NONE), wiring, &[CAP]);
}

#[test]
fn a_renewal_that_ignores_the_epoch_is_found() {
    let wiring = Wiring { renewal_ignores_the_epoch: true, ..Wiring::default() };
    let in_ways = [QUIET, NEWEST_STAYS];
    check_that_it_fails(Model::new(1, 1, 1, 0, Faults::NONE), wiring, &in_ways);
}

#[test]
fn a_release_that_ignores_the_epoch_is_found() {
    let wiring = Wiring { release_ignores_the_epoch: true, ..Wiring::default() };
    let in_ways = [QUIET, NOBODY_HERE_LEAVES];
    check_that_it_fails(Model::new(1, 1, 3, 0, Faults::NONE), wiring, &in_ways);
}

#[test]
fn a_reaper_that_leaves_it_in_is_found() {
    let wiring = Wiring { reap_leaves_it_in: true, ..Wiring::default() };
    let in_ways = [ONE_REAPER, QUIET];
    check_that_it_fails(Model::new(1, 1, 3, 1, CRASH), wiring, &in_ways);
}

#[test]
fn an_end_that_is_forgotten_is_found() {
    let wiring = Wiring { ends_are_forgotten: true, ..Wiring::default() };
    check_that_it_fails(Model::new(1, 1, 5, 1, SLEEP), wiring, &[QUIET]);
}

#[test]
fn an_older_hello_that_replaces_a_newer_one_is_found() {
    let wiring = Wiring { any_socket_replaces: true, ..Wiring::default() };
    check_that_it_fails(Model::new(1, 1, 1, 0, Faults::NONE), wiring, &[NEWEST_STAYS, QUIET]);
}

#[test]
fn a_node_that_ends_what_is_elsewhere_is_found() {
    let wiring = Wiring { anybody_ends: true, ..Wiring::default() };
    let in_ways = [NOBODY_HERE_LEAVES, NEWEST_STAYS, QUIET];
    check_that_it_fails(Model::new(1, 1, 4, 1, CUT), wiring, &in_ways);
}

/// A node without Redis ends a presence whose session came back on another one:
/// when Redis is back it speaks of its own holding alone.
#[test]
fn what_ended_without_redis_names_the_holding_that_did() {
    let node = Fallback::new(TIMES);
    let lease = match node.acquire(0, &record(0, 0, 0, 0), 5, 1) {
        Acquired::New { lease, .. } => lease,
        other => panic!("{other:?}"),
    };
    assert!(node.release(1, &lease, Release::Grace));
    assert_eq!(node.reap(1 + TIMES.grace_ms, 10, false).len(), 1);
    assert_eq!(node.take_reseed().ended, [Ended::Holding(lease)]);
}

/// Answers of Redis may be heard in another order than they were given.
#[test]
fn a_late_answer_does_not_undo_a_newer_holding() {
    let node = Fallback::new(TIMES);
    let grant = |hello| Grant { session: 0, hello, node: 0, presence: 0, epoch: hello.into() };
    let (older, newer) = (held(&grant(1)), held(&grant(2)));
    node.follow(0, &newer);
    node.follow(0, &older);
    node.follow_renewal(0, &older);
    node.forget(&older.lease);
    let epochs: Vec<u64> = node.knowledge(&MESH).lines.iter().map(|line| line.epoch).collect();
    assert_eq!(epochs, [newer.lease.epoch]);
}

/// A renewal that was under way when its presence was revoked is heard late.
#[test]
fn a_late_renewal_does_not_bring_a_revoked_presence_back() {
    let node = Fallback::new(TIMES);
    let held = held(&Grant { session: 0, hello: 1, node: 0, presence: 0, epoch: 1 });
    node.follow(0, &held);
    node.follow_revocation(0, &MESH, &held.lease.presence);
    node.follow_renewal(0, &held);
    assert!(node.knowledge(&MESH).lines.is_empty());
    assert!(node.knowledge(&MESH).ended.is_empty(), "Redis knows of it");
}
