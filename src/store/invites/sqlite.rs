//! Invites, and enrolling by one.

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::Preset;
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::chain::append_one;
use crate::store::sqlite::connection::Tx;
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::{described, get, id, optional_time, time, to_json, word};
use crate::store::{
    Invite, Invites, Join, JoinRefusal, Joined, NewInvite, OpenInvite, Result, Role, Standing,
};

#[async_trait]
impl Invites for SqliteStore {
    async fn create(&self, now: Timestamp, invite: &NewInvite) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "insert into invite (id, mesh_id, token, role, max_uses, expires_at, created_by,
                created_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .bind(&invite.id)
        .bind(invite.mesh.as_str())
        .bind(&invite.token)
        .bind(invite.role.as_str())
        .bind(invite.max_uses)
        .bind(invite.expires_at.as_ms())
        .bind(&invite.created_by)
        .bind(now.as_ms())
        .execute(&mut *tx)
        .await
        .map_err(refused)?;
        tx.commit().await.map_err(refused)
    }

    async fn of_mesh(&self, mesh: &MeshId) -> Result<Vec<Invite>> {
        let rows = sqlx::query(
            "select id, role, max_uses, used_count, expires_at, created_at, revoked_at
             from invite where mesh_id = ?1 order by created_at desc, id desc",
        )
        .bind(mesh.as_str())
        .fetch_all(self.reader())
        .await
        .map_err(refused)?;
        rows.iter().map(invite).collect()
    }

    async fn revoke(&self, now: Timestamp, id_or_token: &str) -> Result<bool> {
        let mut tx = self.begin().await?;
        let revoked = sqlx::query(
            "update invite set revoked_at = ?2
             where (id = ?1 or token = ?1) and revoked_at is null and expires_at >= ?2
                and used_count < max_uses",
        )
        .bind(id_or_token)
        .bind(now.as_ms())
        .execute(&mut *tx)
        .await
        .map_err(refused)?
        .rows_affected();
        tx.commit().await.map_err(refused)?;
        Ok(revoked > 0)
    }

    async fn join(&self, now: Timestamp, join: &Join) -> Result<Joined> {
        let mut tx = self.begin().await?;
        if let Some(refusal) = check_mesh(&mut tx, join).await? {
            return Ok(Joined::Refused(refusal));
        }
        let row = sqlx::query(
            "select id, mesh_id, role, preset, expires_at, created_at, revoked_at,
                used_count < max_uses as usable
             from invite where token = ?1",
        )
        .bind(&join.token)
        .fetch_optional(&mut *tx)
        .await
        .map_err(refused)?;
        let Some(row) = row else { return Ok(Joined::Refused(JoinRefusal::NotFound)) };
        if let Some(refusal) = check_invite(&row, now, join)? {
            return Ok(Joined::Refused(refusal));
        }
        let invite =
            OpenInvite { made_at: time(&row, "created_at")?, has_uses: get(&row, "usable")? };
        if let Some(joined) = invite.judge(now, standing(&mut tx, join).await?) {
            return Ok(joined);
        }
        sqlx::query("update invite set used_count = used_count + 1 where id = ?1")
            .bind(get::<&str>(&row, "id")?)
            .execute(&mut *tx)
            .await
            .map_err(refused)?;
        let role = word(&row, "role", Role::parse)?;
        enrol(&mut tx, now, join, role, described(&row, "preset")?).await?;
        tx.commit().await.map_err(refused)?;
        Ok(Joined::New(join.member.clone()))
    }
}

fn invite(row: &SqliteRow) -> Result<Invite> {
    Ok(Invite {
        id: get(row, "id")?,
        role: word(row, "role", Role::parse)?,
        max_uses: get(row, "max_uses")?,
        used_count: get(row, "used_count")?,
        expires_at: time(row, "expires_at")?,
        created_at: time(row, "created_at")?,
        revoked_at: optional_time(row, "revoked_at")?,
    })
}

async fn check_mesh(tx: &mut Tx, join: &Join) -> Result<Option<JoinRefusal>> {
    let row = sqlx::query("select owner_pubkey from mesh where id = ?1 and archived_at is null")
        .bind(join.mesh.as_str())
        .fetch_optional(&mut **tx)
        .await
        .map_err(refused)?;
    let Some(row) = row else { return Ok(Some(JoinRefusal::MeshNotFound)) };
    let owner_key: Option<&str> = row.try_get("owner_pubkey").map_err(refused)?;
    Ok(match owner_key {
        None => Some(JoinRefusal::MeshMissingOwnerKey),
        Some(owner_key) if owner_key != join.owner_key => Some(JoinRefusal::OwnerMismatch),
        Some(_) => None,
    })
}

fn check_invite(row: &SqliteRow, now: Timestamp, join: &Join) -> Result<Option<JoinRefusal>> {
    Ok(if id::<MeshId>(row, "mesh_id")? != join.mesh {
        Some(JoinRefusal::MeshMismatch)
    } else if optional_time(row, "revoked_at")?.is_some() {
        Some(JoinRefusal::Revoked)
    } else if time(row, "expires_at")? < now {
        Some(JoinRefusal::Expired)
    } else {
        None
    })
}

async fn standing(tx: &mut Tx, join: &Join) -> Result<Option<Standing>> {
    let row = sqlx::query(
        "select id, joined_at, revoked_at from member where mesh_id = ?1 and peer_pubkey = ?2
         order by revoked_at is not null, revoked_at desc, joined_at, id limit 1",
    )
    .bind(join.mesh.as_str())
    .bind(join.key.as_str())
    .fetch_optional(&mut **tx)
    .await
    .map_err(refused)?;
    let standing = |row: &SqliteRow| {
        Ok(Standing {
            member: id(row, "id")?,
            joined_at: time(row, "joined_at")?,
            revoked_at: optional_time(row, "revoked_at")?,
        })
    };
    row.as_ref().map(standing).transpose()
}

async fn enrol(tx: &mut Tx, now: Timestamp, join: &Join, role: Role, preset: Preset) -> Result<()> {
    let display_name = preset.display_name.as_ref().unwrap_or(&join.display_name);
    sqlx::query(
        "insert into member (id, mesh_id, peer_pubkey, display_name, role, role_tag,
            default_groups, message_mode, joined_at)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )
    .bind(join.member.as_str())
    .bind(join.mesh.as_str())
    .bind(join.key.as_str())
    .bind(display_name)
    .bind(role.as_str())
    .bind(&preset.role_tag)
    .bind(to_json(&preset.groups.unwrap_or_default()))
    .bind(preset.message_mode.as_deref().unwrap_or("push"))
    .bind(now.as_ms())
    .execute(&mut **tx)
    .await
    .map_err(refused)?;
    let event = AuditEvent::MemberJoined { pubkey: join.key.clone(), role: role.as_str() };
    append_one(tx, now, &join.mesh, Some(&join.member), Some(display_name), &event).await
}
