//! What a mesh shares, as it is typed: state, memory, contexts, skills.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::program::{Answer, Place, Serving, text};

pub(super) struct Terminal {
    pub(super) place: Place,
    port: String,
}

impl Terminal {
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        command.env("BROKER_PORT", &self.port);
        command
    }

    pub(super) fn answers(&self, args: &[&str]) -> Answer {
        Answer::of(&self.command(args).output().expect("the program starts"), args)
    }

    pub(super) fn types(&self, args: &[&str]) -> Value {
        let answer = self.answers(&[args, &["--json"]].concat());
        assert_eq!(answer.code, 0, "{args:?}: {answer:?}");
        answer.object()
    }

    /// The code with which it fails.
    pub(super) fn fails(&self, args: &[&str]) -> String {
        self.answers(&[args, &["--json"]].concat()).failure().0
    }

    /// What people see.
    pub(super) fn shows(&self, args: &[&str]) -> String {
        let answer = self.answers(args);
        assert_eq!(answer.code, 0, "{args:?}: {answer:?}");
        answer.out
    }
}

/// A command of that peer.
pub(super) fn by<'a>(name: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [&["peer"], args, &["--as", name]].concat()
}

/// A broker with a mesh, in which ada and bob are.
pub(super) fn team() -> (Terminal, Serving) {
    let place = Place::new();
    let broker = Serving::start(&place);
    let terminal = Terminal { place, port: broker.port.to_string() };
    terminal.types(&["mesh", "create", "team"]);
    let invite = terminal.types(&["invite", "create", "team", "--max-uses", "2"]);
    for name in ["ada", "bob"] {
        terminal.types(&["peer", "join", &text(&invite["link"]), "--name", name]);
    }
    (terminal, broker)
}

#[test]
fn values_are_written_once_by_whom_they_meet() {
    let (terminal, _broker) = team();
    terminal.types(&by("ada", &["state", "set", "build", r#"{"ok":true}"#, "--if-version", "0"]));
    assert_eq!(
        terminal.fails(&by("ada", &["state", "set", "build", "2", "--if-version", "0"])),
        "conflict"
    );
    let entry = terminal.types(&by("ada", &["state", "get", "build"]));
    assert_eq!((&entry["value"], &entry["version"]), (&json!({ "ok": true }), &json!(1)));
    terminal.types(&by("ada", &["state", "set", "note", "plain words"]));
    terminal.types(&by("ada", &["state", "set", "number", "7", "--text"]));
    let listed = terminal.types(&["peer", "state", "list", "--as", "bob"]);
    let values: Vec<_> =
        listed["entries"].as_array().expect("rows").iter().map(|e| &e["value"]).collect();
    assert_eq!(values, [&json!({ "ok": true }), &json!("plain words"), &json!("7")]);
    assert_eq!(terminal.shows(&by("ada", &["state", "get", "note"])), "plain words\n");
    let table = terminal.shows(&by("ada", &["state", "list"]));
    assert!(table.contains("plain words") && table.contains("version"), "{table}");
    terminal.types(&by("ada", &["state", "delete", "note"]));
    assert_eq!(terminal.fails(&by("ada", &["state", "get", "note"])), "not_found");
}

#[test]
fn what_one_types_another_finds() {
    let (terminal, _broker) = team();
    let add = ["memory", "add", "the build uses bun", "--tag", "tooling"];
    let id = text(&terminal.types(&by("ada", &add))["id"]);
    let found = terminal.types(&by("bob", &["memory", "find", "builds", "tools"]));
    assert_eq!(found["memories"][0]["id"], json!(id));
    let table = terminal.shows(&by("bob", &["memory", "find", "bun"]));
    assert!(table.contains(&id) && table.contains("ada"), "{table}");
    terminal.types(&by("bob", &["memory", "forget", &id]));
    assert_eq!(terminal.types(&by("ada", &["memory", "find", "bun"]))["memories"], json!([]));

    let share = ["context", "share", "on the login page", "--file", "login.rs", "--tag", "ui"];
    terminal.types(&by("ada", &share));
    let found = terminal.types(&by("bob", &["context", "find", "LOGIN"]));
    assert_eq!(found["contexts"][0]["filesRead"], json!(["login.rs"]));
    assert!(terminal.shows(&by("bob", &["context", "list"])).contains("on the login page"));

    let file = terminal.place.path().join("deploy.md");
    std::fs::write(&file, "first this\nthen that\n").expect("writable");
    let file = file.to_string_lossy();
    let share = ["skill", "share", "deploy", &file, "--description", "how we deploy"];
    terminal.types(&by("ada", &share));
    assert_eq!(
        terminal.shows(&by("bob", &["skill", "get", "deploy"])),
        "first this\nthen that\n\n"
    );
    assert!(terminal.shows(&by("bob", &["skill", "list", "HOW"])).contains("how we deploy"));
    assert_eq!(terminal.fails(&by("bob", &["skill", "remove", "deploy"])), "forbidden");
    terminal.types(&by("ada", &["skill", "remove", "deploy"]));
    assert_eq!(terminal.fails(&by("ada", &["skill", "get", "deploy"])), "not_found");
}
