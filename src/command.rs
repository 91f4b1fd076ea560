//! The root of the command line: what can be typed, and who runs it.
//!
//! The program calls it, and nobody else does: commands live in [`crate::cli`]
//! and `lab`, and know nothing of each other's arguments.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};

use crate::claude::{self, ClaudeCommand};
use crate::cli::{
    account, audit, config, doctor, health, invite, member, mesh, migrate, output, peer, queue,
    report_usage, serve, top,
};
use crate::config::{Config, ConfigErrors, Env, LogConfig, process_env};
use crate::lab::{bench, cluster, demo};

mod help;

/// Release and commit.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("CLAUDEMESH_COMMIT"), ")");

/// The variable by which a shell asks what a line may go on with.
const COMPLETES: &str = "CLAUDEMESH_COMPLETE";

/// The program's arguments.
#[derive(Debug, Parser)]
#[command(
    name = "claudemesh-broker",
    version = VERSION,
    about = "A message broker for meshes of AI coding sessions: it routes what it cannot read",
    after_help = help::ROOT,
    max_term_width = 100
)]
pub struct Cli {
    /// Print one JSON object instead of text, for scripts
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do; to serve when there is none.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the broker (the default)
    #[command(after_help = help::SERVE)]
    Serve,
    /// Watch four peers talk through a broker of their own, then clean up
    #[command(after_help = help::DEMO)]
    Demo,
    /// Show every setting: its value, where that comes from, what it means
    #[command(after_help = help::CONFIG)]
    Config,
    /// Check port, data, clock, database and limits, and say what to do
    #[command(after_help = help::DOCTOR)]
    Doctor,
    /// Ask a broker whether it is well; exit code 0 when it is
    #[command(after_help = help::HEALTH)]
    Health(health::HealthArgs),
    /// Bring the database's schema up to date
    #[command(after_help = help::MIGRATE)]
    Migrate(migrate::MigrateArgs),
    /// Create, list, show, set and archive meshes
    #[command(subcommand, after_help = help::MESH)]
    Mesh(mesh::MeshCommand),
    /// Create, list and revoke invites
    #[command(subcommand, after_help = help::INVITE)]
    Invite(invite::InviteCommand),
    /// List members; ban them, change their role and grants
    #[command(subcommand, after_help = help::MEMBER)]
    Member(member::MemberCommand),
    /// Make accounts, by which people sign in; print tokens; shut out
    #[command(subcommand, after_help = help::ACCOUNT)]
    Account(account::AccountCommand),
    /// Read, verify and export a mesh's audit chain
    #[command(subcommand, after_help = help::AUDIT)]
    Audit(audit::AuditCommand),
    /// Watch nodes, meshes and peers of a broker that runs, live
    #[command(after_help = help::TOP)]
    Top(top::TopArgs),
    /// See what waits for delivery
    #[command(subcommand, after_help = help::QUEUE)]
    Queue(queue::QueueCommand),
    /// Join a mesh and talk in it from this terminal
    #[command(subcommand, after_help = help::PEER)]
    Peer(peer::PeerCommand),
    /// Be a peer in a coding session: Claude Code first, Codex second
    #[command(subcommand, after_help = help::CLAUDE)]
    Claude(ClaudeCommand),
    /// Measure how fast a broker is, and check that all arrives
    #[command(after_help = help::BENCH)]
    Bench(Box<bench::BenchArgs>),
    /// Run Postgres, Redis and several nodes on this machine
    #[command(subcommand, after_help = help::CLUSTER)]
    Cluster(cluster::ClusterCommand),
    /// Print a completion script for a shell
    #[command(after_help = help::COMPLETIONS)]
    Completions {
        /// For which shell
        shell: Shell,
    },
}

