//! Meshes as the accounts of their members and owners see and change them.

use async_trait::async_trait;
use serde_json::Value;

use super::slug_taken;
use crate::clock::Timestamp;
use crate::id::{self, AccountId, MemberId, MeshId};
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::row::to_json;
use crate::store::{AccountMesh, AuditEntry, Ownership, Permissions, Result, StoreError};

#[async_trait]
impl Ownership for SqliteStore {
    async fn meshes_of(&self, account: &AccountId) -> Result<Vec<AccountMesh>> {
        let query = sqlx::query(
            "select mesh.*, coalesce(mesh.owner_user_id = ?1, 0) as is_owner,
                coalesce(own.is_admin, 0) as is_admin, own.first_joined_at,
                (select count(*) from member m
                 where m.mesh_id = mesh.id and m.revoked_at is null) as members,
                (select count(*) from member m
                 cross join presence p on p.member_id = m.id and p.disconnected_at is null
                 where m.mesh_id = mesh.id) as presences
             from (
                select mesh_id from member where user_id = ?1 and revoked_at is null
                union select mesh_id from member where dashboard_user_id = ?1 and revoked_at is null
                union select id from mesh where owner_user_id = ?1
             ) mine
             join mesh on mesh.id = mine.mesh_id and mesh.archived_at is null
             left join (
                select mesh_id, max(role = 'admin') as is_admin, min(joined_at) as first_joined_at
                from member
                where (user_id = ?1 or dashboard_user_id = ?1) and revoked_at is null
                group by mesh_id
             ) own on own.mesh_id = mesh.id
             order by mesh.slug, mesh.id",
        )
        .bind(account.as_str());
        self.records(query, AccountMesh::read).await
    }

    async fn rename(&self, now: Timestamp, audit: &AuditEntry, slug: &str) -> Result<()> {
        let mesh = &audit.mesh;
        let mut change = self.begin_change(now, &[mesh]).await?;
        let query =
            sqlx::query("select id from mesh where slug = ?1 and id <> ?2 and archived_at is null")
                .bind(slug)
                .bind(mesh.as_str());
        if change.record(query, |_| Ok(())).await?.is_some() {
            return Err(slug_taken(slug));
        }
        let query = sqlx::query(
            "update mesh set slug = ?2, name = ?2 where id = ?1 and archived_at is null",
        )
        .bind(mesh.as_str())
        .bind(slug);
        if change.execute(query).await? == 0 {
            return Err(StoreError::NotFound("there is no such mesh".to_owned()));
        }
        change.append_entry(audit).await?;
        change.commit().await
    }

    async fn set_self_editable(
        &self,
        now: Timestamp,
        audit: &AuditEntry,
        policy: &Value,
    ) -> Result<()> {
        let mesh = &audit.mesh;
        let mut change = self.begin_change(now, &[mesh]).await?;
        let query = sqlx::query("update mesh set self_editable = ?2 where id = ?1")
            .bind(mesh.as_str())
            .bind(to_json(policy));
        change.execute(query).await?;
        change.append_entry(audit).await?;
        change.commit().await
    }

    async fn permissions(&self, mesh: &MeshId) -> Result<Vec<(MemberId, Permissions)>> {
        let query = sqlx::query("select * from permission where mesh_id = ?1").bind(mesh.as_str());
        self.records(query, Permissions::read).await
    }

    async fn set_permissions(
        &self,
        now: Timestamp,
        audit: &AuditEntry,
        member: &MemberId,
        permissions: &Permissions,
    ) -> Result<()> {
        let mesh = &audit.mesh;
        let mut change = self.begin_change(now, &[mesh]).await?;
        let query = sqlx::query(
            "insert into permission (id, mesh_id, member_id, can_invite, can_deploy_mcp,
                can_manage_files, can_manage_vault, can_manage_watches, can_manage_webhooks,
                can_write_state, can_send, can_use_tools, can_delete_mesh,
                can_manage_permissions, updated_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
             on conflict (member_id, mesh_id) do update set
                (can_invite, can_deploy_mcp, can_manage_files, can_manage_vault,
                 can_manage_watches, can_manage_webhooks, can_write_state, can_send,
                 can_use_tools, can_delete_mesh, can_manage_permissions, updated_at)
                = (?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )
        .bind(id::generate())
        .bind(mesh.as_str())
        .bind(member.as_str());
        let query = permissions.flags().into_iter().fold(query, |query, flag| query.bind(flag));
        change.execute(query.bind(now.as_ms())).await?;
        change.append_entry(audit).await?;
        change.commit().await
    }
}
