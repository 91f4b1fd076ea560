//! What a mesh shares, asked for as fast as it is answered: `features`.
//!
//! - [`filling`]: what a mesh has before the clock starts
//! - [`words`]: texts to remember and words to find them by
//!
//! Peers ask over their own sockets, each with so many requests on their way; an answer
//! that is an error, or none, fails the run. For `state-change` one peer writes and all
//! others are told; the floor of that is the relay that passes a message of the same size
//! on to everyone. For `schedules` nobody asks anything: what is measured is what messages
//! cost that wait for their time.

mod filling;
mod words;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::args::{Common, Feature};
use super::outcome::{Checks, Outcome, histogram, histogram_of, round};
use super::process::{Meter, Process};
use super::progress::Progress;
use super::stage::{Cast, Stage};
use super::traffic::open;
use super::wire::Wire;
use crate::clock::Timestamp;
use crate::codec::{Codec, Frame};
use crate::id::MessageId;
use crate::protocol::{
    Ask, GetState, Recall, Remember, Schedule, SetState, TopicCreate, TopicHistory, TopicJoin,
};

/// The pause between two looks at how far the run is.
const LOOK: Duration = Duration::from_millis(10);
/// The type of what others are told of a write.
const TOLD: &str = "state_change";
/// Keys that are read and written.
const KEYS: u32 = 1000;
/// The topic that is posted to.
const TOPIC: &str = "bench";
/// How far ahead messages are scheduled: none of them is sent in a run.
const FAR_MS: i64 = 30 * 24 * 3_600_000;
/// The wait after the last request, in which what it set off comes to rest.
const SETTLE: Duration = Duration::from_secs(2);

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    pub(super) feature: Feature,
    /// Requests of each peer that asks.
    pub(super) requests: u32,
    pub(super) in_flight: usize,
    /// Bytes of each value.
    pub(super) bytes: usize,
    /// What each mesh keeps beforehand.
    pub(super) rows: u32,
    /// How long nobody does anything.
    pub(super) seconds: u64,
}