impl Cli {
    /// Parses arguments, the program's name first. When there is nothing to
    /// run (help, a mistake) that is said and the exit code is the error.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, ExitCode> {
        let args: Vec<OsString> = args.into_iter().collect();
        // The text is asked, since nothing has been parsed when parsing fails.
        let json = args.iter().any(|arg| arg == "--json");
        let is_hook = claude::is_hook(args.get(1..).unwrap_or_default());
        let matches = help::grouped(Self::command()).try_get_matches_from(args);
        matches.and_then(|matches| Self::from_arg_matches(&matches)).map_err(|error| {
            let code = report_usage(json, &error);
            // A host takes the code of a wrong command for an order to stop its turn.
            if is_hook { ExitCode::SUCCESS } else { code }
        })
    }

    /// Whether the program's own log is set up: where another program reads its every
    /// word, and calls it many times an hour, it is not.
    #[must_use]
    pub fn logs(&self) -> bool {
        !matches!(self.command, Some(Command::Claude(ClaudeCommand::Hook(_))))
    }

    /// How this command logs: `serve` as configured, all others only what
    /// is wrong, unless `LOG` or `RUST_LOG` asks for more.
    pub fn log_config(&self, log: &LogConfig, env: Env<'_>) -> LogConfig {
        let mut log = log.clone();
        let serves = matches!(self.command, None | Some(Command::Serve));
        let asked = ["LOG", "RUST_LOG"]
            .iter()
            .any(|name| env(name).is_some_and(|text| !text.trim().is_empty()));
        if !serves && !asked {
            "warn".clone_into(&mut log.filter);
        }
        log
    }

    /// Answers a shell that completes a line, if one asks: then there is nothing to run.
    pub fn complete(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
        let folder = std::env::current_dir().ok();
        let shells = CompleteEnv::with_factory(Self::command).var(COMPLETES);
        match shells.try_complete(args, folder.as_deref()) {
            Ok(false) => None,
            Ok(true) => Some(ExitCode::SUCCESS),
            // A shell shows nothing of what goes wrong while a line is typed.
            Err(_) => Some(ExitCode::FAILURE),
        }
    }

    /// Runs the command.
    pub async fn run(self, config: Result<Config, ConfigErrors>) -> anyhow::Result<ExitCode> {
        let json = self.json;
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => serve::run(json, config?).await,
            Command::Demo => demo::run(json, &config?).await,
            Command::Config => config::run(json, &process_env),
            Command::Doctor => doctor::run(json, config).await,
            Command::Health(args) => health::run(&args, json, config).await,
            Command::Migrate(args) => migrate::run(&args, json, &config?).await,
            Command::Mesh(command) => mesh::run(command, json, &config?).await,
            Command::Invite(command) => invite::run(command, json, &config?).await,
            Command::Member(command) => member::run(command, json, &config?).await,
            Command::Account(command) => account::run(command, json, &config?).await,
            Command::Audit(command) => audit::run(command, json, &config?).await,
            Command::Top(args) => top::run(args, json, config, &process_env).await,
            Command::Queue(command) => queue::run(command, json, &config?).await,
            Command::Peer(command) => peer::run(command, json, &config?).await,
            Command::Claude(command) => claude::run(command, json).await,
            Command::Bench(args) => bench::run(*args, json, &config?).await,
            Command::Cluster(command) => cluster::run(command, json).await,
            Command::Completions { shell } => completions(shell),
        }
    }
}

fn completions(shell: Shell) -> anyhow::Result<ExitCode> {
    let (mut script, shell, name) = (Vec::new(), shell.to_string(), "claudemesh-broker");
    let completer = Shells::builtins();
    let completer = completer.completer(&shell).context("that shell is not known")?;
    completer.write_registration(COMPLETES, name, name, name, &mut script)?;
    output::raw(&script)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Cli {
        let args = ["claudemesh-broker"].iter().chain(args).map(OsString::from);
        Cli::from_args(args).expect("valid arguments")
    }

    #[test]
    fn the_definition_is_consistent() {
        help::grouped(Cli::command()).debug_assert();
    }

    #[test]
    fn nothing_typed_means_serve() {
        assert!(parse(&[]).command.is_none());
        assert!(matches!(parse(&["serve"]).command, Some(Command::Serve)));
    }

    #[test]
    fn json_is_taken_before_and_after_the_command() {
        assert!(parse(&["--json"]).json);
        assert!(parse(&["--json", "mesh", "list"]).json);
        assert!(parse(&["mesh", "list", "--json"]).json);
        assert!(!parse(&["mesh", "list"]).json);
    }

    #[test]
    fn only_serve_logs_what_is_not_asked_for() {
        let config = LogConfig { format: None, filter: "info".to_owned() };
        let filter = |args: &[&str], set: bool| {
            let env = |name: &str| (set && name == "LOG").then(|| "info".to_owned());
            parse(args).log_config(&config, &env).filter
        };
        assert_eq!(filter(&[], false), "info");
        assert_eq!(filter(&["serve"], false), "info");
        assert_eq!(filter(&["mesh", "list"], false), "warn");
        assert_eq!(filter(&["mesh", "list"], true), "info");
    }
}
