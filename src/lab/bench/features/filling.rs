//! What a mesh has before the clock starts: written over its own peers' sockets.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio_tungstenite::tungstenite::Message;

use super::{Heard, read};
use crate::lab::bench::wire::Wire;

/// Requests of one socket that are on their way at once.
const IN_FLIGHT: u32 = 256;
/// Of so many ids of posts one is kept.
const KEPT_EACH: u32 = 100;
/// Longer, and the run is given up.
const FILLING_MAX: Duration = Duration::from_secs(30 * 60);

/// Has the first peer of each mesh ask so many times: `frame` makes the request of a mesh's
/// number and its own, counted from 1, which is its `_reqId` too. Gives every so manieth id
/// of what was posted.
pub(super) async fn fill(
    wires: &mut [Wire],
    of_each_mesh: usize,
    requests: u32,
    frame: impl Fn(u32, u32) -> Message,
) -> anyhow::Result<Vec<Vec<String>>> {
    let frame = &frame;
    let is_first = |(place, _): &(usize, &mut Wire)| place % of_each_mesh.max(1) == 0;
    let (firsts, others): (Vec<_>, Vec<_>) = wires.iter_mut().enumerate().partition(is_first);
    let filling = firsts
        .into_iter()
        .zip(0..)
        .map(|((_, wire), mesh)| one(wire, requests, move |n| frame(mesh, n)));
    // Whoever answers no pings meanwhile is taken for dead.
    let others = others.into_iter().map(|(_, wire)| wire);
    tokio::select! {
        filled = try_join_all(filling) => filled,
        held = hold(others, Instant::now() + FILLING_MAX) => {
            held?;
            anyhow::bail!("a mesh was not filled within {} minutes", FILLING_MAX.as_secs() / 60)
        }
    }
}

async fn one(
    wire: &mut Wire,
    requests: u32,
    frame: impl Fn(u32) -> Message,
) -> anyhow::Result<Vec<String>> {
    let (mut sent, mut answered, mut heard) = (0, 0, Vec::new());
    let mut ids = Vec::new();
    while answered < requests {
        while sent < requests && sent - answered < IN_FLIGHT {
            sent += 1;
            wire.queue(frame(sent));
        }
        wire.turn(&mut heard).await.map_err(|ended| anyhow::anyhow!("{}", ended.reason))?;
        for frame in heard.drain(..) {
            let is_answer = |heard: &Heard<'_>| heard.req_id.is_some() || heard.r#type == "ack";
            let Some(answer) = read(&frame).filter(is_answer) else { continue };
            let is_done = answer.r#type != "error" && answer.error.is_none();
            anyhow::ensure!(is_done, "a mesh could not be filled: {frame}");
            if answered % KEPT_EACH == 0 {
                ids.extend(answer.message_id.map(str::to_owned));
            }
            answered += 1;
        }
    }
    Ok(ids)
}

/// Answers the broker's pings until then, and passes over whatever is told.
pub(super) async fn hold(
    wires: impl IntoIterator<Item = &mut Wire>,
    until: Instant,
) -> anyhow::Result<()> {
    let holding = wires.into_iter().map(|wire| async move {
        let mut heard = Vec::new();
        loop {
            match tokio::time::timeout_at(until.into(), wire.turn(&mut heard)).await {
                Err(_) => return Ok(()),
                Ok(Err(ended)) => anyhow::bail!("a connection ended: {}", ended.reason),
                Ok(Ok(())) => heard.clear(),
            }
        }
    });
    try_join_all(holding).await?;
    // Where there is nobody to hold, the time passes all the same.
    tokio::time::sleep_until(until.into()).await;
    Ok(())
}

/// Has everybody but the first peer of each mesh ask that once.
pub(super) async fn ask_others(
    wires: &mut [Wire],
    of_each_mesh: usize,
    frame: impl Fn() -> Message,
) -> anyhow::Result<()> {
    for (place, wire) in wires.iter_mut().enumerate() {
        if place % of_each_mesh.max(1) != 0 {
            one(wire, 1, |_| frame()).await?;
        }
    }
    Ok(())
}
