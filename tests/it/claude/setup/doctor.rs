//! What is off is said, with what to do about it.

use serde_json::{Value, json};

use crate::harness::program::{Answer, Serving};

use super::{Machine, PROGRAM};

/// The check of that name: how it is, what was found, what to do.
fn check(machine: &Machine, name: &str) -> (String, String) {
    let answer = machine.run(&["doctor", "--json"]);
    of(&answer, name)
}

fn of(answer: &Answer, name: &str) -> (String, String) {
    let object = answer.object();
    let checks = object["checks"].as_array().expect("checks");
    let found: Vec<&Value> = checks.iter().filter(|check| check["name"] == name).collect();
    let [check] = found[..] else { panic!("{name}: {object}") };
    let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(check["status"] == "ok", check.get("todo").is_none(), "{check}");
    (text("status"), format!("{} -> {}", text("found"), text("todo")))
}

fn is(machine: &Machine, name: &str, status: &str, words: &str) {
    let (found, text) = check(machine, name);
    assert_eq!(found, status, "{name}: {text}");
    assert!(text.contains(words), "{name}: {text}");
}

#[test]
fn all_is_well_after_the_two_commands() {
    let machine = Machine::with_claude("2.1.332");
    let place = crate::harness::program::Place::new();
    let broker = Serving::start(&place);
    machine.joined("team", "ada");
    let file = "data/peers/team/ada.json";
    let url = format!("ws://127.0.0.1:{}/ws", broker.port);
    machine.write(file, &machine.read(file).replace("ws://127.0.0.1:9/ws", &url));
    machine.does(&["install", "--allow-reading"]);
    let mut state = machine.value(".claude.json");
    let project = std::fs::canonicalize(machine.file("project")).expect("there");
    state["projects"] = json!({(project.to_string_lossy()): {"hasTrustDialogAccepted": true}});
    machine.write(".claude.json", &state.to_string());
    let answer = machine.run(&["doctor", "--json"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let object = answer.object();
    let odd = object["checks"].as_array().expect("checks").iter();
    let odd: Vec<&Value> = odd.filter(|check| check["status"] != "ok").collect();
    assert!(odd.is_empty(), "{odd:?}");
}

#[test]
fn a_machine_with_nothing_is_told_what_is_missing() {
    let machine = Machine::bare();
    let answer = machine.run(&["doctor", "--json"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert_eq!(answer.object()["ok"], false);
    is(&machine, "host", "fail", "does not answer");
    is(&machine, "server", "fail", "claudemesh-broker claude install");
    is(&machine, "hooks", "fail", "claudemesh-broker claude install");
    is(&machine, "peer", "fail", "claudemesh-broker peer join");
    let said = machine.run(&["doctor"]);
    assert!(said.out.contains("FAIL  host") && said.out.contains("-> "), "{said:?}");
}

#[test]
fn a_broker_that_is_away_and_several_peers_are_told() {
    let machine = Machine::with_claude("2.1.332");
    machine.joined("team", "ada");
    is(&machine, "broker", "fail", "ws://127.0.0.1:9/ws");
    is(&machine, "peer", "ok", "team/ada");
    machine.joined("team", "bob");
    is(&machine, "peer", "warn", "claude launch <name>");
    let mut command = machine.command(&["claude", "doctor", "--json"]);
    let output = command.env("CLAUDEMESH_PEER", "team/bob").output().expect("it starts");
    assert_eq!(of(&Answer::of(&output, &[]), "peer").0, "ok");
}

#[test]
fn hooks_that_are_switched_off_are_found_wherever_that_is_said() {
    for file in [
        ".claude/settings.json",
        "project/.claude/settings.json",
        "project/.claude/settings.local.json",
    ] {
        let machine = Machine::with_claude("2.1.332");
        machine.does(&["install"]);
        is(&machine, "switch", "ok", "not switched off");
        let mut settings: Value =
            serde_json::from_str(&machine.read(file)).unwrap_or_else(|_| json!({}));
        settings["disableAllHooks"] = json!(true);
        machine.write(file, &settings.to_string());
        is(&machine, "switch", "fail", "disableAllHooks");
    }
}

#[test]
fn a_folder_that_is_not_trusted_is_told_and_one_below_a_trusted_one_is_trusted() {
    let machine = Machine::with_claude("2.1.332");
    is(&machine, "trust", "warn", "accept the question");
    let home = std::fs::canonicalize(machine.home()).expect("there");
    let state = json!({"projects": {(home.to_string_lossy()): {"hasTrustDialogAccepted": true}}});
    machine.write(".claude.json", &state.to_string());
    is(&machine, "trust", "ok", "is trusted");
}

#[test]
fn two_copies_are_found() {
    let machine = Machine::with_claude("2.1.332");
    machine.does(&["install"]);
    is(&machine, "copies", "ok", "nothing else");
    let mut settings = machine.value(".claude/settings.json");
    settings["enabledPlugins"] = json!({"claudemesh@mine": true});
    machine.write(".claude/settings.json", &settings.to_string());
    is(&machine, "copies", "fail", "the plugin claudemesh@mine");
    let theirs = json!([{"hooks": [{"type": "command", "command": "claudemesh hook idle"}]}]);
    settings["enabledPlugins"] = json!({});
    settings["hooks"]["Notification"] = theirs;
    machine.write(".claude/settings.json", &settings.to_string());
    is(&machine, "copies", "warn", "the other command line of claudemesh");
}

#[test]
fn entries_that_are_missing_or_lead_nowhere_are_told() {
    let machine = Machine::with_claude("2.1.332");
    machine.does(&["install"]);
    is(&machine, "hooks", "ok", "6 events");
    is(&machine, "server", "ok", PROGRAM);
    machine.write("claude.release", "2.1.90");
    is(&machine, "hooks", "warn", "PostToolUse");
    is(&machine, "host", "warn", "2.1.90");
    machine.write("claude.release", "2.1.332");
    let text = machine.read(".claude/settings.json").replace(PROGRAM, "/gone/claudemesh-broker");
    machine.write(".claude/settings.json", &text);
    is(&machine, "hooks", "fail", "/gone/claudemesh-broker: no such program");
    machine.write(
        ".claude.json",
        r#"{"mcpServers":{"claudemesh":{"command":"claudemesh","args":["mcp"]}}}"#,
    );
    is(&machine, "server", "fail", "another program's");
    machine.write(".claude/settings.json", "{ // mine\n}");
    is(&machine, "hooks", "fail", "mend the file");
}

#[test]
fn what_keeps_an_idle_session_from_being_woken_is_told() {
    let machine = Machine::with_claude("2.1.150");
    is(&machine, "channel", "ok", "claude launch");
    is(&machine, "inbox", "warn", "2.1.224");
    is(&machine, "rules", "warn", "--allow-reading");
    machine.write("claude.release", "2.1.60");
    is(&machine, "channel", "warn", "2.1.80");
    machine.write("claude.release", "2.1.332");
    for (name, of_which) in [("CLAUDE_CODE_USE_BEDROCK", "channel"), ("DISABLE_TELEMETRY", "inbox")]
    {
        let mut command = machine.command(&["claude", "doctor", "--json"]);
        let output = command.env(name, "1").output().expect("it starts");
        let (status, text) = of(&Answer::of(&output, &[]), of_which);
        assert_eq!(status, "warn");
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn codex_is_looked_at_when_asked_for() {
    let machine = Machine::bare();
    machine.program("codex", super::CODEX);
    let doctor = |name: &str| of(&machine.run(&["doctor", "--codex", "--json"]), name);
    assert_eq!(doctor("server").0, "fail");
    machine.write(".codex/config.toml", "");
    machine.does(&["install", "--codex"]);
    assert_eq!((doctor("server").0.as_str(), doctor("hooks").0.as_str()), ("ok", "ok"));
    let config = machine.read(".codex/config.toml");
    machine.write(".codex/config.toml", &format!("{config}\n[features]\nhooks = false\n"));
    assert_eq!(doctor("hooks").0, "fail");
}
