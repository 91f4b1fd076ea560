//! Presences that lose their socket, and presences that end.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;

use super::{NewRow, end_of, merged};
use crate::clock::Timestamp;
use crate::id::{self, MemberId, MeshId, PresenceId};
use crate::store::columns::Columns as _;
use crate::store::columns::unreadable;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::chain::{Entries, Query, appended_for, locks};
use crate::store::postgres::row::{clean, clean_optional, to_json};
use crate::store::{
    EndPresence, OpenPresence, PresenceChange, Presences, ReattachPresence, Result, SuspendPresence,
};

/// Ends presences. The chains' locks come first: everybody takes them before rows.
const END: &str = concat!(
    "with locked as materialized (select mesh.broker_lock_v1($3)),
     ended as (
        update mesh.presence p set disconnected_at = $1
        from locked cross join
            unnest($4::text[], $11::text[], $12::text[], $13::text[])
                as e (id, node, member, mesh)
        where p.id = e.id and p.disconnected_at is null
            and (e.member is null or p.member_id = e.member)
            and exists (
                select from mesh.member m
                where m.id = p.member_id and m.mesh_id = e.mesh
            )
            and (e.node is null or p.node is null or p.node = e.node)
        returning p.id, p.member_id, p.session_pubkey
     ),
     freed as (
        update mesh.message_queue
        set claimed_at = null, claim_id = null, claim_expires_at = null
        where id in (
            select claimed.id from ended
            join mesh.member m on m.id = ended.member_id
            cross join lateral (
                select q.id from mesh.message_queue q
                where hashtextextended(q.target_spec, 0) in (
                        hashtextextended(m.peer_pubkey, 0),
                        hashtextextended(ended.session_pubkey, 0))
                    and q.mesh_id = m.mesh_id and q.delivered_at is null
                    and q.claim_id = ended.id
                for update skip locked
            ) claimed
        )
     ), ",
    appended_for!(
        "ended",
        "$5::text[], $6::text[], $7::text[],
         $8::text[], $9::text[], $10::text[]"
    ),
    "select id, (select count(*) from appended) as appended from ended"
);

#[async_trait]
impl Presences for PostgresStore {
    async fn open(&self, now: Timestamp, opened: &[OpenPresence]) -> Result<Vec<i64>> {
        if opened.is_empty() {
            return Ok(Vec::new());
        }
        let mut grouped: Vec<&OpenPresence> = opened.iter().collect();
        grouped.sort_by_key(|presence| &presence.record.mesh);
        let mut joined = Entries::default();
        for OpenPresence { record, audit } in &grouped {
            joined.push(&record.mesh, Some(&record.member), Some(&record.display_name), audit);
        }
        let rows: Vec<NewRow<'_>> = grouped.into_iter().map(NewRow::from).collect();
        let rows = self.pool.fetch_all(write(now, &rows, joined)).await?;
        let mut positions: HashMap<MeshId, i64> = HashMap::new();
        for row in &rows {
            positions.insert(row.id("mesh")?, row.int("position")?);
        }
        let position = |presence: &OpenPresence| positions.get(&presence.record.mesh).copied();
        opened
            .iter()
            .map(|presence| position(presence).ok_or_else(|| unreadable("position")))
            .collect()
    }

    async fn reattach(
        &self,
        now: Timestamp,
        presence: &PresenceId,
        about: &ReattachPresence,
    ) -> Result<Option<i64>> {
        let query = sqlx::query(
            "update mesh.presence set session_id = coalesce($2, session_id), cwd = $3,
                pid = $4, display_name = coalesce($5, display_name), node = $6,
                last_ping_at = greatest(last_ping_at, $7)
             where id = $1 and ($8 is null or member_id = $8)
                and disconnected_at is null
             returning coalesce(multicast_position, 0) as position",
        )
        .bind(presence.as_str())
        .bind(clean_optional(about.session_id.as_deref()))
        .bind(clean(&about.cwd))
        .bind(about.pid)
        .bind(clean_optional(about.display_name.as_deref()))
        .bind(&about.node)
        .bind(now.to_naive())
        .bind(about.member.as_ref().map(MemberId::as_str));
        self.pool.record(query, |row| row.int("position")).await
    }

