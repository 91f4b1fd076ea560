//! How each harness wants to be answered.

use serde_json::{Value, json};

use super::event::{Call, Event};

/// The answer that says nothing.
pub(super) const NOTHING: &str = "{}";

/// A program that runs models and calls hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harness {
    Claude,
    /// Refuses fields that it does not know.
    Codex,
}

impl Harness {
    /// Whether the model reads what a hook at that event answers.
    pub(super) fn shows(self, event: Event) -> bool {
        match self {
            Self::Claude => !matches!(event, Event::Notification | Event::SessionEnd),
            Self::Codex => matches!(
                event,
                Event::SessionStart | Event::UserPromptSubmit | Event::PostToolUse | Event::Stop
            ),
        }
    }

    /// The object that gives the model a text.
    pub(super) fn encode(self, call: &Call, text: &str) -> Value {
        let name = call.event.name();
        // Hosts that name the prompt take a text at a turn's end as it is; to those before
        // them it is the reason for which the turn goes on.
        let blocks = self == Self::Codex || call.prompt.is_none();
        if call.event == Event::Stop && blocks {
            return json!({ "decision": "block", "reason": text });
        }
        json!({ "hookSpecificOutput": { "hookEventName": name, "additionalContext": text } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claude::home::Start;

    fn call(event: Event, prompt: Option<&str>) -> Call {
        Call {
            event,
            session: "s".to_owned(),
            prompt: prompt.map(str::to_owned),
            start: Start::Unknown,
            forgot: false,
            continued: false,
            goes_on: false,
            waits: false,
        }
    }

    #[test]
    fn the_text_is_beside_the_name_of_the_event() {
        let answer = Harness::Claude.encode(&call(Event::PostToolBatch, None), "x");
        let inner = json!({"hookEventName": "PostToolBatch", "additionalContext": "x"});
        assert_eq!(answer, json!({ "hookSpecificOutput": inner }));
        let answer = Harness::Claude.encode(&call(Event::Stop, Some("p")), "x");
        assert_eq!(answer["hookSpecificOutput"]["hookEventName"], "Stop");
    }

    #[test]
    fn at_a_turns_end_older_hosts_and_codex_are_given_a_reason() {
        let reason = json!({"decision": "block", "reason": "x"});
        assert_eq!(Harness::Claude.encode(&call(Event::Stop, None), "x"), reason);
        assert_eq!(Harness::Codex.encode(&call(Event::Stop, Some("t")), "x"), reason);
        assert!(!Harness::Codex.shows(Event::PostToolBatch));
        assert!(!Harness::Codex.shows(Event::PostToolUseFailure));
        for event in [Event::Notification, Event::SessionEnd] {
            assert!(!Harness::Claude.shows(event), "{event:?}");
        }
    }
}
