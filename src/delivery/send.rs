//! A `send`: its checks, its recipients, its way into the group commit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::json;

use super::addressee;
use super::allowance::{self, Allowance};
use super::deliver::{self, Recipient, Sent};
use super::policy::{self, Capability, NO_GRANT, NO_PEER, Target};
use super::posts;
use super::properties;
use super::refusal::{DISK_LOW, Refusal, not_read};
use super::sealed;
use crate::clock::Timestamp;
use crate::cluster::ClusterHealth;
use crate::codec::Codec;
use crate::delivery::Parts;
use crate::id::{self, Key, MemberId, MessageId};
use crate::limits;
use crate::protocol::{Ack, Priority, RequestId, Send, ServerMessage, WebhookEvent};
use crate::rates::cost;
use crate::record::PresenceRecord;
use crate::registry::Room;
use crate::session::Session;
use crate::session::outbox::Owed;
use crate::store::{Accepted, Envelope, Member, NewEnvelope, Note, Post, Reach, StoredEnvelope};
use crate::writers::group_commit::{Outcome, Pending, Submission};

/// Takes a send, or refuses it. The answer leaves when its fate is known;
/// this returns when it is on its way, so that a socket's next frame need not
/// wait for the commit.
pub(crate) async fn send(
    parts: &Arc<Parts>,
    room: &Arc<Room>,
    session: &Arc<Session>,
    send: Send<'_>,
    req_id: Option<RequestId>,
    received: Instant,
) {
    let id = send.id.as_deref().unwrap_or_default().to_owned();
    let answer_to = AnswerTo::new(session, id, req_id, send.sealed_keys.is_some());
    match plan(parts, room, session, send).await {
        Ok((envelope, sent)) => {
            let only_known = sent.allowance.is_over();
            let pending = PendingSend { parts: Arc::clone(parts), answer_to, sent };
            let submission = Submission { envelope, received, pending, only_known };
            parts.group_commit.submit(submission).await;
        }
        Err(refusal) => {
            answer_to.refuse(parts, refusal);
            if let Some(owed) = session.charge(cost::OF_NOISE) {
                tokio::time::sleep(owed).await;
            }
        }
    }
}

/// Where the answer to a send goes, and what it carries.
struct AnswerTo {
    session: Arc<Session>,
    id: String,
    req_id: Option<RequestId>,
    /// The room for it: it may come long after the next request was read.
    owed: Owed,
}

impl AnswerTo {
    fn new(session: &Arc<Session>, id: String, req_id: Option<RequestId>, is_sealed: bool) -> Self {
        let bytes = if is_sealed { limits::SEALED_ACK_BYTES_MAX } else { limits::ACK_BYTES_MAX };
        let owed = session.outbox.owe(bytes + encoded_bytes(&id));
        Self { session: Arc::clone(session), id, req_id, owed }
    }

    fn kept(self, message_id: String, unsealed: Vec<Key>) {
        let unsealed_count = (!unsealed.is_empty()).then_some(unsealed.len());
        let mut unsealed_for = unsealed;
        unsealed_for.truncate(limits::UNSEALED_FOR_MAX);
        self.answer(|id| Ack {
            id,
            message_id,
            queued: true,
            unsealed_for,
            unsealed_count,
            ..Ack::default()
        });
    }

    fn refuse(self, parts: &Parts, refusal: Refusal) {
        parts.metrics.rejected(refusal.reason);
        self.answer(|id| refusal.into_ack(id));
    }

    fn answer(self, ack: impl FnOnce(String) -> Ack) {
        let Self { session, id, req_id, owed } = self;
        let ack = ServerMessage::Ack(ack(id));
        owed.pay(session.codec.encode(&ack, req_id.as_ref()));
    }
}

/// What a text takes at most, as JSON.
fn encoded_bytes(text: &str) -> usize {
    let is_escaped = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
    text.len() + 5 * text.bytes().filter(is_escaped).count()
}

/// The answer to a send that is not one: bad priority, wrong types.
pub(crate) fn refuse_invalid(
    parts: &Parts,
    session: &Arc<Session>,
    id: Option<String>,
    req_id: Option<&RequestId>,
    reason: &str,
) {
    let id = id.unwrap_or_default();
    let answer_to = AnswerTo::new(session, id, req_id.cloned(), false);
    answer_to.refuse(parts, Refusal::new("invalid", format!("invalid send: {reason}")));
}

