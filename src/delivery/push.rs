//! What a peer receives of an envelope: made once, moved from there on. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::clock::Timestamp;
use crate::codec::SharedFrame;
use crate::id::MemberId;
use crate::protocol::{Blob, Push, Reached, ServerMessage, SystemEvent, webhooks};
use crate::record::PresenceRecord;
use crate::sealing::{self, Sealed};
use crate::session::inbox::{Delivery, Route};
use crate::store::{NOTICE, StoredEnvelope, TopicPost};

/// The field of a push that differs from recipient to recipient.
const SEALED_KEY: &str = "sealedKey";

/// The push of a direct message. Old daemons drop pushes that carry their own
/// member's key, so it is left out among sessions of one member.
#[must_use]
pub(crate) fn direct(envelope: StoredEnvelope, recipient: &MemberId) -> Push {
    let same_member = envelope.sender_member == *recipient;
    let mut push = of(envelope);
    if same_member {
        push.sender_member_pubkey = None;
    }
    push
}

#[must_use]
pub(crate) fn multicast(envelope: StoredEnvelope) -> Push {
    let target_spec = envelope.target_spec.clone();
    let mut push = of(envelope);
    if push.seq.is_some() {
        push.target_spec = Some(target_spec);
    }
    // The signature of a sealed one binds the sender's own id for it.
    if push.signature.is_none() {
        push.client_message_id = None;
    }
    push.request_fingerprint = None;
    push
}

/// The push of a post: a multicast's, with its topic.
#[must_use]
pub(crate) fn post(TopicPost { envelope, topic, body_version }: TopicPost) -> Push {
    let body_version = (body_version != 1).then_some(body_version);
    let target_spec = Some(format!("#{topic}"));
    Push { topic: Some(topic), target_spec, body_version, ..multicast(envelope) }
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

/// What a presence gets of a post that a drain found.
#[must_use]
pub(crate) fn post_for(record: &PresenceRecord, post: TopicPost) -> Push {
    let push = self::post(post);
    let notice = if record.shows_texts_only() { notice(&push) } else { None };
    notice.unwrap_or(push)
}

/// A push as a presence gets it: programs that show texts only get one of what was posted
/// to a webhook.
#[must_use]
pub(crate) fn shown_to(record: &PresenceRecord, push: Push) -> Push {
    let text = if record.shows_texts_only() { webhooks::as_text(&push) } else { None };
    text.unwrap_or(push)
}

/// What was posted to a webhook and kept, as it is pushed to those who are connected.
fn of_webhook(stored: &StoredEnvelope) -> Option<Push> {
    let name = webhooks::posted_to(stored.sender_session_key.as_ref()?)?;
    let body = STANDARD.decode(&stored.ciphertext).ok()?;
    let data = serde_json::from_slice(&body).ok()?;
    let push = webhooks::posted(name, data, stored.mesh.clone(), stored.created_at);
    Some(Push { message_id: stored.id.clone(), priority: stored.priority, ..push })
}

/// What the broker itself keeps for a member, as the event that it is.
fn of_notice(stored: &StoredEnvelope) -> Option<Push> {
    if !is_notice(stored) {
        return None;
    }
    let body = STANDARD.decode(&stored.ciphertext).ok()?;
    let event: SystemEvent = serde_json::from_slice(&body).ok()?;
    let push = event.into_push(stored.mesh.clone(), stored.created_at);
    Some(Push { message_id: stored.id.clone(), ..push })
}

/// Whether the broker itself keeps it for a member that is told what becomes of what it
/// sent.
#[must_use]
pub(crate) fn is_notice(stored: &StoredEnvelope) -> bool {
    let subtype = stored.scheduled.as_ref().and_then(|marks| marks.subtype.as_deref());
    subtype == Some(NOTICE) && stored.nonce.is_empty()
}

fn of(stored: StoredEnvelope) -> Push {
    if let Some(push) = of_webhook(&stored).or_else(|| of_notice(&stored)) {
        return Push { redelivered: stored.was_claimed, ..push };
    }
    let StoredEnvelope { envelope, seq, sender_key, created_at, was_claimed } = stored;
    let marks = envelope.scheduled.unwrap_or_default();
    let said = envelope.properties.map(|said| *said).unwrap_or_default();
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
        target_spec: None,
        reply_to_id: envelope.reply_to_id,
        seq: (seq > 0).then_some(seq),
        age_ms: Some(Timestamp::now().ms_since(created_at).max(0)),
        expires_at: said.expires_at,
        thread_id: said.thread_id,
        expects_reply: said.expects_reply,
        supersedes: said.supersedes,
        newer_from_sender: Some(0),
        hop: Some(said.hop),
        receipt: said.receipt,
        redelivered: was_claimed,
        topic: None,
        body_version: None,
        signature: said.seal.map(|seal| seal.signature),
        sealed_key: None,
        subtype: marks.subtype.map(Cow::Owned),
        event: None,
        event_data: None,
        late: marks.late,
    }
}

/// A sealed message to many as one of its recipients gets it: with the key that is sealed
/// for it.
#[must_use]
pub(crate) fn opened_by(delivery: &Delivery, sealed_key: &str) -> Delivery {
    let frame = SharedFrame::with_field(&delivery.frame, SEALED_KEY, sealed_key);
    Delivery { frame: Arc::new(frame), ..delivery.clone() }
}

#[must_use]
pub(crate) fn delivery(push: Push, route: Route) -> Delivery {
    let is_reported = push.receipt == Some(Reached::Confirmed);
    Delivery {
        id: push.message_id.clone(),
        route,
        priority: push.priority,
        client_message_id: push.client_message_id.as_deref().map(Arc::from),
        report_to: if is_reported { push.sender_member_id.clone() } else { None },
        frame: Arc::new(SharedFrame::new(ServerMessage::Push(Box::new(push)))),
    }
}
