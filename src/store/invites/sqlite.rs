//! Invites, and enrolling by one.

use async_trait::async_trait;

use super::Preset;
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::MeshId;
use crate::store::columns::Columns as _;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::chain::append_one;
use crate::store::sqlite::connection::{Tx, execute, fetch_optional};
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::to_json;
use crate::store::{
    Invite, Invites, Join, JoinRefusal, Joined, NewInvite, OpenInvite, Result, Role, Standing,
};

#[async_trait]
impl Invites for SqliteStore {
    async fn create(&self, now: Timestamp, invite: &NewInvite) -> Result<()> {
        let query = sqlx::query(
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
        .bind(now.as_ms());
        self.write(query).await?;
        Ok(())
    }

    async fn of_mesh(&self, mesh: &MeshId) -> Result<Vec<Invite>> {
        let query = sqlx::query(
            "select id, role, max_uses, used_count, expires_at, created_at, revoked_at
             from invite where mesh_id = ?1 order by created_at desc, id desc",
        )
        .bind(mesh.as_str());
        self.records(query, Invite::read).await
    }

    async fn revoke(&self, now: Timestamp, id_or_token: &str) -> Result<bool> {
        let query = sqlx::query(
            "update invite set revoked_at = ?2
             where (id = ?1 or token = ?1) and revoked_at is null and expires_at >= ?2
                and used_count < max_uses",
        )
        .bind(id_or_token)
        .bind(now.as_ms());
        let revoked = self.write(query).await?;
        Ok(revoked > 0)
    }

    async fn join(&self, now: Timestamp, join: &Join) -> Result<Joined> {
        let mut tx = self.begin().await?;
        if let Some(refusal) = check_mesh(&mut tx, join).await? {
            return Ok(Joined::Refused(refusal));
        }
        let query = sqlx::query(
            "select id, mesh_id, role, preset, expires_at, created_at, revoked_at,
                used_count < max_uses as usable
             from invite where token = ?1",
        )
        .bind(&join.token);
        let row = fetch_optional(&mut tx, query).await?;
        let Some(row) = row else { return Ok(Joined::Refused(JoinRefusal::NotFound)) };
        if let Some(refusal) = join.refused_by_invite(&row, now)? {
            return Ok(Joined::Refused(refusal));
        }
        let invite = OpenInvite::read(&row)?;
        if let Some(joined) = invite.judge(now, standing(&mut tx, join).await?) {
            return Ok(joined);
        }
        let query = sqlx::query("update invite set used_count = used_count + 1 where id = ?1")
            .bind(row.str("id")?);
        execute(&mut tx, query).await?;
        let role = row.word("role", Role::parse)?;
        enrol(&mut tx, now, join, role, row.described("preset")?).await?;
        tx.commit().await.map_err(refused)?;
        Ok(Joined::New(join.member.clone()))
    }
}

async fn check_mesh(tx: &mut Tx, join: &Join) -> Result<Option<JoinRefusal>> {
    let query = sqlx::query("select owner_pubkey from mesh where id = ?1 and archived_at is null")
        .bind(join.mesh.as_str());
    let row = fetch_optional(tx, query).await?;
    join.refused_by_mesh(row.as_ref())
}

async fn standing(tx: &mut Tx, join: &Join) -> Result<Option<Standing>> {
    let query = sqlx::query(
        "select id, joined_at, revoked_at from member where mesh_id = ?1 and peer_pubkey = ?2
         order by revoked_at is not null, revoked_at desc, joined_at, id limit 1",
    )
    .bind(join.mesh.as_str())
    .bind(join.key.as_str());
    let row = fetch_optional(tx, query).await?;
    row.as_ref().map(Standing::read).transpose()
}

async fn enrol(tx: &mut Tx, now: Timestamp, join: &Join, role: Role, preset: Preset) -> Result<()> {
    let display_name = preset.display_name.as_ref().unwrap_or(&join.display_name);
    let query = sqlx::query(
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
    .bind(now.as_ms());
    execute(tx, query).await?;
    let event = AuditEvent::MemberJoined { pubkey: join.key.clone(), role: role.as_str() };
    append_one(tx, now, &join.mesh, Some(&join.member), Some(display_name), &event).await
}
