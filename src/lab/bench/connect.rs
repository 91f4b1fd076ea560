//! Hellos and the sockets that they leave: `connect` and `idle`.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::args::Common;
use super::outcome::{BUCKET, Checks, Outcome, histogram, histogram_of, round};
use super::process::{Meter, Process, Usage};
use super::progress::Progress;
use super::stage::Stage;
use super::traffic::options;
use super::wire::Wire;
use crate::client::{ClientError, ClientOptions, hello, socket};
use crate::clock::Timestamp;

/// Hellos under way at once while idle sockets are opened.
const IDLE_AT_ONCE: usize = 64;
/// A hello that was signed earlier may be too old when it is its turn.
const SIGNED_AHEAD: Duration = Duration::from_secs(20);
/// The wait after the last hello, in which what it set off comes to rest.
const SETTLE: Duration = Duration::from_secs(2);

/// One socket that is open, and how long its hello took.
pub(super) struct Open {
    /// The peer's place among all.
    pub(super) place: usize,
    pub(super) wire: Wire,
    pub(super) presence: String,
    us: u32,
    /// The instant at which the hello was answered.
    pub(super) at: Instant,
}

/// Everybody connects at once.
pub(super) async fn storm(
    stage: &Stage,
    at_once: usize,
    common: &Common,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    progress.step("signing hellos");
    let (broker, load) = (Meter::start(&stage.processes), Meter::start(&[Process::own()]));
    let begun = Instant::now();
    let opened = open_all(stage, at_once, common, progress).await?;
    let (broker, load) = (broker.stop(), load.stop());
    let mut checks = opened.checks;
    let presences: HashSet<&str> = opened.open.iter().map(|open| open.presence.as_str()).collect();
    checks.duplicates = (opened.open.len() - presences.len()) as u64;
    let mut over_time = Vec::new();
    for open in &opened.open {
        let elapsed = open.at.saturating_duration_since(opened.begun);
        let bucket = usize::try_from(elapsed.as_nanos() / BUCKET.as_nanos()).unwrap_or_default();
        if over_time.len() <= bucket {
            over_time.resize(bucket + 1, 0);
        }
        over_time[bucket] += 1;
    }
    let last = opened.open.iter().map(|open| open.at).max().unwrap_or(begun);
    Ok(Outcome {
        unit: "hellos",
        count: opened.open.len() as u64,
        seconds: last.saturating_duration_since(opened.begun).as_secs_f64(),
        checks,
        end_to_end: histogram(),
        ack: histogram_of(opened.open.iter().map(|open| &open.us)),
        over_time,
        broker,
        load,
        extra: Map::new(),
    })
}

/// Sockets that only answer pings.
pub(super) async fn idle(
    stage: &Stage,
    hold: Duration,
    common: &Common,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let load = Meter::start(&[Process::own()]);
    let opening = Meter::start(&stage.processes);
    let opened = open_all(stage, IDLE_AT_ONCE, common, progress).await?;
    let mut checks = opened.checks;
    let over = CancellationToken::new();
    let lost = Arc::new(AtomicU64::new(0));
    let mut holding = JoinSet::new();
    let count = opened.open.len() as u64;
    let latencies = histogram_of(opened.open.iter().map(|open| &open.us));
    for open in opened.open {
        holding.spawn(stay(open.wire, over.clone(), Arc::clone(&lost)));
    }
    progress.step("letting them come to rest");
    tokio::time::sleep(SETTLE).await;
    let opening = opening.stop();
    progress.begin("seconds held", hold.as_secs());
    let (idling, begun) = (Meter::start(&stage.processes), Instant::now());
    while begun.elapsed() < hold {
        tokio::time::sleep(Duration::from_millis(100).min(hold)).await;
        progress.at(begun.elapsed().as_secs());
    }
    let seconds = begun.elapsed().as_secs_f64();
    let idling = idling.stop();
    progress.done();
    checks.disconnected += lost.load(Ordering::Relaxed);
    if checks.disconnected > 0 {
        checks.problem("sockets did not stay open");
    }
    over.cancel();
    while holding.join_next().await.is_some() {}
    Ok(Outcome {
        unit: "sockets",
        count,
        seconds,
        extra: idle_figures(&opening, &idling, count, seconds),
        checks,
        end_to_end: histogram(),
        ack: latencies,
        over_time: Vec::new(),
        broker: Usage { before: opening.before, ..idling },
        load: load.stop(),
    })
}

