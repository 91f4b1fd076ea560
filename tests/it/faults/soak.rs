//! Fault plans drawn at random, one after the other, for as long as asked:
//! `tests/soak`. Each round is a cluster of three nodes under load and a few
//! faults, drawn from the round's seed; a seed that failed is run again by it.

use std::ops::AddAssign;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use tokio::time::sleep;

use crate::harness::load::{Load, Report};
use crate::harness::proxy::Fault;
use crate::harness::{Cluster, Setup};

const NODES: usize = 3;
/// Longer than the lease of a node that stands still.
const BEYOND_A_LEASE: Duration = Duration::from_secs(5);
/// Longer than a node needs to take Redis for lost.
const BEYOND_A_CALL: Duration = Duration::from_secs(6);
/// Shorter than a sender waits for its ack.
const A_WHILE: Duration = Duration::from_secs(3);
/// Messages of each sender after the last fault.
const AFTER: usize = 10;

/// What can happen in a round, by whom it befalls.
#[derive(Clone, Copy, Debug)]
enum Blow {
    NodesKilled([bool; NODES]),
    NodeSleeps(usize),
    RollingStop,
    RedisFrozen,
    RedisKilled,
    RedisDeaf,
    RedisSlow,
    PostgresFrozen,
    PostgresCrashed,
    PostgresSlow,
    CutFromRedis(usize),
    CutFromPostgres(usize),
    CutFromBoth(usize),
}

fn draw(dice: &mut StdRng) -> Blow {
    let node = dice.random_range(0..NODES);
    let mut killed = [true; NODES];
    killed[dice.random_range(1..=NODES)..].fill(false);
    killed.shuffle(dice);
    let blows = [
        Blow::NodesKilled(killed),
        Blow::NodeSleeps(node),
        Blow::RollingStop,
        Blow::RedisFrozen,
        Blow::RedisKilled,
        Blow::RedisDeaf,
        Blow::RedisSlow,
        Blow::PostgresFrozen,
        Blow::PostgresCrashed,
        Blow::PostgresSlow,
        Blow::CutFromRedis(node),
        Blow::CutFromPostgres(node),
        Blow::CutFromBoth(node),
    ];
    *blows.choose(dice).expect("some")
}

/// What the rounds have come to.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    rounds: u32,
    accepted: usize,
    delivered: usize,
    duplicates: usize,
    recoveries: usize,
}

impl AddAssign<Report> for Totals {
    fn add_assign(&mut self, report: Report) {
        self.accepted += report.messages;
        self.delivered += report.deliveries;
        self.duplicates += report.repeats;
        self.recoveries += report.returns;
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rounds, accepted, delivered, duplicates, recoveries } = self;
        write!(
            f,
            "{rounds} rounds, {accepted} messages accepted, {delivered} delivered, \
             {duplicates} duplicates, {recoveries} recoveries"
        )
    }
}

/// Says what happens, and how far it is.
struct Board {
    bar: ProgressBar,
    totals: Totals,
}

impl Board {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}");
        bar.set_style(style.expect("a template"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, totals: Totals::default() }
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| println!("{text}"));
    }

    fn show(&self, load: &Load) {
        let mut totals = self.totals;
        totals += load.so_far();
        self.bar.set_message(totals.to_string());
    }

    async fn pass(&self, load: &Load, duration: Duration) {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.show(load);
            sleep(Duration::from_millis(200).min(until - Instant::now())).await;
        }
    }
}

async fn round(seed: u64, board: &Board) -> Report {
    let mut dice = StdRng::seed_from_u64(seed);
    let setup = Setup::new(NODES).set("LEASE_GRACE_SECONDS", 15).behind_proxies();
    let setup = setup.behind_postgres_proxies().on_its_own_postgres();
    let mut cluster = setup.start_processes().await;
    let mut load = Load::start(&cluster).await;
    let blows = dice.random_range(1..=3);
    let leaves_before = dice.random_range(0..blows);
    for number in 0..blows {
        let calm = Duration::from_millis(dice.random_range(100..1_500));
        board.pass(&load, calm).await;
        if number == leaves_before {
            board.say("  one peer leaves");
            load.one_leaves().await;
        }
        let blow = draw(&mut dice);
        board.say(&format!("  {blow:?}"));
        strike(blow, &mut cluster, &load, board).await;
    }
    load.until_accepted(AFTER).await;
    board.show(&load);
    load.finish(&cluster).await
}

