//! What a sender says of a message beside what is in it, checked; and how many answers
//! led to it.

use std::borrow::Cow;

use super::refusal::{Refusal, not_read};
use super::sealed;
use crate::clock::Timestamp;
use crate::delivery::Parts;
use crate::id::{Key, MemberId, MeshId, MessageId};
use crate::limits;
use crate::protocol::Send;
use crate::session::Session;
use crate::store::{self, Answered, Properties};

/// What the send says of its message. Most say nothing, and cost nothing.
pub(super) async fn of(
    parts: &Parts,
    session: &Session,
    send: &Send<'_>,
) -> Result<Option<Box<Properties>>, Refusal> {
    let given = |text: &Option<Cow<'_, str>>| -> Option<String> {
        text.as_deref().filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let properties = Properties {
        thread_id: given(&send.thread_id),
        expects_reply: send.expects_reply.unwrap_or_default(),
        supersedes: given(&send.supersedes),
        receipt: send.receipt,
        hop: {
            let answers = send.reply_to_id.as_deref();
            hop(parts, &Replier::from(session), answers).await.map_err(not_read)??
        },
        expires_at: expires_at(send.ttl_ms)?,
        seal: sealed::seal_of(send),
    };
    Ok(properties.said())
}

fn expires_at(ttl_ms: Option<i64>) -> Result<Option<Timestamp>, Refusal> {
    let Some(ttl_ms) = ttl_ms else { return Ok(None) };
    if !(limits::TTL_MS_MIN..=limits::UNDELIVERED_RETENTION_MS).contains(&ttl_ms) {
        let text = format!(
            "invalid send: ttlMs is {} (one second) to {} (seven days)",
            limits::TTL_MS_MIN,
            limits::UNDELIVERED_RETENTION_MS
        );
        return Err(Refusal::new("invalid", text));
    }
    Ok(Some(Timestamp::now().plus_ms(ttl_ms)))
}

/// Who answers a message.
pub(crate) struct Replier<'a> {
    pub(crate) mesh: &'a MeshId,
    pub(crate) member: &'a MemberId,
    /// The member's key, and that of the session, if it is one.
    pub(crate) keys: [Option<&'a Key>; 2],
}

impl<'a> From<&'a Session> for Replier<'a> {
    fn from(session: &'a Session) -> Self {
        let keys = [Some(&session.member_key), session.session_key.as_ref()];
        Self { mesh: &session.mesh, member: &session.member, keys }
    }
}

/// One more than the message has that is answered, if whoever answers was a recipient of
/// that one; else none. Two programs that answer each other always come to the end.
pub(crate) async fn hop(
    parts: &Parts,
    by: &Replier<'_>,
    answers: Option<&str>,
) -> store::Result<Result<u32, Refusal>> {
    let Some(answers) = answers.filter(|id| !id.is_empty()) else {
        return Ok(Ok(0));
    };
    let id = MessageId::from(answers);
    let hop = match parts.stages.answered(by.mesh, &id).await? {
        Some(answered) if was_sent_to(&answered, by) => answered.hop.saturating_add(1),
        _ => 0,
    };
    if hop > parts.config.hops_max && parts.config.hops_max > 0 {
        let text = format!(
            "loop: {} answers led to this one, which is as many as may without a person; \
             let a person read the conversation and start a new one (a message without replyToId)",
            hop - 1
        );
        return Ok(Err(Refusal::new("loop", text)));
    }
    Ok(Ok(hop))
}

/// Whether the member was a recipient: of its own messages, those to its own keys are to
/// itself.
fn was_sent_to(answered: &Answered, by: &Replier<'_>) -> bool {
    let is_to_itself = by.keys.iter().flatten().any(|key| key.as_str() == answered.target_spec);
    answered.sender != *by.member || is_to_itself
}
