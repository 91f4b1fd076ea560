//! Invites, and enrolling by one.

use async_trait::async_trait;
use sqlx::postgres::PgRow;

use super::Preset;
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{AccountId, Key, MemberId, MeshId};
use crate::store::columns::Columns as _;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::chain::Entries;
use crate::store::postgres::pool::Call;
use crate::store::postgres::row::{clean, clean_optional, to_json};
use crate::store::{
    AccountInvite, Claim, FoundInvite, Invite, Invites, Join, JoinRefusal, Joined, Meshes,
    NewInvite, OpenInvite, Result, Role, Standing, StoreError,
};

#[async_trait]
impl Invites for PostgresStore {
    async fn create(&self, now: Timestamp, invite: &NewInvite) -> Result<()> {
        // Where invites must be made by a user of the dashboard, the mesh's owner
        // stands for whoever is at the command line. A violated constraint would
        // put the token into the log of Postgres: nothing is done instead.
        let query = sqlx::query(
            "insert into mesh.invite (id, mesh_id, token, role, max_uses, expires_at,
                created_by, created_at, code, token_bytes, capability_v2, version)
             select $1, m.id, $3, $4::mesh.role, $5, $6, case when exists (
                    select from pg_catalog.pg_constraint c
                    where c.conrelid = 'mesh.invite'::regclass and c.contype = 'f'
                        and c.confrelid = to_regclass('public.\"user\"')
                ) then m.owner_user_id else $7 end, $8, $9, $10, $11,
                case when $9::text is null then 1 else 2 end
             from mesh.mesh m where m.id = $2
             on conflict do nothing",
        )
        .bind(&invite.id)
        .bind(invite.mesh.as_str())
        .bind(&invite.token)
        .bind(invite.role.as_str())
        .bind(invite.max_uses)
        .bind(invite.expires_at.to_naive())
        .bind(&invite.created_by)
        .bind(now.to_naive())
        .bind(invite.code.as_ref().map(|code| code.code.as_str()))
        .bind(invite.code.as_ref().map(|code| code.canonical.as_str()))
        .bind(invite.code.as_ref().map(|code| code.capability.as_str()));
        let created = self.pool.execute(query).await?;
        if created == 0 {
            let mesh =
                sqlx::query("select from mesh.mesh where id = $1").bind(invite.mesh.as_str());
            return Err(match self.pool.fetch_optional(mesh).await? {
                Some(_) => StoreError::Conflict("this invite is there already".to_owned()),
                None => StoreError::NotFound("there is no such mesh".to_owned()),
            });
        }
        Ok(())
    }

    async fn of_mesh(&self, mesh: &MeshId) -> Result<Vec<Invite>> {
        let query = sqlx::query(
            "select id, role::text as role, max_uses, used_count, expires_at, created_at,
                revoked_at
             from mesh.invite where mesh_id = $1 order by created_at desc, id desc",
        )
        .bind(mesh.as_str());
        self.pool.records(query, Invite::read).await
    }

    async fn of_account(
        &self,
        account: &AccountId,
        limit: i64,
        skip: i64,
    ) -> Result<Vec<AccountInvite>> {
        let query = sqlx::query(
            "select i.id, i.mesh_id, i.role::text as role, i.max_uses, i.used_count,
                i.expires_at, i.created_at, i.revoked_at, i.created_by = $1 as is_own, m.slug
             from mesh.mesh m join mesh.invite i on i.mesh_id = m.id
             where m.owner_user_id = $1 and m.archived_at is null
             order by i.created_at desc, i.id desc limit $2 offset $3",
        )
        .bind(clean(account.as_str()))
        .bind(limit)
        .bind(skip);
        self.pool.records(query, AccountInvite::read).await
    }

    async fn revoke(&self, now: Timestamp, id_or_token: &str) -> Result<bool> {
        let query = sqlx::query(
            "update mesh.invite set revoked_at = $2
             where (id = $1 or token = $1) and revoked_at is null and expires_at >= $2
                and used_count < max_uses",
        )
        .bind(clean(id_or_token))
        .bind(now.to_naive());
        let revoked = self.pool.execute(query).await?;
        Ok(revoked > 0)
    }

    async fn join(&self, now: Timestamp, join: &Join) -> Result<Joined> {
        let mut tx = self.pool.begin().await?;
        let joined = join_in(&mut tx, now, join).await?;
        match &joined {
            Joined::New(_) => tx.commit().await?,
            Joined::Already(_) | Joined::Refused(_) => tx.rollback().await?,
        }
        Ok(joined)
    }

    async fn find(&self, code_or_token: &str) -> Result<Option<FoundInvite>> {
        let query = sqlx::query(
            "select i.id, i.role::text as role, i.max_uses, i.used_count, i.expires_at,
                i.created_at, i.revoked_at, i.token, i.mesh_id,
                coalesce(i.capability_v2, i.capability_v_2) as capability,
                coalesce((select display_name from mesh.member where id = i.created_by),
                    (select name from mesh.account where id = i.created_by)) as inviter,
                (select count(*) from mesh.member where mesh_id = i.mesh_id) as members
             from mesh.invite i where i.code = $1 or i.token = $1
             order by coalesce(i.code = $1, false) desc limit 1",
        )
        .bind(clean(code_or_token));
        let Some(row) = self.pool.fetch_optional(query).await? else { return Ok(None) };
        let mesh = Meshes::get(self, &row.id("mesh_id")?).await?;
        mesh.map(|mesh| FoundInvite::read(&row, mesh)).transpose()
    }

    async fn claim(&self, now: Timestamp, claim: &Claim) -> Result<Joined> {
        let mut tx = self.pool.begin().await?;
        let joined = claim_in(&mut tx, now, claim).await?;
        match &joined {
            Joined::New(_) => tx.commit().await?,
            Joined::Already(_) | Joined::Refused(_) => tx.rollback().await?,
        }
        Ok(joined)
    }

    async fn is_claimed(&self, now: Timestamp, mesh: &MeshId, member: &MemberId) -> Result<bool> {
        let query = sqlx::query(
            "select id from mesh.unbound_member
             where id = $1 and mesh_id = $2 and expires_at >= $3",
        )
        .bind(clean(member.as_str()))
        .bind(clean(mesh.as_str()))
        .bind(now.to_naive());
        Ok(self.pool.fetch_optional(query).await?.is_some())
    }

    async fn bind(
        &self,
        now: Timestamp,
        mesh: &MeshId,
        member: &MemberId,
        key: &Key,
    ) -> Result<bool> {
        let mut tx = self.pool.begin().await?;
        lock_key(&mut tx, mesh, key).await?;
        let query = sqlx::query(
            "delete from mesh.unbound_member where id = $1 and mesh_id = $2 and expires_at >= $3
                and not exists (
                    select from mesh.member where mesh_id = $2 and peer_pubkey = $4)
             returning display_name, role::text as role, preset::text as preset, null::text as id",
        )
        .bind(clean(member.as_str()))
        .bind(clean(mesh.as_str()))
        .bind(now.to_naive())
        .bind(key.as_str());
        let Some(row) = tx.fetch_optional(query).await? else {
            tx.rollback().await?;
            return Ok(false);
        };
        let join = Join::bound(mesh, member, key, row.text("display_name")?);
        enrol(&mut tx, now, &join, &row).await?;
        tx.commit().await?;
        Ok(true)
    }
}

