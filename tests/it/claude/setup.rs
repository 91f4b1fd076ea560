//! What a user does once: install, uninstall, doctor, launch, on a machine of its own with
//! stand-ins for the programs of hosts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::executable::write_program;
use crate::harness::program::{Answer, Place, text};

mod doctor;
mod install;
mod launch;
mod shapes;
mod status;

/// Claude Code as far as a shell can be it: it says its release, keeps servers in its own
/// file, and notes what it was started with.
const CLAUDE: &str = r#"#!/bin/sh
echo "$*" >> "$HOME/claude.calls"
env > "$HOME/claude.env"
state="${CLAUDE_CONFIG_DIR:-$HOME}/.claude.json"
case "$1 $2" in
"--version "*) echo "$(cat "$HOME/claude.release") (Claude Code)" ;;
"mcp add")
  if grep -q claudemesh "$state" 2>/dev/null; then echo "claudemesh already exists" >&2; exit 1; fi
  printf '{"mcpServers":{"claudemesh":{"type":"stdio","command":"%s","args":["claude","mcp"],"env":{}}}}' "$9" > "$state" ;;
"mcp remove") printf '{}' > "$state" ;;
*) for arg in "$@"; do echo "$arg"; done > "$HOME/claude.started" ;;
esac
"#;

/// Codex, likewise.
const CODEX: &str = r#"#!/bin/sh
echo "$*" >> "$HOME/codex.calls"
case "$1 $2" in
"--version "*) echo "codex-cli 0.171.0" ;;
"mcp add") printf '[mcp_servers.claudemesh]\ncommand = "%s"\nargs = ["claude", "mcp"]\n' "$5" >> "$HOME/.codex/config.toml" ;;
"mcp remove") : > "$HOME/.codex/config.toml" ;;
esac
"#;

/// A user's machine: a home, a project, and a folder of programs.
pub struct Machine {
    place: Place,
}

impl Machine {
    /// With neither host.
    pub fn bare() -> Self {
        let machine = Self { place: Place::new() };
        for folder in ["bin", "project"] {
            fs::create_dir(machine.home().join(folder)).expect("made");
        }
        machine
    }

    /// With Claude Code of a release.
    fn with_claude(release: &str) -> Self {
        let machine = Self::bare();
        machine.program("claude", CLAUDE);
        machine.write("claude.release", release);
        machine
    }

    fn program(&self, name: &str, script: &str) {
        write_program(&self.home().join("bin").join(name), script);
    }

    pub fn home(&self) -> &Path {
        self.place.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.home().join(name)
    }

    fn settings(&self) -> PathBuf {
        self.file(".claude/settings.json")
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, text).expect("written");
        path
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    pub fn value(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Every file below the home that a host reads, with what it says.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut folders = vec![self.home().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                if path.is_dir() {
                    folders.push(path);
                } else if !name.starts_with("claude.") && !name.starts_with("codex.") {
                    files.push((path.clone(), fs::read(&path).unwrap_or_default()));
                }
            }
        }
        files.sort();
        files
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        let bin = self.file("bin");
        command
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .env("CLAUDEMESH_DATA_DIR", self.file("data"))
            .current_dir(self.file("project"));
        command
    }

    /// `claude <args>`, however it ends.
    fn run(&self, args: &[&str]) -> Answer {
        let args = [&["claude"], args].concat();
        Answer::of(&self.command(&args).output().expect("the program starts"), &args)
    }

    /// `claude <args> --json`, which must work.
    pub fn does(&self, args: &[&str]) -> Value {
        let answer = self.run(&[args, &["--json"]].concat());
        assert_eq!(answer.code, 0, "{args:?}: {answer:?}");
        answer.object()
    }

    /// `claude <args> --json`, which must not; its code and its sentence.
    fn refuses(&self, args: &[&str]) -> (String, String) {
        self.run(&[args, &["--json"]].concat()).failure()
    }

    /// A peer that has joined some mesh, without a broker.
    fn joined(&self, mesh: &str, name: &str) {
        let secret = claudemesh_broker::auth::SecretKey::generate();
        let file = serde_json::json!({
            "meshId": "m", "meshSlug": mesh, "memberId": "member", "name": name,
            "brokerUrl": "ws://127.0.0.1:9/ws", "publicKey": secret.public_key(),
            "secretKey": secret.to_hex128(),
        });
        self.write(&format!("data/peers/{mesh}/{name}.json"), &file.to_string());
    }
}

/// The program under test, as the files of hosts name it.
const PROGRAM: &str = env!("CARGO_BIN_EXE_claudemesh-broker");

/// The steps of an answer that have this outcome, as one text.
fn steps(answer: &Value, outcome: &str) -> String {
    let steps = answer["steps"].as_array().expect("steps").iter();
    let of = steps.filter(|step| step["outcome"] == outcome).map(Value::to_string);
    of.collect::<Vec<_>>().join("\n")
}

/// The commands of the handlers of an event.
fn commands(settings: &Value, event: &str) -> Vec<String> {
    let groups = settings["hooks"][event].as_array().cloned().unwrap_or_default();
    let handlers =
        groups.iter().flat_map(|group| group["hooks"].as_array().cloned().unwrap_or_default());
    handlers.map(|handler| text(&handler["command"])).collect()
}