/// The checks, in the recorded order, and whom the message is for.
async fn plan(
    parts: &Parts,
    room: &Arc<Room>,
    session: &Arc<Session>,
    send: Send<'_>,
) -> Result<(NewEnvelope, Sent), Refusal> {
    let mut allowance = Allowance::take(parts, room, session, &send).await?;
    check_sizes(parts, session, &send)?;
    sealed::check(&send)?;
    if parts.life.disk_low.load(Ordering::Relaxed) {
        return Err(Refusal::for_now("disk_low", DISK_LOW));
    }
    let record = room
        .record(&session.presence)
        .ok_or_else(|| Refusal::new("gone", "this session has ended"))?;
    let mut post = None;
    let target = Target::parse(&send.target_spec);
    let is_sealed = match target {
        Target::Topic(_) => posts::is_sealed(send.body_version),
        _ => send.sealed_keys.is_some(),
    };
    let asked = (target, is_sealed);
    sealed::is_allowed(parts, Some(room), room.mesh(), asked).await.map_err(not_read)??;
    let recipient = match target {
        Target::Everyone | Target::Group(_) => Recipient::Many,
        Target::Topic(named) => {
            let posting = posts::Posting {
                member: &session.member,
                body_version: send.body_version,
                mentions: send.mentions.as_deref(),
                ciphertext: send.ciphertext.as_text(),
            };
            let planned = posts::plan(parts, Some(room), room.mesh(), named, posting).await;
            post = Some(Box::new(planned.map_err(not_read)??));
            Recipient::Many
        }
        Target::Key(key) => direct(parts, room, session, key, send.priority).await?,
    };
    let terms = (send.priority, allowance::has_id(&send));
    if let Recipient::One { member, .. } = &recipient {
        allowance.reach(parts, room, session, member, terms).await?;
    }
    let properties = properties::of(parts, session, &send).await?;
    let unsealed = sealed::unsealed_for(room, session, &send);
    let (room, sender) = (Arc::clone(room), Arc::clone(session));
    let sent = Sent { room, sender, recipient, allowance, unsealed };
    let mut envelope = envelope(parts, session, &record, send, &sent, post);
    envelope.properties = properties;
    Ok((envelope, sent))
}

fn check_sizes(parts: &Parts, session: &Session, send: &Send<'_>) -> Result<(), Refusal> {
    let sealed = send.ciphertext.as_text().len() + send.nonce.as_text().len();
    // What came as bytes is held as base64, which is longer by a third.
    let sealed = if session.codec == Codec::MsgPack { sealed / 4 * 3 } else { sealed };
    let bytes = sealed + send.target_spec.len();
    let max = parts.config.message_bytes_max;
    if bytes > max {
        let text = format!("payload too large: {bytes} bytes > MAX_MESSAGE_BYTES={max}");
        return Err(Refusal::new("too_large", text));
    }
    let long = |field: &Option<std::borrow::Cow<'_, str>>| {
        field.as_ref().is_some_and(|text| text.len() > limits::CLIENT_MESSAGE_ID_BYTES_MAX)
    };
    if send.target_spec.len() > limits::TARGET_SPEC_BYTES_MAX
        || long(&send.client_message_id)
        || long(&send.request_fingerprint)
        || long(&send.reply_to_id)
        || long(&send.thread_id)
        || long(&send.supersedes)
    {
        return Err(Refusal::new("invalid", "invalid send: an id or the target is too long"));
    }
    // Postgres cannot keep one; both databases refuse what one would change.
    let has_nul = |field: &Option<std::borrow::Cow<'_, str>>| {
        field.as_ref().is_some_and(|text| text.contains('\0'))
    };
    if send.target_spec.contains('\0')
        || has_nul(&send.client_message_id)
        || has_nul(&send.request_fingerprint)
        || has_nul(&send.reply_to_id)
        || has_nul(&send.thread_id)
        || has_nul(&send.supersedes)
        || send.nonce.as_text().contains('\0')
        || send.ciphertext.as_text().contains('\0')
    {
        return Err(Refusal::new("invalid", "invalid send: NUL cannot be kept"));
    }
    Ok(())
}

/// Rules 21, 22 and 24: known, allowed, and which presence should get it.
async fn direct(
    parts: &Parts,
    room: &Room,
    session: &Session,
    key: &str,
    priority: Priority,
) -> Result<Recipient, Refusal> {
    let mut candidates = room.addressed_by(key);
    candidates.retain(|candidate| candidate.record.id != session.presence);
    let member = recipient_member(parts, room, session, key, &candidates).await?;
    let session_key = session.session_key.as_ref();
    if !policy::grants(&member, &session.member_key, session_key, Capability::Dm) {
        return Err(Refusal::new("grants", NO_GRANT));
    }
    if parts.cluster.health() == ClusterHealth::Degraded {
        // A claim for a session elsewhere, whom this node cannot tell of it,
        // would only keep that one's node from finding the message.
        candidates.retain(|candidate| candidate.session.is_some());
    }
    let chosen = policy::choose(&candidates, priority);
    Ok(Recipient::One {
        key: Key::from(key),
        member: member.id.clone(),
        presence: chosen.map(|candidate| candidate.record.id.clone()),
    })
}

