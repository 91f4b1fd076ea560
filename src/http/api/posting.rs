//! `POST /messages`: a post to a topic in the name of the member that made the key.
//!
//! The post goes the way of all sends: on disk with its audit row before the answer, in
//! the mesh's order, then to those who are in the topic, on all nodes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::caller::Caller;
use super::fields::Fields;
use super::topics::{not_found, not_in_it};
use super::{Refused, answer};
use crate::clock::Timestamp;
use crate::delivery::policy::Target;
use crate::delivery::properties::{self, Replier};
use crate::delivery::refusal::Refusal;
use crate::delivery::{deliver, posts, sealed};
use crate::http::HttpState;
use crate::id::{self, Key, MemberId, MeshId, MessageId, TopicId};
use crate::limits;
use crate::protocol::{ApiCapability, Priority};
use crate::rates::{Counted, OverRate, Scope, Whom};
use crate::store::{
    Accepted, AddressedTopic, Envelope, Issuer, NewEnvelope, Post, Properties, Reach, StoreError,
};

/// What is to be posted, as its sender said it.
struct Said {
    topic: String,
    ciphertext: String,
    nonce: String,
    priority: Priority,
    body_version: i32,
    mentions: Option<Vec<String>>,
    reply_to: Option<MessageId>,
    /// The sender's own id: one of the same id is posted once.
    client_id: Option<String>,
}

