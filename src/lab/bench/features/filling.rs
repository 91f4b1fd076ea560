//! What a mesh has before the clock starts: written over its own peers' sockets.

use std::time::Instant;

use futures_util::future::try_join_all;
use tokio_tungstenite::tungstenite::Message;

use super::read;
use crate::lab::bench::wire::Wire;

/// Requests of one socket that are on their way at once.
const IN_FLIGHT: u32 = 64;

/// Has the first peer of each mesh ask so many times: `frame` makes the request of a mesh's
/// number and its own, counted from 1, which is its `_reqId` too.
pub(super) async fn fill(
    wires: &mut [Wire],
    of_each_mesh: usize,
    requests: u32,
    frame: impl Fn(u32, u32) -> Message,
) -> anyhow::Result<()> {
    let frame = &frame;
    let firsts = wires.iter_mut().step_by(of_each_mesh.max(1)).zip(0..);
    let filling = firsts.map(|(wire, mesh)| one(wire, requests, move |n| frame(mesh, n)));
    try_join_all(filling).await.map(|_| ())
}

async fn one(wire: &mut Wire, requests: u32, frame: impl Fn(u32) -> Message) -> anyhow::Result<()> {
    let (mut sent, mut answered, mut heard) = (0, 0, Vec::new());
    while answered < requests {
        while sent < requests && sent - answered < IN_FLIGHT {
            sent += 1;
            wire.queue(frame(sent));
        }
        wire.turn(&mut heard).await.map_err(|ended| anyhow::anyhow!("{}", ended.reason))?;
        for frame in heard.drain(..) {
            let Some(answer) = read(&frame).filter(|answer| answer.req_id.is_some()) else {
                continue;
            };
            anyhow::ensure!(answer.r#type != "error", "a mesh could not be filled: {frame}");
            answered += 1;
        }
    }
    Ok(())
}

/// Answers the broker's pings until then, and passes over whatever is told.
pub(super) async fn hold(wires: &mut [Wire], until: Instant) -> anyhow::Result<()> {
    let holding = wires.iter_mut().map(|wire| async move {
        let mut heard = Vec::new();
        loop {
            match tokio::time::timeout_at(until.into(), wire.turn(&mut heard)).await {
                Err(_) => return Ok(()),
                Ok(Err(ended)) => anyhow::bail!("a connection ended: {}", ended.reason),
                Ok(Ok(())) => heard.clear(),
            }
        }
    });
    try_join_all(holding).await.map(|_| ())
}