/// As much of a frame as is looked at.
#[derive(Deserialize)]
struct Heard<'a> {
    #[serde(borrow)]
    r#type: &'a str,
    #[serde(rename = "_reqId", default)]
    req_id: Option<u32>,
    /// What was found, by each of its names.
    #[serde(default, alias = "memories", alias = "messages")]
    matches: Option<Vec<IgnoredAny>>,
    /// What was posted.
    #[serde(rename = "messageId", default)]
    message_id: Option<&'a str>,
    /// Why it was not taken.
    #[serde(default)]
    error: Option<IgnoredAny>,
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
    /// Sockets of each mesh.
    of_each_mesh: u32,
    /// Of each mesh some of the posts.
    posts: Vec<Vec<String>>,
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
            _ => 0,
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
    let of_each_mesh = stage.sessions.first().map_or(1, Vec::len).max(1);
    progress.step("filling meshes");
    let mut posts = Vec::new();
    match asking.feature {
        Feature::GetState => {
            let value = |_, number| set(number - 1, asking.bytes, number);
            filling::fill(&mut wires, of_each_mesh, KEYS, value).await?;
        }
        Feature::Recall => {
            let memory = |mesh, number| remember(asking, mesh, number);
            filling::fill(&mut wires, of_each_mesh, asking.rows, memory).await?;
        }
        Feature::History => {
            let create = |_, _| request(&topic(), 1);
            filling::fill(&mut wires, of_each_mesh, 1, create).await?;
            let post = |_, number| post(asking, number);
            posts = filling::fill(&mut wires, of_each_mesh, asking.rows, post).await?;
            let join = || request(&TopicJoin { topic: TOPIC.to_owned(), role: None }, 1);
            filling::ask_others(&mut wires, of_each_mesh, join).await?;
        }
        Feature::Schedules => return waiting(stage, asking, wires, of_each_mesh, progress).await,
        Feature::SetState | Feature::StateChange => {}
    }
    let is_told = matches!(asking.feature, Feature::StateChange);
    let run = Arc::new(Run {
        asking,
        cast,
        askers: if is_told { 1 } else { peers },
        of_each_mesh: u32::try_from(of_each_mesh)?,
        posts,
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

/// What messages cost that wait for their time: the broker's CPU with none of them, and
/// with all.
async fn waiting(
    stage: &Stage,
    asking: Asking,
    mut wires: Vec<Wire>,
    of_each_mesh: usize,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let span = Duration::from_secs(asking.seconds);
    let load = Meter::start(&[Process::own()]);
    progress.step("holding sockets while nothing waits");
    let without = Meter::start(&stage.processes);
    filling::hold(&mut wires, Instant::now() + span).await?;
    let without = without.stop();
    progress.step("scheduling messages");
    let at = Timestamp::now().plus_ms(FAR_MS);
    let later = |_, number| schedule(asking, at, number);
    filling::fill(&mut wires, of_each_mesh, asking.rows, later).await?;
    filling::hold(&mut wires, Instant::now() + SETTLE).await?;
    progress.step("holding sockets while they wait");
    let (with, begun) = (Meter::start(&stage.processes), Instant::now());
    filling::hold(&mut wires, begun + span).await?;
    let (with, seconds) = (with.stop(), begun.elapsed().as_secs_f64());
    let count = u64::from(asking.rows) * stage.sessions.len() as u64;
    let percent = |cpu_seconds: f64| json!(round(100.0 * cpu_seconds / seconds.max(1e-3), 2));
    let extra = [
        ("cpuPercentOfACore".to_owned(), percent(with.cpu_seconds)),
        ("cpuPercentWithNone".to_owned(), percent(without.cpu_seconds)),
    ];
    Ok(Outcome {
        unit: "schedules",
        count,
        seconds,
        checks: Checks { sent: count, acked: count, ..Checks::default() },
        end_to_end: histogram(),
        ack: histogram(),
        over_time: Vec::new(),
        broker: with,
        load: load.stop(),
        extra: extra.into_iter().collect(),
    })
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
            // Some text has the words that were asked for.
            _ if heard.matches.is_some_and(|found| found.is_empty()) => {
                tally.refused += 1;
                tally.problem.get_or_insert_with(|| "what is there was not found".to_owned());
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
        (Feature::Recall, _) => recall(run, place, number),
        (Feature::History, _) => history(run, place, number),
        // What the relay passes on to everyone, of the same size.
        (Feature::StateChange, Cast::Floor) => {
            let value = "x".repeat(asking.bytes);
            let id = number.to_string();
            let send = json!({ "type": "send", "id": id, "targetSpec": "*", "value": value });
            Message::Text(send.to_string().into())
        }
        (Feature::SetState | Feature::StateChange | Feature::Schedules, _) => {
            set(key, asking.bytes, number)
        }
    }
}

fn set(key: u32, bytes: usize, number: u32) -> Message {
    let value = Value::String("x".repeat(bytes));
    request(&SetState { key: name(key), value, if_version: None }, number)
}

fn topic() -> TopicCreate {
    TopicCreate {
        name: TOPIC.to_owned(),
        description: None,
        visibility: None,
        encrypted_key_pubkey: None,
        encrypted_key: None,
        nonce: None,
    }
}

fn post(asking: Asking, number: u32) -> Message {
    let (id, text) = (number.to_string(), "x".repeat(asking.bytes));
    let send = json!({ "type": "send", "id": id, "targetSpec": format!("#{TOPIC}"),
        "priority": "next", "nonce": "", "ciphertext": text });
    Message::Text(send.to_string().into())
}

/// A page before one of the posts, near or far.
fn history(run: &Run, place: u32, number: u32) -> Message {
    let posts = run.posts.get((place / run.of_each_mesh) as usize).map_or(&[][..], Vec::as_slice);
    let turn = u64::from(place) << 32 | u64::from(number);
    // Not the first one, before which there is nothing.
    let at = words::mixed(turn) % (posts.len() as u64).saturating_sub(1).max(1) + 1;
    let before = posts.get(usize::try_from(at).unwrap_or_default());
    let before_id = before.map(|id| MessageId::from(id.as_str()));
    request(&TopicHistory { topic: TOPIC.to_owned(), limit: None, before_id }, number)
}

/// A mesh has texts of its own.
fn text_number(mesh: u32, number: u32) -> u64 {
    u64::from(mesh) << 32 | u64::from(number)
}

fn remember(asking: Asking, mesh: u32, number: u32) -> Message {
    let content = words::text(text_number(mesh, number), asking.bytes);
    request(&Remember { content, tags: None }, number)
}

fn recall(run: &Run, place: u32, number: u32) -> Message {
    let (asking, turn) = (run.asking, u64::from(place) << 32 | u64::from(number));
    let of_mesh = (turn.wrapping_mul(2_654_435_761) >> 7) % u64::from(asking.rows.max(1));
    let mesh = place / run.of_each_mesh;
    let text = text_number(mesh, 1 + u32::try_from(of_mesh).unwrap_or_default());
    let query = words::query(text, asking.bytes, turn);
    request(&Recall { query, limit: None, cursor: None }, number)
}

fn schedule(asking: Asking, at: Timestamp, number: u32) -> Message {
    let ask = Schedule {
        to: "*".to_owned(),
        message: Some("x".repeat(asking.bytes)),
        ciphertext: None,
        nonce: None,
        // One after the other, as they were thought of.
        deliver_at: Some(at.as_ms() + i64::from(number)),
        subtype: None,
        cron: None,
        timezone: None,
        reply_to_id: None,
    };
    request(&ask, number)
}

fn name(key: u32) -> String {
    format!("key-{key}")
}
