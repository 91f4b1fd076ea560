//! What a stand-in for a host says to the bench, a line of JSON for each moment.

use serde::{Deserialize, Serialize};

/// One moment of a session.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Said {
    /// The session has started, and its server has shaken hands.
    Ready,
    /// A hook begins, of an event by which a message may come.
    Hook,
    /// The model is given messages.
    Given {
        /// By which way.
        way: String,
        /// How long the hook ran that gave them, if one did.
        hook_us: Option<u32>,
        messages: Vec<Shown>,
    },
    /// A turn has ended, and no other follows by itself.
    Idle,
}

/// A message as the model is shown it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shown {
    pub(super) id: String,
    pub(super) body: String,
}

/// The messages in a text for a model: one line of JSON each, between two tags.
pub(super) fn messages_of(text: &str) -> Vec<Shown> {
    let mut found = Vec::new();
    let mut open: Option<&str> = None;
    for line in text.lines() {
        match open {
            None => open = line.strip_prefix("<claudemesh-").and_then(|of| of.strip_suffix('>')),
            Some(tag) if line.strip_prefix("</claudemesh-") == Some(&format!("{tag}>")) => {
                open = None;
            }
            Some(_) => found.extend(serde_json::from_str::<Shown>(line)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_what_stands_between_the_tags() {
        let text = "claudemesh: two lines\n<claudemesh-1f>\n{\"id\":\"a\",\"body\":\"one\",\"hop\":1}\n\
            {\"id\":\"b\",\"body\":\"two\"}\n</claudemesh-1f>\n{\"id\":\"c\",\"body\":\"outside\"}";
        let shown = |id: &str, body: &str| Shown { id: id.to_owned(), body: body.to_owned() };
        assert_eq!(messages_of(text), [shown("a", "one"), shown("b", "two")]);
        assert_eq!(messages_of("claudemesh: this session is the peer \"x\""), []);
    }
}