    async fn update(&self, changes: &[PresenceChange]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let query = sqlx::query(
            "update mesh.presence p set
                status = coalesce(e.status::mesh.presence_status, p.status),
                status_source =
                    coalesce(e.status_source::mesh.presence_status_source, p.status_source),
                status_updated_at = coalesce(
                    timestamp 'epoch' + e.status_updated_ms * interval '1 millisecond',
                    p.status_updated_at),
                summary = coalesce(e.summary, p.summary),
                groups = coalesce(e.groups, p.groups),
                attributes = coalesce(p.attributes, '{}') || e.attributes
             from jsonb_to_recordset($1::jsonb) as e (id text, status text,
                status_source text, status_updated_ms bigint, summary text, groups jsonb,
                attributes jsonb)
             where p.id = e.id and p.disconnected_at is null",
        )
        .bind(to_json(&merged(changes)));
        self.pool.execute(query).await?;
        Ok(())
    }

    async fn touch(&self, now: Timestamp, presences: &[PresenceId]) -> Result<()> {
        if presences.is_empty() {
            return Ok(());
        }
        let presences: Vec<&str> = presences.iter().map(PresenceId::as_str).collect();
        // A row that somebody else is writing waits for the next time.
        let query = sqlx::query(
            "update mesh.presence set last_ping_at = $1
             where id in (
                select id from mesh.presence
                where id = any ($2) and disconnected_at is null and last_ping_at < $1
                for update skip locked
             )",
        )
        .bind(now.to_naive())
        .bind(presences);
        self.pool.execute(query).await?;
        Ok(())
    }

