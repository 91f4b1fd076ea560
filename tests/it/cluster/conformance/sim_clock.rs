//! The simulation clock of a mesh.

use claudemesh_broker::cluster::{ClockChange, ClockTurn, SimClock};
use claudemesh_broker::protocol::Speed;

use super::*;

const FASTEST: ClockChange = ClockChange::Set(Speed::FASTEST);

async fn look(node: &dyn Cluster, mesh: &MeshId) -> Option<SimClock> {
    let other = MeshId::generate();
    let clocks = node.clocks(&[other, mesh.clone()]).await.unwrap();
    assert_eq!((clocks.len(), clocks[0]), (2, None));
    clocks[1]
}

async fn turn(node: &dyn Cluster, mesh: &MeshId, known: SimClock) -> ClockTurn {
    let turns = node.tick_clocks(&[(mesh.clone(), known)]).await.unwrap();
    assert_eq!(turns.len(), 1);
    turns[0]
}

/// Takes turns as a node does until the clock has ticked so often; which node ticked
/// which number.
async fn ticks(
    nodes: &[Arc<dyn Cluster>],
    mesh: &MeshId,
    known: SimClock,
    count: usize,
) -> Vec<(usize, u64)> {
    let (mut ticked, mut known) = (Vec::new(), known);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while ticked.len() < count {
        assert!(tokio::time::Instant::now() < deadline, "it ticks no more: {ticked:?}");
        let turns = nodes.iter().map(|node| turn(&**node, mesh, known));
        let turns = futures_util::future::join_all(turns).await;
        for (node, turn) in turns.iter().enumerate() {
            if turn.has_ticked {
                ticked.push((node, turn.clock.tick));
            }
            if turn.clock.is_later_than(&known) {
                known = turn.clock;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ticked
}

pub(super) async fn a_clock_is_set_paused_and_resumed_on_any_node<S: Subject>() {
    let subject = S::start(LONG).await;
    let [first, second] = subject.nodes();
    let mesh = MeshId::generate();
    let _held = enter(&*first, &session(&mesh, "a")).await;
    assert_eq!(look(&*first, &mesh).await, None);
    for change in [ClockChange::Pause, ClockChange::Resume] {
        assert_eq!(first.change_clock(&mesh, change).await.unwrap(), None);
    }
    let slow = Speed::nearest(2.5);
    let begun = first.change_clock(&mesh, ClockChange::Set(slow)).await.unwrap().unwrap();
    assert_eq!((begun.speed, begun.is_paused, begun.tick), (slow, false, 0));
    assert_eq!(begun.sim_time(), begun.started_at);
    assert_eq!(look(&*second, &mesh).await, Some(begun));
    let mut last = begun;
    for (change, is_paused) in [
        (ClockChange::Pause, true),
        (ClockChange::Pause, true),
        (FASTEST, true),
        (ClockChange::Resume, false),
        (ClockChange::Resume, false),
        (ClockChange::Set(slow), false),
    ] {
        let clock = second.change_clock(&mesh, change).await.unwrap().unwrap();
        assert_eq!((clock.is_paused, clock.started_at), (is_paused, begun.started_at));
        assert!(clock.is_later_than(&last), "{clock:?} {last:?}");
        assert_eq!(look(&*first, &mesh).await, Some(clock));
        last = clock;
    }
    assert_eq!(last.speed, slow);
    let turn = turn(&*first, &mesh, last).await;
    assert_eq!((turn.has_ticked, turn.clock.tick), (false, 0), "it is not due yet");
}

pub(super) async fn one_node_ticks_and_the_next_goes_on_with_the_numbers<S: Subject>() {
    let subject = S::start(LONG).await;
    let nodes = subject.nodes();
    let mesh = MeshId::generate();
    let _held = enter(&*nodes[0], &session(&mesh, "a")).await;
    let clock = nodes[1].change_clock(&mesh, FASTEST).await.unwrap().unwrap();
    let began = tokio::time::Instant::now();
    let ticked = ticks(&nodes, &mesh, clock, 3).await;
    assert!(began.elapsed() >= Duration::from_millis(3 * 600 - 100), "{:?}", began.elapsed());
    let ticker = ticked[0].0;
    assert_eq!(ticked, [(ticker, 1), (ticker, 2), (ticker, 3)]);
    // The other node alone, as after the ticker's death.
    let known = look(&*nodes[0], &mesh).await.unwrap();
    let ticked = ticks(&nodes[1 - ticker..][..1], &mesh, known, 2).await;
    assert_eq!(ticked, [(0, 4), (0, 5)]);
    let clock = nodes[0].change_clock(&mesh, ClockChange::Pause).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    for node in &nodes {
        let turn = turn(&**node, &mesh, known).await;
        assert_eq!((turn.has_ticked, turn.clock.tick), (false, 5));
    }
    assert_eq!(clock.sim_time(), clock.started_at.plus_ms(5 * 60_000));
}

pub(super) async fn a_clock_stands_once_the_last_presence_has_ended<S: Subject>() {
    let subject = S::start(LONG).await;
    let [first, second] = subject.nodes();
    let mesh = MeshId::generate();
    let a = enter(&*first, &session(&mesh, "a")).await;
    let b = enter(&*second, &session(&mesh, "b")).await;
    let clock = first.change_clock(&mesh, FASTEST).await.unwrap().unwrap();
    assert!(first.release(&a.lease, Release::Now).await.unwrap());
    assert!(second.release(&b.lease, Release::Grace).await.unwrap());
    assert_eq!(look(&*first, &mesh).await, Some(clock), "one may come back");
    first.revoke(&mesh, &b.lease.presence).await.unwrap();
    let stands = look(&*first, &mesh).await.unwrap();
    assert!(stands.is_paused && stands.is_later_than(&clock), "{stands:?}");
    let _held = enter(&*second, &session(&mesh, "c")).await;
    assert_eq!(look(&*first, &mesh).await, Some(stands), "until somebody lets it go on");
    let goes_on = second.change_clock(&mesh, ClockChange::Resume).await.unwrap().unwrap();
    assert!(!goes_on.is_paused && goes_on.started_at == clock.started_at);
    let deserted = MeshId::generate();
    let clock = first.change_clock(&deserted, FASTEST).await.unwrap().unwrap();
    assert!(clock.is_paused, "nobody is there");
    subject.check_invariants();
}

pub(super) async fn a_clock_that_was_lost_goes_on_from_what_a_node_knows<S: Subject>() {
    let mut subject = S::start(LONG).await;
    let mesh = MeshId::generate();
    let held = enter(&*subject.nodes()[0], &session(&mesh, "a")).await;
    let clock = subject.nodes()[0].change_clock(&mesh, FASTEST).await.unwrap().unwrap();
    let known = SimClock { tick: 41, version: clock.version + 100, ..clock };
    subject.lose_everything().await;
    let [first, second] = subject.nodes();
    assert!(first.renew(std::slice::from_ref(&held)).await.unwrap().is_empty());
    let ticked = ticks(std::slice::from_ref(&first), &mesh, known, 2).await;
    assert_eq!(ticked, [(0, 42), (0, 43)]);
    let clock = look(&*second, &mesh).await.unwrap();
    assert_eq!((clock.started_at, clock.tick), (known.started_at, 43));
    assert!(clock.is_later_than(&known));
}
