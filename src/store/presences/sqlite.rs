//! Presences that lose their socket, and presences that end.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use serde::Serialize;

use super::Attributes;
use crate::clock::Timestamp;
use crate::id::{self, MemberId, PresenceId};
use crate::protocol::{Profile, Stats};
use crate::store::envelopes::sqlite::multicast_positions;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::chain::Chains;
use crate::store::sqlite::connection::Tx;
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::{id as id_of, optional_time, to_json};
use crate::store::{
    EndPresence, OpenPresence, PresenceChange, Presences, ReattachPresence, Result, SuspendPresence,
};

/// A row of `presence` to be written.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a PresenceId,
    member_id: &'a MemberId,
    session_id: &'a str,
    session_pubkey: Option<&'a str>,
    display_name: Option<&'a str>,
    pid: i32,
    cwd: &'a str,
    status: &'static str,
    status_source: &'static str,
    groups: String,
    role: &'static str,
    multicast_position: i64,
    node: &'a str,
    attributes: String,
}

/// What changes about one presence, as the statement reads it.
#[derive(Default, Serialize)]
struct Change<'a> {
    status: Option<&'static str>,
    status_source: Option<&'static str>,
    status_updated_at: Option<i64>,
    summary: Option<&'a str>,
    groups: Option<String>,
    visible: Option<bool>,
    profile: Option<&'a Profile>,
    stats: Option<&'a Stats>,
}

impl<'a> Change<'a> {
    /// Takes over what `later` says.
    fn merge(&mut self, later: &'a PresenceChange) {
        if let Some((status, source, since)) = later.status {
            self.status = Some(status.as_str());
            self.status_source = Some(source.as_str());
            self.status_updated_at = Some(since.as_ms());
        }
        self.summary = later.summary.as_deref().or(self.summary);
        self.groups = later.groups.as_ref().map(to_json).or(self.groups.take());
        self.visible = later.visible.or(self.visible);
        self.profile = later.profile.as_ref().or(self.profile);
        self.stats = later.stats.as_ref().or(self.stats);
    }
}

