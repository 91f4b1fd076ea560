//! What comes in: into the spool first, then confirmed.

use std::sync::Arc;

use serde_json::Value;

use super::Shared;
use crate::claude::spool::{Incoming, Stored};
use crate::client::Client;
use crate::clock::Timestamp;
use crate::id::MessageId;
use crate::protocol::Push;

/// What stands in the place of a text that no key of this session opens.
const UNREADABLE: &str = "(this message was sealed for a key that this session does not have)";

/// Who writes what no peer has written.
const THE_BROKER: &str = "the broker";

/// Keeps one message and confirms it. What cannot be kept is not confirmed: the broker has
/// it still, and sends it again.
pub(super) async fn take(
    shared: &Arc<Shared>,
    client: &Client,
    push: &Push,
    (plaintext, is_sealed): (Option<Vec<u8>>, bool),
) {
    let incoming = incoming(shared, client, push, (plaintext, Some(is_sealed))).await;
    let spool = &shared.party.spool;
    let stored = spool.store(&incoming, Timestamp::now()).await;
    if let (Ok(Stored::New), Some(earlier)) = (&stored, &push.supersedes)
        && let Err(error) = spool.superseded(&incoming, earlier).await
    {
        tracing::warn!(error = format!("{error:#}"), "a superseded message stays in the spool");
    }
    match stored {
        Ok(Stored::New | Stored::Known) => {
            if client.confirm(&push.message_id).await.is_err() {
                tracing::debug!("a message was kept and could not be confirmed");
            }
            shared.arrived.notify_one();
        }
        Ok(Stored::Full) => tracing::warn!("the spool of this session is full"),
        Err(error) => tracing::warn!(error = format!("{error:#}"), "a message was not kept"),
    }
}

async fn incoming(
    shared: &Shared,
    client: &Client,
    push: &Push,
    (plaintext, is_sealed): (Option<Vec<u8>>, Option<bool>),
) -> Incoming {
    let party = &shared.party;
    let is_notice = push.event.is_some();
    // Left out when the member writes to itself.
    let sender_key = match &push.sender_member_pubkey {
        _ if is_notice => push.sender_pubkey.clone(),
        Some(key) => key.clone(),
        None => party.identity.member_pubkey(),
    };
    let sender_name = if is_notice {
        THE_BROKER.to_owned()
    } else if sender_key == party.identity.member_pubkey() {
        party.kept.file.name.clone()
    } else {
        shared.names.of(&sender_key, push.sender_name.as_deref(), party, client).await
    };
    let body = match plaintext {
        _ if is_notice => Some(notice(push)),
        text => text.map(|text| String::from_utf8_lossy(&text).into_owned()),
    };
    Incoming {
        message_id: push.message_id.clone(),
        client_message_id: push.client_message_id.clone(),
        sender_session_key: Some(push.sender_pubkey.clone()).filter(|key| *key != sender_key),
        sender_key,
        sender_name,
        sender_session_name: push.sender_name.clone(),
        mesh: party.kept.file.mesh_slug.clone(),
        target: push.target_spec.clone(),
        to_many: Some(push.target_spec.is_some()),
        for_session: false,
        priority: push.priority,
        subtype: push.subtype.as_deref().map(str::to_owned),
        sent_at: push.created_at,
        expires_at: push.expires_at,
        thread_id: push.thread_id.clone(),
        reply_to_id: push.reply_to_id.clone(),
        expects_reply: Some(push.expects_reply),
        hop: push.hop,
        newer_from_sender: push.newer_from_sender,
        is_sealed: is_sealed.filter(|_| !is_notice),
        redelivered: push.redelivered,
        seq: push.seq.and_then(|seq| u64::try_from(seq).ok()),
        body: body.unwrap_or_else(|| UNREADABLE.to_owned()),
    }
}

/// What became of a message that this session's member has sent, as a sentence.
fn notice(push: &Push) -> String {
    let data = push.event_data.clone().unwrap_or_default();
    let id = data["messageId"].as_str().unwrap_or("?");
    let target = data["targetSpec"].as_str().unwrap_or("its recipient");
    match push.event.as_deref() {
        Some("message_expired") => {
            format!("Your message {id} to {target} has become too old; nobody gets it any more.")
        }
        Some("message_blocked") => {
            format!("Your message {id} to {target} is kept away by what its recipient allows.")
        }
        _ => format!("The broker says something of your message {id} to {target}."),
    }
}

/// What the broker tells beside messages. Only what takes one away concerns the spool.
pub(super) async fn told(shared: &Shared, event: &str, data: &Value) {
    if event != "message_withdrawn" {
        return;
    }
    let ids: Vec<MessageId> = data["messageId"].as_str().map(MessageId::from).into_iter().collect();
    if let Err(error) = shared.party.spool.withdrawn(&ids).await {
        tracing::warn!(error = format!("{error:#}"), "a withdrawn message stays in the spool");
    }
}
