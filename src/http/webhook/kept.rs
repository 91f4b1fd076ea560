//! What is posted to a webhook that keeps it: mail for each member that is away, in the
//! name of the webhook's maker, under the quotas of all mail.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::clock::Timestamp;
use crate::cluster::BusMessage;
use crate::delivery::drain;
use crate::http::HttpState;
use crate::id::{self, Key, MemberId, MeshId, MessageId};
use crate::limits;
use crate::protocol::{Priority, webhooks};
use crate::store::{Envelope, Holder, NewEnvelope, Reach, Result, Webhook};

/// Keeps a post for the members of whom nobody is connected. `false`: as much waits of
/// the maker's mail, or in the mesh, as may; nothing is kept. A member whose mailbox is
/// full is left out. A call of the same key keeps nothing twice.
pub(super) async fn keep(
    state: &HttpState,
    hook: &Webhook,
    mesh: &MeshId,
    (key, body): (Option<&str>, &[u8]),
    open: &[MemberId],
) -> Result<bool> {
    let here: HashSet<&MemberId> = open.iter().collect();
    let mut away = state.stores.members.active(mesh).await?;
    away.retain(|member| !here.contains(&member.id));
    let ciphertext = STANDARD.encode(body);
    let bytes = (ciphertext.len() as u64).max(limits::WAITING_BYTES_MIN);
    let all = bytes.saturating_mul(away.len() as u64);
    if !fits_at_all(state, hook, mesh, all).await? {
        return Ok(false);
    }
    let call = key.map_or_else(id::generate, |key| call_of(key, Timestamp::now()));
    let mut kept: Vec<Key> = Vec::new();
    for group in away.chunks(limits::WEBHOOK_KEPT_AT_ONCE) {
        let boxes: Vec<&Key> = group.iter().map(|member| &member.key).collect();
        let fits = fits_each(state, mesh, &boxes, bytes).await?;
        let fitting = boxes.into_iter().zip(fits).filter(|(_, fits)| *fits).map(|(key, _)| key);
        let batch: Vec<NewEnvelope> =
            fitting.map(|target| envelope(hook, mesh, target, &call, &ciphertext)).collect();
        state.stores.envelopes.accept(Timestamp::now(), &batch).await?;
        kept.extend(batch.iter().map(|envelope| Key::from(&*envelope.target_spec)));
    }
    tell(state, mesh, kept);
    Ok(true)
}

/// The name of a call of that key. A key is another call's a day later, while ids of
/// messages are remembered for longer; so the day is part of it. A call that broke off
/// before midnight and is made again after it may be kept twice.
fn call_of(key: &str, now: Timestamp) -> String {
    format!("{}/{key}", now.as_ms() / limits::WEBHOOK_REPEAT_MS)
}

fn envelope(
    hook: &Webhook,
    mesh: &MeshId,
    target: &Key,
    call: &str,
    ciphertext: &str,
) -> NewEnvelope {
    let named = Sha256::new().chain_update(&hook.id).chain_update([0]).chain_update(call);
    let named = named.chain_update([0]).chain_update(target.as_str()).finalize();
    let envelope = Envelope {
        id: MessageId::generate(),
        mesh: mesh.clone(),
        sender_member: hook.created_by.clone(),
        sender_name: webhooks::sender_of(&hook.name).to_string(),
        sender_session_key: Some(webhooks::sender_of(&hook.name)),
        target_spec: target.to_string(),
        priority: Priority::Next,
        nonce: String::new(),
        ciphertext: ciphertext.to_owned(),
        client_message_id: Some(format!("webhook-{}", hex::encode(named))),
        request_fingerprint: None,
        reply_to_id: None,
        scheduled: None,
        properties: None,
    };
    NewEnvelope { envelope, reach: Reach::Direct { claim: None, note: None } }
}

/// Whoever came meanwhile reads it.
fn tell(state: &HttpState, mesh: &MeshId, keys: Vec<Key>) {
    if keys.is_empty() {
        return;
    }
    if let Some(room) = state.registry.room(mesh) {
        for key in &keys {
            drain::request_addressed(&state.presence.delivery, &room, key);
        }
    }
    state.cluster.publish(mesh, &BusMessage::MailFor { keys, many: false });
}

/// Whether so much more may wait of the maker's mail, and in the mesh.
async fn fits_at_all(state: &HttpState, hook: &Webhook, mesh: &MeshId, bytes: u64) -> Result<bool> {
    let max = &state.presence.delivery.config.quotas;
    let holders = [
        (
            Holder::Sender { mesh: mesh.clone(), member: hook.created_by.clone() },
            max.sender_bytes_max,
        ),
        (Holder::Mesh { mesh: mesh.clone() }, max.mesh_bytes_max),
    ];
    let asked: Vec<(Holder, u64)> = holders
        .iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(holder, bytes)| (holder.clone(), bytes / limits::WAITING_BYTES_MIN + 1))
        .collect();
    let loads = state.stores.envelopes.waiting_load(&asked).await?;
    let bounds = holders.iter().map(|(_, bytes)| *bytes).filter(|bytes| *bytes > 0);
    Ok(loads.iter().zip(bounds).all(|(load, bound)| load.bytes.saturating_add(bytes) <= bound))
}

/// Which of these mailboxes have room for one message of that size.
async fn fits_each(
    state: &HttpState,
    mesh: &MeshId,
    boxes: &[&Key],
    bytes: u64,
) -> Result<Vec<bool>> {
    let max = &state.presence.delivery.config.quotas;
    let rows_max =
        match (max.mailbox_messages_max, max.mailbox_bytes_max / limits::WAITING_BYTES_MIN) {
            (0, 0) => return Ok(vec![true; boxes.len()]),
            (0, rows) | (rows, 0) => rows,
            (messages, rows) => messages.min(rows),
        };
    let holder =
        |key: &&Key| Holder::Mailbox { mesh: mesh.clone(), target: key.as_str().to_owned() };
    let asked: Vec<_> = boxes.iter().map(|key| (holder(key), rows_max + 1)).collect();
    let loads = state.stores.envelopes.waiting_load(&asked).await?;
    let fits = loads.into_iter().map(|load| {
        (max.mailbox_messages_max == 0 || load.messages < max.mailbox_messages_max)
            && (max.mailbox_bytes_max == 0
                || load.bytes.saturating_add(bytes) <= max.mailbox_bytes_max)
    });
    Ok(fits.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_another_call_s_once_calls_of_it_are_forgotten() {
        let now = Timestamp::from_ms(10 * limits::WEBHOOK_REPEAT_MS);
        let hour_later = now.plus_ms(3_600_000);
        assert_eq!(call_of("key", now), call_of("key", hour_later));
        assert_ne!(call_of("key", now), call_of("other", now));
        assert_ne!(call_of("key", now), call_of("key", now.plus_ms(limits::WEBHOOK_REPEAT_MS)));
    }
}