async fn claim_in(tx: &mut Call, now: Timestamp, claim: &Claim) -> Result<Joined> {
    let row = match open_invite(tx, now, &claim.join).await? {
        Ok(row) => row,
        Err(refusal) => return Ok(Joined::Refused(refusal)),
    };
    if let Some(joined) = OpenInvite::read(&row)?.judge(now, None) {
        return Ok(joined);
    }
    let query =
        sqlx::query("delete from mesh.unbound_member where expires_at < $1").bind(now.to_naive());
    tx.execute(query).await?;
    let query = sqlx::query(
        "with used as (
            update mesh.invite set used_count = used_count + 1 where id = $1
         )
         insert into mesh.unbound_member (id, mesh_id, display_name, role, preset, expires_at)
         values ($2, $3, $4, $5::mesh.role, coalesce($6::jsonb, '{}'), $7)",
    )
    .bind(row.str("id")?)
    .bind(claim.join.member.as_str())
    .bind(claim.join.mesh.as_str())
    .bind(clean(&claim.join.display_name))
    .bind(row.str("role")?)
    .bind(row.optional_str("preset")?)
    .bind(claim.until.to_naive());
    tx.execute(query).await?;
    Ok(Joined::New(claim.join.member.clone()))
}

async fn join_in(tx: &mut Call, now: Timestamp, join: &Join) -> Result<Joined> {
    let row = match open_invite(tx, now, join).await? {
        Ok(row) => row,
        Err(refusal) => return Ok(Joined::Refused(refusal)),
    };
    let invite = OpenInvite::read(&row)?;
    if let Some(joined) = invite.judge(now, standing(tx, join).await?) {
        return Ok(joined);
    }
    enrol(tx, now, join, &row).await?;
    Ok(Joined::New(join.member.clone()))
}

