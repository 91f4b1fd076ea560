//! Who may enter: meshes, members, what a member's last session left.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{MemberId, MeshId};
use crate::protocol::SealingPolicy;
use crate::store::columns::Columns as _;
use crate::store::members::no_member;
use crate::store::meshes::read_policy;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::chain::Entries;
use crate::store::postgres::row::{clean, to_json};
use crate::store::{Admission, Member, Members, Result, Role};

/// A `select` of members, with the conditions given.
macro_rules! select_members {
    ($conditions:literal) => {
        concat!(
            "select m.id, m.peer_pubkey, m.display_name, m.role::text as role, m.role_tag,
                m.default_groups::text as default_groups, m.message_mode,
                m.peer_grants::text as peer_grants, m.joined_at, m.revoked_at, m.opens_sealed,
                coalesce(m.peer_pubkey = mesh.owner_pubkey or m.user_id = mesh.owner_user_id,
                    false) as is_owner
             from mesh.member m join mesh.mesh on mesh.id = m.mesh_id ",
            $conditions
        )
    };
}
pub(in crate::store) use select_members;

#[async_trait]
impl Members for PostgresStore {
    async fn admit(&self, mesh: &MeshId, key: &str, preferred: &str) -> Result<Admission> {
        // An active membership wins over one of the same key that was revoked.
        let query = sqlx::query(
            "select m.id, m.peer_pubkey, m.display_name, m.role::text as role, m.role_tag,
                m.default_groups::text as default_groups, m.message_mode,
                m.peer_grants::text as peer_grants, m.joined_at, m.revoked_at, m.opens_sealed,
                coalesce(m.peer_pubkey = mesh.owner_pubkey
                    or m.user_id = mesh.owner_user_id, false) as is_owner,
                mesh.name, mesh.slug,
                coalesce(mesh.self_editable, '{}')::text as self_editable,
                s.id as state_id, s.groups::text as groups, s.profile::text as profile,
                s.visible, s.last_summary, s.last_display_name,
                s.cumulative_stats::text as cumulative_stats, s.last_seen_at
             from mesh.mesh
             join mesh.member m on m.mesh_id = mesh.id and m.peer_pubkey = $2
             left join mesh.peer_state s on s.mesh_id = mesh.id and s.member_id = m.id
             where mesh.id = $1 and mesh.archived_at is null
             order by m.revoked_at is not null, m.id <> $3, m.joined_at, m.id,
                s.last_seen_at desc nulls last
             limit 1",
        )
        .bind(clean(mesh.as_str()))
        .bind(clean(key))
        .bind(clean(preferred));
        let found = self.pool.record(query, |row| Admission::read(row, mesh)).await?;
        Ok(found.unwrap_or(Admission::Unknown))
    }

    async fn active(&self, mesh: &MeshId) -> Result<Vec<Member>> {
        let query = sqlx::query(select_members!(
            "where m.mesh_id = $1 and m.revoked_at is null order by m.joined_at, m.id"
        ))
        .bind(clean(mesh.as_str()));
        self.pool.records(query, Member::read).await
    }

    async fn of_session_key(
        &self,
        mesh: &MeshId,
        session_key: &str,
        since: Timestamp,
    ) -> Result<Option<MemberId>> {
        member_of_session_key(self, mesh, session_key, since, true).await
    }

    async fn addressee_of_session_key(
        &self,
        mesh: &MeshId,
        session_key: &str,
        since: Timestamp,
    ) -> Result<Option<MemberId>> {
        member_of_session_key(self, mesh, session_key, since, false).await
    }

    async fn find(&self, mesh: &MeshId, target: &str) -> Result<Vec<Member>> {
        if target.is_empty() {
            return Ok(Vec::new());
        }
        let query = sqlx::query(select_members!(
            "where m.mesh_id = $1 and m.revoked_at is null
                and (m.display_name = $2 or left(m.peer_pubkey, length($2)) = $2)
             order by m.joined_at, m.id"
        ))
        .bind(mesh.as_str())
        .bind(clean(target));
        self.pool.records(query, Member::read).await
    }

    async fn all(&self, mesh: &MeshId) -> Result<Vec<Member>> {
        let query = sqlx::query(select_members!("where m.mesh_id = $1 order by m.joined_at, m.id"))
            .bind(mesh.as_str());
        self.pool.records(query, Member::read).await
    }

