//! A node dies, and all of its peers come back at once: `failover`.
//!
//! Everybody connects to the first node, which is killed without a warning;
//! each peer says hello to one of the others as soon as its socket breaks. It
//! must find its presence again. Time counts from the kill.

use std::time::{Duration, Instant};

use serde_json::Map;
use tokio::task::JoinSet;

use super::args::Common;
use super::connect::{Open, SignedHello, open_all_at, open_one, sign};
use super::outcome::{Checks, Outcome, histogram, histogram_of};
use super::process::{Meter, Process};
use super::progress::Progress;
use super::stage::Stage;
use super::traffic::options;
use crate::cli::Failure;
use crate::client::{ClientError, ClientOptions};

/// Hellos under way at once before the node dies.
const OPENING_AT_ONCE: usize = 64;
/// The wait in which what the hellos set off comes to rest.
const SETTLE: Duration = Duration::from_secs(1);

/// A peer of the node that will die, and what it will say to the next.
struct Exile {
    before: Open,
    url: String,
    options: ClientOptions,
    hello: SignedHello,
}

pub(super) async fn run(
    stage: &Stage,
    common: &Common,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let (Some((first, others)), Some(doomed)) = (stage.urls.split_first(), stage.processes.first())
    else {
        return Err(needs_nodes());
    };
    if others.is_empty() {
        return Err(needs_nodes());
    }
    let opened = open_all_at(|_| first.clone(), stage, OPENING_AT_ONCE, common, progress).await?;
    let mut checks = opened.checks;
    tokio::time::sleep(SETTLE).await;
    let identities: Vec<_> = stage.sessions.iter().flatten().collect();
    let mut exiles = Vec::with_capacity(opened.open.len());
    for before in opened.open {
        let options = options(identities[before.place].clone(), common);
        let url = others[before.place % others.len()].clone();
        let hello = sign(&options)?;
        exiles.push(Exile { before, url, options, hello });
    }
    progress.begin("peers back", exiles.len() as u64);
    let (broker, load) = (Meter::start(&stage.processes[1..]), Meter::start(&[Process::own()]));
    let mut returning: JoinSet<_> = exiles.into_iter().map(come_back).collect();
    // All peers wait for their sockets to break.
    tokio::task::yield_now().await;
    let died = Instant::now();
    doomed.kill()?;
    let mut back = Vec::new();
    while let Some(returned) = returning.join_next().await {
        match returned? {
            Ok((presence, open)) => {
                checks.duplicates += u64::from(presence != open.presence);
                back.push(open.at.saturating_duration_since(died));
            }
            Err(error) => {
                checks.disconnected += 1;
                checks.problem(format!("a peer did not come back: {error}"));
            }
        }
        progress.at(back.len() as u64);
    }
    progress.done();
    Ok(outcome(checks, &back, broker.stop(), load.stop()))
}

fn needs_nodes() -> anyhow::Error {
    let message = "failover kills one of several nodes: it needs --cluster 2 or more";
    Failure::new("usage", message).into()
}

/// Waits until the socket breaks, and says hello elsewhere. Returns the
/// presence that it had, and its new socket.
async fn come_back(exile: Exile) -> Result<(String, Open), ClientError> {
    let Exile { before, url, options, hello } = exile;
    let Open { mut wire, presence, place, .. } = before;
    let mut heard = Vec::new();
    while wire.turn(&mut heard).await.is_ok() {
        heard.clear();
    }
    Ok((presence, open_one(place, &url, &options, hello).await?))
}

fn outcome(
    mut checks: Checks,
    back: &[Duration],
    broker: super::process::Usage,
    load: super::process::Usage,
) -> Outcome {
    if checks.duplicates > 0 {
        checks.problem("a peer that came back is a new one to the others");
    }
    checks.acked = back.len() as u64;
    checks.received = checks.acked;
    let us = |back: &Duration| u32::try_from(back.as_micros()).unwrap_or(u32::MAX);
    let last = back.iter().max().copied().unwrap_or_default();
    Outcome {
        unit: "hellos",
        count: back.len() as u64,
        seconds: last.as_secs_f64(),
        checks,
        end_to_end: histogram(),
        ack: histogram_of(&back.iter().map(us).collect::<Vec<_>>()),
        over_time: Vec::new(),
        broker,
        load,
        extra: Map::new(),
    }
}