fn idle_figures(
    opening: &Usage,
    idling: &Usage,
    sockets: u64,
    seconds: f64,
) -> Map<String, serde_json::Value> {
    let each = |bytes: u64| bytes / sockets.max(1);
    let grown = Usage { before: opening.before.clone(), ..idling.clone() }.grown();
    let cpu_percent = 100.0 * idling.cpu_seconds / seconds.max(1e-3);
    Map::from_iter([
        ("bytesPerSocket".to_owned(), json!(each(grown))),
        ("cpuPercentOfACore".to_owned(), json!(round(cpu_percent, 2))),
        ("cpuUsPerSocketAndSecond".to_owned(), {
            json!(round(idling.cpu_seconds * 1e6 / sockets.max(1) as f64 / seconds.max(1e-3), 2))
        }),
        ("openingCpuSeconds".to_owned(), json!(round(opening.cpu_seconds, 3))),
    ])
}

async fn stay(mut wire: Wire, over: CancellationToken, lost: Arc<AtomicU64>) {
    let mut heard = Vec::new();
    loop {
        tokio::select! {
            turned = wire.turn(&mut heard) => {
                if turned.is_err() {
                    lost.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                // Shrinking frees what many events took.
                heard = Vec::new();
            }
            () = over.cancelled() => return,
        }
    }
}

/// Sockets that were opened together.
pub(super) struct Opened {
    pub(super) open: Vec<Open>,
    pub(super) checks: Checks,
    begun: Instant,
}

async fn open_all(
    stage: &Stage,
    at_once: usize,
    common: &Common,
    progress: &Progress,
) -> anyhow::Result<Opened> {
    open_all_at(|place| stage.url_of(place).to_owned(), stage, at_once, common, progress).await
}

/// Opens a socket for each peer, at the address for its place.
pub(super) async fn open_all_at(
    url_of: impl Fn(usize) -> String,
    stage: &Stage,
    at_once: usize,
    common: &Common,
    progress: &Progress,
) -> anyhow::Result<Opened> {
    let go = CancellationToken::new();
    let places = Arc::new(Semaphore::new(at_once.max(1)));
    let mut opening = JoinSet::new();
    for (place, identity) in stage.sessions.iter().flatten().enumerate() {
        let options = options(identity.clone(), common);
        let (url, places) = (url_of(place), Arc::clone(&places));
        let hello = sign(&options)?;
        let go = go.clone();
        opening.spawn(async move {
            go.cancelled().await;
            let _turn = places.acquire().await;
            open_one(place, &url, &options, hello).await
        });
    }
    let total = opening.len() as u64;
    progress.begin("hellos", total);
    let begun = Instant::now();
    go.cancel();
    let mut checks = Checks { sent: total, expected: total, ..Checks::default() };
    let mut open = Vec::new();
    while let Some(opened) = opening.join_next().await {
        match opened? {
            Ok(one) => open.push(one),
            Err(error) => {
                checks.disconnected += 1;
                checks.problem(format!("a hello failed: {error}"));
            }
        }
        progress.at(open.len() as u64);
    }
    progress.done();
    checks.acked = open.len() as u64;
    checks.received = checks.acked;
    Ok(Opened { open, checks, begun })
}

/// A hello, and when it was signed.
pub(super) type SignedHello = (Instant, tokio_tungstenite::tungstenite::Message);

/// Signs a hello ahead of its turn.
pub(super) fn sign(options: &ClientOptions) -> Result<SignedHello, ClientError> {
    let identity = &options.identity;
    let session_key = identity.session_key.as_ref().unwrap_or(&identity.member_key);
    let frame = hello::hello(options, session_key, Timestamp::now());
    Ok((Instant::now(), socket::encode(options.codec, &frame)?))
}

/// Connects and says hello; signs anew if that was long ago.
pub(super) async fn open_one(
    place: usize,
    url: &str,
    options: &ClientOptions,
    hello: SignedHello,
) -> Result<Open, ClientError> {
    let begun = Instant::now();
    let connecting = socket::connect(url, options.codec);
    let limit = options.limits.connect_timeout;
    let socket = tokio::time::timeout(limit, connecting)
        .await
        .map_err(|_| ClientError::Timeout(limit))??;
    let (_, frame) = if hello.0.elapsed() < SIGNED_AHEAD { hello } else { sign(options)? };
    let opened = socket::greet(socket, frame, options).await?;
    let at = Instant::now();
    let (wire, ack) = Wire::of(opened);
    let us = u32::try_from((at - begun).as_micros()).unwrap_or(u32::MAX);
    Ok(Open { place, wire, presence: ack.presence_id, us, at })
}
