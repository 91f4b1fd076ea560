//! `send_message`.

use rmcp::schemars::JsonSchema;
use serde::Deserialize;

use super::super::shown::{self, CAVEAT_CHARS, NAME_CHARS, SENTENCE_CHARS};
use super::recipient::Whom;
use super::{At, Call, Effect, Said};
use crate::client::{ClientError, Outgoing, Sent};
use crate::protocol::Priority;

/// Bytes of a text that a broker takes at its default, with room for what sealing adds.
const MESSAGE_BYTES_MAX: usize = 45 * 1024;

/// How urgent, as the model says it.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars", inline)]
#[serde(rename_all = "lowercase")]
enum Urgency {
    Now,
    #[default]
    Next,
    Low,
}

impl From<Urgency> for Priority {
    fn from(urgency: Urgency) -> Self {
        match urgency {
            Urgency::Now => Self::Now,
            Urgency::Next => Self::Next,
            Urgency::Low => Self::Low,
        }
    }
}

/// Sends a message.
#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct SendMessage {
    /// To whom: a peer's name or key as list_peers shows them, `@group`, `#topic`, or `*`
    /// for everyone.
    to: String,
    /// What to say, complete in itself: the peer does not see your transcript.
    message: String,
    /// `now` comes between two of the peer's tool calls, `next` (the default) when it is
    /// idle, `low` is for what nobody waits for.
    priority: Option<Urgency>,
    /// The id of the message that this one answers.
    reply_to: Option<String>,
    /// The id of a thread that it belongs to, if there is one.
    thread: Option<String>,
    /// Whether you need an answer. Without it, the peer answers only if that is of use.
    expects_reply: Option<bool>,
    /// After how many seconds nobody needs it any more; it is not delivered later.
    ttl_seconds: Option<u32>,
}

impl Call for SendMessage {
    const NAME: &'static str = "send_message";
    const ABOUT: &'static str = "Send a message to a peer, a group, a topic or everyone in the mesh. It waits for a peer \
                                 that is away. Peers are other coding sessions: say what you need, from what they can \
                                 know. The result is an id; message_status tells whether it was read.";
    const EFFECT: Effect = Effect::Adds;

    async fn run(self, at: &At) -> Said {
        if self.message.trim().is_empty() {
            return Err("The message is empty; say something in `message`.".to_owned());
        }
        if self.message.len() > MESSAGE_BYTES_MAX {
            return Err(format!(
                "The message has {} bytes, and {MESSAGE_BYTES_MAX} are the most: name a file, or keep the long part with \
                 remember or set_state and write where it is.",
                self.message.len()
            ));
        }
        let client = at.client()?;
        let answered = match &self.reply_to {
            Some(id) => at.named(id).await?,
            None => None,
        };
        let answered = answered.map(|letter| letter.message);
        let whom = Whom::of(at, &client, &self.to, answered.as_ref()).await?;
        let mut outgoing = Outgoing::new(
            &whom.target,
            self.priority.unwrap_or_default().into(),
            self.message.as_str(),
        );
        let key = at.link.key_of(&whom.target, &self.message);
        outgoing.client_message_id = Some(key.clone());
        outgoing.reply_to_id.clone_from(&self.reply_to);
        outgoing.thread_id = self.thread;
        outgoing.expects_reply = self.expects_reply == Some(true);
        outgoing.ttl_ms = self.ttl_seconds.map(|seconds| i64::from(seconds) * 1_000);
        match client.send_sealed(outgoing).await {
            Ok(done) => {
                if let Some(message) = &answered {
                    at.answered(&message.message_id).await;
                }
                Ok(sent(&whom, &done, self.expects_reply == Some(true)))
            }
            Err(error) => {
                if is_unsure(&error) {
                    at.link.is_unsure(&whom.target, &self.message, &key);
                }
                Err(unsent(&error, &whom))
            }
        }
    }
}

fn sent(whom: &Whom, done: &Sent, expects_reply: bool) -> String {
    let next = if expects_reply {
        "The answer comes to you by itself; go on with your work."
    } else {
        "Nothing further is needed."
    };
    let id = shown::text(done.ack.message_id.as_str(), NAME_CHARS);
    let how = shown::text(&done.secrecy.to_string(), SENTENCE_CHARS);
    let caveat = done.caveat().map(|caveat| format!(" ({})", shown::text(&caveat, CAVEAT_CHARS)));
    format!("Sent to {} as {id}, {how}.{} {next}", whom.shown, caveat.unwrap_or_default())
}

/// Whether the broker may have the message all the same.
const fn is_unsure(error: &ClientError) -> bool {
    matches!(error, ClientError::Timeout(_) | ClientError::Lost | ClientError::Gone)
}

fn unsent(error: &ClientError, whom: &Whom) -> String {
    let to = &whom.shown;
    match error {
        ClientError::Rejected(rejection) if rejection.reason.starts_with("no connected peer") => {
            format!("{to} is nobody in this mesh; list_peers shows who is here.")
        }
        ClientError::Rejected(rejection) => {
            format!("Not sent to {to}. {}", shown::refused_send(rejection))
        }
        error if is_unsure(error) => format!(
            "The broker does not answer at the moment, so nobody knows whether the message to {to} \
             went out. Send it again in a minute, word for word: then it is no second message."
        ),
        error => shown::why(error),
    }
}
