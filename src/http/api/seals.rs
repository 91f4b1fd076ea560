//! Keys of topics, sealed for their members. The broker keeps what is sealed, and can open
//! none of it.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::json;

use super::caller::Caller;
use super::fields::Fields;
use super::topics::{Named, name_of, not_in_it, read_by, seen};
use super::{Refused, answer};
use crate::clock::Timestamp;
use crate::http::HttpState;
use crate::id::{Key, MemberId};
use crate::limits;
use crate::protocol::ApiCapability;
use crate::store::{Claiming, Sealing, TopicSeal, Unsealed};

/// Characters of a nonce, in base64.
const NONCE_CHARS_MAX: usize = 64;

/// `GET /topics/{name}/key`: as it is sealed for the key's member.
pub(super) async fn key(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    named: Named,
) -> Response {
    answer(&state, |state| async move {
        caller.may(ApiCapability::Read)?;
        let name = name_of(named);
        caller.is_for_topic(&name)?;
        caller.needs_issuer()?;
        let topic = seen(&state, &caller, &name).await?;
        let Some(key_pubkey) = topic.key_pubkey else {
            let hint = "legacy v0.2.0 topic — messages are base64 plaintext";
            return Err(unencrypted(&topic.name, hint));
        };
        let Some(held) = topic.held else {
            let refused = Refused::word(StatusCode::NOT_FOUND, "key_not_sealed_for_member");
            let hint = "join the topic, then ask an existing member to re-seal";
            return Err(refused.with("topic", topic.name).with("hint", hint));
        };
        Ok(json!({
            "topic": topic.name,
            "topicId": topic.id,
            "encryptedKey": held.encrypted_key,
            "nonce": held.nonce,
            "senderPubkey": key_pubkey,
            "createdAt": held.created_at,
        }))
    })
    .await
}

/// Members for whom a topic's key is not sealed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PendingView {
    member_id: MemberId,
    pubkey: Key,
    display_name: String,
}

/// `GET /topics/{name}/pending-seals`.
pub(super) async fn pending(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    named: Named,
) -> Response {
    answer(&state, |state| async move {
        caller.may(ApiCapability::Read)?;
        let topic = read_by(&state, &caller, &name_of(named)).await?;
        let Some(key_pubkey) = topic.key_pubkey else {
            return Ok(json!({ "pending": [], "senderPubkey": null }));
        };
        let calls = &state.stores.topic_calls;
        let found = calls.unsealed(&topic.id, limits::API_PENDING_SEALS_MAX).await?;
        let view = |one: Unsealed| PendingView {
            member_id: one.member,
            pubkey: one.key,
            display_name: one.name,
        };
        let pending: Vec<PendingView> = found.into_iter().map(view).collect();
        Ok(json!({
            "topic": topic.name,
            "topicId": topic.id,
            "senderPubkey": key_pubkey,
            "pending": pending,
        }))
    })
    .await
}

/// `POST /topics/{name}/seal`: by whoever has the key, also with a key of the API that
/// only reads: who can open the topic's key can give it away in any case.
pub(super) async fn seal(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    named: Named,
    fields: Fields,
) -> Response {
    let read = || -> Result<TopicSeal, Refused> {
        Ok(TopicSeal {
            member: fields.text("memberId", 1..=limits::SHARED_NAME_BYTES_MAX)?.into(),
            encrypted_key: fields.text("encryptedKey", 1..=limits::SEAL_BYTES_MAX)?,
            nonce: fields.text("nonce", 1..=NONCE_CHARS_MAX)?,
        })
    };
    let seal = match read() {
        Ok(seal) => seal,
        Err(refused) => return refused.into_response(),
    };
    answer(&state, |state| async move {
        caller.may(ApiCapability::Read).or_else(|_| caller.may(ApiCapability::Send))?;
        let name = name_of(named);
        caller.is_for_topic(&name)?;
        let author = caller.author()?;
        let topic = seen(&state, &caller, &name).await?;
        if topic.key_pubkey.is_none() {
            return Err(unencrypted(&topic.name, "legacy v0.2.0 topic — no key to seal"));
        }
        let now = Timestamp::now();
        let sealing = state.stores.topic_calls.seal(now, &author, &topic.id, &seal).await?;
        let (status, word) = match sealing {
            Sealing::Sealed => {
                return Ok(json!({
                    "topic": topic.name,
                    "topicId": topic.id,
                    "memberId": seal.member,
                    "sealedAt": now,
                }));
            }
            Sealing::NotInTopic => (StatusCode::NOT_FOUND, "recipient_not_in_topic"),
            Sealing::NoKey => (StatusCode::FORBIDDEN, "key_not_sealed_for_member"),
            Sealing::Already => (StatusCode::CONFLICT, "already_sealed"),
        };
        Err(Refused::word(status, word).with("topic", topic.name))
    })
    .await
}

/// `POST /topics/{name}/claim-key`: a member of a topic without a key brings one.
pub(super) async fn claim(
    State(state): State<Arc<HttpState>>,
    Extension(caller): Extension<Caller>,
    named: Named,
    fields: Fields,
) -> Response {
    let read = || -> Result<(String, String, String), Refused> {
        Ok((
            fields.key("encryptedKeyPubkey")?,
            fields.text("encryptedKey", 1..=limits::SEAL_BYTES_MAX)?,
            fields.text("nonce", 1..=NONCE_CHARS_MAX)?,
        ))
    };
    let (key_pubkey, encrypted_key, nonce) = match read() {
        Ok(fields) => fields,
        Err(refused) => return refused.into_response(),
    };
    answer(&state, |state| async move {
        caller.may(ApiCapability::Send)?;
        let name = name_of(named);
        caller.is_for_topic(&name)?;
        let author = caller.author()?;
        let topic = seen(&state, &caller, &name).await?;
        if !topic.is_member {
            return Err(not_in_it(&name));
        }
        let seal = TopicSeal { member: author.member.clone(), encrypted_key, nonce };
        let calls = &state.stores.topic_calls;
        match calls.claim(Timestamp::now(), &author, &topic.id, &key_pubkey, &seal).await? {
            Claiming::Claimed => Ok(json!({
                "topic": topic.name,
                "topicId": topic.id,
                "senderPubkey": key_pubkey,
                "memberId": author.member,
                "claimed": true,
            })),
            Claiming::Already(known) => {
                let refused = Refused::word(StatusCode::CONFLICT, "already_encrypted");
                let hint = "the topic has a key; ask a member that has it to seal it for you";
                let refused = refused.with("topic", topic.name).with("senderPubkey", known);
                Err(refused.with("hint", hint))
            }
        }
    })
    .await
}

/// The topic has no key.
fn unencrypted(topic: &str, hint: &str) -> Refused {
    let refused = Refused::word(StatusCode::CONFLICT, "topic_unencrypted");
    refused.with("topic", topic).with("hint", hint)
}
