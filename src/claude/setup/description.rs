//! What is registered with a host, said once: the installer and the plugin folder are
//! both made from it.

use serde_json::{Value, json};

use super::version::Version;
use crate::protocol::{Ask as _, ListPeers, MessageStatus};

/// The name of our server: tools are `mcp__claudemesh__send_message` to users and rules.
pub(crate) const SERVER: &str = "claudemesh";
/// How our program is called as a server.
pub(crate) const SERVER_ARGS: [&str; 2] = ["claude", "mcp"];
/// How our program is called from a hook; the event's word follows.
pub(crate) const HOOK_ARGS: [&str; 2] = ["claude", "hook"];
/// How our program is called for a status line.
pub(crate) const STATUS_LINE_ARGS: [&str; 3] = ["claude", "status", "--line"];
/// Tools without which a session that was woken waits at a prompt. What sends is not
/// among them: that is for the user to say.
pub(crate) const READING_TOOLS: [&str; 3] =
    ["check_messages", ListPeers::TYPE, MessageStatus::TYPE];
/// From this release on a handler's arguments are given apart, and no shell reads them.
/// Older ones would run the bare program, which serves.
pub(crate) const ARGS_FROM: Version = Version(2, 1, 139);
/// From this release on a handler may go on behind a turn's end and wake the session.
pub(crate) const REWAKE_FROM: Version = Version(2, 1, 220);
/// The event behind which it waits.
pub(crate) const WAITS_BEHIND: &str = "Stop";
/// Seconds after which a host ends one that waits, which ends before by itself.
const WAITER_TIMEOUT_S: u64 = 600;
/// Seconds after which a host gives up on a handler, which is done in milliseconds.
const TIMEOUT_S: u64 = 5;

/// An event of a host that we have a handler for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// What the host calls it.
    pub(crate) name: &'static str,
    /// What our command line calls it.
    pub(crate) word: &'static str,
    /// The first release that has it.
    from: Option<Version>,
    /// The first release that has something better.
    until: Option<Version>,
}

/// Older releases drop a whole file for an event's name that they do not know.
const UNKNOWN_IS_HARMLESS_FROM: Version = Version(2, 1, 101);
/// From here on tools that ran in parallel are told of once, not one by one.
const BATCH_FROM: Version = Version(2, 1, 120);

/// The events of Claude Code.
pub(crate) const CLAUDE_EVENTS: &[Event] = &[
    event("SessionStart", "session-start"),
    event("UserPromptSubmit", "user-prompt-submit"),
    Event { name: "PostToolBatch", word: "post-tool-batch", from: Some(BATCH_FROM), until: None },
    Event { name: "PostToolUse", word: "post-tool-use", from: None, until: Some(BATCH_FROM) },
    Event {
        name: "PostToolUseFailure",
        word: "post-tool-use-failure",
        from: Some(UNKNOWN_IS_HARMLESS_FROM),
        until: Some(BATCH_FROM),
    },
    event("Stop", "stop"),
    event("Notification", "notification"),
    event("SessionEnd", "session-end"),
];

/// The events of Codex.
pub(crate) const CODEX_EVENTS: &[Event] = &[
    event("SessionStart", "session-start"),
    event("UserPromptSubmit", "user-prompt-submit"),
    event("PostToolUse", "post-tool-use"),
    event("Stop", "stop"),
];

const fn event(name: &'static str, word: &'static str) -> Event {
    Event { name, word, from: None, until: None }
}

/// The events that a release knows; one that is not known is old.
pub(crate) fn known(events: &[Event], version: Option<Version>) -> Vec<Event> {
    let version = version.unwrap_or(Version(0, 0, 0));
    let fits = |event: &&Event| {
        event.from.is_none_or(|from| version >= from)
            && event.until.is_none_or(|until| version < until)
    };
    events.iter().filter(fits).copied().collect()
}

/// How a handler's command is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The program and its arguments, apart.
    Exec,
    /// One line for a shell.
    Shell,
}

impl Form {
    /// What a release of Claude Code reads.
    pub(crate) fn of(version: Option<Version>) -> Self {
        if version.is_some_and(|version| version >= ARGS_FROM) { Self::Exec } else { Self::Shell }
    }
}

