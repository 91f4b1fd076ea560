//! What a mesh shares, asked for as fast as it is answered: `features`.
//!
//! Peers ask over their own sockets, each with so many requests on their way; an answer
//! that is an error, or none, fails the run. For `state-change` one peer writes and all
//! others are told; the floor of that is the relay that passes a message of the same size
//! on to everyone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::args::{Common, Feature};
use super::outcome::{Checks, Outcome, histogram, histogram_of};
use super::process::{Meter, Process};
use super::progress::Progress;
use super::stage::{Cast, Stage};
use super::traffic::open;
use super::wire::Wire;
use crate::codec::{Codec, Frame};
use crate::protocol::{Ask, GetState, SetState};

/// The pause between two looks at how far the run is.
const LOOK: Duration = Duration::from_millis(10);
/// The type of what others are told of a write.
const TOLD: &str = "state_change";
/// Keys that are read and written.
const KEYS: u32 = 1000;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    pub(super) feature: Feature,
    /// Requests of each peer that asks.
    pub(super) requests: u32,
    pub(super) in_flight: usize,
    /// Bytes of each value.
    pub(super) bytes: usize,
}

/// As much of a frame as is looked at.
#[derive(Deserialize)]
struct Heard<'a> {
    #[serde(borrow)]
    r#type: &'a str,
    #[serde(rename = "_reqId", default)]
    req_id: Option<u32>,
}

/// What one peer noted.
#[derive(Default)]
struct Tally {
    sent: u64,
    answered: u64,
    refused: u64,
    told: u64,
    latencies_us: Vec<u32>,
    problem: Option<String>,
}

/// How far all are.
struct Run {
    asking: Asking,
    cast: Cast,
    askers: usize,
    /// Answers, and what others were told.
    done: AtomicU64,
    told: AtomicU64,
    moved: Notify,
    over: tokio_util::sync::CancellationToken,
}

impl Run {
    fn tellings(&self, peers: usize) -> u64 {
        match self.asking.feature {
            Feature::StateChange => u64::from(self.asking.requests) * (peers - self.askers) as u64,
            Feature::SetState | Feature::GetState => 0,
        }
    }
}

pub(super) async fn run(
    stage: &Stage,
    asking: Asking,
    cast: Cast,
    common: &Common,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    anyhow::ensure!(Codec::from(common.codec) == Codec::Json, "features are asked for in JSON");
    progress.step("connecting peers");
    let mut wires = open(stage, common).await?;
    let peers = wires.len();
    if matches!(asking.feature, Feature::GetState) {
        let of_each_mesh = stage.sessions.first().map_or(1, Vec::len).max(1);
        for first in wires.iter_mut().step_by(of_each_mesh) {
            fill(first, asking).await?;
        }
    }
    let is_told = matches!(asking.feature, Feature::StateChange);
    let run = Arc::new(Run {
        asking,
        cast,
        askers: if is_told { 1 } else { peers },
        done: AtomicU64::new(0),
        told: AtomicU64::new(0),
        moved: Notify::new(),
        over: tokio_util::sync::CancellationToken::new(),
    });
    let (broker, load) = (Meter::start(&stage.processes), Meter::start(&[Process::own()]));
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for (place, wire) in wires.into_iter().enumerate() {
        let place = u32::try_from(place)?;
        running.spawn(peer(Arc::clone(&run), place, wire, peers));
    }
    let answers = u64::from(asking.requests) * run.askers as u64;
    let tellings = run.tellings(peers);
    wait(&run, (answers, tellings), common, progress).await;
    let seconds = begun.elapsed().as_secs_f64();
    let (broker, load) = (broker.stop(), load.stop());
    run.over.cancel();
    let mut tallies = Vec::new();
    while let Some(tally) = running.join_next().await {
        tallies.push(tally.context("a peer failed")?);
    }
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let mut checks = Checks {
        sent: answers,
        acked: sum(|tally| tally.answered),
        refused: sum(|tally| tally.refused),
        expected: tellings,
        received: if is_told { sum(|tally| tally.told) } else { 0 },
        ..Checks::default()
    };
    checks.lost = checks.expected.saturating_sub(checks.received);
    if let Some(problem) = tallies.iter().find_map(|tally| tally.problem.clone()) {
        checks.problem(problem);
    }
    Ok(Outcome {
        unit: if is_told { "deliveries" } else { "requests" },
        count: if is_told { checks.received } else { checks.acked },
        seconds,
        checks,
        end_to_end: histogram(),
        ack: histogram_of(tallies.iter().flat_map(|tally| &tally.latencies_us)),
        over_time: Vec::new(),
        broker,
        load,
        extra: Map::new(),
    })
}

