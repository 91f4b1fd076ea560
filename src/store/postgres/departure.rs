//! Presences that lose their socket, and presences that end.

use std::collections::HashSet;

use super::audit::{Entries, locks};
use super::pool::Db;
use super::row::{clean_optional, id as id_of, optional_time, to_json};
use crate::clock::Timestamp;
use crate::id::{self, MemberId, PresenceId};
use crate::store::{EndPresence, Result, SuspendPresence};

pub(super) async fn suspend(db: &Db, now: Timestamp, closed: &SuspendPresence) -> Result<()> {
    let state = &closed.state;
    // Not `on conflict (mesh_id, member_id)`: an adopted table may have no
    // unique index. Its grace counts from here: it was heard of until now.
    db.execute(
        sqlx::query(
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
        .bind(closed.member_key.as_str()),
    )
    .await?;
    Ok(())
}

pub(super) async fn end(db: &Db, now: Timestamp, ended: &[EndPresence]) -> Result<Vec<PresenceId>> {
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
    let nodes: Vec<Option<&str>> = ended.iter().map(|presence| presence.node.as_deref()).collect();
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
    let rows = db
        .fetch_all(
            sqlx::query(
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
                 ),
                 appended as materialized (
                    select mesh.broker_append_v2($1, $2, $3, a.mesh, a.actor, a.name, a.event,
                        a.payload, null)
                    from (
                        select array_agg(e.mesh order by e.mesh, e.at) as mesh,
                            array_agg(e.actor order by e.mesh, e.at) as actor,
                            array_agg(e.name order by e.mesh, e.at) as name,
                            array_agg(e.event order by e.mesh, e.at) as event,
                            array_agg(e.payload order by e.mesh, e.at) as payload
                        from unnest($5::text[], $6::text[], $7::text[], $8::text[],
                                $9::text[], $10::text[])
                            with ordinality as e (owner, mesh, actor, name, event, payload, at)
                        join ended on ended.id = e.owner
                    ) a
                    where a.mesh is not null
                 )
                 select id, (select count(*) from appended) as appended from ended",
            )
            .bind(now.to_naive())
            .bind(now.to_string())
            .bind(locks)
            .bind(ids)
            .bind(owners)
            .bind(entries.mesh)
            .bind(entries.actor)
            .bind(entries.name)
            .bind(entries.event)
            .bind(entries.payload)
            .bind(nodes)
            .bind(members)
            .bind(meshes),
        )
        .await?;
    let here: HashSet<PresenceId> =
        rows.iter().map(|row| id_of(row, "id")).collect::<Result<_>>()?;
    let ended = ended.into_iter().map(|presence| &presence.id);
    Ok(ended.filter(|id| here.contains(*id)).cloned().collect())
}

pub(super) async fn ended(
    db: &Db,
    presences: &[PresenceId],
) -> Result<Vec<(PresenceId, Option<Timestamp>)>> {
    if presences.is_empty() {
        return Ok(Vec::new());
    }
    let presences: Vec<&str> = presences.iter().map(PresenceId::as_str).collect();
    let rows = db
        .fetch_all(
            sqlx::query(
                "select asked.id, p.disconnected_at from unnest($1::text[]) as asked (id)
                 left join mesh.presence p on p.id = asked.id
                 where p.id is null or p.disconnected_at is not null",
            )
            .bind(presences),
        )
        .await?;
    rows.iter().map(|row| Ok((id_of(row, "id")?, optional_time(row, "disconnected_at")?))).collect()
}