/// The row of an invite by which somebody can join now.
async fn open_invite(
    tx: &mut Call,
    now: Timestamp,
    join: &Join,
) -> Result<std::result::Result<PgRow, JoinRefusal>> {
    if let Some(refusal) = check_mesh(tx, join).await? {
        return Ok(Err(refusal));
    }
    // The row's lock makes its uses wait for each other.
    let query = sqlx::query(
        "select id, mesh_id, role::text as role, preset::text as preset, expires_at,
            created_at, revoked_at, used_count < max_uses as usable
         from mesh.invite where token = $1 for update",
    )
    .bind(clean(&join.token));
    let Some(row) = tx.fetch_optional(query).await? else {
        return Ok(Err(JoinRefusal::NotFound));
    };
    Ok(match join.refused_by_invite(&row, now)? {
        Some(refusal) => Err(refusal),
        None => Ok(row),
    })
}

async fn check_mesh(tx: &mut Call, join: &Join) -> Result<Option<JoinRefusal>> {
    let query = sqlx::query(
        "select owner_pubkey, certified_required from mesh.mesh
         where id = $1 and archived_at is null",
    )
    .bind(clean(join.mesh.as_str()));
    let row = tx.fetch_optional(query).await?;
    join.refused_by_mesh(row.as_ref())
}

/// No two transactions enrol one key at once: it may come with two invites.
pub(in crate::store) async fn lock_key(tx: &mut Call, mesh: &MeshId, key: &Key) -> Result<()> {
    let query =
        sqlx::query("select pg_advisory_xact_lock(hashtextextended('join ' || $1 || $2, 0))")
            .bind(mesh.as_str())
            .bind(key.as_str());
    tx.execute(query).await?;
    Ok(())
}

async fn standing(tx: &mut Call, join: &Join) -> Result<Option<Standing>> {
    lock_key(tx, &join.mesh, &join.key).await?;
    let query = sqlx::query(
        "select id, joined_at, revoked_at from mesh.member
         where mesh_id = $1 and peer_pubkey = $2
         order by revoked_at is not null, revoked_at desc, joined_at, id limit 1",
    )
    .bind(join.mesh.as_str())
    .bind(join.key.as_str());
    let row = tx.fetch_optional(query).await?;
    row.as_ref().map(Standing::read).transpose()
}

/// One statement: the chain's lock is held for it and the commit only.
async fn enrol(tx: &mut Call, now: Timestamp, join: &Join, invite: &PgRow) -> Result<()> {
    let preset: Preset = invite.described("preset")?;
    let display_name = preset.display_name.as_ref().unwrap_or(&join.display_name);
    let role = invite.word("role", Role::parse)?.as_str();
    let event = AuditEvent::MemberJoined { pubkey: join.key.clone(), role };
    let mut entry = Entries::default();
    entry.push(&join.mesh, Some(&join.member), Some(display_name), &event);
    let query = entry
        .bind(
            sqlx::query(
                "with used as (
            update mesh.invite set used_count = used_count + 1 where id = $9
         ),
         enrolled as (
            insert into mesh.member (id, mesh_id, peer_pubkey, display_name, role, role_tag,
                default_groups, message_mode, joined_at, certificate)
            values ($10, $11, $12, $13, $14::mesh.role, $15, $16::jsonb, $17, $1, $18)
         )
         select mesh.broker_append_v2($1, $2, $3, $4, $5, $6, $7, $8, null)",
            ),
            now,
        )
        .bind(invite.optional_str("id")?)
        .bind(join.member.as_str())
        .bind(join.mesh.as_str())
        .bind(join.key.as_str())
        .bind(clean(display_name))
        .bind(role)
        .bind(clean_optional(preset.role_tag.as_deref()))
        .bind(to_json(&preset.groups.unwrap_or_default()))
        .bind(preset.message_mode.as_deref().unwrap_or("push"))
        .bind(&join.certificate);
    tx.execute(query).await?;
    Ok(())
}