    async fn sealing(&self, mesh: &MeshId) -> Result<SealingPolicy> {
        let query =
            sqlx::query("select sealing from mesh.mesh where id = $1").bind(clean(mesh.as_str()));
        Ok(self.pool.record(query, read_policy).await?.unwrap_or_default())
    }

    async fn open_sealed(&self, mesh: &MeshId) -> Result<HashSet<MemberId>> {
        let query = sqlx::query(
            "select id from mesh.member
             where mesh_id = $1 and opens_sealed and revoked_at is null",
        )
        .bind(mesh.as_str());
        self.pool.records(query, |row| row.id("id")).await
    }

    async fn certificates(
        &self,
        mesh: &MeshId,
        members: &[MemberId],
    ) -> Result<HashMap<MemberId, String>> {
        let ids: Vec<&str> = members.iter().map(MemberId::as_str).collect();
        let query = sqlx::query(
            "select id, certificate from mesh.member
             where id = any($2) and mesh_id = $1 and certificate is not null",
        )
        .bind(mesh.as_str())
        .bind(ids);
        let found: Vec<(MemberId, String)> =
            self.pool.records(query, |row| Ok((row.id("id")?, row.text("certificate")?))).await?;
        Ok(found.into_iter().collect())
    }

    async fn requires_certificates(&self, mesh: &MeshId) -> Result<bool> {
        let query = sqlx::query("select certified_required from mesh.mesh where id = $1")
            .bind(clean(mesh.as_str()));
        let required = self.pool.record(query, |row| row.flag("certified_required")).await?;
        Ok(required.unwrap_or_default())
    }

    async fn note_opens_sealed(&self, member: &MemberId, opens: bool) -> Result<()> {
        let query = sqlx::query(
            "update mesh.member set opens_sealed = $2 where id = $1 and opens_sealed <> $2",
        )
        .bind(member.as_str())
        .bind(opens);
        self.pool.execute(query).await?;
        Ok(())
    }

    async fn set_role(&self, now: Timestamp, member: &MemberId, role: Role) -> Result<()> {
        let query = sqlx::query("select mesh_id, peer_pubkey from mesh.member where id = $1")
            .bind(clean(member.as_str()));
        let row = self.pool.fetch_optional(query).await?.ok_or_else(no_member)?;
        let mesh: MeshId = row.id("mesh_id")?;
        let target_pubkey = row.id("peer_pubkey")?;
        let event = AuditEvent::MemberRoleChanged { target_pubkey, role: role.as_str() };
        let mut entry = Entries::default();
        entry.push(&mesh, None, None, &event);
        let query = entry
            .bind(
                sqlx::query(
                    "with locked as materialized (select mesh.broker_lock_v1($3)),
             changed as (
                update mesh.member m set role = $10::mesh.role from locked
                where m.id = $9 and m.role <> $10::mesh.role
                returning m.id
             )
             select mesh.broker_append_v2($1, $2, $3, $4, $5, $6, $7, $8, null) from changed",
                ),
                now,
            )
            .bind(member.as_str())
            .bind(role.as_str());
        self.pool.execute(query).await?;
        Ok(())
    }

    async fn set_grant<'a>(
        &self,
        member: &MemberId,
        sender_key: &str,
        capabilities: Option<&'a [String]>,
    ) -> Result<()> {
        let query = sqlx::query(
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
        .bind(capabilities.map(to_json));
        let touched = self.pool.execute(query).await?;
        if touched == 0 { Err(no_member()) } else { Ok(()) }
    }
}

/// The member that a session key belongs to. A key that a member has proven
/// (`session`) wins over one that somebody merely named in a `hello`, which counts
/// after its end only `if_ended`.
async fn member_of_session_key(
    store: &PostgresStore,
    mesh: &MeshId,
    session_key: &str,
    since: Timestamp,
    if_ended: bool,
) -> Result<Option<MemberId>> {
    // Rows of other programs name no role, or one that is not known here.
    let query = sqlx::query(
        "select m.id from mesh.presence p join mesh.member m on m.id = p.member_id
         where p.session_pubkey = $2 and m.mesh_id = $1 and m.revoked_at is null
            and greatest(p.last_ping_at, p.disconnected_at) >= $3
            and ($4 or p.role is distinct from 'control-plane'
                or p.disconnected_at is null)
         order by p.role = 'session' desc, p.last_ping_at desc, p.connected_at desc
         limit 1",
    )
    .bind(mesh.as_str())
    .bind(clean(session_key))
    .bind(since.to_naive())
    .bind(if_ended);
    store.pool.record(query, |row| row.id("id")).await
}
