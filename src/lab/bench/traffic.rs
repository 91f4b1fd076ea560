//! Messages between peers: `direct`, `fanout` and `mixed`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::args::{Common, Pace};
use super::board::Board;
use super::frames::{Form, Stamp, ToMany};
use super::outcome::{Outcome, histogram_of};
use super::peer::{Peer, Tally};
use super::process::{Meter, Process};
use super::progress::Progress;
use super::stage::Stage;
use super::wire::Wire;
use crate::client::{ClientOptions, HelloKind, Identity};
use crate::id::Key;
use crate::sealing::BoxKey;

/// Hellos under way at once while peers connect.
const OPENING_AT_ONCE: usize = 64;
/// The number of others to whom a peer sends in turns.
const CORRESPONDENTS_MAX: usize = 16;
/// After so long without a frame everybody has heard of everybody.
const QUIET: Duration = Duration::from_millis(250);
/// The wait after the last delivery, in which comes what comes again.
const LINGER: Duration = Duration::from_millis(400);
/// The pause between two looks at how far the run is.
const LOOK: Duration = Duration::from_millis(10);

/// Who sends to whom.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pattern {
    /// Everybody sends to others in turns.
    Direct,
    /// The first ones send to everyone.
    Fanout {
        senders: usize,
        /// Whether each message is sealed for all of them.
        is_sealed: bool,
    },
    /// As `Direct`, with every so-manieth to everyone.
    Mixed {
        /// No message goes to everyone when this is 0.
        multicast_every: u32,
    },
}

/// What is to be sent.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    pub(super) pattern: Pattern,
    /// Messages of each sender.
    pub(super) messages: u32,
    pub(super) pace: Pace,
}

enum To {
    Peer(usize),
    Everyone,
}

impl Pattern {
    /// The recipient of a peer's message; `None` if it sends nothing.
    fn target(self, peer: usize, peers: usize, number: u32) -> Option<To> {
        let other = || {
            let others = (peers - 1).min(CORRESPONDENTS_MAX);
            To::Peer((peer + 1 + number as usize % others) % peers)
        };
        match self {
            Self::Direct => Some(other()),
            Self::Fanout { senders, .. } => (peer < senders).then_some(To::Everyone),
            Self::Mixed { multicast_every: every } => {
                let multicast = every > 0 && number % every == every - 1;
                Some(if multicast { To::Everyone } else { other() })
            }
        }
    }

    fn until_delivered(self) -> bool {
        matches!(self, Self::Fanout { .. })
    }
}

/// How a peer of the bench introduces itself.
pub(super) fn options(identity: Identity, common: &Common) -> ClientOptions {
    let channel = if common.no_confirm { "claudemesh-bench" } else { "claudemesh-session" };
    let mut options = ClientOptions::new(identity, HelloKind::Session, channel);
    options.codec = common.codec.into();
    options.limits.connect_timeout = Duration::from_secs(common.patience);
    options.limits.hello_timeout = Duration::from_secs(common.patience);
    options
}

pub(super) async fn run(
    stage: &Stage,
    traffic: &Traffic,
    common: &Common,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let form = Form {
        codec: common.codec.into(),
        bytes: traffic.pace.bytes,
        key_prefix: (!traffic.pace.no_keys).then(|| format!("{}-", &crate::id::generate()[20..])),
    };
    progress.step("sealing messages");
    let packs = pack(stage, traffic, &form).await?;
    progress.step("connecting peers");
    let wires = open(stage, common).await?;
    let board = Arc::new(board(stage, traffic));
    let mut running = JoinSet::new();
    for (place, (wire, pack)) in wires.into_iter().zip(packs).enumerate() {
        let peer = Peer {
            place: u32::try_from(place)?,
            wire,
            form: form.clone(),
            frames: pack.frames.into_iter(),
            boxes: pack.boxes,
            in_flight: traffic.pace.in_flight,
            confirms: !common.no_confirm,
        };
        running.spawn(peer.run(Arc::clone(&board)));
    }
    quiet(&board).await;
    let (broker, load) = (Meter::start(&stage.processes), Meter::start(&[Process::own()]));
    board.start();
    let pacer = board.paced().then(|| {
        let board = Arc::clone(&board);
        std::thread::spawn(move || board.pace())
    });
    wait(&board, common, progress).await;
    let (broker, load) = (broker.stop(), load.stop());
    tokio::time::sleep(LINGER).await;
    board.over.cancel();
    let mut tallies = Vec::new();
    while let Some(tally) = running.join_next().await {
        tallies.push(tally?);
    }
    if let Some(pacer) = pacer {
        pacer.join().map_err(|_| anyhow::anyhow!("the pacer failed"))?;
    }
    let unit = if traffic.pattern.until_delivered() { "deliveries" } else { "messages" };
    Ok(outcome(unit, &board, &tallies, broker, load))
}