impl Said {
    fn read(fields: &Fields) -> Result<Self, Refused> {
        const ANY: usize = usize::MAX;
        Ok(Self {
            topic: fields.text("topic", 1..=ANY)?,
            ciphertext: fields.text("ciphertext", 1..=ANY)?,
            nonce: fields.text("nonce", 1..=ANY)?,
            priority: fields
                .optional_word("priority", &["now", "next", "low"])?
                .and_then(|word| Priority::parse(&word))
                .unwrap_or(Priority::Next),
            body_version: fields.optional_number("bodyVersion", &[1, 2])?.unwrap_or(1),
            mentions: fields.optional_texts(
                "mentions",
                limits::MENTIONS_MAX,
                1..=limits::MENTION_BYTES_MAX,
            )?,
            reply_to: fields
                .optional_text("replyToId", 1..=limits::API_REPLY_CHARS_MAX)?
                .map(MessageId::from),
            client_id: fields
                .optional_text("client_message_id", 1..=limits::CLIENT_MESSAGE_ID_BYTES_MAX / 4)?,
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Posted {
    message_id: MessageId,
    history_id: MessageId,
    queue_id: MessageId,
    topic: String,
    topic_id: TopicId,
    /// Members that are told that they are mentioned.
    notifications: usize,
    body_version: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to_id: Option<MessageId>,
}

/// `POST /messages`.
pub(super) async fn post(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    fields: Fields,
) -> Response {
    let said = match Said::read(&fields) {
        Ok(said) => said,
        Err(refused) => return refused.into_response(),
    };
    answer(&state, |state| async move {
        caller.may(ApiCapability::Send)?;
        caller.is_for_topic(&said.topic)?;
        let sender = caller.needs_issuer()?;
        let topic = addressed(&state, caller.mesh(), &said.topic, &sender.id).await?;
        let rated = check_room(&state, &said, &sender.id).await?;
        take(&state, caller.mesh(), sender, topic, said, rated).await
    })
    .await
}

/// The topic of that very name, by which keys are bound to it, where the member may post.
async fn addressed(
    state: &HttpState,
    mesh: &MeshId,
    name: &str,
    member: &MemberId,
) -> Result<AddressedTopic, Refused> {
    let found = state.stores.topic_mail.addressed(mesh, name, member).await?;
    match found.filter(|topic| topic.name == name) {
        Some(topic) if topic.is_member => Ok(topic),
        Some(topic) if topic.is_public => Err(not_in_it(name)),
        _ => Err(not_found(name)),
    }
}

/// Whether the node, and the member, may send more now.
async fn check_room(state: &HttpState, said: &Said, member: &MemberId) -> Result<Rated, Refused> {
    let delivery = &state.presence.delivery;
    if said.ciphertext.len() + said.nonce.len() > delivery.config.message_bytes_max {
        return Err(Refused::word(StatusCode::PAYLOAD_TOO_LARGE, "message_too_large"));
    }
    let rates = async |whom| state.rates.may_send(&*state.cluster, member, whom, false).await;
    let too_many = |over: &OverRate| Refused::too_many(over.wait_ms().div_ceil(1_000));
    let rated = match rates(Whom::Many).await {
        Ok(counted) => Rated { counted, over: None },
        // It may be one that was posted before, which counts towards the member only.
        Err(over) if over.scope != Scope::Member && said.client_id.is_some() => {
            let counted = rates(Whom::Unknown).await.map_err(|over| too_many(&over))?;
            Rated { counted, over: Some(too_many(&over)) }
        }
        Err(over) => return Err(too_many(&over)),
    };
    if state.life.disk_low.load(Ordering::Relaxed) {
        return Err(Refused::unavailable());
    }
    Ok(rated)
}

/// What a post has taken of its member's rates.
struct Rated {
    counted: Counted,
    /// What it is answered, unless it is one that was posted before.
    over: Option<Refused>,
}

/// Accepts the post, and hands it on.
async fn take(
    state: &Arc<HttpState>,
    mesh: &MeshId,
    sender: &Issuer,
    topic: AddressedTopic,
    said: Said,
    rated: Rated,
) -> Result<Posted, Refused> {
    let (stores, delivery) = (&state.stores, &state.presence.delivery);
    let reply_to = match said.reply_to {
        Some(id) => stores.topic_calls.is_post(&topic.id, &id).await?.then_some(id),
        None => None,
    };
    let room = state.registry.room(mesh);
    let posting = posts::Posting {
        member: &sender.id,
        body_version: Some(said.body_version),
        mentions: said.mentions.as_deref(),
        ciphertext: &said.ciphertext,
    };
    let asked = (Target::Topic(&topic.name), posts::is_sealed(posting.body_version));
    if let Err(refusal) = sealed::is_allowed(delivery, room.as_deref(), mesh, asked).await? {
        let refused = Refused::word(StatusCode::CONFLICT, refusal.reason);
        return Err(refused.with("message", refusal.text));
    }
    let post = posts::plan_in(delivery, room.as_deref(), mesh, topic, posting).await?;
    let (topic, topic_id) = (post.name.clone(), post.topic.clone());
    let by = Replier { mesh, member: &sender.id, keys: [Some(&sender.key), None] };
    let hop = properties::hop(delivery, &by, reply_to.as_ref().map(MessageId::as_str)).await?;
    let is_loop = |refusal: Refusal| {
        Refused::word(StatusCode::CONFLICT, refusal.reason).with("message", refusal.text)
    };
    let hop = hop.map_err(is_loop)?;
    let envelope = Envelope {
        id: MessageId::from(id::random()),
        mesh: mesh.clone(),
        sender_member: sender.id.clone(),
        sender_name: sender.name.clone(),
        sender_session_key: None,
        target_spec: format!("#{topic_id}"),
        priority: said.priority,
        nonce: said.nonce,
        ciphertext: said.ciphertext,
        client_message_id: said.client_id,
        request_fingerprint: None,
        reply_to_id: reply_to.as_ref().map(ToString::to_string),
        scheduled: None,
        properties: Properties { hop, ..Properties::default() }.said(),
    };
    let mut notifications = post.mentions.len();
    let id = match accept(state, envelope, sender.key.clone(), post, rated).await? {
        (id, true) => id,
        (id, false) => {
            notifications = 0;
            id
        }
    };
    Ok(Posted {
        message_id: id.clone(),
        history_id: id.clone(),
        queue_id: id,
        topic,
        topic_id,
        notifications,
        body_version: said.body_version,
        reply_to_id: reply_to,
    })
}

/// Puts the post on disk and tells those whom it is for; its id, and whether it is new.
async fn accept(
    state: &HttpState,
    envelope: Envelope,
    sender_key: Key,
    post: Post,
    mut rated: Rated,
) -> Result<(MessageId, bool), Refused> {
    let new = NewEnvelope { envelope, reach: Reach::Topic(Box::new(post)) };
    if let Some(over) = rated.over {
        let known = state.stores.envelopes.repeats(std::slice::from_ref(&new)).await?;
        return known.into_iter().flatten().next().map(|id| (id, false)).ok_or(over);
    }
    let accepted = state.stores.envelopes.accept(Timestamp::now(), std::slice::from_ref(&new));
    let place = match accepted.await?.pop() {
        Some(Accepted::New { seq, previous_multicast, roster, created_at }) => {
            rated.counted.spend();
            deliver::Place { seq, previous_multicast, roster, created_at }
        }
        Some(Accepted::Duplicate { id }) => return Ok((id, false)),
        None => return Err(StoreError::Broken("a post was not answered".to_owned()).into()),
    };
    let (id, room) = (new.envelope.id.clone(), state.registry.room(&new.envelope.mesh));
    deliver::deliver_later(&state.presence.delivery, room.as_ref(), new, sender_key, place);
    Ok((id, true))
}
