//! `claudemesh-broker bench`: how fast, how late, at what cost, and whether all
//! of it was right.
//!
//! Peers of the bench are real: sockets, signatures, boxes. What they send is
//! sealed before the clock starts; what they get is opened and checked while
//! it runs. A run in which anything was lost, doubled, out of order or
//! unreadable has failed, however fast it was, and the exit code says so.
//!
//! With `--floor` the same scenario also runs against the plainest relay on
//! the same socket library (`lab/relay.rs`), in turns with the broker, and the
//! figure that matters is the ratio of the two: it depends far less on the
//! machine, and on what else that machine does, than either of them.
//!
//! Measured are: throughput, from the start to the last delivery; latencies,
//! from the send to the delivery and to the ack, as histograms (at a fixed
//! `--rate` from when a message *should* have been sent, so that a broker that
//! stalls cannot hide what it made others wait); CPU and memory of the
//! broker's own process.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::relay;
use crate::cli::{Failure, listen, output};
use crate::config::Config;
use crate::limits;

mod args;
mod board;
mod churn;
mod connect;
mod crew;
mod failover;
mod features;
mod frames;
mod outcome;
mod peer;
mod process;
mod progress;
mod report;
mod stage;
mod surface;
mod text;
mod traffic;
mod wire;

use args::{Common, Feature, FeaturesArgs, Scenario, SessionState, Size, SurfaceArgs};
use features::Asking;
use outcome::{Outcome, median, round};
use progress::Progress;
use stage::{Cast, Stage};
use surface::Surfacing;
use traffic::{Pattern, Traffic};

/// Sessions of one member, where there are many: enrolling is not measured.
const SESSIONS_PER_MEMBER: usize = 10;
/// Rounds with `--floor`, if nothing else is asked for.
const FLOOR_ROUNDS: u32 = 3;

/// The arguments of `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

/// A scenario, ready to run.
struct Plan {
    name: &'static str,
    size: Size,
    work: Work,
    common: Common,
    /// The arguments, for the report.
    settings: Value,
}

enum Work {
    Traffic(Traffic),
    Connect { at_once: usize },
    Failover,
    Idle { seconds: u64 },
    Churn { cycles: u32, messages: u32 },
    Features(Asking),
    Surface(Surfacing),
}

/// Both runs of one round.
struct Round {
    broker: Outcome,
    floor: Option<Outcome>,
}

/// Runs a scenario. What it found is in the exit code; an error says why it could not run.
pub(crate) async fn run(args: BenchArgs, json: bool, config: &Config) -> anyhow::Result<ExitCode> {
    let plan = match args.scenario {
        Scenario::Relay => return relay::run().await,
        Scenario::Host(args) => return surface::host::run(args).await,
        scenario => plan(scenario)?,
    };
    listen::raise_open_files();
    let progress = Progress::new(json);
    let rounds = plan.common.rounds.unwrap_or(if plan.common.floor { FLOOR_ROUNDS } else { 1 });
    let mut done = Vec::new();
    for number in 0..rounds {
        let turn = |cast: &str| format!("{cast} {}/{rounds}", number + 1);
        let broker = |plan| measure(plan, Cast::Broker, config, &progress);
        let floor = |plan| measure(plan, Cast::Floor, config, &progress);
        // The two take turns in being first: the machine may slow down meanwhile.
        let (broker, floor) = if !plan.common.floor {
            progress.round(turn("broker"));
            (broker(&plan).await?, None)
        } else if number % 2 == 0 {
            progress.round(turn("broker"));
            let broker = broker(&plan).await?;
            progress.round(turn("floor"));
            (broker, Some(floor(&plan).await?))
        } else {
            progress.round(turn("floor"));
            let floor = floor(&plan).await?;
            progress.round(turn("broker"));
            (broker(&plan).await?, Some(floor))
        };
        done.push(Round { broker, floor });
    }
    drop(progress);
    conclude(&plan, &done, json)
}

