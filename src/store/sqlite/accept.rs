//! Taking envelopes: the hot path. A batch costs a handful of statements
//! however large it is; each reads its rows from one JSON parameter.

use std::collections::HashMap;

use serde::Serialize;

use super::audit::Chains;
use super::connection::{Db, Tx};
use super::error::refused;
use super::row::to_json;
use crate::audit::message_sent_payload;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId, MessageId};
use crate::store::{Accepted, NewEnvelope, Reach, Result};

/// An idempotence key: mesh, sender, the sender's own id for the message.
type SendKey<'a> = (&'a MeshId, &'a MemberId, &'a str);

/// A row of `message_queue` to be written.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a MessageId,
    mesh_id: &'a MeshId,
    sender_member_id: &'a MemberId,
    sender_session_pubkey: Option<&'a str>,
    sender_name: &'a str,
    target_spec: &'a str,
    priority: &'static str,
    nonce: &'a str,
    ciphertext: &'a str,
    client_message_id: Option<&'a str>,
    request_fingerprint: Option<&'a str>,
    reply_to_id: Option<&'a str>,
    claim_id: Option<&'a str>,
    claim_expires_at: Option<i64>,
    seq: i64,
    multicast: bool,
}

pub(super) async fn accept(
    db: &Db,
    now: Timestamp,
    batch: &[NewEnvelope],
) -> Result<Vec<Accepted>> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = db.begin().await?;
    let mut known = known_keys(&mut tx, batch).await?;
    let mut chains = Chains::read(&mut tx, now, batch.iter().map(|e| &e.mesh)).await?;
    let mut positions = multicast_positions(&mut tx, batch.iter().map(|e| &e.mesh)).await?;
    let mut rows = Vec::with_capacity(batch.len());
    let mut answers = Vec::with_capacity(batch.len());
    for envelope in batch {
        if let Some(key) = send_key(envelope) {
            if let Some(id) = known.get(&key) {
                answers.push(Accepted::Duplicate { id: id.clone() });
                continue;
            }
            known.insert(key, envelope.id.clone());
        }
        let priority = envelope.priority.as_str();
        let seq = chains.push_raw(
            &envelope.mesh,
            Some(&envelope.sender_member),
            Some(&envelope.sender_name),
            "message_sent",
            message_sent_payload(&envelope.target_spec, priority),
        );
        let previous_multicast = match envelope.reach {
            Reach::Multicast => positions.insert(&envelope.mesh, seq).unwrap_or_default(),
            Reach::Direct { .. } => 0,
        };
        rows.push(row(envelope, seq));
        answers.push(Accepted::New { seq, previous_multicast, created_at: now });
    }
    chains.write(&mut tx).await?;
    insert(&mut tx, now, &rows).await?;
    tx.commit().await.map_err(refused)?;
    Ok(answers)
}

/// For each mesh that has one, the place of its last multicast that is kept.
pub(super) async fn multicast_positions<'a>(
    tx: &mut Tx,
    meshes: impl IntoIterator<Item = &'a MeshId>,
) -> Result<HashMap<&'a MeshId, i64>> {
    let mut meshes: Vec<&MeshId> = meshes.into_iter().collect();
    meshes.sort_unstable();
    meshes.dedup();
    let positions: Vec<Option<i64>> = sqlx::query_scalar(
        "select (select max(seq) from message_queue
                 where mesh_id = mesh.value and multicast = 1)
         from json_each(?1) mesh order by mesh.key",
    )
    .bind(to_json(&meshes))
    .fetch_all(&mut **tx)
    .await
    .map_err(refused)?;
    let positions = meshes.into_iter().zip(positions);
    Ok(positions.filter_map(|(mesh, position)| Some((mesh, position?))).collect())
}

fn send_key(envelope: &NewEnvelope) -> Option<SendKey<'_>> {
    let client_id = envelope.client_message_id.as_deref()?;
    Some((&envelope.mesh, &envelope.sender_member, client_id))
}

/// The keys of the batch that were used before, with the ids they stand for.
async fn known_keys<'a>(
    tx: &mut Tx,
    batch: &'a [NewEnvelope],
) -> Result<HashMap<SendKey<'a>, MessageId>> {
    let keys: Vec<SendKey<'_>> = batch.iter().filter_map(send_key).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let found: Vec<(i64, String)> = sqlx::query_as(
        "select asked.key, q.id from json_each(?1) asked
         cross join message_queue q on q.mesh_id = asked.value ->> 0
            and q.sender_member_id = asked.value ->> 1
            and q.client_message_id = asked.value ->> 2 and q.seq is not null
         union all
         select asked.key, k.message_id from json_each(?1) asked
         cross join send_key k on k.mesh_id = asked.value ->> 0
            and k.sender_member_id = asked.value ->> 1
            and k.client_message_id = asked.value ->> 2",
    )
    .bind(to_json(&keys))
    .fetch_all(&mut **tx)
    .await
    .map_err(refused)?;
    let found = found.into_iter();
    Ok(found
        .filter_map(|(at, id)| Some((*keys.get(usize::try_from(at).ok()?)?, id.into())))
        .collect())
}

fn row(envelope: &NewEnvelope, seq: i64) -> Row<'_> {
    let claim = match &envelope.reach {
        Reach::Direct { claim: Some((presence, until)) } => Some((presence.as_str(), *until)),
        Reach::Direct { claim: None } | Reach::Multicast => None,
    };
    Row {
        id: &envelope.id,
        mesh_id: &envelope.mesh,
        sender_member_id: &envelope.sender_member,
        sender_session_pubkey: envelope.sender_session_key.as_ref().map(|key| key.as_str()),
        sender_name: &envelope.sender_name,
        target_spec: &envelope.target_spec,
        priority: envelope.priority.as_str(),
        nonce: &envelope.nonce,
        ciphertext: &envelope.ciphertext,
        client_message_id: envelope.client_message_id.as_deref(),
        request_fingerprint: envelope.request_fingerprint.as_deref(),
        reply_to_id: envelope.reply_to_id.as_deref(),
        claim_id: claim.map(|(presence, _)| presence),
        claim_expires_at: claim.map(|(_, until)| until.as_ms()),
        seq,
        multicast: envelope.reach == Reach::Multicast,
    }
}

async fn insert(tx: &mut Tx, now: Timestamp, rows: &[Row<'_>]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into message_queue (id, mesh_id, sender_member_id, sender_session_pubkey,
            sender_name, target_spec, priority, nonce, ciphertext, created_at, delivered_at,
            client_message_id, request_fingerprint, reply_to_id,
            claimed_at, claim_id, claim_expires_at, seq, multicast)
         select value ->> 'id', value ->> 'mesh_id', value ->> 'sender_member_id',
            value ->> 'sender_session_pubkey', value ->> 'sender_name',
            value ->> 'target_spec', value ->> 'priority', value ->> 'nonce',
            value ->> 'ciphertext', ?2, case when value ->> 'multicast' then ?2 end,
            value ->> 'client_message_id', value ->> 'request_fingerprint',
            value ->> 'reply_to_id', case when value ->> 'claim_id' is not null then ?2 end,
            value ->> 'claim_id', value ->> 'claim_expires_at', value ->> 'seq',
            value ->> 'multicast'
         from json_each(?1)",
    )
    .bind(to_json(rows))
    .bind(now.as_ms())
    .execute(&mut **tx)
    .await
    .map_err(refused)?;
    Ok(())
}
