//! Members as they and their admins describe them, and as accounts have them.

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::id::{AccountId, MemberId, MeshId};
use crate::store::columns::Columns as _;
use crate::store::members::no_member;
use crate::store::members::sqlite::select_members;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::chain::append_one;
use crate::store::sqlite::connection::{execute, fetch_optional};
use crate::store::sqlite::error::refused;
use crate::store::sqlite::row::to_json;
use crate::store::{
    AccountEnrolment, AccountMembership, Enrolled, GrantEntries, Grants, Member, ProfileEdit,
    Profiles, Result, Role, read_grants,
};

#[async_trait]
impl Profiles for SqliteStore {
    async fn of_account(&self, mesh: &MeshId, account: &AccountId) -> Result<Option<Member>> {
        let query = sqlx::query(select_members!(
            "where m.mesh_id = ?1 and m.revoked_at is null
                and (m.user_id = ?2 or m.dashboard_user_id = ?2)
             order by is_owner desc, m.role, m.joined_at, m.id limit 1"
        ))
        .bind(mesh.as_str())
        .bind(account.as_str());
        self.record(query, Member::read).await
    }

    async fn memberships(&self, account: &AccountId, limit: i64) -> Result<Vec<AccountMembership>> {
        let query = sqlx::query(
            "select m.id, m.mesh_id, m.peer_pubkey, m.display_name, m.role, m.joined_at,
                m.revoked_at, mesh.slug
             from (
                select * from member where user_id = ?1
                union select * from member where dashboard_user_id = ?1
             ) m join mesh on mesh.id = m.mesh_id
             order by m.joined_at desc, m.id desc limit 0 + ?2",
        )
        .bind(account.as_str())
        .bind(limit);
        self.records(query, AccountMembership::read).await
    }

    async fn is_of_account(&self, member: &MemberId, account: &AccountId) -> Result<bool> {
        let query = sqlx::query(
            "select id from member where id = ?1 and revoked_at is null
                and (user_id = ?2 or dashboard_user_id = ?2)",
        )
        .bind(member.as_str())
        .bind(account.as_str());
        Ok(self.record(query, |row| row.text("id")).await?.is_some())
    }

    async fn edit(&self, now: Timestamp, edit: &ProfileEdit) -> Result<()> {
        let mut tx = self.begin().await?;
        let query = sqlx::query(
            "update member set display_name = coalesce(?3, display_name),
                role_tag = case when ?4 then ?5 else role_tag end,
                default_groups = coalesce(?6, default_groups),
                message_mode = coalesce(?7, message_mode), role = coalesce(?8, role)
             where id = ?1 and mesh_id = ?2 and revoked_at is null",
        )
        .bind(edit.member.as_str())
        .bind(edit.mesh.as_str())
        .bind(&edit.display_name)
        .bind(edit.role_tag.is_some())
        .bind(edit.role_tag.clone().flatten())
        .bind(edit.groups.as_ref().map(to_json))
        .bind(&edit.message_mode)
        .bind(edit.role.map(Role::as_str));
        if execute(&mut tx, query).await? == 0 {
            return Err(no_member());
        }
        for event in edit.events() {
            let (actor, name) = (Some(&edit.actor), Some(edit.actor_name.as_str()));
            append_one(&mut tx, now, &edit.mesh, actor, name, &event).await?;
        }
        tx.commit().await.map_err(refused)
    }

    async fn merge_grants(&self, member: &MemberId, entries: &GrantEntries) -> Result<Grants> {
        let mut tx = self.begin().await?;
        let query =
            sqlx::query("select peer_grants from member where id = ?1").bind(member.as_str());
        let row = fetch_optional(&mut tx, query).await?.ok_or_else(no_member)?;
        let mut grants: Map<String, Value> = row.described("peer_grants")?;
        for (key, entry) in entries {
            match entry {
                Some(capabilities) => grants.insert(key.clone(), capabilities.clone().into()),
                None => grants.remove(key),
            };
        }
        let grants = to_json(&grants);
        let query = sqlx::query("update member set peer_grants = ?2 where id = ?1")
            .bind(member.as_str())
            .bind(&grants);
        execute(&mut tx, query).await?;
        tx.commit().await.map_err(refused)?;
        Ok(read_grants(&grants))
    }

    async fn enrol(&self, now: Timestamp, enrolment: &AccountEnrolment) -> Result<Enrolled> {
        let mut tx = self.begin().await?;
        let query = sqlx::query(
            "select id, role, revoked_at, coalesce(user_id, dashboard_user_id, ?3) = ?3 as is_own
             from member where mesh_id = ?1 and peer_pubkey = ?2
             order by revoked_at is not null, joined_at, id limit 1",
        )
        .bind(enrolment.mesh.as_str())
        .bind(enrolment.key.as_str())
        .bind(enrolment.account.as_str());
        if let Some(row) = fetch_optional(&mut tx, query).await? {
            return Enrolled::read(&row);
        }
        let query = sqlx::query(
            "insert into member (id, mesh_id, user_id, dashboard_user_id, peer_pubkey,
                display_name, role, joined_at)
             values (?1, ?2, ?3, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(enrolment.member.as_str())
        .bind(enrolment.mesh.as_str())
        .bind(enrolment.account.as_str())
        .bind(enrolment.key.as_str())
        .bind(&enrolment.display_name)
        .bind(enrolment.role.as_str())
        .bind(now.as_ms());
        execute(&mut tx, query).await?;
        let (pubkey, role) = (enrolment.key.clone(), enrolment.role.as_str());
        let event = AuditEvent::MemberJoined { pubkey, role };
        let (actor, name) = (Some(&enrolment.member), Some(enrolment.display_name.as_str()));
        append_one(&mut tx, now, &enrolment.mesh, actor, name, &event).await?;
        tx.commit().await.map_err(refused)?;
        Ok(Enrolled::New(enrolment.member.clone()))
    }
}