fn outcome(
    unit: &'static str,
    board: &Board,
    tallies: &[Tally],
    broker: super::process::Usage,
    load: super::process::Usage,
) -> Outcome {
    let mut checks = board.audit(tallies.iter().map(|tally| tally.behind).sum());
    for tally in tallies {
        checks.unreadable += tally.unreadable;
        checks.disconnected += u64::from(tally.disconnected);
        if let Some(problem) = &tally.problem {
            checks.problem(problem.clone());
        }
    }
    let buckets = tallies.iter().map(|tally| tally.over_time.len()).max().unwrap_or_default();
    let mut over_time = vec![0; buckets];
    for tally in tallies {
        for (sum, count) in over_time.iter_mut().zip(&tally.over_time) {
            *sum += count;
        }
    }
    Outcome {
        unit,
        count: checks.received,
        seconds: board.elapsed().as_secs_f64(),
        checks,
        end_to_end: histogram_of(tallies.iter().flat_map(|tally| &tally.end_to_end_us)),
        ack: histogram_of(tallies.iter().flat_map(|tally| &tally.ack_us)),
        over_time,
        broker,
        load,
        extra: serde_json::Map::new(),
    }
}

/// A peer's frames, and the keys to read what others send it.
struct Pack {
    frames: Vec<tokio_tungstenite::tungstenite::Message>,
    boxes: HashMap<u32, BoxKey>,
}

async fn pack(stage: &Stage, traffic: &Traffic, form: &Form) -> anyhow::Result<Vec<Pack>> {
    let mut packing = JoinSet::new();
    let at_once = Arc::new(Semaphore::new(
        std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
    ));
    let mut base = 0;
    for mesh in &stage.sessions {
        let mesh: Arc<[Identity]> = mesh.clone().into();
        for peer in 0..mesh.len() {
            let (mesh, traffic, form) = (Arc::clone(&mesh), traffic.clone(), form.clone());
            let turn = Arc::clone(&at_once).acquire_owned().await?;
            packing.spawn_blocking(move || {
                let pack = pack_one(&mesh, peer, base, &traffic, &form);
                drop(turn);
                pack.map(|pack| (base + peer, pack))
            });
        }
        base += mesh.len();
    }
    let mut packs: Vec<Option<Pack>> = (0..base).map(|_| None).collect();
    while let Some(packed) = packing.join_next().await {
        let (place, pack) = packed??;
        packs[place] = Some(pack);
    }
    packs.into_iter().map(|pack| pack.context("every peer was packed")).collect()
}

fn pack_one(
    mesh: &[Identity],
    peer: usize,
    base: usize,
    traffic: &Traffic,
    form: &Form,
) -> anyhow::Result<Pack> {
    let own = secret(&mesh[peer]);
    let shared = |other: usize| BoxKey::between(own, &key(&mesh[other])).context("a box for a key");
    let mut outward: HashMap<usize, BoxKey> = HashMap::new();
    let mut frames = Vec::new();
    let many = to_many(mesh, peer, traffic.pattern);
    for number in 0..traffic.messages {
        let stamp = Stamp { sender: u32::try_from(base + peer)?, number };
        let frame = match traffic.pattern.target(peer, mesh.len(), number) {
            None => break,
            Some(To::Everyone) => match &many {
                Some(many) => form.send_sealed(stamp, mesh[peer].mesh.as_str(), many)?,
                None => form.send(stamp, "*", None)?,
            },
            Some(To::Peer(other)) => {
                let sealing = match outward.entry(other) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(place) => place.insert(shared(other)?),
                };
                form.send(stamp, key(&mesh[other]).as_str(), Some(sealing))?
            }
        };
        frames.push(frame);
    }
    let mut boxes = HashMap::new();
    if let Pattern::Fanout { senders, is_sealed: true } = traffic.pattern {
        // Sealed for the member, whatever session reads it.
        for sender in (0..senders).filter(|sender| *sender != peer) {
            let shared = BoxKey::between(&mesh[peer].member_key, &key(&mesh[sender]));
            boxes.insert(u32::try_from(base + sender)?, shared.context("a box for a key")?);
        }
    }
    if !traffic.pattern.until_delivered() {
        // Who sends to this peer is as far before it as those it sends to come
        // after.
        for back in 1..=(mesh.len() - 1).min(CORRESPONDENTS_MAX) {
            let other = (peer + mesh.len() - back) % mesh.len();
            boxes.insert(u32::try_from(base + other)?, shared(other)?);
        }
    }
    Ok(Pack { frames, boxes })
}

