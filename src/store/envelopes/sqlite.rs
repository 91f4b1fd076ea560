//! Taking envelopes: the hot path. A batch costs a handful of statements
//! however large it is.

mod posts;
mod properties;

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::SqliteConnection;

pub(in crate::store) use self::properties::withdraw;
use crate::audit::message_sent_payload;
use crate::clock::Timestamp;
use crate::id::{Key, MemberId, MeshId, MessageId};
use crate::limits::WAITING_BYTES_MIN;
use crate::store::columns::unreadable;
use crate::store::sqlite::chain::Chains;
use crate::store::sqlite::connection::Tx;
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::to_json;
use crate::store::sqlite::{SqliteStore, rows};
use crate::store::{Accepted, Envelopes, Holder, NewEnvelope, Reach, Result, WaitingLoad};
use crate::store::{envelopes::notes, webhooks};

/// An idempotence key: mesh, sender, the sender's own id for the message.
type SendKey<'a> = (&'a MeshId, &'a MemberId, &'a str);

/// An envelope to be written, with its seq in its mesh.
type Row<'a> = (&'a NewEnvelope, i64);

/// Mesh, the name within it, the most rows to look at.
type Asked<'a> = (&'a str, &'a str, u64);

#[async_trait]
impl Envelopes for SqliteStore {
    async fn accept(&self, now: Timestamp, batch: &[NewEnvelope]) -> Result<Vec<Accepted>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.begin().await?;
        let answers = accept_in(&mut tx, now, batch).await?;
        tx.commit().await.map_err(refused)?;
        Ok(answers)
    }

    async fn waiting_load(&self, asked: &[(Holder, u64)]) -> Result<Vec<WaitingLoad>> {
        let (mut mailboxes, mut senders, mut meshes) = (Vec::new(), Vec::new(), Vec::new());
        for (at, (holder, rows_max)) in asked.iter().enumerate() {
            let rows_max = (*rows_max).min(i64::MAX.unsigned_abs());
            match holder {
                Holder::Mailbox { mesh, target } => {
                    mailboxes.push((at, (mesh.as_str(), target.as_str(), rows_max)));
                }
                Holder::Sender { mesh, member } => {
                    senders.push((at, (mesh.as_str(), member.as_str(), rows_max)));
                }
                Holder::Mesh { mesh } => meshes.push((at, (mesh.as_str(), "", rows_max))),
            }
        }
        let mut loads = vec![WaitingLoad::default(); asked.len()];
        let statements = [
            (
                mailboxes,
                "select (select count(*) || ' ' || coalesce(sum(max(bytes, ?2)), 0) from (
                    select octet_length(nonce) + octet_length(ciphertext) as bytes
                    from message_queue indexed by message_queue_mailbox_idx
                    where mesh_id = box.value ->> 0 and target_spec = box.value ->> 1
                       and delivered_at is null
                    limit 0 + ?3))
                 from json_each(?1) box order by box.key",
            ),
            (
                senders,
                "select (select count(*) || ' ' || coalesce(sum(max(bytes, ?2)), 0) from (
                    select octet_length(nonce) + octet_length(ciphertext) as bytes
                    from message_queue indexed by message_queue_mailbox_idx
                    where mesh_id = box.value ->> 0 and sender_member_id = box.value ->> 1
                       and delivered_at is null and target_spec not like '#%'
                    limit 0 + ?3))
                 from json_each(?1) box order by box.key",
            ),
            (
                meshes,
                "select (select count(*) || ' ' || coalesce(sum(max(bytes, ?2)), 0) from (
                    select octet_length(nonce) + octet_length(ciphertext) as bytes
                    from message_queue indexed by message_queue_mailbox_idx
                    where mesh_id = box.value ->> 0 and delivered_at is null
                       and target_spec not like '#%'
                    limit 0 + ?3))
                 from json_each(?1) box order by box.key",
            ),
        ];
        for (asked, statement) in statements {
            read(self, &asked, statement, &mut loads).await?;
        }
        Ok(loads)
    }

    async fn repeats(&self, batch: &[NewEnvelope]) -> Result<Vec<Option<MessageId>>> {
        let mut reader = self.reader().acquire().await.map_err(refused)?;
        let known = known_keys(&mut reader, batch).await?;
        let of = |envelope| known.get(&send_key(envelope)?).cloned();
        Ok(batch.iter().map(of).collect())
    }
}

/// Takes envelopes inside of a transaction: queue row and audit row each.
pub(in crate::store) async fn accept_in(
    tx: &mut Tx,
    now: Timestamp,
    batch: &[NewEnvelope],
) -> Result<Vec<Accepted>> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let mut known = known_keys(tx, batch).await?;
    let mut chains = Chains::read(tx, now, batch.iter().map(|e| &e.mesh)).await?;
    let multicasts = batch.iter().filter(|envelope| envelope.reach.is_many());
    let mut positions = multicast_positions(tx, multicasts.map(|e| &e.mesh)).await?;
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
        let previous_multicast = if envelope.reach.is_many() {
            positions.insert(&envelope.mesh, seq).unwrap_or_default()
        } else {
            0
        };
        rows.push((envelope, seq));
        answers.push(Accepted::New { seq, previous_multicast, roster: 0, created_at: now });
    }
    chains.write(tx).await?;
    insert(tx, now, &rows).await?;
    properties::write(tx, batch).await?;
    properties::supersede(tx, now, batch, &answers).await?;
    posts::insert(tx, now, batch, &mut answers).await?;
    for note in notes(batch, &answers) {
        webhooks::sqlite::put(tx, now, note).await?;
    }
    Ok(answers)
}

