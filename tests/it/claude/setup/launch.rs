//! A session that is started for a peer.

use super::Machine;

const FLAG: &str = "--dangerously-load-development-channels";

#[test]
fn a_session_is_started_as_its_peer_with_the_channel_on() {
    let machine = Machine::with_claude("2.1.332");
    machine.joined("team", "ada");
    machine.joined("team", "bob");
    machine.does(&["install"]);
    let answer = machine.run(&["launch", "bob", "--", "fix it", "--model", "opus"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let started = machine.read("claude.started");
    let started: Vec<&str> = started.lines().collect();
    assert_eq!(started, ["fix it", "--model", "opus", FLAG, "server:claudemesh"]);
    let env = machine.read("claude.env");
    assert!(env.contains("CLAUDEMESH_PEER=team/bob\n"), "{env}");
    assert!(env.contains("CLAUDEMESH_DISPLAY_NAME=bob\n"), "{env}");
    assert!(env.contains("CLAUDEMESH_CHANNEL=1\n"), "{env}");
}

#[test]
fn a_session_within_a_session_is_none_of_its_parts() {
    let machine = Machine::with_claude("2.1.332");
    machine.joined("team", "ada");
    machine.does(&["install"]);
    let marks = [
        "CLAUDECODE",
        "CLAUDE_CODE_CHILD_SESSION",
        "CLAUDE_CODE_SESSION_ID",
        "CLAUDE_PID",
        "CLAUDE_CODE_MESSAGING_SOCKET",
        "CLAUDE_CODE_MESSAGING_TOKEN",
    ];
    let mut command = machine.command(&["claude", "launch"]);
    command.env("MINE", "kept").envs(marks.map(|mark| (mark, "of another session")));
    assert!(command.output().expect("it starts").status.success());
    let env = machine.read("claude.env");
    assert!(!env.contains("of another session"), "{env}");
    assert!(env.contains("MINE=kept\n"), "{env}");
}

#[test]
fn a_session_is_called_what_its_user_says_and_else_as_its_peer() {
    let machine = Machine::with_claude("2.1.332");
    machine.joined("team", "ada");
    machine.does(&["install"]);
    let called = |args: &[&str]| {
        let mut command = machine.command(&[&["claude", "launch"], args].concat());
        command.env("CLAUDEMESH_DISPLAY_NAME", "api");
        assert!(command.output().expect("it starts").status.success());
        machine.read("claude.env")
    };
    assert!(called(&[]).contains("CLAUDEMESH_DISPLAY_NAME=api\n"));
    assert!(called(&["team/ada"]).contains("CLAUDEMESH_DISPLAY_NAME=ada\n"));
}

#[test]
fn without_the_channel_nothing_says_that_it_is_on() {
    let machine = Machine::with_claude("2.1.332");
    machine.joined("team", "ada");
    machine.does(&["install"]);
    let mut command = machine.command(&["claude", "launch", "--no-channel", "--", "hi"]);
    command.env("CLAUDEMESH_CHANNEL", "1");
    assert!(command.output().expect("it starts").status.success());
    assert_eq!(machine.read("claude.started"), "hi\n");
    assert!(!machine.read("claude.env").contains("CLAUDEMESH_CHANNEL"));
    machine.write("claude.release", "2.1.60");
    assert_eq!(machine.run(&["launch", "--", "hi"]).code, 0);
    assert_eq!(machine.read("claude.started"), "hi\n", "a release without channels");
}

#[test]
fn what_is_missing_for_a_session_is_said_before_it_starts() {
    let machine = Machine::bare();
    assert_eq!(machine.refuses(&["launch"]).0, "no_peer");
    machine.joined("team", "ada");
    assert_eq!(machine.refuses(&["launch"]).0, "host_not_found");
    let machine = Machine::with_claude("2.1.332");
    machine.joined("team", "ada");
    let (code, message) = machine.refuses(&["launch"]);
    assert_eq!(code, "not_installed");
    assert!(message.contains("claude install"), "{message}");
    machine.does(&["install"]);
    assert_eq!(machine.refuses(&["launch", "carol"]).0, "no_such_peer");
    assert_eq!(machine.read("claude.started"), "");
}

#[test]
fn a_plugins_channel_has_the_plugins_name() {
    let machine = Machine::with_claude("2.1.332");
    machine.joined("team", "ada");
    machine.write(".claude/settings.json", r#"{"enabledPlugins":{"claudemesh@mine":true}}"#);
    assert_eq!(machine.run(&["launch"]).code, 0);
    assert_eq!(machine.read("claude.started"), format!("{FLAG}\nplugin:claudemesh@mine\n"));
}
