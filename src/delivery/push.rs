//! What a peer receives of an envelope: made once, moved from there on. Pure.

use std::sync::Arc;

use crate::codec::SharedFrame;
use crate::id::MemberId;
use crate::protocol::{Blob, Push, ServerMessage};
use crate::sealing::{self, Sealed};
use crate::session::inbox::{Delivery, Route};
use crate::store::{StoredEnvelope, TopicPost};

/// The push of a direct message. Old daemons drop pushes that carry their own
/// member's key, so it is left out among sessions of one member.
#[must_use]
pub(crate) fn direct(envelope: StoredEnvelope, recipient: &MemberId) -> Push {
    let same_member = envelope.sender_member == *recipient;
    let mut push = of(envelope);
    if same_member {
        push.sender_member_pubkey = None;
    }
    push.reply_to_id = None;
    push
}

#[must_use]
pub(crate) fn multicast(envelope: StoredEnvelope) -> Push {
    let mut push = of(envelope);
    push.client_message_id = None;
    push.request_fingerprint = None;
    push
}

/// The push of a post: a multicast's, with its topic.
#[must_use]
pub(crate) fn post(TopicPost { envelope, topic, body_version }: TopicPost) -> Push {
    let body_version = (body_version != 1).then_some(body_version);
    Push { topic: Some(topic), body_version, ..multicast(envelope) }
}

/// What a program gets of a sealed post that would show it as it is: a sentence that it
/// can show. `None` if the post is not sealed.
#[must_use]
pub(crate) fn notice(push: &Push) -> Option<Push> {
    push.body_version?;
    let topic = push.topic.as_deref().unwrap_or_default();
    let text = format!(
        "[a message in #{topic} that is sealed with the topic's key; to read it: \
         claudemesh topic tail {topic}]"
    );
    let Sealed { nonce_b64, ciphertext_b64 } = sealing::plain(&text);
    let (nonce, ciphertext) = (Blob::from_text(nonce_b64), Blob::from_text(ciphertext_b64));
    Some(Push { nonce, ciphertext, body_version: None, ..push.clone() })
}

fn of(stored: StoredEnvelope) -> Push {
    let StoredEnvelope { envelope, sender_key, created_at, .. } = stored;
    Push {
        message_id: envelope.id,
        mesh_id: envelope.mesh,
        sender_pubkey: envelope.sender_session_key.unwrap_or_else(|| sender_key.clone()),
        sender_member_pubkey: Some(sender_key),
        sender_member_id: Some(envelope.sender_member),
        sender_name: Some(envelope.sender_name),
        priority: envelope.priority,
        nonce: Blob::from_text(envelope.nonce),
        ciphertext: Blob::from_text(envelope.ciphertext),
        created_at,
        client_message_id: envelope.client_message_id,
        request_fingerprint: envelope.request_fingerprint,
        reply_to_id: envelope.reply_to_id,
        topic: None,
        body_version: None,
        subtype: None,
        event: None,
        event_data: None,
    }
}

#[must_use]
pub(crate) fn delivery(push: Push, route: Route) -> Delivery {
    Delivery {
        id: push.message_id.clone(),
        route,
        priority: push.priority,
        client_message_id: push.client_message_id.as_deref().map(Arc::from),
        frame: Arc::new(SharedFrame::new(ServerMessage::Push(Box::new(push)))),
    }
}
