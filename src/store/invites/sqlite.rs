//! Invites, and enrolling by one.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use super::Preset;
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{AccountId, Key, MemberId, MeshId};
use crate::store::columns::Columns as _;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::chain::append_one;
use crate::store::sqlite::connection::{Tx, execute, fetch_optional};
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::to_json;
use crate::store::{
    AccountInvite, Claim, FoundInvite, Invite, Invites, Join, JoinRefusal, Joined, Meshes,
    NewInvite, OpenInvite, Result, Role, Standing,
};

#[async_trait]
impl Invites for SqliteStore {
    async fn create(&self, now: Timestamp, invite: &NewInvite) -> Result<()> {
        let query = sqlx::query(
            "insert into invite (id, mesh_id, token, role, max_uses, expires_at, created_by,
                created_at, code, capability_v2, version)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, case when ?9 is null then 1 else 2 end)",
        )
        .bind(&invite.id)
        .bind(invite.mesh.as_str())
        .bind(&invite.token)
        .bind(invite.role.as_str())
        .bind(invite.max_uses)
        .bind(invite.expires_at.as_ms())
        .bind(&invite.created_by)
        .bind(now.as_ms())
        .bind(invite.code.as_ref().map(|code| &code.code))
        .bind(invite.code.as_ref().map(|code| &code.capability));
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

    async fn of_account(
        &self,
        account: &AccountId,
        limit: i64,
        skip: i64,
    ) -> Result<Vec<AccountInvite>> {
        let query = sqlx::query(
            "select i.id, i.mesh_id, i.role, i.max_uses, i.used_count, i.expires_at,
                i.created_at, i.revoked_at, i.created_by = ?1 as is_own, mesh.slug
             from mesh cross join invite i on i.mesh_id = mesh.id
             where mesh.owner_user_id = ?1 and mesh.archived_at is null
             order by i.created_at desc, i.id desc limit 0 + ?2 offset ?3",
        )
        .bind(account.as_str())
        .bind(limit)
        .bind(skip);
        self.records(query, AccountInvite::read).await
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
        let row = match open_invite(&mut tx, now, join).await? {
            Ok(row) => row,
            Err(refusal) => return Ok(Joined::Refused(refusal)),
        };
        let invite = OpenInvite::read(&row)?;
        if let Some(joined) = invite.judge(now, standing(&mut tx, join).await?) {
            return Ok(joined);
        }
        use_up(&mut tx, &row).await?;
        let role = row.word("role", Role::parse)?;
        enrol(&mut tx, now, join, role, row.described("preset")?).await?;
        tx.commit().await.map_err(refused)?;
        Ok(Joined::New(join.member.clone()))
    }

    async fn find(&self, code_or_token: &str) -> Result<Option<FoundInvite>> {
        let query = sqlx::query(
            "select i.*, i.capability_v2 as capability,
                coalesce((select display_name from member where id = i.created_by),
                    (select name from account where id = i.created_by)) as inviter,
                (select count(*) from member where mesh_id = i.mesh_id) as members
             from invite i where i.code = ?1 or i.token = ?1
             order by i.code = ?1 desc limit 1",
        )
        .bind(code_or_token);
        let row = query.fetch_optional(self.reader()).await.map_err(refused)?;
        let Some(row) = row else { return Ok(None) };
        let mesh = Meshes::get(self, &row.id("mesh_id")?).await?;
        mesh.map(|mesh| FoundInvite::read(&row, mesh)).transpose()
    }

    async fn claim(&self, now: Timestamp, claim: &Claim) -> Result<Joined> {
        let mut tx = self.begin().await?;
        let row = match open_invite(&mut tx, now, &claim.join).await? {
            Ok(row) => row,
            Err(refusal) => return Ok(Joined::Refused(refusal)),
        };
        if let Some(joined) = OpenInvite::read(&row)?.judge(now, None) {
            return Ok(joined);
        }
        use_up(&mut tx, &row).await?;
        let query =
            sqlx::query("delete from unbound_member where expires_at < ?1").bind(now.as_ms());
        execute(&mut tx, query).await?;
        let query = sqlx::query(
            "insert into unbound_member (id, mesh_id, display_name, role, preset, expires_at)
             values (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(claim.join.member.as_str())
        .bind(claim.join.mesh.as_str())
        .bind(&claim.join.display_name)
        .bind(row.str("role")?)
        .bind(row.str("preset")?)
        .bind(claim.until.as_ms());
        execute(&mut tx, query).await?;
        tx.commit().await.map_err(refused)?;
        Ok(Joined::New(claim.join.member.clone()))
    }

    async fn is_claimed(&self, now: Timestamp, mesh: &MeshId, member: &MemberId) -> Result<bool> {
        let query = sqlx::query(
            "select id from unbound_member where id = ?1 and mesh_id = ?2 and expires_at >= ?3",
        )
        .bind(member.as_str())
        .bind(mesh.as_str())
        .bind(now.as_ms());
        Ok(self.record(query, |row| row.text("id")).await?.is_some())
    }

    async fn bind(
        &self,
        now: Timestamp,
        mesh: &MeshId,
        member: &MemberId,
        key: &Key,
    ) -> Result<bool> {
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "delete from unbound_member where id = ?1 and mesh_id = ?2 and expires_at >= ?3
                and not exists (
                    select 1 from member where mesh_id = ?2 and peer_pubkey = ?4)
             returning display_name, role, preset",
        )
        .bind(member.as_str())
        .bind(mesh.as_str())
        .bind(now.as_ms())
        .bind(key.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(refused)?;
        let Some(row) = row else { return Ok(false) };
        let join = Join::bound(mesh, member, key, row.text("display_name")?);
        let role = row.word("role", Role::parse)?;
        enrol(&mut tx, now, &join, role, row.described("preset")?).await?;
        tx.commit().await.map_err(refused)?;
        Ok(true)
    }
}

/// The row of an invite by which somebody can join now.
async fn open_invite(
    tx: &mut Tx,
    now: Timestamp,
    join: &Join,
) -> Result<std::result::Result<SqliteRow, JoinRefusal>> {
    if let Some(refusal) = check_mesh(tx, join).await? {
        return Ok(Err(refusal));
    }
    let query = sqlx::query(
        "select id, mesh_id, role, preset, expires_at, created_at, revoked_at,
            used_count < max_uses as usable
         from invite where token = ?1",
    )
    .bind(&join.token);
    let Some(row) = fetch_optional(tx, query).await? else {
        return Ok(Err(JoinRefusal::NotFound));
    };
    Ok(match join.refused_by_invite(&row, now)? {
        Some(refusal) => Err(refusal),
        None => Ok(row),
    })
}

async fn use_up(tx: &mut Tx, invite: &SqliteRow) -> Result<()> {
    let query = sqlx::query("update invite set used_count = used_count + 1 where id = ?1")
        .bind(invite.str("id")?);
    execute(tx, query).await?;
    Ok(())
}

async fn check_mesh(tx: &mut Tx, join: &Join) -> Result<Option<JoinRefusal>> {
    let query = sqlx::query(
        "select owner_pubkey, certified_required from mesh where id = ?1 and archived_at is null",
    )
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
            default_groups, message_mode, joined_at, certificate)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
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
    .bind(&join.certificate);
    execute(tx, query).await?;
    let event = AuditEvent::MemberJoined { pubkey: join.key.clone(), role: role.as_str() };
    append_one(tx, now, &join.mesh, Some(&join.member), Some(display_name), &event).await
}