    async fn suspend(&self, now: Timestamp, closed: &SuspendPresence) -> Result<()> {
        let state = &closed.state;
        // Not `on conflict (mesh_id, member_id)`: an adopted table may have no
        // unique index. Its grace counts from here: it was heard of until now.
        let query = sqlx::query(
            "with saved as (
                update mesh.peer_state set groups = $6::jsonb, profile = $7::jsonb,
                    visible = $8, last_summary = $9, last_display_name = $10,
                    cumulative_stats = $11::jsonb, last_seen_at = $12, updated_at = $1
                where mesh_id = $3 and member_id = $4 returning id
             ),
             created as (
                insert into mesh.peer_state (id, mesh_id, member_id, groups, profile, visible,
                    last_summary, last_display_name, cumulative_stats, last_seen_at,
                    created_at, updated_at)
                select $5, $3, $4, $6::jsonb, $7::jsonb, $8, $9, $10, $11::jsonb, $12, $1, $1
                where not exists (select from saved)
                on conflict do nothing
             ),
             kept as (
                update mesh.presence
                set multicast_position = greatest(multicast_position, $13),
                    last_ping_at = greatest(last_ping_at, $1)
                where id = $2 and disconnected_at is null
             )
             update mesh.message_queue
             set claimed_at = null, claim_id = null, claim_expires_at = null
             where id in (
                select id from mesh.message_queue
                where hashtextextended(target_spec, 0) = hashtextextended($14, 0)
                    and mesh_id = $3 and target_spec = $14 and delivered_at is null
                    and claim_id = $2
                for update skip locked
             )",
        )
        .bind(now.to_naive())
        .bind(closed.id.as_str())
        .bind(closed.mesh.as_str())
        .bind(closed.member.as_str())
        .bind(id::generate())
        .bind(to_json(&state.groups))
        .bind(to_json(&state.profile))
        .bind(state.visible)
        .bind(clean_optional(state.last_summary.as_deref()))
        .bind(clean_optional(state.last_display_name.as_deref()))
        .bind(to_json(&state.stats))
        .bind(state.last_seen_at.unwrap_or(now).to_naive())
        .bind(closed.multicast_position)
        .bind(closed.member_key.as_str());
        self.pool.execute(query).await?;
        Ok(())
    }

    async fn end(&self, now: Timestamp, ended: &[EndPresence]) -> Result<Vec<PresenceId>> {
        // Named twice in one call, it still ends once.
        let mut seen = HashSet::new();
        let ended: Vec<&EndPresence> =
            ended.iter().filter(|presence| seen.insert(&presence.id)).collect();
        if ended.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&str> = ended.iter().map(|presence| presence.id.as_str()).collect();
        let members: Vec<Option<&str>> =
            ended.iter().map(|presence| presence.member.as_ref().map(MemberId::as_str)).collect();
        let nodes: Vec<Option<&str>> =
            ended.iter().map(|presence| presence.node.as_deref()).collect();
        let mut owners: Vec<&str> = Vec::new();
        let mut entries = Entries::default();
        for presence in &ended {
            for entry in &presence.audit {
                owners.push(presence.id.as_str());
                let actor_name = entry.actor_name.as_deref();
                entries.push(&entry.mesh, entry.actor.as_ref(), actor_name, &entry.event);
            }
        }
        let meshes: Vec<&str> = ended.iter().map(|presence| presence.mesh.as_str()).collect();
        let locks = locks(meshes.iter().copied().chain(entries.mesh.iter().copied()));
        // The chains' locks come first: everybody takes them before rows.
        let query = entries
            .bind_rows(
                sqlx::query(END)
                    .bind(now.to_naive())
                    .bind(now.to_string())
                    .bind(locks)
                    .bind(ids)
                    .bind(owners),
            )
            .bind(nodes)
            .bind(members)
            .bind(meshes);
        let here: HashSet<PresenceId> = self.pool.records(query, |row| row.id("id")).await?;
        let ended = ended.into_iter().map(|presence| &presence.id);
        Ok(ended.filter(|id| here.contains(*id)).cloned().collect())
    }

    async fn ended(
        &self,
        presences: &[PresenceId],
    ) -> Result<Vec<(PresenceId, Option<Timestamp>)>> {
        if presences.is_empty() {
            return Ok(Vec::new());
        }
        let presences: Vec<&str> = presences.iter().map(PresenceId::as_str).collect();
        let query = sqlx::query(
            "select asked.id, p.disconnected_at from unnest($1::text[]) as asked (id)
             left join mesh.presence p on p.id = asked.id
             where p.id is null or p.disconnected_at is not null",
        )
        .bind(presences);
        self.pool.records(query, end_of).await
    }
}

/// The positions are read after the locks were taken: a multicast of the mesh
/// is either before all of these presences or after them.
fn write(now: Timestamp, rows: &[NewRow<'_>], joined: Entries<'_>) -> Query<'static> {
    joined
        .bind(
            sqlx::query(
                "with locked as materialized (select mesh.broker_lock_v1($3)),
         places as materialized (
            select box.mesh, mesh.broker_position_v1(box.mesh) as position
            from locked cross join (select distinct unnest($4::text[]) as mesh) box
         ),
         appended as materialized (
            select mesh.broker_append_v2($1, $2, $3, $4, $5, $6, $7, $8, null)
         ),
         opened as (
            insert into mesh.presence (id, member_id, session_id, session_pubkey,
                display_name, pid, cwd, status, status_source, status_updated_at, groups, role,
                connected_at, last_ping_at, multicast_position, node, attributes)
            select e.id, e.member, e.session_id, e.session_key, e.display_name, e.pid, e.cwd,
                e.status::mesh.presence_status, e.status_source::mesh.presence_status_source,
                $1, e.groups, e.role, $1, $1, places.position, e.node, e.attributes
            from jsonb_to_recordset($9::jsonb) as e (id text, mesh text, member text,
                session_id text, session_key text, display_name text, pid integer, cwd text,
                status text, status_source text, groups jsonb, role text, node text,
                attributes jsonb)
            join places on places.mesh = e.mesh
         )
         select mesh, position, (select count(*) from appended) as appended from places",
            ),
            now,
        )
        .bind(to_json(rows))
}
