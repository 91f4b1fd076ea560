//! Members: finding them, shutting them out, changing what they may do.

use serde_json::{Map, Value};

use super::admission::{member, select_members};
use super::audit::append_one;
use super::connection::{Db, Tx};
use super::error::refused;
use super::row::{described, get, id, to_json};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::store::{Member, Moderation, Result, Role, StoreError};

pub(super) async fn find(db: &Db, mesh: &MeshId, target: &str) -> Result<Vec<Member>> {
    if target.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(select_members!(
        "where m.mesh_id = ?1 and m.revoked_at is null
            and (m.display_name = ?2 or substr(m.peer_pubkey, 1, length(?2)) = ?2)
         order by m.joined_at, m.id"
    ))
    .bind(mesh.as_str())
    .bind(target)
    .fetch_all(db.reader())
    .await
    .map_err(refused)?;
    rows.iter().map(member).collect()
}

pub(super) async fn revoked(db: &Db, mesh: &MeshId) -> Result<Vec<Member>> {
    let rows = sqlx::query(select_members!(
        "where m.mesh_id = ?1 and m.revoked_at is not null order by m.revoked_at, m.id"
    ))
    .bind(mesh.as_str())
    .fetch_all(db.reader())
    .await
    .map_err(refused)?;
    rows.iter().map(member).collect()
}

pub(super) async fn all(db: &Db, mesh: &MeshId) -> Result<Vec<Member>> {
    let rows = sqlx::query(select_members!("where m.mesh_id = ?1 order by m.joined_at, m.id"))
        .bind(mesh.as_str())
        .fetch_all(db.reader())
        .await
        .map_err(refused)?;
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
    let mut tx = db.begin().await?;
    let changed = sqlx::query(
        "update member set revoked_at = ?3
         where id = ?1 and mesh_id = ?2 and (revoked_at is null) = (?3 is not null)",
    )
    .bind(member.as_str())
    .bind(mesh.as_str())
    .bind(revoked_at.map(Timestamp::as_ms))
    .execute(&mut *tx)
    .await
    .map_err(refused)?
    .rows_affected();
    if changed == 0 {
        let known = sqlx::query("select 1 from member where id = ?1 and mesh_id = ?2")
            .bind(member.as_str())
            .bind(mesh.as_str())
            .fetch_optional(&mut *tx)
            .await
            .map_err(refused)?;
        return known.map(|_| false).ok_or_else(no_member);
    }
    append_one(&mut tx, now, mesh, actor.as_ref(), actor_name.as_deref(), audit).await?;
    tx.commit().await.map_err(refused)?;
    Ok(true)
}

pub(super) async fn set_role(db: &Db, now: Timestamp, member: &MemberId, role: Role) -> Result<()> {
    let mut tx = db.begin().await?;
    let row = sqlx::query(
        "select mesh_id, peer_pubkey, role = ?2 as unchanged from member where id = ?1",
    )
    .bind(member.as_str())
    .bind(role.as_str())
    .fetch_optional(&mut *tx)
    .await
    .map_err(refused)?
    .ok_or_else(no_member)?;
    if get(&row, "unchanged")? {
        return Ok(());
    }
    let mesh: MeshId = id(&row, "mesh_id")?;
    let target_pubkey = id(&row, "peer_pubkey")?;
    sqlx::query("update member set role = ?2 where id = ?1")
        .bind(member.as_str())
        .bind(role.as_str())
        .execute(&mut *tx)
        .await
        .map_err(refused)?;
    let role = role.as_str();
    let event = AuditEvent::MemberRoleChanged { target_pubkey, role };
    append_one(&mut tx, now, &mesh, None, None, &event).await?;
    tx.commit().await.map_err(refused)
}

pub(super) async fn set_grant(
    db: &Db,
    member: &MemberId,
    sender_key: &str,
    capabilities: Option<&[String]>,
) -> Result<()> {
    let mut tx = db.begin().await?;
    let mut grants = grants(&mut tx, member).await?;
    match capabilities {
        Some(capabilities) => {
            grants.insert(sender_key.to_owned(), Value::from(capabilities));
        }
        None => {
            grants.remove(sender_key);
        }
    }
    sqlx::query("update member set peer_grants = ?2 where id = ?1")
        .bind(member.as_str())
        .bind(to_json(&grants))
        .execute(&mut *tx)
        .await
        .map_err(refused)?;
    tx.commit().await.map_err(refused)
}

async fn grants(tx: &mut Tx, member: &MemberId) -> Result<Map<String, Value>> {
    let row = sqlx::query("select peer_grants from member where id = ?1")
        .bind(member.as_str())
        .fetch_optional(&mut **tx)
        .await
        .map_err(refused)?
        .ok_or_else(no_member)?;
    // Read as [`read_grants`](crate::store::read_grants) reads it.
    described(&row, "peer_grants")
}

fn no_member() -> StoreError {
    StoreError::NotFound("there is no such member".to_owned())
}
