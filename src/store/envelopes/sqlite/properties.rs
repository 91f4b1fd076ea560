//! What the envelopes of a batch say of themselves, and what they take the place of.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, MessageId};
use crate::protocol::Reached;
use crate::store::columns::Columns as _;
use crate::store::envelopes::{said, superseding};
use crate::store::sqlite::chain::Chains;
use crate::store::sqlite::connection::{Tx, execute};
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::to_json;
use crate::store::{Accepted, NewEnvelope, Result};

/// What one envelope says, as an element of the statement's JSON.
#[derive(Serialize)]
struct Said<'a> {
    id: &'a MessageId,
    thread: Option<&'a str>,
    expects_reply: bool,
    supersedes: Option<&'a str>,
    receipt: Option<&'static str>,
    hop: u32,
    expires_at: Option<i64>,
    signature: Option<&'a str>,
    sealed_keys: Option<&'a BTreeMap<Key, String>>,
}

/// Adds to the rows what they say. Nothing where the batch says nothing.
pub(super) async fn write(tx: &mut Tx, batch: &[NewEnvelope]) -> Result<()> {
    let said: Vec<Said<'_>> = said(batch)
        .map(|(envelope, properties)| Said {
            id: &envelope.id,
            thread: properties.thread_id.as_deref(),
            expects_reply: properties.expects_reply,
            supersedes: properties.supersedes.as_deref(),
            receipt: properties.receipt.map(Reached::as_str),
            hop: properties.hop,
            expires_at: properties.expires_at.map(Timestamp::as_ms),
            signature: properties.seal.as_ref().map(|seal| &*seal.signature),
            sealed_keys: properties.seal.as_ref().map(|seal| &seal.keys),
        })
        .collect();
    if said.is_empty() {
        return Ok(());
    }
    let query = sqlx::query(
        "update message_queue
         set thread_id = said.value ->> 'thread', expects_reply = said.value ->> 'expects_reply',
            supersedes = said.value ->> 'supersedes', receipt = said.value ->> 'receipt',
            hop = said.value ->> 'hop', expires_at = said.value ->> 'expires_at',
            signature = said.value ->> 'signature', sealed_keys = said.value ->> 'sealed_keys'
         from json_each(?1) said where message_queue.id = said.value ->> 'id'",
    )
    .bind(to_json(&said));
    execute(tx, query).await?;
    Ok(())
}

/// Withdraws what the new envelopes of the batch take the place of.
pub(super) async fn supersede(
    tx: &mut Tx,
    now: Timestamp,
    batch: &[NewEnvelope],
    answers: &[Accepted],
) -> Result<()> {
    let superseding = superseding(batch, answers);
    if superseding.is_empty() {
        return Ok(());
    }
    let asked: Vec<_> = superseding
        .iter()
        .map(|(envelope, id)| (&envelope.mesh, &envelope.sender_member, id, &envelope.id))
        .collect();
    let rows = sqlx::query(
        "select q.id, q.mesh_id, q.sender_member_id, q.sender_name from json_each(?1) newer
         cross join message_queue q on q.mesh_id = newer.value ->> 0
            and q.client_message_id = newer.value ->> 2 and q.seq is not null
            and q.sender_member_id = newer.value ->> 1
         where q.id <> newer.value ->> 3 and q.ended is null
            and (q.delivered_at is null or q.multicast = 1 and q.target_spec not like '#%')
         order by newer.key",
    )
    .bind(to_json(&asked))
    .fetch_all(&mut **tx)
    .await
    .map_err(refused)?;
    let mut older: Vec<(MessageId, MeshId, MemberId, Option<String>)> = Vec::new();
    for row in &rows {
        let sender_name = row.optional_text("sender_name")?;
        let of = (row.id("id")?, row.id("mesh_id")?, row.id("sender_member_id")?, sender_name);
        if !older.iter().any(|(id, ..)| *id == of.0) {
            older.push(of);
        }
    }
    withdraw(tx, now, &older).await
}

/// Ends messages that their senders take back, each with its audit row.
pub(in crate::store) async fn withdraw(
    tx: &mut Tx,
    now: Timestamp,
    messages: &[(MessageId, MeshId, MemberId, Option<String>)],
) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let mut chains = Chains::read(tx, now, messages.iter().map(|(_, mesh, ..)| mesh)).await?;
    for (id, mesh, sender, name) in messages {
        let event = AuditEvent::Withdrawn { message_id: id.clone() };
        chains.push(mesh, Some(sender), name.as_deref(), &event);
    }
    chains.write(tx).await?;
    let ids: Vec<&MessageId> = messages.iter().map(|(id, ..)| id).collect();
    let query = sqlx::query(
        "update message_queue set ended = 'withdrawn', delivered_at = coalesce(delivered_at, ?2)
         where id in (select value from json_each(?1))",
    )
    .bind(to_json(&ids))
    .bind(now.as_ms());
    execute(tx, query).await?;
    Ok(())
}