/// What a peer that sends to everyone seals with; `None` of others.
fn to_many(mesh: &[Identity], peer: usize, pattern: Pattern) -> Option<ToMany<'_>> {
    let Pattern::Fanout { senders, is_sealed: true } = pattern else { return None };
    let own = (peer < senders).then(|| secret(&mesh[peer]))?;
    let others = mesh.iter().enumerate().filter(|(other, _)| *other != peer);
    let recipients: Vec<Key> = others.map(|(_, other)| other.member_pubkey()).collect();
    let shared = |key: &Key| Some((key.clone(), Arc::new(BoxKey::between(own, key)?)));
    let boxes = recipients.iter().filter_map(shared).collect();
    Some(ToMany { own, recipients, boxes })
}

fn secret(identity: &Identity) -> &crate::auth::SecretKey {
    identity.session_key.as_ref().unwrap_or(&identity.member_key)
}

fn key(identity: &Identity) -> Key {
    secret(identity).public_key()
}

fn board(stage: &Stage, traffic: &Traffic) -> Board {
    let mut by_key = HashMap::new();
    let mut fans = Vec::new();
    for mesh in &stage.sessions {
        for (peer, identity) in mesh.iter().enumerate() {
            by_key.insert(key(identity).to_string(), u32::try_from(fans.len()).unwrap_or(u32::MAX));
            let others = mesh.iter().filter(|other| other.member != identity.member).count();
            let others = u32::try_from(others).unwrap_or(u32::MAX);
            let fan = (0..traffic.messages).map_while(|number| {
                Some(match traffic.pattern.target(peer, mesh.len(), number)? {
                    To::Peer(_) => 1,
                    To::Everyone => others,
                })
            });
            fans.push(fan.collect());
        }
    }
    Board::new(by_key, fans, traffic.pace.rate, traffic.pattern.until_delivered())
}

/// Connects everybody, in the order of their places.
pub(super) async fn open(stage: &Stage, common: &Common) -> anyhow::Result<Vec<Wire>> {
    let at_once = Arc::new(Semaphore::new(OPENING_AT_ONCE));
    let mut opening = JoinSet::new();
    for (place, identity) in stage.sessions.iter().flatten().enumerate() {
        let options = options(identity.clone(), common);
        let (url, at_once) = (stage.url_of(place).to_owned(), Arc::clone(&at_once));
        opening.spawn(async move {
            let _turn = at_once.acquire().await;
            Wire::open(&url, &options).await.map(|(wire, _)| (place, wire))
        });
    }
    let mut wires: Vec<Option<Wire>> = (0..opening.len()).map(|_| None).collect();
    while let Some(opened) = opening.join_next().await {
        let (place, wire) = opened?.context("a peer could not connect")?;
        wires[place] = Some(wire);
    }
    wires.into_iter().map(|wire| wire.context("every peer was connected")).collect()
}

async fn quiet(board: &Board) {
    let mut before = u64::MAX;
    loop {
        let heard = board.heard.load(Ordering::Relaxed);
        if heard == before {
            return;
        }
        before = heard;
        tokio::time::sleep(QUIET).await;
    }
}

/// Waits until all has arrived, or until nothing arrives any more.
async fn wait(board: &Board, common: &Common, progress: &Progress) {
    progress.begin("messages received", board.deliveries());
    let patience = Duration::from_secs(common.patience);
    let mut received = 0;
    let mut moved = Instant::now();
    while !board.is_complete() {
        tokio::time::sleep(LOOK).await;
        let now = board.received.load(Ordering::Relaxed) + board.acked.load(Ordering::Relaxed);
        if now != received {
            received = now;
            moved = Instant::now();
            progress.at(board.received.load(Ordering::Relaxed));
        } else if moved.elapsed() > patience {
            break;
        }
    }
    progress.done();
}
