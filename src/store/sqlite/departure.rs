//! Presences that lose their socket, and presences that end.

use std::collections::HashSet;

use super::audit::Chains;
use super::connection::{Db, Tx};
use super::error::refused;
use super::row::{id as id_of, optional_time, to_json};
use crate::clock::Timestamp;
use crate::id::{self, PresenceId};
use crate::store::{EndPresence, Result, SuspendPresence};

pub(super) async fn suspend(db: &Db, now: Timestamp, closed: &SuspendPresence) -> Result<()> {
    // Lost with the machine, it is as if the machine had crashed before: its
    // claims run out, what it did not confirm comes again.
    let mut tx = db.begin_relaxed().await?;
    save_state(&mut tx, now, closed).await?;
    // Its grace counts from here: it was heard of until now.
    sqlx::query(
        "update presence set multicast_position = max(multicast_position, ?2),
            last_ping_at = max(last_ping_at, ?3)
         where id = ?1 and disconnected_at is null",
    )
    .bind(closed.id.as_str())
    .bind(closed.multicast_position)
    .bind(now.as_ms())
    .execute(&mut *tx)
    .await
    .map_err(refused)?;
    sqlx::query(
        "update message_queue set claimed_at = null, claim_id = null, claim_expires_at = null
         where mesh_id = ?3 and target_spec = ?2 and delivered_at is null and claim_id = ?1",
    )
    .bind(closed.id.as_str())
    .bind(closed.member_key.as_str())
    .bind(closed.mesh.as_str())
    .execute(&mut *tx)
    .await
    .map_err(refused)?;
    tx.commit().await.map_err(refused)
}

async fn save_state(tx: &mut Tx, now: Timestamp, closed: &SuspendPresence) -> Result<()> {
    let state = &closed.state;
    sqlx::query(
        "insert into peer_state (id, mesh_id, member_id, groups, profile, visible,
            last_summary, last_display_name, cumulative_stats, last_seen_at,
            created_at, updated_at)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11)
         on conflict (mesh_id, member_id) do update set groups = excluded.groups,
            profile = excluded.profile, visible = excluded.visible,
            last_summary = excluded.last_summary,
            last_display_name = excluded.last_display_name,
            cumulative_stats = excluded.cumulative_stats,
            last_seen_at = excluded.last_seen_at, updated_at = excluded.updated_at",
    )
    .bind(id::generate())
    .bind(closed.mesh.as_str())
    .bind(closed.member.as_str())
    .bind(to_json(&state.groups))
    .bind(to_json(&state.profile))
    .bind(state.visible)
    .bind(&state.last_summary)
    .bind(&state.last_display_name)
    .bind(to_json(&state.stats))
    .bind(state.last_seen_at.unwrap_or(now).as_ms())
    .bind(now.as_ms())
    .execute(&mut **tx)
    .await
    .map_err(refused)?;
    Ok(())
}

pub(super) async fn end(db: &Db, now: Timestamp, ended: &[EndPresence]) -> Result<Vec<PresenceId>> {
    if ended.is_empty() {
        return Ok(Vec::new());
    }
    let holders: Vec<_> = ended
        .iter()
        .map(|presence| (&presence.id, &presence.node, &presence.member, &presence.mesh))
        .collect();
    let mut tx = db.begin().await?;
    let here: Vec<String> = sqlx::query_scalar(
        "update presence set disconnected_at = ?2
         where rowid in (
            select p.rowid from json_each(?1) ended
            cross join presence p on p.id = ended.value ->> 0
            cross join member m on m.id = p.member_id
            where p.disconnected_at is null
               and m.mesh_id = ended.value ->> 3
               and (ended.value ->> 2 is null or m.id = ended.value ->> 2)
               and (ended.value ->> 1 is null or p.node is null or p.node = ended.value ->> 1)
         )
         returning id",
    )
    .bind(to_json(&holders))
    .bind(now.as_ms())
    .fetch_all(&mut *tx)
    .await
    .map_err(refused)?;
    sqlx::query(
        "update message_queue set claimed_at = null, claim_id = null, claim_expires_at = null
         where rowid in (
            select q.rowid from json_each(?1) ended
            cross join presence p on p.id = ended.value
            cross join member m on m.id = p.member_id
            cross join message_queue q on q.mesh_id = m.mesh_id
               and q.target_spec in (m.peer_pubkey, p.session_pubkey)
            where q.delivered_at is null and q.claim_id = p.id
         )",
    )
    .bind(to_json(&here))
    .execute(&mut *tx)
    .await
    .map_err(refused)?;
    // Named twice in one call, it still ends once.
    let mut left: HashSet<&str> = here.iter().map(String::as_str).collect();
    let ended: Vec<&EndPresence> =
        ended.iter().filter(|presence| left.remove(presence.id.as_str())).collect();
    let entries = || ended.iter().flat_map(|presence| &presence.audit);
    let mut chains = Chains::read(&mut tx, now, entries().map(|entry| &entry.mesh)).await?;
    for entry in entries() {
        let actor_name = entry.actor_name.as_deref();
        chains.push(&entry.mesh, entry.actor.as_ref(), actor_name, &entry.event);
    }
    chains.write(&mut tx).await?;
    tx.commit().await.map_err(refused)?;
    Ok(ended.into_iter().map(|presence| presence.id.clone()).collect())
}

pub(super) async fn ended(
    db: &Db,
    presences: &[PresenceId],
) -> Result<Vec<(PresenceId, Option<Timestamp>)>> {
    if presences.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "select asked.value as id, p.disconnected_at from json_each(?1) asked
         left join presence p on p.id = asked.value
         where p.id is null or p.disconnected_at is not null",
    )
    .bind(to_json(presences))
    .fetch_all(db.reader())
    .await
    .map_err(refused)?;
    rows.iter().map(|row| Ok((id_of(row, "id")?, optional_time(row, "disconnected_at")?))).collect()
}
