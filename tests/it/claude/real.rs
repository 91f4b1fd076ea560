//! The last hop with the real program of the host: what a peer writes is in what its model
//! is asked. The model's side is a stand-in for its maker's API on this machine, so no
//! account is needed and nothing leaves it.
//!
//! The program is not ours to hand on, so these run when they are told where it is:
//! `CLAUDE_PROGRAM=/path/to/claude cargo test --all-features --test it claude::real -- --ignored`

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::program::{Answer, Place, Serving, ask_until, text};
use model::{Block, Model};

use super::setup::Machine;

mod model;

/// A machine with the real host, and two peers of one mesh that is served.
struct Scene {
    machine: Machine,
    model: Model,
    _broker: Serving,
    _place: Place,
}

impl Scene {
    async fn set() -> Self {
        let program = std::env::var("CLAUDE_PROGRAM").expect("CLAUDE_PROGRAM names the program");
        let machine = Machine::bare();
        let claude = machine.file("bin/claude");
        std::os::unix::fs::symlink(PathBuf::from(program), claude).expect("a link");
        let place = Place::new();
        let broker = Serving::start(&place);
        let with_port = |mut command: Command, args: &[&str]| {
            command.env("BROKER_PORT", broker.port.to_string());
            let answer = Answer::of(&command.output().expect("it starts"), args);
            assert_eq!(answer.code, 0, "{args:?}: {answer:?}");
            answer.object()
        };
        let args = ["mesh", "create", "team", "--json"];
        with_port(place.command(&args), &args);
        let args = ["invite", "create", "team", "--max-uses", "2", "--json"];
        let link = text(&with_port(place.command(&args), &args)["link"]);
        for name in ["ada", "bob"] {
            let args = ["peer", "join", &link, "--name", name, "--json"];
            with_port(machine.command(&args), &args);
        }
        machine.does(&["install", "--allow-reading"]);
        Self { machine, model: Model::start().await, _broker: broker, _place: place }
    }

    /// The host's command, as ada.
    fn host(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .env("HOME", self.machine.home())
            .env("PATH", format!("{}:/usr/bin:/bin", self.machine.file("bin").display()))
            .env("CLAUDEMESH_DATA_DIR", self.machine.file("data"))
            .env("CLAUDEMESH_PEER", "team/ada")
            .env("ANTHROPIC_BASE_URL", self.model.url())
            .env("ANTHROPIC_API_KEY", "made-up")
            .env("TERM", "xterm-256color")
            .current_dir(self.machine.file("project"));
        command
    }

    /// Bob writes to ada; the message's id.
    fn bob_writes(&self, words: &str, priority: &str) -> String {
        let args = ["peer", "send", "ada", words, "--priority", priority, "--as", "bob", "--json"];
        let output = self.machine.command(&args).output().expect("it starts");
        let answer = Answer::of(&output, &args);
        assert_eq!(answer.code, 0, "{answer:?}");
        text(&answer.object()["messageId"])
    }

    /// Ada's session, as its files tell.
    fn session(&self) -> Value {
        self.machine.does(&["status"])["sessions"][0].clone()
    }

    fn until_unread(&self, count: i64) {
        ask_until("the spool has the message", || self.session()["unread"] == json!(count));
    }

    fn until_connected(&self) {
        ask_until("the session is a peer", || self.session()["connected"] == json!(true));
    }
}

/// A host at a terminal of its own; killed when dropped.
struct AtTerminal(Child);

impl Drop for AtTerminal {
    fn drop(&mut self) {
        // Its terminal goes, and it with it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the host's program: CLAUDE_PROGRAM"]
async fn a_busy_session_is_shown_what_is_urgent_between_tools_and_the_rest_at_the_end() {
    let scene = Scene::set().await;
    let args = ["-p", "do something", "--allowedTools", "Bash"];
    let mut host = scene.host("claude", &args);
    let host = host.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");

    let first = scene.model.asked().await;
    assert!(first.says("do something"));
    scene.until_connected();
    scene.bob_writes("MARK-NOW", "now");
    scene.until_unread(1);
    first.answer(Block::tool("Bash", json!({"command": "true", "description": "wait"})));

    let second = scene.model.asked().await;
    assert!(second.says("MARK-NOW"), "between tools");
    scene.until_unread(0);
    scene.bob_writes("MARK-LOW", "low");
    the_rest_waits(&scene);
    second.answer(Block::text("done"));

    let third = scene.model.asked().await;
    assert!(third.says("MARK-LOW"), "at the end of the turn");
    assert_eq!(third.count("MARK-NOW"), 1, "once");
    third.answer(Block::text("done"));
    let ended = host.wait_with_output().expect("it ends");
    assert!(ended.status.success(), "{ended:?}");
}

/// What is not urgent waits at the broker while a session works, or in its spool.
fn the_rest_waits(scene: &Scene) {
    let unread = scene.session()["unread"].clone();
    assert!(unread == json!(0) || unread == json!(1), "{unread}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the host's program: CLAUDE_PROGRAM"]
async fn an_idle_session_without_the_channel_is_woken_and_has_its_mail() {
    let scene = Scene::set().await;
    let state = scene.machine.file(".claude.json");
    let mut settings = scene.machine.value(".claude.json");
    let project = std::fs::canonicalize(scene.machine.file("project")).expect("there");
    let accepted = json!({"hasTrustDialogAccepted": true, "hasCompletedProjectOnboarding": true});
    settings["hasCompletedOnboarding"] = json!(true);
    settings["theme"] = json!("dark");
    settings["customApiKeyResponses"] = json!({"approved": ["made-up"], "rejected": []});
    settings["projects"] = json!({(project.to_string_lossy()): accepted});
    std::fs::write(state, settings.to_string()).expect("written");

    let line = "stty cols 120 rows 40; exec claude";
    let mut host = scene.host("script", &["-qfec", line, "/dev/null"]);
    let host = host.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut host = AtTerminal(host.spawn().expect("it starts"));
    scene.until_connected();
    scene.bob_writes("MARK-IDLE", "next");

    // The bell itself has no word of the message: the hook of the turn that it begins has.
    let woken = scene.model.asked().await;
    assert!(woken.says("bob") && woken.says("MARK-IDLE"), "the model has what was written");
    woken.answer(Block::text("done"));
    scene.until_unread(0);
    // The terminal's end is the host's.
    let _ = host.0.stdin.take().map(|mut stdin| stdin.write_all(b"\x04\x04"));
}
