//! Simulation clocks by the clock: they tick, once in the cluster.
//!
//! Of the nodes that serve a mesh whose clock runs one is the ticker, as the cluster has
//! it; each of the others comes back when that one's lease would be over. Nothing here
//! counts ticks: a number comes from the cluster. The clock of [`jobs`](super) calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::{BusMessage, ClockTurn, SimClock};
use crate::events;
use crate::id::MeshId;
use crate::presence;
use crate::registry::Room;

/// Between two looks which clock's turn it is, at most.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Before a turn that failed is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Takes turns until the node stops.
pub(super) async fn run(parts: Arc<presence::Parts>) {
    while !parts.life.stopped.is_cancelled() {
        let next = take_turns(&parts, Instant::now()).await;
        tokio::select! {
            () = tokio::time::sleep(next.saturating_duration_since(Instant::now())) => {}
            () = parts.life.stopped.cancelled() => {}
        }
    }
}

/// Gives its turn to each clock that is due, in one call whatever their meshes; says when
/// to look again.
async fn take_turns(parts: &presence::Parts, now: Instant) -> Instant {
    let (mut rooms, mut known) = (Vec::new(), Vec::new());
    for room in parts.registry.rooms() {
        // Without sessions there is nobody to tell, and another node may have some.
        if room.session_count() > 0
            && let Some(clock) = room.begin_clock_turn(now, now + RETRY_INTERVAL)
        {
            known.push((room.mesh().clone(), clock));
            rooms.push(room);
        }
    }
    if !known.is_empty() {
        tick(parts, &rooms, &known).await;
    }
    let turns = parts.registry.rooms().into_iter().filter_map(|room| room.clock_turn_at());
    let next = turns.filter(|at| *at > now).min();
    let latest = Instant::now() + LOOK_INTERVAL;
    next.map_or(latest, |next| next.min(latest))
}

async fn tick(parts: &presence::Parts, rooms: &[Arc<Room>], known: &[(MeshId, SimClock)]) {
    let turns = match parts.cluster.tick_clocks(known).await {
        Ok(turns) => turns,
        Err(error) => {
            return tracing::debug!(%error, "simulation clocks stand while the cluster is away");
        }
    };
    let answered = Instant::now();
    for (room, ClockTurn { clock, has_ticked, wait_ms }) in rooms.iter().zip(turns) {
        room.see_clock(clock, false);
        if has_ticked {
            parts.cluster.publish(room.mesh(), &BusMessage::SimClock { clock, has_ticked });
            events::tick(room, &clock);
        }
        room.end_clock_turn(answered + Duration::from_millis(wait_ms));
    }
}

/// Asks how the clocks of the meshes served here are: a frame that told of one may have
/// been lost.
pub(super) async fn look(parts: &presence::Parts) {
    let mut rooms = parts.registry.rooms();
    rooms.retain(|room| room.session_count() > 0);
    let meshes: Vec<MeshId> = rooms.iter().map(|room| room.mesh().clone()).collect();
    if meshes.is_empty() {
        return;
    }
    match parts.cluster.clocks(&meshes).await {
        Ok(clocks) => {
            for (room, clock) in rooms.iter().zip(clocks) {
                clock.into_iter().for_each(|clock| room.see_clock(clock, false));
            }
        }
        Err(error) => tracing::debug!(%error, "simulation clocks are asked for later"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::delivery::testing::heard;
    use crate::jobs::fixture::{Mocks, cluster_away};
    use crate::protocol::Speed;

    fn clock(tick: u64, version: u64) -> SimClock {
        let started_at = Timestamp::from_ms(1_700_000_000_000);
        SimClock { speed: Speed::nearest(100.0), is_paused: false, tick, started_at, version }
    }

    #[tokio::test]
    async fn a_tick_is_told_here_and_to_other_nodes_and_a_turn_that_is_not_due_is_not_taken() {
        let mut mocks = Mocks::default();
        mocks.cluster.expect_tick_clocks().once().returning(|known| {
            assert_eq!(known, [(MeshId::from("mesh"), clock(6, 1))]);
            Ok(vec![ClockTurn { clock: clock(7, 2), has_ticked: true, wait_ms: 60_000 }])
        });
        mocks.cluster.expect_publish().once().returning(|_, message| {
            assert!(matches!(message, BusMessage::SimClock { has_ticked: true, .. }));
        });
        let scene = mocks.scene();
        let room = scene.enter("mesh").await;
        let session = scene.session(&room, "mine");
        room.see_clock(clock(6, 1), true);
        for _ in 0..3 {
            take_turns(&scene.presence, Instant::now()).await;
        }
        let frames = heard(&session.outbox).0;
        assert_eq!(frames.len(), 1, "{frames:?}");
        let data = serde_json::json!({ "tick": 7, "simTime": "2023-11-14T22:20:20.000Z",
            "speed": 100 });
        assert_eq!((&frames[0]["event"], &frames[0]["eventData"]), (&"tick".into(), &data));
    }

    #[tokio::test]
    async fn a_clock_that_stands_or_has_nobody_here_is_left_alone() {
        let scene = Mocks::default().scene();
        let (room, deserted) = (scene.enter("mesh").await, scene.enter("deserted").await);
        scene.session(&room, "mine");
        room.see_clock(SimClock { is_paused: true, ..clock(1, 1) }, true);
        deserted.see_clock(clock(1, 1), true);
        take_turns(&scene.presence, Instant::now()).await;
    }

    #[tokio::test]
    async fn a_turn_that_failed_is_taken_again_later_and_not_at_once() {
        let mut mocks = Mocks::default();
        mocks.cluster.expect_tick_clocks().times(2).returning(|_| Err(cluster_away()));
        let scene = mocks.scene();
        let room = scene.enter("mesh").await;
        scene.session(&room, "mine");
        room.see_clock(clock(1, 1), true);
        let now = Instant::now();
        take_turns(&scene.presence, now).await;
        take_turns(&scene.presence, now).await;
        take_turns(&scene.presence, now + 2 * RETRY_INTERVAL).await;
    }

    #[tokio::test]
    async fn of_one_tick_that_comes_twice_or_late_nobody_is_told_again() {
        let scene = Mocks::default().scene();
        let room = scene.enter("mesh").await;
        let session = scene.session(&room, "mine");
        for tick in [1, 2, 2, 1, 3] {
            events::tick(&room, &clock(tick, tick));
        }
        let frames = heard(&session.outbox).0;
        let ticks: Vec<_> =
            frames.iter().map(|frame| frame["eventData"]["tick"].as_u64()).collect();
        assert_eq!(ticks, [Some(1), Some(2), Some(3)]);
    }
}
