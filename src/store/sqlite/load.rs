//! How much mail waits, for quotas: a mailbox or a mesh follows the index of
//! mailboxes; a sender is picked out of its mesh.

use sqlx::Row as _;

use super::connection::Db;
use super::error::{refused, unreadable};
use super::row::to_json;
use crate::limits::WAITING_BYTES_MIN;
use crate::store::{Holder, Result, WaitingLoad};

/// Mesh, the name within it, the most rows to look at.
type Asked<'a> = (&'a str, &'a str, u64);

pub(super) async fn waiting(db: &Db, asked: &[(Holder, u64)]) -> Result<Vec<WaitingLoad>> {
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
        read(db, &asked, statement, &mut loads).await?;
    }
    Ok(loads)
}

async fn read(
    db: &Db,
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
