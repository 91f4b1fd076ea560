//! What a host says when it calls a hook.

use std::io::Read;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::error::Category;

use crate::claude::home::Start;

/// An event of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    SessionStart,
    UserPromptSubmit,
    PostToolBatch,
    PostToolUse,
    PostToolUseFailure,
    Stop,
    /// The host tells its user something.
    Notification,
    SessionEnd,
}

/// A call of a hook, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) event: Event,
    /// The host's id of its session.
    pub(super) session: String,
    /// The prompt that is worked on; older hosts do not name it.
    pub(super) prompt: Option<String>,
    /// How the session came to be there, at its start.
    pub(super) start: Start,
    /// Whether its context was made smaller, so that the model forgot.
    pub(super) forgot: bool,
    /// At a turn's end: whether that has been put off already.
    pub(super) continued: bool,
    /// At a session's end: whether its process goes on with another.
    pub(super) goes_on: bool,
    /// Of what a host tells its user: whether it is that it waits for them.
    pub(super) waits: bool,
}

/// The fields of standard input that are read. Nothing else of it is kept.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Input {
    session_id: Option<String>,
    hook_event_name: Option<String>,
    prompt_id: Option<String>,
    turn_id: Option<String>,
    agent_id: Option<String>,
    source: Option<String>,
    reason: Option<String>,
    stop_hook_active: Option<bool>,
    notification_type: Option<String>,
}

impl Event {
    const ALL: [(Self, &str, &str); 8] = [
        (Self::SessionStart, "session-start", "SessionStart"),
        (Self::UserPromptSubmit, "user-prompt-submit", "UserPromptSubmit"),
        (Self::PostToolBatch, "post-tool-batch", "PostToolBatch"),
        (Self::PostToolUse, "post-tool-use", "PostToolUse"),
        (Self::PostToolUseFailure, "post-tool-use-failure", "PostToolUseFailure"),
        (Self::Stop, "stop", "Stop"),
        (Self::Notification, "notification", "Notification"),
        (Self::SessionEnd, "session-end", "SessionEnd"),
    ];

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == word).map(|(event, ..)| *event)
    }

    /// The host's name for it.
    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(event, ..)| *event == self).map_or("", |(_, _, name)| name)
    }
}

impl Call {
    /// Reads a call of the event with that word. `None` for calls of a subagent, which has
    /// no mail.
    pub(super) fn read(word: &str, input: impl Read) -> anyhow::Result<Option<Self>> {
        let event = Event::parse(word).context("there is no such event")?;
        let Some(input) = input_of(input)? else { return Ok(None) };
        if let Some(name) = &input.hook_event_name
            && name != event.name()
        {
            bail!("called at another event than {}; the hook's arguments are wrong", event.name());
        }
        let session = input.session_id.filter(|session| !session.is_empty());
        let session = session.context("the host names no session")?;
        let (source, reason) = (input.source.as_deref(), input.reason.as_deref());
        Ok(Some(Self {
            event,
            session,
            // Codex calls it a turn.
            prompt: input.prompt_id.or(input.turn_id),
            start: match (event, source) {
                (Event::SessionStart, Some("resume")) => Start::Resumed,
                (Event::SessionStart, Some("clear" | "compact")) => Start::GoesOn,
                (Event::SessionStart, _) => Start::New,
                _ => Start::Unknown,
            },
            forgot: matches!(source, Some("clear" | "compact" | "resume")),
            continued: input.stop_hook_active == Some(true),
            goes_on: matches!(reason, Some("clear" | "resume")),
            waits: input.notification_type.as_deref() == Some("idle_prompt"),
        }))
    }
}

/// The session that a host names, whatever the event; `None` for a subagent.
pub(super) fn session_of(input: impl Read) -> anyhow::Result<Option<String>> {
    Ok(input_of(input)?.and_then(|input| input.session_id))
}

fn input_of(input: impl Read) -> anyhow::Result<Option<Input>> {
    // Not to the end of the input: a host may leave it open.
    let mut json = serde_json::Deserializer::from_reader(input);
    let read = Input::deserialize(&mut json);
    // The error itself may quote what the user typed.
    let input = read.map_err(|error| match error.classify() {
        Category::Io => anyhow::anyhow!("standard input cannot be read"),
        Category::Eof => anyhow::anyhow!("standard input ended too early"),
        Category::Syntax => anyhow::anyhow!("standard input is no JSON"),
        Category::Data => anyhow::anyhow!("standard input has a field of another type"),
    })?;
    Ok(if input.agent_id.is_some() { None } else { Some(input) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(word: &str, input: &str) -> anyhow::Result<Option<Call>> {
        Call::read(word, input.as_bytes())
    }

    fn call(word: &str, input: serde_json::Value) -> Call {
        read(word, &input.to_string()).expect("read").expect("a call")
    }

    #[test]
    fn every_event_has_its_word_and_its_name() {
        for (event, word, name) in Event::ALL {
            assert_eq!((Event::parse(word), event.name()), (Some(event), name));
            let input = json!({"session_id": "s", "hook_event_name": name, "more": [1, {}]});
            assert_eq!(call(word, input).event, event);
        }
        assert!(read("sub-agent-stop", "{\"session_id\": \"s\"}").is_err());
    }

    #[test]
    fn a_start_says_how_the_session_came_to_be_there() {
        let start = |source: &str| {
            let call = call("session-start", json!({"session_id": "s", "source": source}));
            (call.start, call.forgot)
        };
        assert_eq!(start("startup"), (Start::New, false));
        assert_eq!(start("fork"), (Start::New, false));
        assert_eq!(start("resume"), (Start::Resumed, true));
        assert_eq!(start("clear"), (Start::GoesOn, true));
        assert_eq!(start("compact"), (Start::GoesOn, true));
        assert_eq!(call("stop", json!({"session_id": "s"})).start, Start::Unknown);
        for (reason, goes_on) in [("clear", true), ("resume", true), ("other", false)] {
            let end = call("session-end", json!({"session_id": "s", "reason": reason}));
            assert_eq!(end.goes_on, goes_on, "{reason}");
        }
    }

    #[test]
    fn subagents_have_no_mail_and_odd_calls_are_errors() {
        let subagent = json!({"session_id": "s", "agent_id": "a1"}).to_string();
        assert_eq!(read("post-tool-batch", &subagent).expect("read"), None);
        let odd = ["", "{", "[]", "{}", "null", "{\"session_id\": 5}", "{\"session_id\": \"\"}"];
        for input in odd {
            assert!(read("stop", input).is_err(), "{input}");
        }
        let other = json!({"session_id": "s", "hook_event_name": "Stop"}).to_string();
        assert!(read("session-start", &other).is_err());
    }

    #[test]
    fn an_error_quotes_nothing_of_what_the_user_typed() {
        let input = json!({"session_id": "s", "stop_hook_active": "my secret prompt"});
        let error = read("stop", &input.to_string()).expect_err("wrong");
        assert!(!format!("{error:#}").contains("secret"), "{error:#}");
    }

    #[test]
    fn an_input_that_stays_open_is_read_to_the_end_of_its_object() {
        struct Open;
        impl Read for Open {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                panic!("nothing follows")
            }
        }
        let input = "{\"session_id\": \"s\"}".as_bytes().chain(Open);
        assert!(Call::read("stop", input).expect("read").is_some());
    }
}
