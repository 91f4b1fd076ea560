//! `claudemesh-broker cluster`: a cluster on this machine, without containers.
//!
//! `up` starts Postgres and Redis from the packages that are installed, with
//! their data in one folder, then as many nodes as wanted: this program, as
//! children. What ends by itself is started again, as a service manager would
//! do. Ctrl-C or SIGTERM takes all of it down: the nodes first, then Redis,
//! then Postgres.
//!
//! All children are leaders of their own process groups, so that a Ctrl-C on
//! the terminal reaches the parent only and the order holds.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::fleet::{Fleet, Service};
use self::folder::{Claimed, Folder};
use self::node::Node;
use self::postgres::Postgres;
use self::redis::Redis;
use crate::app;
use crate::cli::serve::Signals;
use crate::cli::{Failure, output};
use crate::config::{Config, process_env};

mod files;
mod fleet;
mod folder;
mod node;
mod ports;
mod postgres;
mod process;
mod programs;
mod redis;

/// The port of the first node, unless told.
const FIRST_PORT: u16 = 7900;
/// What a node may take beyond its drain.
const STOPPING_EXTRA: Duration = Duration::from_secs(10);
/// How long `down` waits for an `up` that runs, beyond the drain of its nodes.
const DOWN_PATIENCE: Duration = Duration::from_secs(60);

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Start Postgres, Redis and several nodes, and run them until Ctrl-C
    Up(UpArgs),
    /// Stop the cluster of a folder from elsewhere, or what a crash left of it
    Down(FolderArgs),
}

/// Which folder.
#[derive(Debug, Args)]
pub(crate) struct FolderArgs {
    /// The cluster's folder; by default `cluster` in the data folder
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// What to start.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    folder: FolderArgs,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    nodes: u8,
    /// The first node's port, the others follow; 0 takes free ones. By default
    /// 7900 and up, leaving out what is taken
    #[arg(long)]
    port: Option<u16>,
}

pub(crate) async fn run(command: ClusterCommand, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        ClusterCommand::Up(args) => up(&args, json).await,
        ClusterCommand::Down(args) => down(&args, json).await,
    }
}

async fn up(args: &UpArgs, json: bool) -> anyhow::Result<ExitCode> {
    // A terminal that closes is one of them: it must not leave servers behind.
    let mut signals = Signals::listen()?;
    let folder = Folder::claim(args.folder.dir.as_deref())?;
    let stop = CancellationToken::new();
    let hurry = CancellationToken::new();
    let listening = tokio::spawn({
        let (stop, hurry) = (stop.clone(), hurry.clone());
        async move {
            signals.next().await;
            stop.cancel();
            signals.interrupted().await;
            hurry.cancel();
        }
    });
    let mut fleet = Fleet::new(folder, stop.clone());
    let outcome = match start(args, &mut fleet).await {
        Ok(config) => {
            let drain = Duration::from_millis(config.drain.drain_ms) + STOPPING_EXTRA;
            let shown = show(&fleet, json);
            if shown.is_ok() {
                fleet.supervise().await;
            }
            fleet.stop(drain, &hurry).await;
            shown
        }
        // A failure after a signal to stop is none.
        Err(_) if stop.is_cancelled() => {
            fleet.stop(STOPPING_EXTRA, &hurry).await;
            Ok(())
        }
        Err(error) => {
            fleet.stop(STOPPING_EXTRA, &hurry).await;
            Err(error)
        }
    };
    listening.abort();
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Starts everything, in the order in which one thing needs the other.
async fn start(args: &UpArgs, fleet: &mut Fleet) -> anyhow::Result<Config> {
    let folder = fleet.folder();
    let owner = programs::server_user()?;
    // Leftovers end before ports are chosen: they may have the ones that are wanted again.
    folder.end_leftovers().await?;
    let database = Postgres::find(folder, owner)?;
    let cache = Redis::find(folder, owner)?;
    database.prepare()?;
    cache.prepare()?;
    let env = node::environment(&database.url(), &cache.url());
    let config = Config::load(&|name| env.get(name).cloned().or_else(|| process_env(name)))?;
    let ports = ports::choose(&config, args.port, FIRST_PORT, args.nodes)?;
    let nodes = ports.into_iter().zip(1_u8..);
    let nodes: Vec<Node> =
        nodes.map(|(port, number)| Node::new(folder, number, port, owner, env.clone())).collect();

    fleet.start(Service::Postgres(database)).await?;
    fleet.start(Service::Redis(cache)).await?;
    app::open_store(&config).await?.database.close().await;
    for node in nodes {
        fleet.start(Service::Node(Box::new(node))).await?;
    }
    fleet.write_environment(&env)?;
    Ok(config)
}

fn show(fleet: &Fleet, json: bool) -> anyhow::Result<()> {
    let folder = fleet.folder();
    let (services, nodes) = (fleet.services(), fleet.nodes());
    if json {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|(running, url)| {
                json!({
                    "name": running.name, "pid": running.pid, "port": running.port, "url": url,
                    "log": folder.log_of(&running.name),
                })
            })
            .collect();
        return output::json(&json!({
            "status": "up",
            "dir": folder.path(),
            "pid": std::process::id(),
            "environment": folder.environment_file(),
            "postgres": services.first(),
            "redis": services.get(1),
            "nodes": nodes,
        }));
    }
    let rows = nodes.iter().map(|(running, url)| {
        let metrics = format!("http://localhost:{}/metrics", running.port);
        [running.name.clone(), url.clone(), metrics, running.pid.to_string()]
    });
    output::table(["node", "peers connect to", "metrics", "process"], rows)?;
    let servers = services.iter().map(|running| {
        format!("{} on port {} (process {})", running.name, running.port, running.pid)
    });
    output::line(&format!(
        "\nbehind them  {}\n\
         data, logs   {}\n\
         next, type   . {}; claudemesh-broker mesh create team\n\
         in another terminal. Ctrl-C here takes everything down.",
        servers.collect::<Vec<_>>().join(", "),
        folder.path().display(),
        output::shell_word(&folder.environment_file().display().to_string()),
    ))?;
    Ok(())
}

async fn down(args: &FolderArgs, json: bool) -> anyhow::Result<ExitCode> {
    let was_up = match Folder::look(args.dir.as_deref())? {
        Claimed::Here(folder) => folder.end_leftovers().await? > 0,
        Claimed::Elsewhere(running) => {
            let Some(supervisor) = running.supervisor() else {
                return Err(Failure::new(
                    "cluster_busy",
                    "the cluster of this folder is just starting; try again in a moment",
                )
                .into());
            };
            supervisor.signal(rustix::process::Signal::TERM);
            if !supervisor.wait(DOWN_PATIENCE).await {
                return Err(Failure::new(
                    "cluster_slow",
                    format!(
                        "the cluster still sends its peers away (process {}); look again later",
                        supervisor.pid
                    ),
                )
                .into());
            }
            true
        }
    };
    let text = match was_up {
        true => "The cluster is down; its data stays.",
        false => "No cluster was running there.",
    };
    output::answer(json, &json!({"status": "down", "wasUp": was_up}), text)?;
    Ok(ExitCode::SUCCESS)
}
