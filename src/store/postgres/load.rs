//! How much mail waits, for quotas.

use sqlx::postgres::PgRow;

use super::error::unreadable;
use super::pool::Db;
use super::row::{clean, get};
use crate::limits::WAITING_BYTES_MIN;
use crate::store::{Holder, Result, WaitingLoad};

pub(super) async fn waiting(db: &Db, asked: &[(Holder, u64)]) -> Result<Vec<WaitingLoad>> {
    let (mut mailboxes, mut senders, mut meshes) =
        (Asked::default(), Asked::default(), Asked::default());
    for (at, (holder, rows_max)) in asked.iter().enumerate() {
        match holder {
            Holder::Mailbox { mesh, target } => {
                mailboxes.push(at, mesh.as_str(), &clean(target), *rows_max);
            }
            Holder::Sender { mesh, member } => {
                senders.push(at, mesh.as_str(), member.as_str(), *rows_max);
            }
            Holder::Mesh { mesh } => meshes.push(at, mesh.as_str(), "", *rows_max),
        }
    }
    let mut loads = vec![WaitingLoad::default(); asked.len()];
    let statements = [
        (
            mailboxes,
            "select load.messages, load.bytes
             from unnest($1::text[], $2::text[], $3::bigint[])
                with ordinality as box (mesh, name, most, at)
             cross join lateral (
                select count(*) as messages, coalesce(sum(counted.bytes), 0)::bigint as bytes from (
                    select greatest(octet_length(q.nonce) + octet_length(q.ciphertext), $4)
                        as bytes
                    from mesh.message_queue q
                    where hashtextextended(q.target_spec, 0) = hashtextextended(box.name, 0)
                        and q.mesh_id = box.mesh and q.target_spec = box.name
                        and q.delivered_at is null
                    limit box.most
                ) counted
             ) load order by box.at",
        ),
        (
            senders,
            "select load.messages, load.bytes
             from unnest($1::text[], $2::text[], $3::bigint[])
                with ordinality as box (mesh, name, most, at)
             cross join lateral (
                select count(*) as messages, coalesce(sum(counted.bytes), 0)::bigint as bytes from (
                    select greatest(octet_length(q.nonce) + octet_length(q.ciphertext), $4)
                        as bytes
                    from mesh.message_queue q
                    where q.mesh_id = box.mesh and q.sender_member_id = box.name
                        and q.delivered_at is null and left(q.target_spec, 1) <> '#'
                    limit box.most
                ) counted
             ) load order by box.at",
        ),
        (
            meshes,
            "select load.messages, load.bytes
             from unnest($1::text[], $2::text[], $3::bigint[])
                with ordinality as box (mesh, name, most, at)
             cross join lateral (
                select count(*) as messages, coalesce(sum(counted.bytes), 0)::bigint as bytes from (
                    select greatest(octet_length(q.nonce) + octet_length(q.ciphertext), $4)
                        as bytes
                    from mesh.message_queue q
                    where q.mesh_id = box.mesh and q.delivered_at is null
                        and left(q.target_spec, 1) <> '#'
                    limit box.most
                ) counted
             ) load order by box.at",
        ),
    ];
    for (asked, statement) in statements {
        asked.read(db, statement, &mut loads).await?;
    }
    Ok(loads)
}

/// Holders of one kind, an array per column.
#[derive(Default)]
struct Asked {
    at: Vec<usize>,
    mesh: Vec<String>,
    name: Vec<String>,
    rows_max: Vec<i64>,
}

impl Asked {
    fn push(&mut self, at: usize, mesh: &str, name: &str, rows_max: u64) {
        self.at.push(at);
        self.mesh.push(mesh.to_owned());
        self.name.push(name.to_owned());
        self.rows_max.push(i64::try_from(rows_max).unwrap_or(i64::MAX));
    }

    async fn read(self, db: &Db, statement: &'static str, loads: &mut [WaitingLoad]) -> Result<()> {
        if self.at.is_empty() {
            return Ok(());
        }
        let bytes_min = i32::try_from(WAITING_BYTES_MIN).unwrap_or(i32::MAX);
        let rows = db
            .fetch_all(
                sqlx::query(statement)
                    .bind(self.mesh)
                    .bind(self.name)
                    .bind(self.rows_max)
                    .bind(bytes_min),
            )
            .await?;
        if rows.len() != self.at.len() {
            return Err(unreadable("bytes"));
        }
        for (at, row) in self.at.iter().zip(&rows) {
            loads[*at] = load(row)?;
        }
        Ok(())
    }
}

fn load(row: &PgRow) -> Result<WaitingLoad> {
    let [messages, bytes] = [get::<i64>(row, "messages")?, get(row, "bytes")?];
    Ok(WaitingLoad { messages: messages.unsigned_abs(), bytes: bytes.unsigned_abs() })
}
