//! Members: finding them, shutting them out, changing what they may do.

use super::admission::{member, select_members};
use super::audit::Entries;
use super::pool::Db;
use super::row::{clean, get, id, to_json};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::store::{Member, Moderation, Result, Role, StoreError};

pub(super) async fn find(db: &Db, mesh: &MeshId, target: &str) -> Result<Vec<Member>> {
    if target.is_empty() {
        return Ok(Vec::new());
    }
    let rows = db
        .fetch_all(
            sqlx::query(select_members!(
                "where m.mesh_id = $1 and m.revoked_at is null
                    and (m.display_name = $2 or left(m.peer_pubkey, length($2)) = $2)
                 order by m.joined_at, m.id"
            ))
            .bind(mesh.as_str())
            .bind(clean(target)),
        )
        .await?;
    rows.iter().map(member).collect()
}

pub(super) async fn revoked(db: &Db, mesh: &MeshId) -> Result<Vec<Member>> {
    let rows = db
        .fetch_all(
            sqlx::query(select_members!(
                "where m.mesh_id = $1 and m.revoked_at is not null order by m.revoked_at, m.id"
            ))
            .bind(mesh.as_str()),
        )
        .await?;
    rows.iter().map(member).collect()
}

pub(super) async fn all(db: &Db, mesh: &MeshId) -> Result<Vec<Member>> {
    let rows = db
        .fetch_all(
            sqlx::query(select_members!("where m.mesh_id = $1 order by m.joined_at, m.id"))
                .bind(mesh.as_str()),
        )
        .await?;
    rows.iter().map(member).collect()
}

pub(super) async fn ban(db: &Db, now: Timestamp, ban: &Moderation) -> Result<bool> {
    set_revoked(db, now, ban, Some(now)).await
}

pub(super) async fn unban(db: &Db, now: Timestamp, unban: &Moderation) -> Result<bool> {
    set_revoked(db, now, unban, None).await
}

/// `false`, and no audit row, if the membership was so already.
async fn set_revoked(
    db: &Db,
    now: Timestamp,
    change: &Moderation,
    revoked_at: Option<Timestamp>,
) -> Result<bool> {
    let Moderation { mesh, member, actor, actor_name, audit } = change;
    let mut entry = Entries::default();
    entry.push(mesh, actor.as_ref(), actor_name.as_deref(), audit);
    let row = db
        .fetch_one(
            sqlx::query(
                "with locked as materialized (select mesh.broker_lock_v1($3)),
                 changed as (
                    update mesh.member m set revoked_at = $10 from locked
                    where m.id = $9 and m.mesh_id = any ($4)
                        and (m.revoked_at is null) = ($10::timestamp is not null)
                    returning m.id
                 ),
                 appended as materialized (
                    select mesh.broker_append_v2($1, $2, $3, $4, $5, $6, $7, $8, null)
                    from changed
                 )
                 select (select count(*) from appended) > 0 as changed,
                    exists (select from mesh.member m
                        where m.id = $9 and m.mesh_id = any ($4)) as known",
            )
            .bind(now.to_naive())
            .bind(now.to_string())
            .bind(entry.locks())
            .bind(entry.mesh)
            .bind(entry.actor)
            .bind(entry.name)
            .bind(entry.event)
            .bind(entry.payload)
            .bind(member.as_str())
            .bind(revoked_at.map(Timestamp::to_naive)),
        )
        .await?;
    if get(&row, "known")? { get(&row, "changed") } else { Err(no_member()) }
}

pub(super) async fn set_role(db: &Db, now: Timestamp, member: &MemberId, role: Role) -> Result<()> {
    let row = db
        .fetch_optional(
            sqlx::query("select mesh_id, peer_pubkey from mesh.member where id = $1")
                .bind(clean(member.as_str())),
        )
        .await?
        .ok_or_else(no_member)?;
    let mesh: MeshId = id(&row, "mesh_id")?;
    let target_pubkey = id(&row, "peer_pubkey")?;
    let event = AuditEvent::MemberRoleChanged { target_pubkey, role: role.as_str() };
    let mut entry = Entries::default();
    entry.push(&mesh, None, None, &event);
    db.execute(
        sqlx::query(
            "with locked as materialized (select mesh.broker_lock_v1($3)),
             changed as (
                update mesh.member m set role = $10::mesh.role from locked
                where m.id = $9 and m.role <> $10::mesh.role
                returning m.id
             )
             select mesh.broker_append_v2($1, $2, $3, $4, $5, $6, $7, $8, null) from changed",
        )
        .bind(now.to_naive())
        .bind(now.to_string())
        .bind(entry.locks())
        .bind(entry.mesh)
        .bind(entry.actor)
        .bind(entry.name)
        .bind(entry.event)
        .bind(entry.payload)
        .bind(member.as_str())
        .bind(role.as_str()),
    )
    .await?;
    Ok(())
}

pub(super) async fn set_grant(
    db: &Db,
    member: &MemberId,
    sender_key: &str,
    capabilities: Option<&[String]>,
) -> Result<()> {
    let touched = db
        .execute(
            sqlx::query(
                "update mesh.member set peer_grants = case
                    when $3::jsonb is null then known.grants - $2
                    else known.grants || jsonb_build_object($2, $3::jsonb) end
                 from (
                    select m.id, case jsonb_typeof(m.peer_grants) when 'object'
                        then m.peer_grants else '{}' end as grants
                    from mesh.member m where m.id = $1 for update
                 ) known
                 where member.id = known.id",
            )
            .bind(clean(member.as_str()))
            .bind(clean(sender_key))
            .bind(capabilities.map(to_json)),
        )
        .await?;
    if touched == 0 { Err(no_member()) } else { Ok(()) }
}

fn no_member() -> StoreError {
    StoreError::NotFound("there is no such member".to_owned())
}
