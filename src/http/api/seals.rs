//! Keys of topics, sealed for their members. The broker keeps what is sealed, and can open
//! none of it.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::caller::Caller;
use super::topics::{Named, name_of, seen};
use super::{Refused, answer};
use crate::http::HttpState;
use crate::protocol::ApiCapability;

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

/// The topic has no key.
fn unencrypted(topic: &str, hint: &str) -> Refused {
    let refused = Refused::word(StatusCode::CONFLICT, "topic_unencrypted");
    refused.with("topic", topic).with("hint", hint)
}
