//! The protocol of delivery: one recipient that moves between two nodes, and a
//! sender on each.
//!
//! The parts are the broker's own: [`Inbox`] and [`Order`]. The store is a list,
//! the bus two queues that lose. Plans are drawn at random, each a list of bytes
//! that choose among what is possible then; one that fails is made shorter.
//!
//! What the model leaves out: status, grants, several sessions of a member.

mod world;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use self::world::{Wiring, World};

/// Plans that are tried, and their steps at most.
const PLANS: u32 = 40_000;
const STEPS_MAX: usize = 40;
/// Plans until a fault must have been found that was put in on purpose.
const PLANS_TO_FIND: u32 = 400_000;

fn config(plans: u32) -> Config {
    Config { cases: plans, failure_persistence: None, ..Config::default() }
}

fn explore(wiring: Wiring, mut runner: TestRunner) -> Result<(), String> {
    let tried = runner.run(&vec(any::<u8>(), 1..STEPS_MAX), |choices| {
        World::new(wiring).run(&choices).map_err(proptest::test_runner::TestCaseError::fail)
    });
    match tried {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, choices)) => {
            let mut world = World::new(wiring);
            let _ = world.run(&choices);
            Err(format!("{reason}\n{}", world.log.join("\n")))
        }
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn what_is_accepted_arrives_once_and_in_order() {
    if let Err(found) = explore(Wiring::default(), TestRunner::new(config(PLANS))) {
        panic!("{found}");
    }
}

#[test]
fn what_finds_no_room_and_is_not_taken_back_is_found() {
    check_that_it_fails(Wiring { drops_what_does_not_fit: true, ..Wiring::default() }, "came");
}

/// The plans are the same in each run: what is found once is found always.
fn check_that_it_fails(wiring: Wiring, how: &str) {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let runner = TestRunner::new_with_rng(config(PLANS_TO_FIND), rng);
    let found = explore(wiring, runner).expect_err("it is found out");
    println!("{found}");
    assert!(found.contains(how), "{found}");
}

#[test]
fn a_drain_that_forgets_what_is_in_flight_is_found() {
    check_that_it_fails(Wiring { drain_forgets: true, ..Wiring::default() }, "twice");
}

#[test]
fn a_message_that_is_published_before_its_commit_is_found() {
    check_that_it_fails(Wiring { publishes_first: true, ..Wiring::default() }, "came");
}

#[test]
fn multicasts_that_do_not_wait_for_each_other_are_found() {
    check_that_it_fails(Wiring { nobody_waits: true, ..Wiring::default() }, "before");
}
