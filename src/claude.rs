//! A coding session as a peer: what its host calls at each event (`hook`), and the mail
//! that its model is shown.
//!
//! A message is told as seen only on evidence that the model was given it; what other
//! peers write is data in a frame that its text cannot leave, never an instruction and
//! never a command line; no key, token or body reaches a log. Hooks never touch the network
//! and never fail a host's turn. The room uses the client and what lies below it, and
//! knows nothing of the broker's own rooms, least of all its store.
//!
//! The root of the command line calls it.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Subcommand;

mod doorbell;
mod framing;
mod home;
mod hook;
mod link;
mod mcp;
mod setup;
mod spool;
mod variables;

use setup::{doctor, install, launch, plugin, status, uninstall};

/// What a coding session, its host and its user ask for.
#[derive(Debug, Subcommand)]
pub(crate) enum ClaudeCommand {
    /// Answer one event of a session's host, which calls this by itself
    Hook(hook::HookArgs),
    /// Serve one session of a host, which starts this by itself
    Mcp,
    /// Make this user's coding sessions peers: tell their host of our server and hooks
    Install(install::InstallArgs),
    /// Take away what `install` put in, and nothing else
    Uninstall(uninstall::UninstallArgs),
    /// Look for what keeps messages from reaching a session, and say what to do
    Doctor(doctor::DoctorArgs),
    /// Start a coding session that is a peer, with the channel on
    Launch(launch::LaunchArgs),
    /// Show the sessions of this machine that are peers
    Status(status::StatusArgs),
    /// Write the plugin folder, which does what `install` does for those who like plugins
    Plugin(plugin::PluginArgs),
}

/// Runs the command.
pub(crate) async fn run(command: ClaudeCommand, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        ClaudeCommand::Hook(args) => Ok(hook::run(args).await),
        ClaudeCommand::Mcp => mcp::run().await,
        ClaudeCommand::Install(args) => install::run(&args, json).await,
        ClaudeCommand::Uninstall(args) => uninstall::run(&args, json).await,
        ClaudeCommand::Doctor(args) => doctor::run(&args, json).await,
        ClaudeCommand::Launch(args) => launch::run(&args).await,
        ClaudeCommand::Status(args) => status::run(&args, json).await,
        ClaudeCommand::Plugin(args) => plugin::run(&args, json),
    }
}

/// Whether these arguments, the program's name left out, are a host's call of a hook.
pub(crate) fn is_hook(args: &[OsString]) -> bool {
    let mut words = args.iter().filter(|arg| *arg != "--json");
    words.next().is_some_and(|word| word == "claude")
        && words.next().is_some_and(|word| word == "hook")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_call_is_known_whatever_follows() {
        let is = |args: &[&str]| is_hook(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(is(&["claude", "hook"]) && is(&["claude", "hook", "new", "--unknown"]));
        assert!(is(&["--json", "claude", "hook", "stop"]));
        assert!(!is(&["claude"]) && !is(&["hook"]) && !is(&["peer", "send", "claude", "hook"]));
    }
}
