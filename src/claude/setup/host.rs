//! A host's own program: where it is, which release, and what it is asked to do.
//!
//! Files that a host rewrites while it runs are changed by its own program only.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::description::{SERVER, SERVER_ARGS};
use super::places::Places;
use super::version::Version;

/// A program that takes longer hangs: it starts in a second.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of what it says that are shown.
const SAID_MAX: usize = 400;

/// Variables by which a host marks what it starts. A host that is started with them
/// takes itself for a part of another session.
const MARKS: [&str; 8] = [
    "CLAUDECODE",
    "CLAUDE_CODE_CHILD_NOTES_DIR",
    "CLAUDE_CODE_CHILD_SESSION",
    "CLAUDE_CODE_LAUNCHED_BY_SESSION_IDS",
    "CLAUDE_CODE_SESSION_ATTENDED",
    "CLAUDE_CODE_SESSION_ID",
    "CLAUDE_ENV_FILE",
    "CLAUDE_PID",
];
/// The beginning of those that name, and open, another session's inbox.
const MARKS_PREFIX: &str = "CLAUDE_CODE_MESSAGING_";

/// Which host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostKind {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
}

impl HostKind {
    /// The name of its program.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
        }
    }
}

/// A host that is there, and answers.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Its program.
    pub(crate) program: PathBuf,
    /// Its release, if it says one.
    pub(crate) version: Option<Version>,
}

impl Host {
    /// Looks for the program and asks for its release; none where it does not answer.
    pub(crate) async fn find(places: &Places, kind: HostKind) -> Option<Self> {
        let program = places.find_program(kind.program())?;
        let said = run(&program, &["--version"]).await.ok()?;
        Some(Self { program, version: Version::find(&said) })
    }

    /// Registers our server for this user.
    pub(crate) async fn add_server(&self, kind: HostKind, program: &str) -> Result<(), String> {
        run(&self.program, &add_args(kind, program)).await.map(drop)
    }

    /// Takes our server away.
    pub(crate) async fn remove_server(&self, kind: HostKind) -> Result<(), String> {
        run(&self.program, remove_args(kind)).await.map(drop)
    }
}

/// The arguments that register our server.
pub(crate) fn add_args(kind: HostKind, program: &str) -> Vec<&str> {
    let head: &[&str] = match kind {
        HostKind::Claude => {
            &["mcp", "add", "--scope", "user", "--transport", "stdio", SERVER, "--"]
        }
        HostKind::Codex => &["mcp", "add", SERVER, "--"],
    };
    head.iter().copied().chain([program]).chain(SERVER_ARGS).collect()
}

/// The arguments that take it away.
pub(crate) fn remove_args(kind: HostKind) -> &'static [&'static str] {
    match kind {
        HostKind::Claude => &["mcp", "remove", SERVER, "--scope", "user"],
        HostKind::Codex => &["mcp", "remove", SERVER],
    }
}

/// Whether a variable marks what a session starts.
pub(crate) fn is_mark(name: &str) -> bool {
    MARKS.contains(&name) || name.starts_with(MARKS_PREFIX)
}

/// Runs a host's program to its end; what it says, or why it did not do it.
async fn run(program: &Path, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_mark) {
            command.env_remove(name);
        }
    }
    let ended = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = ended
        .map_err(|_| format!("it did not end within {} s", PATIENCE.as_secs()))?
        .map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = if output.stderr.is_empty() { text(&output.stdout) } else { text(&output.stderr) };
    let said: String = said.chars().take(SAID_MAX).collect();
    Err(if said.is_empty() { output.status.to_string() } else { said })
}