fn conclude(plan: &Plan, rounds: &[Round], json: bool) -> anyhow::Result<ExitCode> {
    let ok = rounds.iter().all(|round| round.broker.checks.hold());
    let summary = summary(plan, rounds, ok);
    if let Some(path) = &plan.common.report {
        report::write(path, &summary, rounds)?;
    }
    if json {
        output::json(&summary)?;
    } else {
        output::raw(text::of(plan.name, &summary, rounds).as_bytes())?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(
    plan: &Plan,
    cast: Cast,
    config: &Config,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    progress.step("setting up");
    let common = &plan.common;
    let stage = Stage::set(cast, common, plan.size, config).await?;
    let measured = match &plan.work {
        Work::Traffic(traffic) => traffic::run(&stage, traffic, common, progress).await,
        Work::Connect { at_once } => connect::storm(&stage, *at_once, common, progress).await,
        Work::Failover => failover::run(&stage, common, progress).await,
        Work::Idle { seconds } => {
            connect::idle(&stage, Duration::from_secs(*seconds), common, progress).await
        }
        Work::Churn { cycles, messages } => {
            churn::run(&stage, *cycles, *messages, common, progress).await
        }
        Work::Features(asking) => features::run(&stage, *asking, cast, common, progress).await,
        Work::Surface(surfacing) => surface::run(&stage, surfacing, common, progress).await,
    };
    progress.step("cleaning up");
    stage.strike().await?;
    measured
}

fn summary(plan: &Plan, rounds: &[Round], ok: bool) -> Value {
    let per_second = rounds.iter().map(|round| round.broker.per_second()).collect();
    let mut summary = json!({
        "scenario": plan.name,
        "ok": ok,
        "settings": plan.settings,
        "unit": rounds.first().map(|round| round.broker.unit),
        "perSecond": round(median(per_second), 1),
        "rounds": rounds.iter().map(|round| json!({
            "broker": round.broker.to_json(),
            "floor": round.floor.as_ref().map(Outcome::to_json),
        })).collect::<Vec<_>>(),
    });
    let ratios = ratios(rounds);
    if !ratios.is_empty() {
        summary["ratio"] = json!({
            "of": if rounds[0].broker.unit == "sockets" { "bytesPerSocket" } else { "perSecond" },
            "median": round(median(ratios.clone()), 4),
            "rounds": ratios.iter().map(|ratio| round(*ratio, 4)).collect::<Vec<_>>(),
        });
    }
    summary
}

/// Broker to floor, of each pair: throughput, or memory where nothing flows.
fn ratios(rounds: &[Round]) -> Vec<f64> {
    let figure = |outcome: &Outcome| {
        let bytes = outcome.extra.get("bytesPerSocket").and_then(Value::as_f64);
        bytes.unwrap_or_else(|| outcome.per_second())
    };
    let pair =
        |round: &Round| Some(figure(&round.broker) / figure(round.floor.as_ref()?).max(1e-9));
    rounds.iter().filter_map(pair).collect()
}

fn plan(scenario: Scenario) -> anyhow::Result<Plan> {
    let size = |meshes: usize, peers: usize, sessions_per_member: usize| Size {
        meshes,
        peers,
        sessions_per_member,
    };
    let plan = match scenario {
        Scenario::Direct(args) => Plan {
            name: "direct",
            size: size(1, args.peers, 1),
            settings: json!({
                "peers": args.peers, "messages": args.messages, "pace": pace(&args.pace),
            }),
            work: traffic(Pattern::Direct, args.messages, args.pace),
            common: args.common,
        },
        Scenario::Fanout(args) => {
            Plan {
                name: "fanout",
                // Nobody gets what another session of its member sends.
                size: size(1, args.senders + args.receivers, 1),
                settings: json!({
                    "senders": args.senders, "receivers": args.receivers,
                    "messages": args.messages, "pace": pace(&args.pace), "sealed": args.sealed,
                }),
                work: traffic(
                    Pattern::Fanout { senders: args.senders, is_sealed: args.sealed },
                    args.messages,
                    args.pace,
                ),
                common: args.common,
            }
        }
        Scenario::Connect(args) => Plan {
            name: "connect",
            size: spread(args.sockets, args.meshes)?,
            settings: json!({
                "sockets": args.sockets, "meshes": args.meshes, "atOnce": args.at_once,
            }),
            work: Work::Connect { at_once: args.at_once },
            common: args.common,
        },
        Scenario::Failover(args) if args.common.floor => {
            return Err(usage("the floor is one node: failover has none"));
        }
        Scenario::Failover(args) => Plan {
            name: "failover",
            size: spread(args.sockets, args.meshes)?,
            settings: json!({"sockets": args.sockets, "meshes": args.meshes}),
            work: Work::Failover,
            common: args.common,
        },
        Scenario::Idle(args) => Plan {
            name: "idle",
            size: spread(args.sockets, args.meshes)?,
            settings: json!({
                "sockets": args.sockets, "meshes": args.meshes, "seconds": args.seconds,
            }),
            work: Work::Idle { seconds: args.seconds },
            common: args.common,
        },
        Scenario::Churn(args) if args.common.floor => {
            return Err(usage("the floor keeps nothing for a peer that is away: churn has none"));
        }
        Scenario::Churn(args) => Plan {
            name: "churn",
            size: size(1, args.peers, 1),
            settings: json!({
                "peers": args.peers, "cycles": args.cycles, "messages": args.messages,
            }),
            work: Work::Churn { cycles: args.cycles, messages: args.messages },
            common: args.common,
        },
        Scenario::Mixed(args) => Plan {
            name: "mixed",
            size: size(args.meshes, args.peers, 1),
            settings: json!({
                "meshes": args.meshes, "peers": args.peers, "messages": args.messages,
                "multicastEvery": args.multicast_every, "pace": pace(&args.pace),
            }),
            work: traffic(
                Pattern::Mixed { multicast_every: args.multicast_every },
                args.messages,
                args.pace,
            ),
            common: args.common,
        },
        Scenario::Features(args) if args.common.floor && args.feature != Feature::StateChange => {
            return Err(usage("the floor shares nothing: only state-change has one"));
        }
        Scenario::Features(args) => shared(args)?,
        Scenario::Surface(args) if args.common.floor => {
            return Err(usage("the floor has no coding sessions: surface has none"));
        }
        Scenario::Surface(args) => surfaced(args),
        Scenario::Relay | Scenario::Host(_) => anyhow::bail!("a part of a bench is no scenario"),
    };
    Ok(plan)
}

fn shared(args: FeaturesArgs) -> anyhow::Result<Plan> {
    let FeaturesArgs { feature, peers, meshes, requests, in_flight, bytes, rows, seconds, common } =
        args;
    let meshes = if feature == Feature::StateChange { 1 } else { meshes };
    let rows = match feature {
        Feature::Recall | Feature::Schedules => {
            rows_of_each(rows, meshes, limits::SHARED_ROWS_MAX)?
        }
        Feature::History => rows_of_each(rows, meshes, i64::MAX)?,
        Feature::SetState | Feature::GetState | Feature::StateChange => 0,
    };
    let size = Size { sessions_per_member: 1, ..spread(peers, meshes)? };
    Ok(Plan {
        name: "features",
        size,
        settings: json!({
            "feature": format!("{feature:?}"), "peers": peers, "meshes": meshes,
            "requests": requests, "inFlight": in_flight, "bytes": bytes, "rowsOfEachMesh": rows,
            "seconds": seconds,
        }),
        work: Work::Features(Asking { feature, requests, in_flight, bytes, rows, seconds }),
        common,
    })
}

fn surfaced(args: SurfaceArgs) -> Plan {
    let SurfaceArgs { states: asked, sessions, messages, pause, work, common } = args;
    let is_asked = |state: &SessionState| asked.is_empty() || asked.contains(state);
    let states: Vec<_> = SessionState::ALL.into_iter().filter(is_asked).collect();
    let settings = json!({
        "states": states.iter().map(|state| state.as_str()).collect::<Vec<_>>(),
        "sessions": sessions, "messages": messages, "pauseMs": pause,
        "toolMs": work.tool, "toolsOfATurn": work.turn,
    });
    let pause = Duration::from_millis(pause);
    let surfacing = Surfacing { states, sessions, messages, pause, work };
    let size = Size { meshes: 1, peers: surfacing.members(), sessions_per_member: 1 };
    Plan { name: "surface", size, settings, work: Work::Surface(surfacing), common }
}

/// What each mesh keeps, so that all together keep that many.
fn rows_of_each(rows: u32, meshes: usize, most: i64) -> anyhow::Result<u32> {
    let of_each = rows / u32::try_from(meshes)?.max(1);
    let is_possible = of_each > 0 && i64::from(of_each) <= most;
    let message = format!("{rows} rows in {meshes} meshes: each mesh keeps 1 to {most}");
    is_possible.then_some(of_each).ok_or_else(|| usage(message))
}

fn traffic(pattern: Pattern, messages: u32, pace: args::Pace) -> Work {
    Work::Traffic(Traffic { pattern, messages, pace })
}

fn pace(pace: &args::Pace) -> Value {
    let in_flight = pace.rate.is_none().then_some(pace.in_flight);
    json!({
        "bytes": pace.bytes, "inFlight": in_flight, "ratePerSecond": pace.rate,
        "idempotenceKeys": !pace.no_keys,
    })
}

fn usage(message: impl Into<String>) -> anyhow::Error {
    Failure::new("usage", message).into()
}

fn spread(sockets: usize, meshes: usize) -> anyhow::Result<Size> {
    if meshes == 0 || sockets == 0 || !sockets.is_multiple_of(meshes) {
        let message = format!("{sockets} sockets cannot be shared out among {meshes} meshes");
        return Err(usage(message));
    }
    let peers = sockets / meshes;
    Ok(Size { meshes, peers, sessions_per_member: SESSIONS_PER_MEMBER })
}
