//! Presences that lose their socket, and presences that end.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;

use super::{NewRow, end_of, merged};
use crate::clock::Timestamp;
use crate::id::{self, MemberId, MeshId, PresenceId};
use crate::store::envelopes::sqlite::multicast_positions;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::chain::Chains;
use crate::store::sqlite::connection::{Tx, execute};
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::to_json;
use crate::store::{
    EndPresence, OpenPresence, PresenceChange, Presences, ReattachPresence, Result, SuspendPresence,
};

#[async_trait]
impl Presences for SqliteStore {
    async fn open(&self, now: Timestamp, opened: &[OpenPresence]) -> Result<Vec<i64>> {
        if opened.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.begin().await?;
        let meshes = || opened.iter().map(|presence| &presence.record.mesh);
        let positions = multicast_positions(&mut tx, meshes()).await?;
        let mut chains = Chains::read(&mut tx, now, meshes()).await?;
        for OpenPresence { record, audit } in opened {
            chains.push(&record.mesh, Some(&record.member), Some(&record.display_name), audit);
        }
        chains.write(&mut tx).await?;
        insert(&mut tx, now, opened, &positions).await?;
        tx.commit().await.map_err(refused)?;
        Ok(meshes().map(|mesh| positions.get(mesh).copied().unwrap_or_default()).collect())
    }

    async fn reattach(
        &self,
        now: Timestamp,
        presence: &PresenceId,
        about: &ReattachPresence,
    ) -> Result<Option<i64>> {
        let mut tx = self.begin().await?;
        let position = sqlx::query_scalar(
            "update presence set session_id = coalesce(?2, session_id), cwd = ?3, pid = ?4,
                display_name = coalesce(?5, display_name), node = ?6,
                last_ping_at = max(last_ping_at, ?7)
             where id = ?1 and (?8 is null or member_id = ?8) and disconnected_at is null
             returning multicast_position",
        )
        .bind(presence.as_str())
        .bind(&about.session_id)
        .bind(&about.cwd)
        .bind(about.pid)
        .bind(&about.display_name)
        .bind(&about.node)
        .bind(now.as_ms())
        .bind(about.member.as_ref().map(MemberId::as_str))
        .fetch_optional(&mut *tx)
        .await
        .map_err(refused)?;
        tx.commit().await.map_err(refused)?;
        Ok(position)
    }

    async fn update(&self, changes: &[PresenceChange]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let query = sqlx::query(
            "update presence set
                status = coalesce(new ->> 'status', status),
                status_source = coalesce(new ->> 'status_source', status_source),
                status_updated_at = coalesce(new ->> 'status_updated_ms', status_updated_at),
                summary = coalesce(new ->> 'summary', summary),
                groups = coalesce(new ->> 'groups', groups),
                attributes = json_set(attributes,
                   '$.visible', json(iif(new -> '$.attributes.visible' is null,
                      attributes -> 'visible', new -> '$.attributes.visible')),
                   '$.profile', json(iif(new -> '$.attributes.profile' is null,
                      attributes -> 'profile', new -> '$.attributes.profile')),
                   '$.stats', json(iif(new -> '$.attributes.stats' is null,
                      attributes -> 'stats', new -> '$.attributes.stats')),
                   '$.statusSince', json(iif(new -> '$.attributes.statusSince' is null,
                      attributes -> 'statusSince', new -> '$.attributes.statusSince')))
             from (select value as new from json_each(?1))
             where presence.id = new ->> 'id' and presence.disconnected_at is null",
        )
        .bind(to_json(&merged(changes)));
        self.write(query).await?;
        Ok(())
    }

    async fn touch(&self, now: Timestamp, presences: &[PresenceId]) -> Result<()> {
        if presences.is_empty() {
            return Ok(());
        }
        // Lost with the machine, it would be as stale as everything else.
        let mut tx = self.begin_relaxed().await?;
        let query = sqlx::query(
            "update presence set last_ping_at = ?2
             where id in (select value from json_each(?1)) and disconnected_at is null
                and last_ping_at < ?2",
        )
        .bind(to_json(&presences))
        .bind(now.as_ms());
        execute(&mut tx, query).await?;
        tx.commit().await.map_err(refused)
    }