async fn recipient_member(
    parts: &Parts,
    room: &Room,
    session: &Session,
    key: &str,
    candidates: &[crate::registry::Candidate],
) -> Result<Arc<Member>, Refusal> {
    let no_peer = || Refusal::new("no_peer", NO_PEER);
    let own = key == session.member_key.as_str()
        || session.session_key.as_ref().is_some_and(|own| own.as_str() == key);
    if own && candidates.is_empty() {
        return Err(no_peer());
    }
    let record = candidates.first().map(|candidate| &*candidate.record);
    let member = addressee::of(parts, Some(room), room.mesh(), key, record).await;
    member.map_err(not_read)?.ok_or_else(no_peer)
}

fn envelope(
    parts: &Parts,
    session: &Session,
    record: &PresenceRecord,
    send: Send<'_>,
    sent: &Sent,
    post: Option<Box<Post>>,
) -> NewEnvelope {
    let given = |text: Option<std::borrow::Cow<'_, str>>| {
        text.filter(|text| !text.is_empty()).map(std::borrow::Cow::into_owned)
    };
    // People name posts by the beginning of their ids.
    let (id, target_spec) = match &post {
        Some(post) => (MessageId::from(id::random()), format!("#{}", post.topic)),
        None => (MessageId::generate(), send.target_spec.into_owned()),
    };
    let reach = match (post, &sent.recipient) {
        (Some(post), _) => Reach::Topic(post),
        (None, Recipient::Many) => Reach::Multicast,
        (None, Recipient::One { presence: Some(presence), .. }) => {
            let until = Timestamp::now().plus_ms(parts.config.claim_ms);
            Reach::Direct { claim: Some((presence.clone(), until)), note: None }
        }
        (None, Recipient::One { key, member, presence: None }) => {
            Reach::Direct { claim: None, note: note_waiting(parts, &sent.room, key, member) }
        }
    };
    NewEnvelope {
        envelope: Envelope {
            id,
            mesh: session.mesh.clone(),
            sender_member: session.member.clone(),
            sender_name: record.display_name.clone(),
            sender_session_key: session.session_key.clone(),
            target_spec,
            priority: send.priority,
            nonce: send.nonce.into_text(),
            ciphertext: send.ciphertext.into_text(),
            client_message_id: given(send.client_message_id),
            request_fingerprint: given(send.request_fingerprint),
            reply_to_id: given(send.reply_to_id),
            scheduled: None,
            properties: None,
        },
        reach,
    }
}

/// Mail is going to wait, and webhooks may want to know.
fn note_waiting(parts: &Parts, room: &Room, key: &Key, member: &MemberId) -> Option<Box<Note>> {
    let (mesh, event) = (room.mesh(), WebhookEvent::MailWaiting);
    if !parts.noted.is_asked(mesh, event) {
        return None;
    }
    let name = room.member(member).map(|member| member.display_name.clone());
    let data = json!({ "memberId": member, "name": name, "pubkey": key });
    Some(Box::new(Note { mesh: mesh.clone(), event, subject: key.to_string(), data }))
}

/// A send on its way to the disk: whom to answer, and what follows then.
pub struct PendingSend {
    parts: Arc<Parts>,
    answer_to: AnswerTo,
    sent: Sent,
}

impl Pending for PendingSend {
    /// The answer first, then the message.
    fn decided(self, envelope: NewEnvelope, outcome: Outcome) {
        let Self { parts, answer_to, mut sent } = self;
        match outcome {
            Ok(Accepted::New { seq, previous_multicast, roster, created_at }) => {
                sent.allowance.spend();
                let at = (seq, created_at);
                deliver::note_accepted(&parts, Some(&*sent.room), &envelope, at);
                answer_to.kept(envelope.id.to_string(), std::mem::take(&mut sent.unsealed));
                let sender_key = sent.sender.member_key.clone();
                let NewEnvelope { envelope, reach } = envelope;
                let stored = StoredEnvelope::fresh(envelope, seq, sender_key, created_at);
                match reach {
                    Reach::Topic(post) => {
                        deliver::post(&parts, &sent, stored, *post, roster, previous_multicast);
                    }
                    _ => deliver::deliver(&parts, sent, stored, previous_multicast),
                }
            }
            Ok(Accepted::Duplicate { id }) => {
                answer_to.kept(id.to_string(), std::mem::take(&mut sent.unsealed));
                deliver::deliver_again(&parts, sent);
            }
            Err(refused) => answer_to.refuse(&parts, sent.allowance.refusal(refused)),
        }
    }
}

#[cfg(test)]
mod tests;
