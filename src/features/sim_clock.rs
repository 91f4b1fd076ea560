//! The mesh's simulation clock: `set_clock`, `pause_clock`, `resume_clock`, `get_clock`.
//!
//! Whoever is in the mesh may move its clock. How it is, the cluster says; the nodes are
//! told so that one of them ticks.

use super::{Context, Refusal};
use crate::clock::Timestamp;
use crate::cluster::{BusMessage, ClockChange, ClusterError};
use crate::protocol::{ClockStatus, GetClock, PauseClock, ResumeClock, SetClock, Speed};

pub(super) async fn set(context: &Context<'_>, ask: SetClock) -> Result<ClockStatus, Refusal> {
    change(context, ClockChange::Set(Speed::nearest(ask.speed.unwrap_or_default()))).await
}

pub(super) async fn pause(context: &Context<'_>, _: PauseClock) -> Result<ClockStatus, Refusal> {
    change(context, ClockChange::Pause).await
}

pub(super) async fn resume(context: &Context<'_>, _: ResumeClock) -> Result<ClockStatus, Refusal> {
    change(context, ClockChange::Resume).await
}

pub(super) async fn get(context: &Context<'_>, _: GetClock) -> Result<ClockStatus, Refusal> {
    let mesh = std::slice::from_ref(context.room.mesh());
    let clocks = context.parts.cluster.clocks(mesh).await.map_err(away)?;
    let clock = clocks.first().copied().flatten();
    Ok(clock.map_or_else(|| ClockStatus::none(Timestamp::now()), |clock| clock.status()))
}

async fn change(context: &Context<'_>, change: ClockChange) -> Result<ClockStatus, Refusal> {
    let Context { parts, room, .. } = context;
    let clock = parts.cluster.change_clock(room.mesh(), change).await.map_err(away)?;
    let Some(clock) = clock else {
        return Err(Refusal::new("no_clock", "No clock running for this mesh"));
    };
    room.see_clock(clock, true);
    parts.cluster.publish(room.mesh(), &BusMessage::SimClock { clock, has_ticked: false });
    Ok(clock.status())
}

fn away(error: ClusterError) -> Refusal {
    tracing::debug!(%error, "a simulation clock cannot be reached");
    let text = "the cluster's shared state, which keeps the clock, cannot be reached right now; \
                try again";
    Refusal::new("unavailable", text).after_ms(2_000)
}