    async fn suspend(&self, now: Timestamp, closed: &SuspendPresence) -> Result<()> {
        // Lost with the machine, it is as if the machine had crashed before: its
        // claims run out, what it did not confirm comes again.
        let mut tx = self.begin_relaxed().await?;
        save_state(&mut tx, now, closed).await?;
        // Its grace counts from here: it was heard of until now.
        let query = sqlx::query(
            "update presence set multicast_position = max(multicast_position, ?2),
                last_ping_at = max(last_ping_at, ?3)
             where id = ?1 and disconnected_at is null",
        )
        .bind(closed.id.as_str())
        .bind(closed.multicast_position)
        .bind(now.as_ms());
        execute(&mut tx, query).await?;
        let query = sqlx::query(
            "update message_queue set claimed_at = null, claim_id = null, claim_expires_at = null
             where mesh_id = ?3 and target_spec = ?2 and delivered_at is null and claim_id = ?1",
        )
        .bind(closed.id.as_str())
        .bind(closed.member_key.as_str())
        .bind(closed.mesh.as_str());
        execute(&mut tx, query).await?;
        tx.commit().await.map_err(refused)
    }

    async fn end(&self, now: Timestamp, ended: &[EndPresence]) -> Result<Vec<PresenceId>> {
        if ended.is_empty() {
            return Ok(Vec::new());
        }
        let holders: Vec<_> = ended
            .iter()
            .map(|presence| (&presence.id, &presence.node, &presence.member, &presence.mesh))
            .collect();
        let mut tx = self.begin().await?;
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
        let query = sqlx::query(
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
        .bind(to_json(&here));
        execute(&mut tx, query).await?;
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

    async fn ended(
        &self,
        presences: &[PresenceId],
    ) -> Result<Vec<(PresenceId, Option<Timestamp>)>> {
        if presences.is_empty() {
            return Ok(Vec::new());
        }
        let query = sqlx::query(
            "select asked.value as id, p.disconnected_at from json_each(?1) asked
             left join presence p on p.id = asked.value
             where p.id is null or p.disconnected_at is not null",
        )
        .bind(to_json(presences));
        self.records(query, end_of).await
    }
}

async fn save_state(tx: &mut Tx, now: Timestamp, closed: &SuspendPresence) -> Result<()> {
    let state = &closed.state;
    let query = sqlx::query(
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
    .bind(now.as_ms());
    execute(tx, query).await?;
    Ok(())
}

async fn insert(
    tx: &mut Tx,
    now: Timestamp,
    opened: &[OpenPresence],
    positions: &HashMap<&MeshId, i64>,
) -> Result<()> {
    let rows: Vec<NewRow<'_>> = opened.iter().map(NewRow::from).collect();
    let query = sqlx::query(
        "insert into presence (id, member_id, session_id, session_pubkey, display_name, pid,
            cwd, status, status_source, status_updated_at, groups, role, connected_at,
            last_ping_at, multicast_position, node, attributes)
         select new ->> 'id', new ->> 'member', new ->> 'session_id', new ->> 'session_key',
            new ->> 'display_name', new ->> 'pid', new ->> 'cwd', new ->> 'status',
            new ->> 'status_source', ?2, new ->> 'groups', new ->> 'role', ?2, ?2,
            coalesce(known.value, 0), new ->> 'node', new ->> 'attributes'
         from (select value as new from json_each(?1))
         left join json_each(?3) known on known.key = new ->> 'mesh'",
    )
    .bind(to_json(&rows))
    .bind(now.as_ms())
    .bind(to_json(positions));
    execute(tx, query).await?;
    Ok(())
}
