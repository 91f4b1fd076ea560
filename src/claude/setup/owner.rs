//! Whose an entry of a host's file is: ours to change and to take away, or not.

use std::path::Path;

use serde_json::Value;

use super::description::{HOOK_ARGS, SERVER_ARGS, STATUS_LINE_ARGS};

/// The name of our program's file, also of other copies of it.
const PROGRAM: &str = "claudemesh-broker";

/// Who wrote a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This program, or another copy of it.
    Ours,
    /// The other command line of claudemesh, which reports statuses from hooks.
    Claudemesh,
    /// Somebody else.
    Foreign,
}

/// Whose a hook's handler is.
pub(crate) fn of_handler(handler: &Value) -> Owner {
    let words = words_of(handler);
    if is_call(&words, &HOOK_ARGS) {
        return Owner::Ours;
    }
    let reports = words
        .windows(2)
        .any(|two| two[0] == "hook" && matches!(two[1].as_str(), "idle" | "working"));
    if reports && words.iter().any(|word| stem(word) == "claudemesh") {
        return Owner::Claudemesh;
    }
    Owner::Foreign
}

/// Whether a status line is ours.
pub(crate) fn is_our_status_line(line: &Value) -> bool {
    is_call(&words_of(line), &STATUS_LINE_ARGS)
}

/// Whether a server's entry runs our program as a server.
pub(crate) fn is_our_server(entry: &Value) -> bool {
    is_call(&words_of(entry), &SERVER_ARGS)
}

/// The program that an entry runs, and its arguments: apart, or as a line for a shell.
pub(crate) fn words_of(entry: &Value) -> Vec<String> {
    let Some(command) = entry.get("command").and_then(Value::as_str) else { return Vec::new() };
    match entry.get("args").and_then(Value::as_array) {
        Some(args) => {
            let args = args.iter().map(|arg| arg.as_str().unwrap_or_default().to_owned());
            std::iter::once(command.to_owned()).chain(args).collect()
        }
        // What no shell would read is nobody's that we know.
        None => shlex::split(command).unwrap_or_default(),
    }
}

fn is_call(words: &[String], args: &[&str]) -> bool {
    let Some((program, rest)) = words.split_first() else { return false };
    stem(program) == PROGRAM
        && rest.len() >= args.len()
        && rest.iter().zip(args).all(|(a, b)| a == b)
}

fn stem(program: &str) -> &str {
    let name = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_suffix(".exe").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ours_is_what_calls_our_program_for_a_hook_and_nothing_else() {
        let ours = [
            json!({"command": "/a/claudemesh-broker", "args": ["claude", "hook", "stop"]}),
            json!({"command": "/a/claudemesh-broker claude hook stop"}),
            json!({"command": "'/a b/claudemesh-broker' claude hook post-tool-use --x"}),
            json!({"command": "claudemesh-broker", "args": ["claude", "hook", "stop", "--codex"]}),
        ];
        for handler in ours {
            assert_eq!(of_handler(&handler), Owner::Ours, "{handler}");
        }
        let foreign = [
            json!({"command": "/a/claudemesh-broker"}),
            json!({"command": "/a/claudemesh-broker", "args": ["claude", "status"]}),
            json!({"command": "/a/claudemesh-broker peer send ada 'claude hook stop'"}),
            json!({"command": "echo /a/claudemesh-broker claude hook stop"}),
            json!({"command": "my-claudemesh-broker claude hook stop"}),
            json!({"command": "claudemesh-broker-wrapper claude hook stop"}),
            json!({"command": "unclosed 'claudemesh-broker claude hook stop"}),
            json!({"type": "http", "url": "http://localhost/claudemesh-broker"}),
            json!({"command": 7}),
            json!("claudemesh-broker claude hook stop"),
            json!(null),
        ];
        for handler in foreign {
            assert_eq!(of_handler(&handler), Owner::Foreign, "{handler}");
        }
    }

    #[test]
    fn the_other_command_lines_reports_are_told_apart() {
        for command in [
            "claudemesh hook idle",
            "/usr/bin/claudemesh hook working",
            "npx -y claudemesh hook idle",
        ] {
            assert_eq!(of_handler(&json!({ "command": command })), Owner::Claudemesh);
        }
        for command in ["claudemesh hook", "claudemesh status idle", "other hook idle"] {
            assert_eq!(of_handler(&json!({ "command": command })), Owner::Foreign);
        }
    }

    #[test]
    fn a_server_of_that_name_may_be_another_programs() {
        assert!(is_our_server(&json!({"command": "/x/claudemesh-broker", "args": SERVER_ARGS})));
        assert!(!is_our_server(&json!({"command": "claudemesh", "args": ["mcp"]})));
        assert!(!is_our_server(&json!({"url": "https://mesh.example.org"})));
    }
}
