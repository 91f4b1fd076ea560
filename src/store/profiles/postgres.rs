//! Members as they and their admins describe them, and as accounts have them.

use async_trait::async_trait;

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{AccountId, MemberId, MeshId};
use crate::store::columns::Columns as _;
use crate::store::invites::postgres::lock_key;
use crate::store::members::no_member;
use crate::store::members::postgres::select_members;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::chain::Entries;
use crate::store::postgres::row::{clean, clean_optional, to_json};
use crate::store::{
    AccountEnrolment, AccountMembership, Enrolled, GrantEntries, Grants, Member, ProfileEdit,
    Profiles, Result, Role, read_grants,
};

#[async_trait]
impl Profiles for PostgresStore {
    async fn of_account(&self, mesh: &MeshId, account: &AccountId) -> Result<Option<Member>> {
        let query = sqlx::query(select_members!(
            "where m.mesh_id = $1 and m.revoked_at is null
                and (m.user_id = $2 or m.dashboard_user_id = $2)
             order by is_owner desc, m.role, m.joined_at, m.id limit 1"
        ))
        .bind(clean(mesh.as_str()))
        .bind(account.as_str());
        self.pool.record(query, Member::read).await
    }

    async fn memberships(&self, account: &AccountId, limit: i64) -> Result<Vec<AccountMembership>> {
        let query = sqlx::query(
            "select m.id, m.mesh_id, m.peer_pubkey, m.display_name, m.role::text as role,
                m.joined_at, m.revoked_at, mesh.slug
             from mesh.member m join mesh.mesh on mesh.id = m.mesh_id
             where m.user_id = $1 or m.dashboard_user_id = $1
             order by m.joined_at desc, m.id desc limit $2",
        )
        .bind(clean(account.as_str()))
        .bind(limit);
        self.pool.records(query, AccountMembership::read).await
    }

    async fn is_of_account(&self, member: &MemberId, account: &AccountId) -> Result<bool> {
        let query = sqlx::query(
            "select id from mesh.member where id = $1 and revoked_at is null
                and (user_id = $2 or dashboard_user_id = $2)",
        )
        .bind(clean(member.as_str()))
        .bind(account.as_str());
        Ok(self.pool.fetch_optional(query).await?.is_some())
    }

    /// One statement: the chain's lock is held for it alone.
    async fn edit(&self, now: Timestamp, edit: &ProfileEdit) -> Result<()> {
        let events = edit.events();
        let mut entries = Entries::default();
        for event in &events {
            entries.push(&edit.mesh, Some(&edit.actor), Some(&edit.actor_name), event);
        }
        let query = entries
            .bind(
                sqlx::query(
                    "with locked as materialized (select mesh.broker_lock_v1($3)),
             changed as (
                update mesh.member m set display_name = coalesce($11, m.display_name),
                    role_tag = case when $12 then $13 else m.role_tag end,
                    default_groups = coalesce($14::jsonb, m.default_groups),
                    message_mode = coalesce($15, m.message_mode),
                    role = coalesce($16::mesh.role, m.role)
                from locked
                where m.id = $9 and m.mesh_id = $10 and m.revoked_at is null
                returning m.id
             )
             select mesh.broker_append_v2($1, $2, $3, $4, $5, $6, $7, $8, null) from changed",
                ),
                now,
            )
            .bind(clean(edit.member.as_str()))
            .bind(clean(edit.mesh.as_str()))
            .bind(clean_optional(edit.display_name.as_deref()))
            .bind(edit.role_tag.is_some())
            .bind(clean_optional(edit.role_tag.as_ref().and_then(Option::as_deref)))
            .bind(edit.groups.as_ref().map(to_json))
            .bind(edit.message_mode.as_deref())
            .bind(edit.role.map(Role::as_str));
        self.pool.fetch_optional(query).await?.map(|_| ()).ok_or_else(no_member)
    }

    async fn merge_grants(&self, member: &MemberId, entries: &GrantEntries) -> Result<Grants> {
        let removed: Vec<&str> =
            entries.iter().filter(|(_, e)| e.is_none()).map(|(key, _)| key.as_str()).collect();
        let set: serde_json::Map<String, serde_json::Value> = entries
            .iter()
            .filter_map(|(key, entry)| Some((key.clone(), entry.clone()?.into())))
            .collect();
        let query = sqlx::query(
            "update mesh.member set peer_grants = (known.grants - $2::text[]) || $3::jsonb
             from (
                select m.id, case jsonb_typeof(m.peer_grants) when 'object'
                    then m.peer_grants else '{}' end as grants
                from mesh.member m where m.id = $1 for update
             ) known
             where member.id = known.id
             returning member.peer_grants::text as peer_grants",
        )
        .bind(clean(member.as_str()))
        .bind(removed)
        .bind(to_json(&set));
        let grants =
            self.pool.record(query, |row| Ok(read_grants(row.str("peer_grants")?))).await?;
        grants.ok_or_else(no_member)
    }

    async fn enrol(&self, now: Timestamp, enrolment: &AccountEnrolment) -> Result<Enrolled> {
        let mut tx = self.pool.begin().await?;
        lock_key(&mut tx, &enrolment.mesh, &enrolment.key).await?;
        let query = sqlx::query(
            "select id, role::text as role, revoked_at,
                coalesce(user_id, dashboard_user_id, $3) = $3 as is_own
             from mesh.member where mesh_id = $1 and peer_pubkey = $2
             order by revoked_at is not null, joined_at, id limit 1",
        )
        .bind(enrolment.mesh.as_str())
        .bind(enrolment.key.as_str())
        .bind(enrolment.account.as_str());
        if let Some(row) = tx.fetch_optional(query).await? {
            tx.rollback().await?;
            return Enrolled::read(&row);
        }
        let (pubkey, role) = (enrolment.key.clone(), enrolment.role.as_str());
        let event = AuditEvent::MemberJoined { pubkey, role };
        let mut entry = Entries::default();
        let (actor, name) = (Some(&enrolment.member), Some(enrolment.display_name.as_str()));
        entry.push(&enrolment.mesh, actor, name, &event);
        let query = entry
            .bind(
                sqlx::query(
                    "with enrolled as (
                insert into mesh.member (id, mesh_id, user_id, dashboard_user_id, peer_pubkey,
                    display_name, role, joined_at)
                values ($9, $10, $11, $11, $12, $13, $14::mesh.role, $1)
             )
             select mesh.broker_append_v2($1, $2, $3, $4, $5, $6, $7, $8, null)",
                ),
                now,
            )
            .bind(enrolment.member.as_str())
            .bind(enrolment.mesh.as_str())
            .bind(enrolment.account.as_str())
            .bind(enrolment.key.as_str())
            .bind(clean(&enrolment.display_name))
            .bind(role);
        tx.execute(query).await?;
        tx.commit().await?;
        Ok(Enrolled::New(enrolment.member.clone()))
    }
}