/// Values for all keys, before the clock starts.
async fn fill(wire: &mut Wire, asking: Asking) -> anyhow::Result<()> {
    let mut heard = Vec::new();
    for key in 0..KEYS {
        wire.queue(set(key, asking.bytes, key + 1));
    }
    let mut answered = 0;
    while answered < KEYS {
        wire.turn(&mut heard).await.map_err(|ended| anyhow::anyhow!("{}", ended.reason))?;
        for frame in heard.drain(..) {
            let is_answer = matches!(read(&frame), Some(Heard { req_id: Some(_), .. }));
            answered += u32::from(is_answer);
        }
    }
    Ok(())
}

async fn wait(run: &Run, (answers, tellings): (u64, u64), common: &Common, progress: &Progress) {
    progress.begin("requests answered", answers);
    let patience = Duration::from_secs(common.patience);
    let (mut before, mut moved) = (0, Instant::now());
    loop {
        let (done, told) = (run.done.load(Ordering::Relaxed), run.told.load(Ordering::Relaxed));
        if done >= answers && told >= tellings {
            break;
        }
        if done + told != before {
            (before, moved) = (done + told, Instant::now());
            progress.at(done);
        } else if moved.elapsed() > patience {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    progress.done();
}

/// Asks until all is asked, and listens until it is over.
async fn peer(run: Arc<Run>, place: u32, mut wire: Wire, peers: usize) -> Tally {
    let mut tally = Tally::default();
    let asks = (place as usize) < run.askers;
    let others = (peers - run.askers).max(1) as u64;
    let (mut sent, mut heard) = (0_u32, Vec::new());
    let mut open: HashMap<u32, Instant> = HashMap::new();
    loop {
        let moved = run.moved.notified();
        // Who writes for others to be told waits until they were.
        let told = run.told.load(Ordering::Relaxed) / others;
        let is_ahead =
            run.tellings(peers) > 0 && u64::from(sent) >= told + run.asking.in_flight as u64;
        while asks && sent < run.asking.requests && open.len() < run.asking.in_flight && !is_ahead {
            wire.queue(frame(&run, place, sent + 1));
            sent += 1;
            open.insert(sent, Instant::now());
            if run.tellings(peers) > 0 {
                break;
            }
        }
        tokio::select! {
            turned = wire.turn(&mut heard) => {
                if let Err(ended) = turned {
                    tally.problem = Some(format!("a connection ended: {}", ended.reason));
                    break;
                }
                for frame in heard.drain(..) {
                    take(&run, &frame, &mut open, &mut tally);
                }
            }
            () = moved, if asks => {}
            () = run.over.cancelled() => break,
        }
    }
    tally.sent = u64::from(sent);
    tally
}

fn take(run: &Run, frame: &Message, open: &mut HashMap<u32, Instant>, tally: &mut Tally) {
    let Some(heard) = read(frame) else { return };
    if let Some(begun) = heard.req_id.and_then(|number| open.remove(&number)) {
        let us = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
        tally.latencies_us.push(us);
        match heard.r#type {
            "error" => {
                tally.refused += 1;
                tally.problem.get_or_insert_with(|| frame.to_string());
            }
            _ => tally.answered += 1,
        }
        run.done.fetch_add(1, Ordering::Relaxed);
    } else if heard.r#type == TOLD || heard.r#type == "send" {
        tally.told += 1;
        run.told.fetch_add(1, Ordering::Relaxed);
        run.moved.notify_waiters();
    } else if heard.r#type == "ack" {
        // The relay's, which knows no `_reqId`.
        if let Some(first) = open.keys().min().copied() {
            open.remove(&first);
        }
        tally.answered += 1;
        run.done.fetch_add(1, Ordering::Relaxed);
        run.moved.notify_waiters();
    }
}

fn read(frame: &Message) -> Option<Heard<'_>> {
    match frame {
        Message::Text(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

/// A request as a peer sends it.
fn request<R: Ask>(ask: &R, number: u32) -> Message {
    let frame = Frame { kind: R::TYPE, fields: ask, req_id: Some(number) };
    let text = serde_json::to_string(&frame).expect("a request has a form");
    Message::Text(text.into())
}

fn frame(run: &Run, place: u32, number: u32) -> Message {
    let (asking, key) = (run.asking, (place * 31 + number) % KEYS);
    match (asking.feature, run.cast) {
        (Feature::GetState, _) => request(&GetState { key: name(key) }, number),
        // What the relay passes on to everyone, of the same size.
        (Feature::StateChange, Cast::Floor) => {
            let value = "x".repeat(asking.bytes);
            let id = number.to_string();
            let send = json!({ "type": "send", "id": id, "targetSpec": "*", "value": value });
            Message::Text(send.to_string().into())
        }
        (Feature::SetState | Feature::StateChange, _) => set(key, asking.bytes, number),
    }
}

fn set(key: u32, bytes: usize, number: u32) -> Message {
    let value = Value::String("x".repeat(bytes));
    request(&SetState { key: name(key), value, if_version: None }, number)
}

fn name(key: u32) -> String {
    format!("key-{key}")
}
