//! What is known of the sessions of a machine, from files alone.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::json;

use super::Machine;

/// What `claude status --line` prints when a host says that of a session.
fn line(machine: &Machine, said: &str) -> (i32, String) {
    told(machine, &["claude", "status", "--line"], said)
}

/// What a command prints that is told something by a host.
fn told(machine: &Machine, args: &[&str], said: &str) -> (i32, String) {
    let mut command = machine.command(args);
    // The host is this process, which runs.
    command.env("CLAUDE_PID", std::process::id().to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    // A program that does not read has ended, which its code tells.
    let _ = child.stdin.take().expect("piped").write_all(said.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn a_machine_without_sessions_says_so() {
    let machine = Machine::with_claude("2.1.332");
    assert_eq!(machine.does(&["status"])["sessions"], json!([]));
    let said = machine.run(&["status"]);
    assert_eq!(said.out, "no session on this machine is a peer now\n");
}

#[test]
fn a_status_line_is_empty_and_no_failure_for_a_session_that_is_no_peer() {
    let machine = Machine::with_claude("2.1.332");
    for said in ["", "{}", "no JSON", r#"{"session_id":"x","cwd":"/work"}"#] {
        assert_eq!(line(&machine, said), (0, "\n".to_owned()), "{said:?}");
    }
}

#[test]
fn a_session_that_a_hook_has_bound_is_shown_with_its_peer() {
    let machine = Machine::with_claude("2.1.332");
    machine.joined("team", "ada");
    let said = json!({
        "session_id": "h1", "hook_event_name": "SessionStart", "source": "startup",
        "cwd": machine.file("project"), "transcript_path": machine.file("transcript.jsonl"),
    });
    let (code, _) = told(&machine, &["claude", "hook", "session-start"], &said.to_string());
    assert_eq!(code, 0);
    let session = machine.does(&["status"])["sessions"][0].clone();
    assert_eq!((&session["peer"], &session["hostSession"]), (&json!("team/ada"), &json!("h1")));
    assert_eq!((&session["connected"], &session["unread"]), (&json!(false), &json!(0)));
    let shown = line(&machine, r#"{"session_id":"h1"}"#);
    assert_eq!(shown, (0, "team/ada \u{b7} away \u{b7} 0 unread\n".to_owned()));
    assert_eq!(line(&machine, r#"{"session_id":"h2"}"#), (0, "\n".to_owned()));
}