/// For each mesh that has one, the seq of its last multicast that is kept.
pub(in crate::store) async fn multicast_positions<'a>(
    tx: &mut Tx,
    meshes: impl IntoIterator<Item = &'a MeshId>,
) -> Result<HashMap<&'a MeshId, i64>> {
    let mut meshes: Vec<&MeshId> = meshes.into_iter().collect();
    meshes.sort_unstable();
    meshes.dedup();
    if meshes.is_empty() {
        return Ok(HashMap::new());
    }
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
    connection: &mut SqliteConnection,
    batch: &'a [NewEnvelope],
) -> Result<HashMap<SendKey<'a>, MessageId>> {
    let keys: Vec<SendKey<'_>> = batch.iter().filter_map(send_key).collect();
    let mut known = HashMap::with_capacity(keys.len());
    for (mut query, group) in rows::statements(
        "with asked (at, mesh_id, member_id, client_id) as materialized (values (?, ?, ?, ?))
         select asked.at, q.id from asked
         cross join message_queue q on q.mesh_id = asked.mesh_id
            and q.sender_member_id = asked.member_id
            and q.client_message_id = asked.client_id and q.seq is not null
         union all
         select asked.at, k.message_id from asked
         cross join send_key k on k.mesh_id = asked.mesh_id
            and k.sender_member_id = asked.member_id
            and k.client_message_id = asked.client_id",
        &keys,
    ) {
        for ((mesh, member, client_id), at) in group.iter().zip(0_i64..) {
            query = query.bind(at).bind(mesh.shared()).bind(member.shared()).bind(*client_id);
        }
        for found in query.fetch_all(&mut *connection).await.map_err(refused)? {
            let at: i64 = found.try_get(0).map_err(refused)?;
            let id: &str = found.try_get(1).map_err(refused)?;
            if let Some(key) = usize::try_from(at).ok().and_then(|at| group.get(at)) {
                known.insert(*key, MessageId::from(id));
            }
        }
    }
    Ok(known)
}

async fn insert(tx: &mut Tx, now: Timestamp, rows: &[Row<'_>]) -> Result<()> {
    let now = now.as_ms();
    let bind = |mut query: rows::Statement, group: &[Row<'_>]| {
        for (envelope, seq) in group {
            let claim = match &envelope.reach {
                Reach::Direct { claim: Some((presence, until)), .. } => Some((presence, *until)),
                Reach::Direct { claim: None, .. } | Reach::Multicast | Reach::Topic(_) => None,
            };
            let multicast = envelope.reach.is_many();
            // What a post says stands in the topic's history alone.
            let is_post = matches!(envelope.reach, Reach::Topic(_));
            let content = |text| if is_post { "" } else { text };
            query = query
                .bind(envelope.id.shared())
                .bind(envelope.mesh.shared())
                .bind(envelope.sender_member.shared())
                .bind(envelope.sender_session_key.as_ref().map(Key::shared))
                .bind(envelope.sender_name.as_str())
                .bind(envelope.target_spec.as_str())
                .bind(envelope.priority.as_str())
                .bind(content(envelope.nonce.as_str()))
                .bind(content(envelope.ciphertext.as_str()))
                .bind(now)
                .bind(multicast.then_some(now))
                .bind(envelope.client_message_id.as_deref())
                .bind(envelope.request_fingerprint.as_deref())
                .bind(envelope.reply_to_id.as_deref())
                .bind(claim.map(|_| now))
                .bind(claim.map(|(presence, _)| presence.shared()))
                .bind(claim.map(|(_, until)| until.as_ms()))
                .bind(*seq)
                .bind(multicast);
        }
        query
    };
    rows::execute(
        tx,
        "insert into message_queue (id, mesh_id, sender_member_id, sender_session_pubkey,
            sender_name, target_spec, priority, nonce, ciphertext, created_at, delivered_at,
            client_message_id, request_fingerprint, reply_to_id,
            claimed_at, claim_id, claim_expires_at, seq, multicast)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
        bind,
    )
    .await
}

async fn read(
    db: &SqliteStore,
    asked: &[(usize, Asked<'_>)],
    statement: &'static str,
    loads: &mut [WaitingLoad],
) -> Result<()> {
    if asked.is_empty() {
        return Ok(());
    }
    let boxes: Vec<&Asked<'_>> = asked.iter().map(|(_, asked)| asked).collect();
    // One limit for all of a kind: they have the same bounds.
    let rows_max = asked.iter().map(|(_, (.., rows_max))| *rows_max).max().unwrap_or_default();
    let rows = sqlx::query(statement)
        .bind(to_json(&boxes))
        .bind(WAITING_BYTES_MIN.cast_signed())
        .bind(rows_max.cast_signed())
        .fetch_all(db.reader())
        .await
        .map_err(refused)?;
    for ((at, _), row) in asked.iter().zip(&rows) {
        let text: &str = row.try_get(0).map_err(refused)?;
        let (messages, bytes) = text.split_once(' ').ok_or_else(|| unreadable("bytes"))?;
        let number = |text: &str| text.parse().map_err(|_| unreadable("bytes"));
        loads[*at] = WaitingLoad { messages: number(messages)?, bytes: number(bytes)? };
    }
    Ok(())
}