/// The one handler of an event.
pub(crate) fn handler(event: Event, program: &str, form: Form, more: &[&str]) -> Value {
    let args: Vec<&str> =
        HOOK_ARGS.into_iter().chain([event.word]).chain(more.iter().copied()).collect();
    match form {
        Form::Exec => json!({
            "type": "command", "command": program, "args": args, "timeout": TIMEOUT_S
        }),
        Form::Shell => json!({
            "type": "command", "command": shell_line(program, &args), "timeout": TIMEOUT_S
        }),
    }
}

/// The group of an event: of every tool, of every source.
pub(crate) fn group(handlers: &[Value]) -> Value {
    json!({ "hooks": handlers })
}

/// The process that waits behind the end of a turn, and wakes the session when mail has
/// come: none for releases that would wait for it. Hosts wait for it at the end of a run
/// without a terminal, so that users ask for it.
pub(crate) fn waiter(program: &str, version: Option<Version>) -> Option<Value> {
    version.filter(|version| *version >= REWAKE_FROM)?;
    let args: Vec<&str> = HOOK_ARGS.into_iter().chain(["wait"]).collect();
    Some(json!({
        "type": "command", "command": program, "args": args, "timeout": WAITER_TIMEOUT_S,
        "asyncRewake": true
    }))
}

/// The status line.
pub(crate) fn status_line(program: &str) -> Value {
    json!({"type": "command", "command": shell_line(program, &STATUS_LINE_ARGS)})
}

/// Our server, as a project's file and a plugin name it.
pub(crate) fn server(program: &str) -> Value {
    json!({"type": "stdio", "command": program, "args": SERVER_ARGS})
}

/// What may be used without asking.
pub(crate) fn rules() -> Vec<String> {
    READING_TOOLS.iter().map(|tool| format!("mcp__{SERVER}__{tool}")).collect()
}

/// A program and its arguments as a shell reads them.
pub(crate) fn shell_line(program: &str, args: &[&str]) -> String {
    let words = std::iter::once(program).chain(args.iter().copied());
    // A word with a zero byte cannot come from a path or from our own words.
    words.map(|word| shlex::try_quote(word).unwrap_or_default()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(version: Option<Version>) -> Vec<&'static str> {
        known(CLAUDE_EVENTS, version).iter().map(|event| event.name).collect()
    }

    #[test]
    fn a_release_gets_only_the_events_that_it_knows() {
        let of_all = |tools| {
            ["SessionStart", "UserPromptSubmit", tools, "Stop", "Notification", "SessionEnd"]
        };
        let (new, old) = (of_all("PostToolBatch"), of_all("PostToolUse"));
        assert_eq!(names(Some(Version(2, 1, 332))), new);
        assert_eq!(names(Some(Version(2, 1, 120))), new);
        assert_eq!(names(Some(Version(2, 1, 100))), old);
        assert!(names(Some(Version(2, 1, 119))).contains(&"PostToolUseFailure"));
        assert_eq!(names(None), old, "unknown is old");
    }

    #[test]
    fn a_host_that_ignores_arguments_gets_a_line_for_its_shell() {
        assert_eq!(Form::of(Some(Version(2, 1, 139))), Form::Exec);
        assert_eq!(Form::of(Some(Version(2, 1, 138))), Form::Shell);
        assert_eq!(Form::of(None), Form::Shell);
        let stop = event("Stop", "stop");
        let exec = handler(stop, "/opt/my bin/claudemesh-broker", Form::Exec, &[]);
        assert_eq!(exec["command"], "/opt/my bin/claudemesh-broker");
        assert_eq!(exec["args"], json!(["claude", "hook", "stop"]));
        let shell = handler(stop, "/opt/my bin/claudemesh-broker", Form::Shell, &[]);
        assert_eq!(shell["command"], "'/opt/my bin/claudemesh-broker' claude hook stop");
        assert!(shell.get("args").is_none());
    }

    #[test]
    fn nobody_waits_in_a_release_that_would_wait_too() {
        assert_eq!(waiter("/x", None), None);
        assert_eq!(waiter("/x", Some(Version(2, 1, 219))), None);
        let waiter = waiter("/x", Some(Version(2, 1, 220))).expect("known");
        assert_eq!(waiter["args"], json!(["claude", "hook", "wait"]));
        assert_eq!(waiter["asyncRewake"], true);
    }

    #[test]
    fn nothing_that_sends_is_allowed_unasked() {
        assert_eq!(
            rules(),
            [
                "mcp__claudemesh__check_messages",
                "mcp__claudemesh__list_peers",
                "mcp__claudemesh__message_status"
            ]
        );
    }
}