async fn strike(blow: Blow, cluster: &mut Cluster, load: &Load, board: &Board) {
    match blow {
        Blow::NodesKilled(killed) => {
            let killed: Vec<usize> = (0..NODES).filter(|node| killed[*node]).collect();
            for node in &killed {
                cluster.processes[*node].kill9().await;
            }
            for node in &killed {
                cluster.processes[*node].start_again().await;
            }
        }
        Blow::NodeSleeps(node) => {
            cluster.processes[node].freeze();
            board.pass(load, BEYOND_A_LEASE).await;
            cluster.processes[node].thaw();
        }
        Blow::RollingStop => {
            for node in 0..NODES {
                let ended = cluster.processes[node].sigterm().await;
                assert_eq!(ended.code(), Some(0), "node {node} stops in time");
                cluster.processes[node].start_again().await;
            }
        }
        Blow::RedisFrozen => {
            cluster.redis.freeze();
            board.pass(load, BEYOND_A_CALL).await;
            cluster.redis.thaw();
        }
        Blow::RedisKilled => {
            cluster.redis.kill();
            board.pass(load, A_WHILE).await;
            cluster.redis.start_again();
        }
        Blow::RedisDeaf => {
            on_each(&cluster.proxies, Fault::Swallow, BEYOND_A_CALL, load, board).await
        }
        Blow::RedisSlow => {
            let slow = Fault::Delay(Duration::from_millis(100));
            on_each(&cluster.proxies, slow, A_WHILE, load, board).await;
        }
        Blow::PostgresFrozen => {
            let frozen = cluster.freeze_postgres();
            board.pass(load, A_WHILE).await;
            drop(frozen);
        }
        Blow::PostgresCrashed => cluster.crash_postgres(),
        Blow::PostgresSlow => {
            let slow = Fault::Delay(Duration::from_millis(50));
            on_each(&cluster.postgres_proxies, slow, A_WHILE, load, board).await;
        }
        Blow::CutFromRedis(node) => {
            on_each(&cluster.proxies[node..=node], Fault::Cut, BEYOND_A_CALL, load, board).await;
        }
        Blow::CutFromPostgres(node) => {
            let proxies = &cluster.postgres_proxies[node..=node];
            on_each(proxies, Fault::Cut, A_WHILE, load, board).await;
        }
        Blow::CutFromBoth(node) => {
            cluster.proxies[node].set(Fault::Cut);
            let proxies = &cluster.postgres_proxies[node..=node];
            on_each(proxies, Fault::Cut, BEYOND_A_LEASE, load, board).await;
            cluster.proxies[node].set(Fault::Pass);
        }
    }
}

async fn on_each(
    proxies: &[crate::harness::proxy::Proxy],
    fault: Fault,
    duration: Duration,
    load: &Load,
    board: &Board,
) {
    proxies.iter().for_each(|proxy| proxy.set(fault));
    board.pass(load, duration).await;
    proxies.iter().for_each(|proxy| proxy.set(Fault::Pass));
}

fn from_env<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs for as long as it is told: tests/soak"]
async fn soak() {
    let lasts = Duration::from_secs(from_env("SOAK_SECONDS").unwrap_or(60));
    let first: u64 = from_env("SOAK_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    let (began, mut board, mut failed) = (Instant::now(), Board::new(), Vec::new());
    for seed in first.. {
        board.say(&format!("round {}: seed {seed}", board.totals.rounds + 1));
        let outcome = AssertUnwindSafe(round(seed, &board)).catch_unwind().await;
        board.totals.rounds += 1;
        match outcome {
            Ok(report) => {
                board.totals += report;
                board.say(&format!("  held: {report}"));
            }
            Err(_) => {
                board.say(&format!("  BROKEN; tests/soak 1 {seed} runs it again"));
                failed.push(seed);
            }
        }
        if began.elapsed() >= lasts {
            break;
        }
    }
    board.bar.finish_and_clear();
    let verdict = if failed.is_empty() { "every promise held" } else { "BROKEN" };
    println!("{verdict}: {} in {:.0?}; failed seeds {failed:?}", board.totals, began.elapsed());
    assert!(failed.is_empty(), "seeds {failed:?}");
}
