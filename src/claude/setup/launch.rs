//! `claude launch`: starts a session that is a peer from its first moment, with the
//! channel on.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use clap::Args;

use super::copies;
use super::host::{Host, HostKind, is_mark};
use super::install::here;
use super::places::Places;
use super::servers::{self, Entry};
use super::version::Version;
use crate::claude::variables;
use crate::keyring;
use crate::output::Failure;
use crate::private;

/// The host's flag for channels that are not on its maker's list. It takes every word up
/// to the next flag, so nothing may follow it that is meant for something else.
const CHANNEL_FLAG: &str = "--dangerously-load-development-channels";
/// The first release with channels.
const CHANNELS_FROM: Version = Version(2, 1, 80);

/// Arguments of `claude launch`.
#[derive(Debug, Args)]
pub(crate) struct LaunchArgs {
    /// Which peer, when there are several: NAME or MESH/NAME
    name: Option<String>,
    /// Without the channel, and so without the host's question about it: an idle session
    /// is woken by other ways
    #[arg(long)]
    no_channel: bool,
    /// What the host gets, after `--`: a prompt, its flags
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// Runs it: where it can, this process becomes the host.
pub(crate) async fn run(args: &LaunchArgs) -> anyhow::Result<ExitCode> {
    let places = here()?;
    let kept = keyring::choose(&private::data_dir_of_user()?, args.name.as_deref(), None)?;
    kept.file.identity()?;
    let host = Host::find(&places, HostKind::Claude).await.ok_or_else(|| {
        let message = "the program claude does not answer; install Claude Code, or put it on the \
                       path";
        Failure::new("host_not_found", message)
    })?;
    let channel = channel(&places)?;
    // A release that does not say its number is treated as an old one.
    let has_channels = host.version.is_some_and(|version| version >= CHANNELS_FROM);
    let channel = channel.filter(|_| has_channels && !args.no_channel);
    let mut command = Command::new(&host.program);
    command.args(arguments(channel.as_deref(), &args.args));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_mark) {
            command.env_remove(name);
        }
    }
    command.env(variables::PEER, kept.file.full_name());
    // Where nobody named one, what the environment says stays.
    if args.name.is_some() {
        command.env(variables::DISPLAY_NAME, &kept.file.name);
    }
    match &channel {
        Some(_) => command.env(variables::CHANNEL, "1"),
        None => command.env_remove(variables::CHANNEL),
    };
    become_host(command)
}

/// How the host names our channel; fails where our server is not registered.
fn channel(places: &Places) -> Result<Option<String>, Failure> {
    if let Some(plugin) = copies::plugin(places) {
        return Ok(Some(format!("plugin:{plugin}")));
    }
    let entries = [
        servers::of_project(&places.claude_state, &places.project),
        servers::in_json(&places.project_servers()),
        servers::in_json(&places.claude_state),
    ];
    // The first that is there is the one that a session takes.
    match entries.into_iter().find(|entry| *entry != Entry::Missing) {
        Some(Entry::Ours(_)) => Ok(Some(format!("server:{}", super::description::SERVER))),
        // The host may read what we cannot; the session then has no channel.
        Some(Entry::Unreadable(_)) => Ok(None),
        Some(Entry::Foreign(line)) => {
            let message = format!(
                "the server claudemesh is another program's here ({line}); see claudemesh-broker \
                 claude doctor"
            );
            Err(Failure::new("server_name_taken", message))
        }
        Some(Entry::Missing) | None => {
            let message = "sessions do not know the server yet; run claudemesh-broker claude \
                           install first";
            Err(Failure::new("not_installed", message))
        }
    }
}

/// What the host gets. The channel's flag comes behind everything but what follows `--`,
/// so that it swallows nothing.
fn arguments(channel: Option<&str>, given: &[OsString]) -> Vec<OsString> {
    let Some(channel) = channel else { return given.to_vec() };
    let end = given.iter().position(|arg| arg == "--").unwrap_or(given.len());
    let (flags, literal) = given.split_at(end);
    let ours = [CHANNEL_FLAG.into(), channel.into()];
    flags.iter().cloned().chain(ours).chain(literal.iter().cloned()).collect()
}

/// This process is the host's from here on, as is its terminal.
#[cfg(unix)]
fn become_host(mut command: Command) -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    let program = command.get_program().to_string_lossy().into_owned();
    let error = command.exec();
    let message = format!("cannot start {program}: {error}");
    Err(Failure::new("host_not_started", message).into())
}

/// Waits for the host, and ends as it does.
#[cfg(not(unix))]
fn become_host(mut command: Command) -> anyhow::Result<ExitCode> {
    let code = command.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channels_flag_swallows_neither_prompt_nor_flag() {
        let cases: [(&[&str], &[&str]); 5] = [
            (&[], &[CHANNEL_FLAG, "server:x"]),
            (&["fix it"], &["fix it", CHANNEL_FLAG, "server:x"]),
            (&["--continue", "fix it"], &["--continue", "fix it", CHANNEL_FLAG, "server:x"]),
            (&["--", "fix it"], &[CHANNEL_FLAG, "server:x", "--", "fix it"]),
            (&["-r", "--", "-x"], &["-r", CHANNEL_FLAG, "server:x", "--", "-x"]),
        ];
        for (given, made) in cases {
            let given: Vec<OsString> = given.iter().map(OsString::from).collect();
            assert_eq!(arguments(Some("server:x"), &given), made);
            assert_eq!(arguments(None, &given), given);
        }
    }
}