#[async_trait]
impl Presences for SqliteStore {
    async fn open(&self, now: Timestamp, opened: &[OpenPresence]) -> Result<Vec<i64>> {
        if opened.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.begin().await?;
        let kept = multicast_positions(&mut tx, opened.iter().map(|p| &p.mesh)).await?;
        let positions: Vec<i64> =
            opened.iter().map(|p| kept.get(&p.mesh).copied().unwrap_or_default()).collect();
        let mut chains = Chains::read(&mut tx, now, opened.iter().map(|p| &p.mesh)).await?;
        for presence in opened {
            let OpenPresence { mesh, member, actor_name, audit, .. } = presence;
            chains.push(mesh, Some(member), Some(actor_name), audit);
        }
        chains.write(&mut tx).await?;
        let rows: Vec<Row<'_>> =
            opened.iter().zip(&positions).map(|(presence, at)| row(presence, *at)).collect();
        insert(&mut tx, now, &rows).await?;
        tx.commit().await.map_err(refused)?;
        Ok(positions)
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

    async fn update(&self, _now: Timestamp, changes: &[PresenceChange]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        // The statement must find each presence once.
        let mut merged: BTreeMap<&PresenceId, Change<'_>> = BTreeMap::new();
        for change in changes {
            merged.entry(&change.id).or_default().merge(change);
        }
        let merged: Vec<(&PresenceId, Change<'_>)> = merged.into_iter().collect();
        let mut tx = self.begin().await?;
        sqlx::query(
            "update presence set
                status = coalesce(new ->> 'status', status),
                status_source = coalesce(new ->> 'status_source', status_source),
                status_updated_at = coalesce(new ->> 'status_updated_at', status_updated_at),
                summary = coalesce(new ->> 'summary', summary),
                groups = coalesce(new ->> 'groups', groups),
                attributes = json_set(attributes,
                   '$.visible', json(iif(new ->> 'visible' is null,
                      attributes -> 'visible', new -> 'visible')),
                   '$.profile', json(iif(new ->> 'profile' is null,
                      attributes -> 'profile', new -> 'profile')),
                   '$.stats', json(iif(new ->> 'stats' is null,
                      attributes -> 'stats', new -> 'stats')))
             from (select value ->> 0 as changed, value -> 1 as new from json_each(?1))
             where presence.id = changed and presence.disconnected_at is null",
        )
        .bind(to_json(&merged))
        .execute(&mut *tx)
        .await
        .map_err(refused)?;
        tx.commit().await.map_err(refused)
    }

    async fn touch(&self, now: Timestamp, presences: &[PresenceId]) -> Result<()> {
        if presences.is_empty() {
            return Ok(());
        }
        // Lost with the machine, it would be as stale as everything else.
        let mut tx = self.begin_relaxed().await?;
        sqlx::query(
            "update presence set last_ping_at = ?2
             where id in (select value from json_each(?1)) and disconnected_at is null
                and last_ping_at < ?2",
        )
        .bind(to_json(&presences))
        .bind(now.as_ms())
        .execute(&mut *tx)
        .await
        .map_err(refused)?;
        tx.commit().await.map_err(refused)
    }

    async fn suspend(&self, now: Timestamp, closed: &SuspendPresence) -> Result<()> {
        // Lost with the machine, it is as if the machine had crashed before: its
        // claims run out, what it did not confirm comes again.
        let mut tx = self.begin_relaxed().await?;
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

    async fn ended(
        &self,
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
        .fetch_all(self.reader())
        .await
        .map_err(refused)?;
        rows.iter()
            .map(|row| Ok((id_of(row, "id")?, optional_time(row, "disconnected_at")?)))
            .collect()
    }
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

fn row(presence: &OpenPresence, multicast_position: i64) -> Row<'_> {
    let about = &presence.about;
    let attributes = Attributes {
        hostname: about.hostname.clone(),
        peer_type: about.peer_type.clone(),
        channel: about.channel.clone(),
        model: about.model.clone(),
        visible: Some(presence.visible),
        profile: Some(presence.profile.clone()),
        stats: None,
    };
    Row {
        id: &presence.id,
        member_id: &presence.member,
        session_id: &about.session_id,
        session_pubkey: presence.session_key.as_ref().map(|key| key.as_str()),
        display_name: about.display_name.as_deref(),
        pid: about.pid,
        cwd: &about.cwd,
        status: presence.status.as_str(),
        status_source: presence.status_source.as_str(),
        groups: to_json(&presence.groups),
        role: presence.role.as_str(),
        multicast_position,
        node: &presence.node,
        attributes: to_json(&attributes),
    }
}

async fn insert(tx: &mut Tx, now: Timestamp, rows: &[Row<'_>]) -> Result<()> {
    // A presence that ended begins anew under its old id. `where true` keeps
    // `on conflict` from being read as part of a join.
    sqlx::query(
        "insert into presence (id, member_id, session_id, session_pubkey, display_name, pid,
            cwd, status, status_source, status_updated_at, groups, role, connected_at,
            last_ping_at, multicast_position, node, attributes)
         select value ->> 'id', value ->> 'member_id', value ->> 'session_id',
            value ->> 'session_pubkey', value ->> 'display_name', value ->> 'pid',
            value ->> 'cwd', value ->> 'status', value ->> 'status_source', ?2,
            value ->> 'groups', value ->> 'role', ?2, ?2, value ->> 'multicast_position',
            value ->> 'node', value ->> 'attributes'
         from json_each(?1) where true
         on conflict (id) do update set member_id = excluded.member_id,
            session_id = excluded.session_id, session_pubkey = excluded.session_pubkey,
            display_name = excluded.display_name, pid = excluded.pid, cwd = excluded.cwd,
            status = excluded.status, status_source = excluded.status_source,
            status_updated_at = excluded.status_updated_at, summary = null,
            groups = excluded.groups, role = excluded.role,
            connected_at = excluded.connected_at, last_ping_at = excluded.last_ping_at,
            disconnected_at = null, multicast_position = excluded.multicast_position,
            node = excluded.node, attributes = excluded.attributes",
    )
    .bind(to_json(rows))
    .bind(now.as_ms())
    .execute(&mut **tx)
    .await
    .map_err(refused)?;
    Ok(())
}
